//! What a script can call: the interfaces of `wit/` as global objects, names in camel case.

mod body;
mod message;

use message_flow_sdk::{
    clock, config, log, random,
    state::{self, StateError},
};
use rquickjs::{
    Array, Ctx, Exception, Function, IntoJs, Object, Result, Value,
    prelude::{Func, Opt, Rest},
};

/// Defines all of them.
pub(crate) fn define(ctx: &Ctx<'_>) -> Result<()> {
    message::define(ctx)?;
    let globals = ctx.globals();
    let log = log(ctx)?;
    globals.set("console", console(ctx)?)?;
    globals.set("log", log)?;
    globals.set("config", config(ctx)?)?;
    globals.set("state", state(ctx)?)?;
    globals.set("clock", clock(ctx)?)?;
    let crypto: Function<'_> = ctx.eval(CRYPTO)?;
    let word = Function::new(ctx.clone(), || (random::next() >> 32) as u32)?;
    globals.set("crypto", crypto.call::<_, Object<'_>>((word,))?)?;
    // 53 random bits, as many as a number holds, from the host's source in place of QuickJS's own.
    let math: Object<'_> = globals.get("Math")?;
    math.set("random", Func::from(|| (random::next() >> 11) as f64 / (1_u64 << 53) as f64))
}

/// What browsers have of it that needs nothing but chance.
const CRYPTO: &str = "(word) => {
  const getRandomValues = (array) => {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    for (let at = 0; at < bytes.length; at += 4) {
      let bits = word();
      for (let byte = at; byte < at + 4 && byte < bytes.length; byte++, bits >>>= 8) bytes[byte] = bits;
    }
    return array;
  };
  const randomUUID = () => {
    const bytes = getRandomValues(new Uint8Array(16));
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
  };
  return { getRandomValues, randomUUID };
}";

fn log<'js>(ctx: &Ctx<'js>) -> Result<Object<'js>> {
    use log::{Level, log};
    let object = Object::new(ctx.clone())?;
    object.set("trace", Func::from(|text: String| log(Level::Trace, &text)))?;
    object.set("debug", Func::from(|text: String| log(Level::Debug, &text)))?;
    object.set("info", Func::from(|text: String| log(Level::Info, &text)))?;
    object.set("warn", Func::from(|text: String| log(Level::Warn, &text)))?;
    object.set("error", Func::from(|text: String| log(Level::Error, &text)))?;
    Ok(object)
}

/// As elsewhere: any values, objects as JSON.
fn console<'js>(ctx: &Ctx<'js>) -> Result<Object<'js>> {
    use log::Level;
    let object = Object::new(ctx.clone())?;
    let levels = [
        ("trace", Level::Trace),
        ("debug", Level::Debug),
        ("log", Level::Info),
        ("info", Level::Info),
        ("warn", Level::Warn),
        ("error", Level::Error),
    ];
    for (name, level) in levels {
        let write = move |values: Rest<Value<'js>>| {
            let texts: Vec<_> = values.0.iter().map(shown).collect();
            log::log(level, &texts.join(" "));
        };
        object.set(name, Function::new(ctx.clone(), write)?)?;
    }
    Ok(object)
}

fn shown(value: &Value<'_>) -> String {
    match value.as_string() {
        Some(text) => text.to_string().unwrap_or_default(),
        None => crate::fault::shown(value),
    }
}

fn config<'js>(ctx: &Ctx<'js>) -> Result<Object<'js>> {
    let object = Object::new(ctx.clone())?;
    object.set("get", Func::from(|key: String| config::get(&key)))?;
    object.set("entries", Func::from(|ctx: Ctx<'js>| entries(&ctx)))?;
    Ok(object)
}

fn entries<'js>(ctx: &Ctx<'js>) -> Result<Object<'js>> {
    let object = Object::new(ctx.clone())?;
    for (key, value) in config::entries() {
        object.set(key, value)?;
    }
    Ok(object)
}

fn clock<'js>(ctx: &Ctx<'js>) -> Result<Object<'js>> {
    let object = Object::new(ctx.clone())?;
    object.set("now", Func::from(|| clock::now() as f64))?;
    object.set("monotonic", Func::from(|| clock::monotonic() as f64))?;
    Ok(object)
}

fn state<'js>(ctx: &Ctx<'js>) -> Result<Object<'js>> {
    let object = Object::new(ctx.clone())?;
    object.set("get", Func::from(|key: String| state::get(&key).map(text)))?;
    let set = |ctx: Ctx<'js>, key: String, value: String| {
        state::set(&key, value.as_bytes()).map_err(|error| thrown(&ctx, &error))
    };
    object.set("set", Function::new(ctx.clone(), set)?)?;
    object.set("delete", Func::from(|key: String| state::delete(&key)))?;
    let swap = |ctx: Ctx<'js>, key: String, expected: Option<String>, value: Option<String>| {
        let bytes = |text: &Option<String>| text.as_ref().map(|text| text.clone().into_bytes());
        let (expected, value) = (bytes(&expected), bytes(&value));
        state::swap(&key, expected.as_deref(), value.as_deref()).map_err(|error| thrown(&ctx, &error))
    };
    object.set("swap", Function::new(ctx.clone(), swap)?)?;
    let add = |ctx: Ctx<'js>, key: String, amount: f64, ttl: Opt<f64>| {
        let sum = state::add(&key, amount as i64, ttl.0.map(|ttl| ttl as u64));
        sum.map(|sum| sum as f64).map_err(|error| thrown(&ctx, &error))
    };
    object.set("add", Function::new(ctx.clone(), add)?)?;
    let scan = |ctx: Ctx<'js>, prefix: String, after: Opt<Option<String>>, limit: Opt<u32>| {
        let found = state::scan(&prefix, after.0.flatten().as_deref(), limit.0.unwrap_or(1000));
        pairs(&ctx, found.into_iter().map(|(key, value)| (key, text(value))))
    };
    object.set("scan", Function::new(ctx.clone(), scan)?)?;
    Ok(object)
}

/// An array of arrays of two.
fn pairs<'js>(ctx: &Ctx<'js>, pairs: impl Iterator<Item = (String, String)>) -> Result<Array<'js>> {
    let array = Array::new(ctx.clone())?;
    for (at, (key, value)) in pairs.enumerate() {
        array.set(at, vec![key, value].into_js(ctx)?)?;
    }
    Ok(array)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn thrown(ctx: &Ctx<'_>, error: &StateError) -> rquickjs::Error {
    let text = match error {
        StateError::Full(limit) => format!("state is full: its limit is {limit} bytes (state_limit)"),
        StateError::NotANumber => "what is stored there is not a number".to_owned(),
        StateError::Other(reason) => reason.clone(),
    };
    Exception::throw_message(ctx, &text)
}
