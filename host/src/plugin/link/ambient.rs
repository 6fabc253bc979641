//! The message at hand: `request`, `response`, `event` and `candidates`.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{self, MaxSizeReached},
};
use wasmtime::{
    StoreContextMut,
    component::{Linker, LinkerInstance, WasmList},
};

use super::{
    interface,
    lane::{Lane, Linked, PAIRS, Pairs, Str, Text},
};
use crate::{
    path::{self, Normal},
    plugin::{
        bounds::{HEADERS, NAME, TooLong, VALUE, Whole},
        guest::{Guest, Head},
        message::{ClientId, is_routers},
        types::{Server, ServiceId},
    },
    text::shown,
};

type Store<'a> = StoreContextMut<'a, Guest>;

/// For components.
pub(super) fn link(linker: &mut Linker<Guest>) -> Linked {
    link_simple(linker)?;
    event(&mut interface(linker, "event")?)?;
    interface(linker, "candidates")?.func_wrap("servers", |store: Store<'_>, ()| Ok((servers(store.data()),)))
}

/// What exchanges texts at most.
pub(super) fn link_simple(lane: &mut impl Lane) -> Linked {
    request(lane)?;
    response(lane)?;
    least_loaded(lane)
}

fn request(lane: &mut impl Lane) -> Linked {
    const REQUEST: &str = "request";
    lane.define::<(), Text>(REQUEST, "method", |guest, ()| guest.message.method.as_str().into())?;
    lane.define::<(), Text>(REQUEST, "path", |guest, ()| {
        let target = guest.message.target();
        target.split_once('?').map_or(target, |(path, _)| path).into()
    })?;
    lane.define::<(), Option<Text>>(REQUEST, "query", |guest, ()| {
        guest.message.target().split_once('?').map(|(_, query)| query.into())
    })?;
    lane.define::<(), Text>(REQUEST, "authority", |guest, ()| guest.message.authority().into())?;
    lane.define::<(), Text>(REQUEST, "client", |guest, ()| match &guest.message.client {
        ClientId::Header(value) => value.into(),
        ClientId::Text(text) => Text::Shared(text.clone()),
    })?;
    lane.define::<(), Text>(REQUEST, "peer", |guest, ()| {
        Text::Owned(guest.message.peer.map(|peer| peer.to_string()).unwrap_or_default())
    })?;
    lane.define::<(), ServiceId>(REQUEST, "service", |guest, ()| service(guest))?;
    lane.define::<(), Option<Text>>(REQUEST, "server", |guest, ()| {
        guest.message.server.clone().map(Text::Shared)
    })?;
    lane.define::<(Str<VALUE>,), ()>(REQUEST, "set-path", |guest, (path,)| set_path(guest, path))?;
    headers(lane, REQUEST, Head::Request)
}

fn response(lane: &mut impl Lane) -> Linked {
    const RESPONSE: &str = "response";
    lane.define::<(), u16>(RESPONSE, "status", |guest, ()| {
        guest.message.response.as_ref().map_or(0, |head| head.status.as_u16())
    })?;
    lane.define::<(u16,), ()>(RESPONSE, "set-status", |guest, (status,)| {
        match StatusCode::from_u16(status) {
            Ok(code) if (200..600).contains(&status) => {
                if guest.may_change("set-status", 0) {
                    guest.set_status(code);
                }
            }
            _ => guest.fail(|| format!("set-status: {status} is not a status from 200 to 599")),
        }
    })?;
    headers(lane, RESPONSE, Head::Response)
}

fn headers(lane: &mut impl Lane, interface: &'static str, head: Head) -> Linked {
    lane.define::<(Str<NAME>,), Option<Text>>(interface, "header", move |guest, (name,)| {
        if let Some(known) = guest.names.get(name) {
            return guest.headers(head)?.get(known).map(Text::from);
        }
        if guest.names.have_room()
            && let Ok(parsed) = HeaderName::from_bytes(name.as_bytes())
            && !belongs_to_connection(&parsed)
            && !is_routers(parsed.as_str())
        {
            guest.names.keep(name, &parsed);
        }
        guest.headers(head)?.get(name).map(Text::from)
    })?;
    lane.define::<(Str<NAME>,), Vec<Text>>(interface, "headers", move |guest, (name,)| {
        let headers = guest.headers(head);
        headers.map(|headers| headers.get_all(name).iter().map(Text::from).collect()).unwrap_or_default()
    })?;
    lane.define::<(), Vec<Text>>(interface, "header-names", move |guest, ()| {
        let headers = guest.headers(head);
        headers.map(|headers| headers.keys().map(|name| name.as_str().into()).collect()).unwrap_or_default()
    })?;
    lane.define::<(Str<NAME>, Str<VALUE>), ()>(interface, "set-header", move |guest, (name, value)| {
        let parsed = (name_of(guest, name), parse_value(value));
        edit(guest, head, "set-header", parsed, |headers, name, value| {
            headers.try_insert(name, value).map(drop)
        });
    })?;
    lane.define::<(Str<NAME>, Str<VALUE>), ()>(interface, "add-header", move |guest, (name, value)| {
        let parsed = (name_of(guest, name), parse_value(value));
        edit(guest, head, "add-header", parsed, |headers, name, value| {
            headers.try_append(name, value).map(drop)
        });
    })?;
    lane.define::<(Str<NAME>,), ()>(interface, "remove-header", move |guest, (name,)| {
        let parsed = (name_of(guest, name), Ok(HeaderValue::from_static("")));
        edit(guest, head, "remove-header", parsed, |headers, name, _| {
            headers.remove(name);
            Ok(())
        });
    })
}

/// A header that may be changed; what is wrong with its name otherwise.
fn name_of(guest: &mut Guest, text: &str) -> Result<HeaderName, String> {
    if let Some(known) = guest.names.get(text) {
        return Ok(known.clone());
    }
    let name = parse_name(text)?;
    guest.names.keep(text, &name);
    Ok(name)
}

fn parse_name(name: &str) -> Result<HeaderName, String> {
    let parsed = HeaderName::from_bytes(name.as_bytes());
    let parsed = parsed.map_err(|_| format!("`{}` is not a header name", shown(name)))?;
    if belongs_to_connection(&parsed) {
        return Err(format!("`{parsed}` belongs to the connection and cannot be changed"));
    }
    if is_routers(parsed.as_str()) {
        return Err(format!("`{parsed}` is the router's word on who sends a message and cannot be changed"));
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
    apply: impl FnOnce(&mut http::HeaderMap, HeaderName, HeaderValue) -> Result<(), MaxSizeReached>,
) {
    let (name, value) = match parsed {
        (Ok(name), Ok(value)) => (name, value),
        (Err(reason), _) => return guest.fail(|| format!("{function}: {reason}")),
        (Ok(name), Err(reason)) => return guest.fail(|| format!("{function} {name}: {reason}")),
    };
    if !guest.may_change(function, name.as_str().len() + value.len()) {
        return;
    }
    let Some(headers) = guest.change(head, &name) else {
        return guest.fail(|| format!("{function} {name}: there is no response in this call"));
    };
    let full = headers.len() >= HEADERS && function != "remove-header";
    if full || apply(headers, name, value).is_err() {
        guest.fail(|| format!("{function}: the message has {HEADERS} headers already, which is the most"));
    }
}

/// In normal form, as every path that a server gets: what a guest makes of a client's words must not
/// leave the server's base either.
fn set_path(guest: &mut Guest, path: &str) {
    let normal = match path::normal(path) {
        Ok(Normal { target, .. }) if path.starts_with('/') && !path.starts_with("//") => target,
        Ok(_) => {
            return guest
                .fail(|| format!("set-path: `{}` is not a path that starts with one `/`", shown(path)));
        }
        Err(error) => return guest.fail(|| format!("set-path: `{}`: {error}", shown(path))),
    };
    match normal.parse::<http::Uri>() {
        Ok(uri) if guest.may_change("set-path", normal.len()) => guest.set_uri(uri),
        Ok(_) => {}
        Err(error) => guest.fail(|| format!("set-path: `{}`: {error}", shown(path))),
    }
}

fn service(guest: &Guest) -> ServiceId {
    let service = guest.message.service.as_ref();
    ServiceId {
        name: service.map(|id| id.name().to_owned()).unwrap_or_default(),
        version: service.and_then(|id| id.version()).map(str::to_owned),
    }
}

fn least_loaded(lane: &mut impl Lane) -> Linked {
    lane.define::<(Pairs,), Option<Text>>("candidates", "least-loaded", |guest, (having,)| {
        let Some(having) = having else {
            guest.fail(|| format!("least-loaded: it takes at most {PAIRS} pairs"));
            return None;
        };
        let message = &guest.message;
        let chosen = message.candidates.as_deref()?.least_loaded(message.client.as_str(), &having);
        chosen.map(Text::Shared)
    })
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
    linker.func_wrap("attribute", |store: Store<'_>, (name,): (Whole<NAME>,)| {
        let event = store.data().message.event.as_ref();
        let found = event.zip(name.0.ok()).and_then(|(event, name)| event.attributes.get(&name).cloned());
        Ok((found,))
    })?;
    linker.func_wrap("client", |store: Store<'_>, ()| Ok((store.data().message.client.to_arc(),)))?;
    linker.func_wrap("set-payload", |mut store: Store<'_>, (payload,): (WasmList<u8>,)| {
        let most = usize::try_from(store.data().plugin.settings.body).unwrap_or(usize::MAX);
        if let Err(too_long) = TooLong::check(payload.len(), most) {
            store.data_mut().fail(|| format!("set-payload: {too_long} (the limit `body`)"));
            return Ok(());
        }
        let payload = Bytes::copy_from_slice(payload.as_le_slice(&store));
        let guest = store.data_mut();
        if guest.may_change("set-payload", 0)
            && let Some(event) = guest.change_event()
        {
            event.payload = payload;
        }
        Ok(())
    })?;
    linker.func_wrap("set-attribute", |mut store: Store<'_>, parameters: (Whole<NAME>, Whole<VALUE>)| {
        set_attribute(store.data_mut(), parameters);
        Ok(())
    })
}

/// The most attributes that an event has for a guest to add another.
const ATTRIBUTES: usize = 64;

fn set_attribute(guest: &mut Guest, (name, value): (Whole<NAME>, Whole<VALUE>)) {
    let (name, value) = match (name.0, value.0) {
        (Ok(name), Ok(value)) => (name, value),
        (Err(too_long), _) | (_, Err(too_long)) => {
            return guest.fail(|| format!("set-attribute: {too_long}"));
        }
    };
    if !guest.may_change("set-attribute", name.len() + value.len()) {
        return;
    }
    let Some(event) = guest.change_event() else { return };
    if event.attributes.len() >= ATTRIBUTES && !event.attributes.contains_key(&name) {
        return guest.fail(|| format!("set-attribute: the event has {ATTRIBUTES} attributes already"));
    }
    event.attributes.insert(name, value);
}
