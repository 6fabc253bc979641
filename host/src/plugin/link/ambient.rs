//! The message at hand: `request`, `response`, `event` and `candidates`.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use wasmtime::{
    StoreContextMut,
    component::{Linker, LinkerInstance, WasmList, WasmStr},
};

use super::interface;
use crate::plugin::{
    guest::{Guest, Head},
    types::{Server, ServiceId},
};

type Store<'a> = StoreContextMut<'a, Guest>;
type Linked = Result<(), wasmtime::Error>;

pub(super) fn link(linker: &mut Linker<Guest>) -> Linked {
    request(&mut interface(linker, "request")?)?;
    response(&mut interface(linker, "response")?)?;
    event(&mut interface(linker, "event")?)?;
    candidates(&mut interface(linker, "candidates")?)
}

fn request(linker: &mut LinkerInstance<'_, Guest>) -> Linked {
    linker
        .func_wrap("method", |store: Store<'_>, ()| Ok((store.data().message.method.as_str().to_owned(),)))?;
    linker.func_wrap("path", |store: Store<'_>, ()| {
        let target = store.data().message.target();
        Ok((target.split_once('?').map_or(target, |(path, _)| path).to_owned(),))
    })?;
    linker.func_wrap("query", |store: Store<'_>, ()| {
        Ok((store.data().message.target().split_once('?').map(|(_, query)| query.to_owned()),))
    })?;
    linker
        .func_wrap("authority", |store: Store<'_>, ()| Ok((store.data().message.authority().to_owned(),)))?;
    linker.func_wrap("client", |store: Store<'_>, ()| Ok((store.data().message.client.to_arc(),)))?;
    linker.func_wrap("peer", |store: Store<'_>, ()| {
        Ok((store.data().message.peer.map(|peer| peer.to_string()).unwrap_or_default(),))
    })?;
    linker.func_wrap("service", |store: Store<'_>, ()| Ok((service(store.data()),)))?;
    linker.func_wrap("server", |store: Store<'_>, ()| Ok((store.data().message.server.clone(),)))?;
    linker.func_wrap("set-path", |mut store: Store<'_>, (path,): (WasmStr,)| {
        let path = path.to_str(&store)?.into_owned();
        set_path(store.data_mut(), &path);
        Ok(())
    })?;
    headers(linker, Head::Request)
}

fn response(linker: &mut LinkerInstance<'_, Guest>) -> Linked {
    linker.func_wrap("status", |store: Store<'_>, ()| {
        Ok((store.data().message.response.as_ref().map_or(0, |head| head.status.as_u16()),))
    })?;
    linker.func_wrap("set-status", |mut store: Store<'_>, (status,): (u16,)| {
        match StatusCode::from_u16(status) {
            Ok(code) if (200..600).contains(&status) => store.data_mut().set_status(code),
            _ => store.data_mut().fail(|| format!("set-status: {status} is not a status from 200 to 599")),
        }
        Ok(())
    })?;
    headers(linker, Head::Response)
}

fn headers(linker: &mut LinkerInstance<'_, Guest>, head: Head) -> Linked {
    linker.func_wrap("header", move |store: Store<'_>, (name,): (WasmStr,)| {
        let (guest, name) = (store.data(), name.to_str(&store)?);
        let Some(headers) = guest.headers(head) else { return Ok((None,)) };
        let value = match guest.names.get(&name) {
            Some(name) => headers.get(name),
            None => headers.get(&*name),
        };
        Ok((value.map(text),))
    })?;
    linker.func_wrap("headers", move |store: Store<'_>, (name,): (WasmStr,)| {
        let name = name.to_str(&store)?;
        let headers = store.data().headers(head);
        let values = headers.map(|headers| headers.get_all(&*name).iter().map(text).collect::<Vec<_>>());
        Ok((values.unwrap_or_default(),))
    })?;
    linker.func_wrap("header-names", move |store: Store<'_>, ()| {
        let names =
            store.data().headers(head).map(|headers| headers.keys().map(|name| name.as_str().to_owned()));
        Ok((names.map_or_else(Vec::new, Iterator::collect::<Vec<_>>),))
    })?;
    linker.func_wrap("set-header", move |mut store: Store<'_>, (name, value): (WasmStr, WasmStr)| {
        let value = parse_value(&value.to_str(&store)?);
        let parsed = (name_of(&mut store, name)?, value);
        edit(store.data_mut(), head, "set-header", parsed, |headers, name, value| {
            headers.insert(name, value);
        });
        Ok(())
    })?;
    linker.func_wrap("add-header", move |mut store: Store<'_>, (name, value): (WasmStr, WasmStr)| {
        let value = parse_value(&value.to_str(&store)?);
        let parsed = (name_of(&mut store, name)?, value);
        edit(store.data_mut(), head, "add-header", parsed, |headers, name, value| {
            headers.append(name, value);
        });
        Ok(())
    })?;
    linker.func_wrap("remove-header", move |mut store: Store<'_>, (name,): (WasmStr,)| {
        let parsed = (name_of(&mut store, name)?, Ok(HeaderValue::from_static("")));
        edit(store.data_mut(), head, "remove-header", parsed, |headers, name, _| {
            headers.remove(name);
        });
        Ok(())
    })
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// A header that may be changed; what is wrong with its name otherwise.
fn name_of(store: &mut Store<'_>, name: WasmStr) -> Result<Result<HeaderName, String>, wasmtime::Error> {
    let text = name.to_str(&*store)?;
    if let Some(known) = store.data().names.get(&text) {
        return Ok(Ok(known.clone()));
    }
    let (parsed, text) = (parse_name(&text), text.into_owned());
    if let Ok(name) = &parsed {
        store.data_mut().names.keep(text, name);
    }
    Ok(parsed)
}

