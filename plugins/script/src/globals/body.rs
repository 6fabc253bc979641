//! The bodies of the message at hand, for scripts that say that they read them.

use message_flow_sdk::{BodyError, request_body, response_body};
use rquickjs::{Ctx, Exception, Function, Object, Result, TypedArray, Value, prelude::Opt};

use crate::engine;

/// One of the two bodies.
#[derive(Clone, Copy)]
pub(super) struct Body {
    read: fn(u64) -> std::result::Result<Vec<u8>, BodyError>,
    replace: fn(&[u8]) -> std::result::Result<(), BodyError>,
}

pub(super) const REQUEST: Body = Body { read: request_body::read, replace: request_body::replace };
pub(super) const RESPONSE: Body = Body { read: response_body::read, replace: response_body::replace };

/// The functions that `request` and `response` have for their body.
pub(super) fn define<'js>(ctx: &Ctx<'js>, object: &Object<'js>, body: Body) -> Result<()> {
    let text = move |ctx: Ctx<'js>, limit: Opt<f64>| -> Result<String> {
        Ok(String::from_utf8_lossy(&body.read(&ctx, limit)?).into_owned())
    };
    object.set("body", Function::new(ctx.clone(), text)?)?;
    let json = move |ctx: Ctx<'js>, limit: Opt<f64>| -> Result<Value<'js>> {
        let bytes = body.read(&ctx, limit)?;
        ctx.json_parse(bytes)
    };
    object.set("json", Function::new(ctx.clone(), json)?)?;
    let bytes = move |ctx: Ctx<'js>, limit: Opt<f64>| -> Result<TypedArray<'js, u8>> {
        let bytes = body.read(&ctx, limit)?;
        TypedArray::new(ctx, bytes)
    };
    object.set("bytes", Function::new(ctx.clone(), bytes)?)?;
    let set = move |ctx: Ctx<'js>, value: Value<'js>| -> Result<()> { body.set(&ctx, &value) };
    object.set("setBody", Function::new(ctx.clone(), set)?)
}

impl Body {
    /// Without a limit of the script's, the operator's holds.
    fn read(self, ctx: &Ctx<'_>, limit: Opt<f64>) -> Result<Vec<u8>> {
        let limit = limit.0.map_or(u64::MAX, |limit| limit as u64);
        (self.read)(limit).map_err(|error| thrown(ctx, &error))
    }

    fn set(self, ctx: &Ctx<'_>, value: &Value<'_>) -> Result<()> {
        let replaced = if let Some(text) = value.as_string() {
            (self.replace)(text.to_string()?.as_bytes())
        } else if let Some(bytes) = value.as_object().and_then(|object| object.as_typed_array::<u8>()) {
            self.set_bytes(bytes)
        } else {
            return Err(Exception::throw_type(ctx, "setBody takes a text or a Uint8Array"));
        };
        replaced.map_err(|error| thrown(ctx, &error))
    }

    fn set_bytes(self, array: &TypedArray<'_, u8>) -> std::result::Result<(), BodyError> {
        #[allow(unsafe_code, reason = "the array is read in place")]
        // SAFETY: nothing of the script runs, and so moves or frees the array, until `replace` returns.
        let bytes = unsafe { array.as_bytes() };
        (self.replace)(bytes.unwrap_or_default())
    }
}

fn thrown(ctx: &Ctx<'_>, error: &BodyError) -> rquickjs::Error {
    let text = match error {
        BodyError::TooLarge(limit) => format!(
            "the body is longer than {limit} bytes: the limit that the script gave, or `body` under [plugin.NAME]"
        ),
        BodyError::Incomplete(reason) => format!("the body broke off: {reason}"),
        BodyError::Unavailable if engine::reads_body() => "there is no body in this call".to_owned(),
        BodyError::Unavailable => {
            "a script that reads or sets bodies says so: `export const readsBody = true;`".to_owned()
        }
        BodyError::Other(reason) => reason.clone(),
    };
    Exception::throw_message(ctx, &text)
}
