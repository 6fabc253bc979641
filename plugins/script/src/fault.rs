//! What a script threw, in words that say where: `geo.js:3:11: TypeError: x is not a function`.

use rquickjs::{Ctx, Error, Value};

use crate::source;

/// Describes what went wrong in a script. Tells the host if it was the time.
pub(crate) fn describe(ctx: &Ctx<'_>, file: &str, error: Error) -> String {
    if !matches!(error, Error::Exception) {
        return format!("{file}: {error}");
    }
    let thrown = ctx.catch();
    let Some(exception) = thrown.as_exception() else {
        return format!("{file}: it threw {}", shown(&thrown));
    };
    let text = |key: &str| exception.as_object().get::<_, String>(key).unwrap_or_default();
    let (name, message) = (text("name"), text("message"));
    let place = place(&exception.stack().unwrap_or_default(), file).unwrap_or_else(|| file.to_owned());
    if name == "InternalError" && message == "interrupted" {
        source::overrun(&place);
    }
    let separator = if message.is_empty() { "" } else { ": " };
    format!("{place}: {name}{separator}{message}")
}

/// The innermost `FILE:LINE:COLUMN` of a stack.
fn place(stack: &str, file: &str) -> Option<String> {
    let start = stack.find(&format!("{file}:"))?;
    let is_place = |c: char| c.is_ascii_digit() || c == ':';
    let rest = &stack[start + file.len()..];
    let end = rest.find(|c| !is_place(c)).unwrap_or(rest.len());
    Some(format!("{file}{}", rest[..end].trim_end_matches(':')))
}

/// A value that was thrown or returned, cut to what a log line holds.
pub(crate) fn shown(value: &Value<'_>) -> String {
    if value.is_promise() {
        return "a promise; a script answers at once, so leave `async` out".to_owned();
    }
    let json =
        value.ctx().json_stringify(value.clone()).ok().flatten().and_then(|text| text.to_string().ok());
    json.unwrap_or_else(|| value.type_name().to_owned()).chars().take(200).collect()
}