fn parse_name(name: &str) -> Result<HeaderName, String> {
    let parsed = HeaderName::from_bytes(name.as_bytes());
    let parsed = parsed.map_err(|_| format!("`{}` is not a header name", name.escape_debug()))?;
    if belongs_to_connection(&parsed) {
        return Err(format!("`{parsed}` belongs to the connection and cannot be changed"));
    }
    Ok(parsed)
}

fn belongs_to_connection(name: &HeaderName) -> bool {
    const OWN: [HeaderName; 6] = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
    ];
    OWN.contains(name) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

fn parse_value(value: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(value).map_err(|_| "the value has a character that HTTP does not allow".to_owned())
}

/// Applies a header edit, or notes why it cannot be.
fn edit(
    guest: &mut Guest,
    head: Head,
    function: &str,
    parsed: (Result<HeaderName, String>, Result<HeaderValue, String>),
    apply: impl FnOnce(&mut http::HeaderMap, HeaderName, HeaderValue),
) {
    match parsed {
        (Ok(name), Ok(value)) => match guest.change(head, &name) {
            Some(headers) => apply(headers, name, value),
            None => guest.fail(|| format!("{function} {name}: there is no response in this call")),
        },
        (Err(reason), _) => guest.fail(|| format!("{function}: {reason}")),
        (Ok(name), Err(reason)) => guest.fail(|| format!("{function} {name}: {reason}")),
    }
}

fn set_path(guest: &mut Guest, path: &str) {
    match path.parse::<http::Uri>() {
        Ok(uri) if path.starts_with('/') && !path.starts_with("//") => guest.set_uri(uri),
        _ => guest
            .fail(|| format!("set-path: `{}` is not a path that starts with one `/`", path.escape_debug())),
    }
}

fn service(guest: &Guest) -> ServiceId {
    let service = guest.message.service.as_ref();
    ServiceId {
        name: service.map(|id| id.name().to_owned()).unwrap_or_default(),
        version: service.and_then(|id| id.version()).map(str::to_owned),
    }
}

/// The most pairs that `least-loaded` takes.
const PAIRS: usize = 8;

fn candidates(linker: &mut LinkerInstance<'_, Guest>) -> Linked {
    linker.func_wrap(
        "least-loaded",
        |mut store: Store<'_>, (having,): (WasmList<(WasmStr, WasmStr)>,)| {
            if having.len() > PAIRS {
                store.data_mut().fail(|| format!("least-loaded: it takes at most {PAIRS} pairs"));
                return Ok((None,));
            }
            least_loaded(store, &having)
        },
    )?;
    linker.func_wrap("servers", |store: Store<'_>, ()| Ok((servers(store.data()),)))
}

fn least_loaded(
    mut store: Store<'_>,
    having: &WasmList<(WasmStr, WasmStr)>,
) -> Result<(Option<Arc<str>>,), wasmtime::Error> {
    let mut lifted = [const { None }; PAIRS];
    for (place, pair) in lifted.iter_mut().zip(having.iter(&mut store)?) {
        *place = Some(pair?);
    }
    let mut pairs = [const { (Cow::Borrowed(""), Cow::Borrowed("")) }; PAIRS];
    for (place, (key, value)) in pairs.iter_mut().zip(lifted.iter().flatten()) {
        *place = (key.to_str(&store)?, value.to_str(&store)?);
    }
    let message = &store.data().message;
    let candidates = message.candidates.as_deref();
    let chosen = candidates.and_then(|all| all.least_loaded(message.client.as_str(), &pairs[..having.len()]));
    Ok((chosen,))
}

fn servers(guest: &Guest) -> Vec<Server> {
    let Some(candidates) = &guest.message.candidates else { return Vec::new() };
    let lowered = candidates.servers().into_iter().map(|candidate| Server {
        id: candidate.id,
        uri: candidate.uri,
        weight: candidate.weight,
        healthy: candidate.healthy,
        in_flight: candidate.in_flight,
        metadata: candidate.metadata,
    });
    lowered.collect()
}

/// The event at hand. Outside of a call about one its texts are empty, and changes go nowhere.
fn event(linker: &mut LinkerInstance<'_, Guest>) -> Linked {
    linker.func_wrap("topic", |store: Store<'_>, ()| {
        Ok((store.data().message.event.as_ref().map(|event| Arc::clone(&event.topic)).unwrap_or_default(),))
    })?;
    linker.func_wrap("payload", |store: Store<'_>, ()| {
        let event = store.data().message.event.as_ref();
        Ok((event.map(|event| event.payload.to_vec()).unwrap_or_default(),))
    })?;
    linker.func_wrap("attribute", |store: Store<'_>, (name,): (WasmStr,)| {
        let name = name.to_str(&store)?;
        let event = store.data().message.event.as_ref();
        Ok((event.and_then(|event| event.attributes.get(&*name).cloned()),))
    })?;
    linker.func_wrap("client", |store: Store<'_>, ()| Ok((store.data().message.client.to_arc(),)))?;
    linker.func_wrap("set-payload", |mut store: Store<'_>, (payload,): (WasmList<u8>,)| {
        let payload = Bytes::copy_from_slice(payload.as_le_slice(&store));
        if let Some(event) = store.data_mut().change_event() {
            event.payload = payload;
        }
        Ok(())
    })?;
    linker.func_wrap("set-attribute", |mut store: Store<'_>, (name, value): (WasmStr, WasmStr)| {
        let (name, value) = (name.to_str(&store)?.into_owned(), value.to_str(&store)?.into_owned());
        if let Some(event) = store.data_mut().change_event() {
            event.attributes.insert(name, value);
        }
        Ok(())
    })
}
