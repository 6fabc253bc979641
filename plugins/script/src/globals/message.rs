//! The message at hand: `request`, `response`, `event` and `candidates`.

use message_flow_sdk::{Server, candidates, event, request, response};
use rquickjs::{Array, Ctx, Object, Result, prelude::Func};

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

fn candidates<'js>(ctx: &Ctx<'js>) -> Result<Object<'js>> {
    let object = Object::new(ctx.clone())?;
    object.set("servers", Func::from(|ctx: Ctx<'js>| servers(&ctx)))?;
    Ok(object)
}

fn servers<'js>(ctx: &Ctx<'js>) -> Result<Array<'js>> {
    let array = Array::new(ctx.clone())?;
    for (at, each) in candidates::servers().into_iter().enumerate() {
        array.set(at, server(ctx, each)?)?;
    }
    Ok(array)
}

fn server<'js>(ctx: &Ctx<'js>, server: Server) -> Result<Object<'js>> {
    let metadata = Object::new(ctx.clone())?;
    for (key, value) in server.metadata {
        metadata.set(key, value)?;
    }
    let object = Object::new(ctx.clone())?;
    object.set("id", server.id)?;
    object.set("uri", server.uri)?;
    object.set("weight", server.weight)?;
    object.set("healthy", server.healthy)?;
    object.set("inFlight", server.in_flight)?;
    object.set("metadata", metadata)?;
    Ok(object)
}
