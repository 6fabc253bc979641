//! The message at hand: `request`, `response`, `event` and `candidates`.

use message_flow_sdk::{Server, candidates, event, request, response};
use rquickjs::{
    Array, Coerced, Ctx, Function, Object, Result,
    prelude::{Func, Opt},
};

use super::body;

pub(super) fn define(ctx: &Ctx<'_>) -> Result<()> {
    let globals = ctx.globals();
    globals.set("request", request(ctx)?)?;
    globals.set("response", response(ctx)?)?;
    globals.set("event", event(ctx)?)?;
    globals.set("candidates", candidates(ctx)?)
}

fn request<'js>(ctx: &Ctx<'js>) -> Result<Object<'js>> {
    let object = Object::new(ctx.clone())?;
    object.set("method", Func::from(request::method))?;
    object.set("path", Func::from(request::path))?;
    object.set("query", Func::from(request::query))?;
    object.set("authority", Func::from(request::authority))?;
    object.set("header", Func::from(|name: String| request::header(&name)))?;
    object.set("headers", Func::from(|name: String| request::headers(&name)))?;
    object.set("headerNames", Func::from(request::header_names))?;
    object.set("client", Func::from(request::client))?;
    object.set("peer", Func::from(request::peer))?;
    object.set("service", Func::from(|ctx: Ctx<'js>| service(&ctx)))?;
    object.set("server", Func::from(request::server))?;
    let set = |name: String, value: String| request::set_header(&name, &value);
    object.set("setHeader", Func::from(set))?;
    let add = |name: String, value: String| request::add_header(&name, &value);
    object.set("addHeader", Func::from(add))?;
    object.set("removeHeader", Func::from(|name: String| request::remove_header(&name)))?;
    object.set("setPath", Func::from(|path: String| request::set_path(&path)))?;
    body::define(ctx, &object, body::REQUEST)?;
    Ok(object)
}

fn service<'js>(ctx: &Ctx<'js>) -> Result<Object<'js>> {
    let service = request::service();
    let object = Object::new(ctx.clone())?;
    object.set("name", service.name)?;
    object.set("version", service.version)?;
    Ok(object)
}

fn response<'js>(ctx: &Ctx<'js>) -> Result<Object<'js>> {
    let object = Object::new(ctx.clone())?;
    object.set("status", Func::from(response::status))?;
    object.set("header", Func::from(|name: String| response::header(&name)))?;
    object.set("headers", Func::from(|name: String| response::headers(&name)))?;
    object.set("headerNames", Func::from(response::header_names))?;
    object.set("setStatus", Func::from(response::set_status))?;
    let set = |name: String, value: String| response::set_header(&name, &value);
    object.set("setHeader", Func::from(set))?;
    let add = |name: String, value: String| response::add_header(&name, &value);
    object.set("addHeader", Func::from(add))?;
    object.set("removeHeader", Func::from(|name: String| response::remove_header(&name)))?;
    body::define(ctx, &object, body::RESPONSE)?;
    Ok(object)
}

fn event<'js>(ctx: &Ctx<'js>) -> Result<Object<'js>> {
    let object = Object::new(ctx.clone())?;
    object.set("topic", Func::from(event::topic))?;
    object.set("payload", Func::from(|| String::from_utf8_lossy(&event::payload()).into_owned()))?;
    object.set("attribute", Func::from(|name: String| event::attribute(&name)))?;
    object.set("client", Func::from(event::client))?;
    object.set("setPayload", Func::from(|text: String| event::set_payload(text.as_bytes())))?;
    let set = |name: String, value: String| event::set_attribute(&name, &value);
    object.set("setAttribute", Func::from(set))?;
    Ok(object)
}

/// Objects that bytecode makes are several times cheaper than those that are made property by
/// property from outside: so servers come as one flat array, and are put together in the script's own engine.
const SERVERS: &str = "(read) => () => {
  const flat = read(), servers = [];
  for (let at = 0; at < flat.length; ) {
    const server = {
      id: flat[at], uri: flat[at + 1], weight: flat[at + 2], healthy: flat[at + 3], inFlight: flat[at + 4], metadata: {},
    };
    const end = at + 6 + flat[at + 5];
    for (at += 6; at < end; at += 2) server.metadata[flat[at]] = flat[at + 1];
    servers.push(server);
  }
  return servers;
}";

fn candidates<'js>(ctx: &Ctx<'js>) -> Result<Object<'js>> {
    let put_together: Function<'js> = ctx.eval(SERVERS)?;
    let read = Function::new(ctx.clone(), |ctx: Ctx<'js>| flat(&ctx))?;
    let object = Object::new(ctx.clone())?;
    object.set("leastLoaded", Function::new(ctx.clone(), least_loaded)?)?;
    object.set("servers", put_together.call::<_, Function<'js>>((read,))?)?;
    Ok(object)
}

/// Of `{ region: "eu" }` every value counts that is there: what is undefined is not asked for.
fn least_loaded(having: Opt<Object<'_>>) -> Result<Option<String>> {
    let mut pairs = Vec::new();
    for pair in having.0.iter().flat_map(Object::props::<String, Option<Coerced<String>>>) {
        let (key, value) = pair?;
        pairs.extend(value.map(|value| (key, value.0)));
    }
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    Ok(candidates::least_loaded(&pairs))
}

/// Each server's fields, how many texts of metadata follow, and those.
fn flat<'js>(ctx: &Ctx<'js>) -> Result<Array<'js>> {
    let array = Array::new(ctx.clone())?;
    let mut at = 0;
    for Server { id, uri, weight, healthy, in_flight, metadata } in candidates::servers() {
        array.set(at, id)?;
        array.set(at + 1, uri)?;
        array.set(at + 2, weight)?;
        array.set(at + 3, healthy)?;
        array.set(at + 4, in_flight)?;
        array.set(at + 5, 2 * metadata.len())?;
        at += 6;
        for (key, value) in metadata {
            array.set(at, key)?;
            array.set(at + 1, value)?;
            at += 2;
        }
    }
    Ok(array)
}
