//! `request-body` and `response-body`: reading waits for the sender, so these are on the async
//! lane only. Whoever does not import them never holds a body up.

use bytes::Bytes;
use futures_util::FutureExt;
use wasmtime::{
    StoreContextMut,
    component::{Linker, WasmList},
};

use super::interface;
use crate::plugin::{
    guest::{Guest, Head},
    message::Body,
    types::BodyError,
};

type Store<'a> = StoreContextMut<'a, Guest>;

pub(super) fn link(linker: &mut Linker<Guest>) -> Result<(), wasmtime::Error> {
    for (name, head) in [("request-body", Head::Request), ("response-body", Head::Response)] {
        let mut body = interface(linker, name)?;
        body.func_wrap_async("read", move |mut store: Store<'_>, (limit,): (u64,)| {
            Box::new(async move {
                let read = read(store.data_mut(), head, limit).await;
                Ok((read.map(|bytes| bytes.to_vec()),))
            })
        })?;
        body.func_wrap("replace", move |mut store: Store<'_>, (bytes,): (WasmList<u8>,)| {
            let own = store.data().plugin.settings.body;
            if bytes.len() as u64 > own {
                return Ok((Err(BodyError::TooLarge(own)),));
            }
            let bytes = Bytes::copy_from_slice(bytes.as_le_slice(&store));
            let Some(body) = at_hand(store.data_mut(), head) else {
                return Ok((Err(BodyError::Unavailable),));
            };
            body.replace(bytes);
            Ok((Ok(()),))
        })?;
    }
    Ok(())
}

/// For the sync lane, where a component that may read bodies and does not find itself without any:
/// the engine of scripts, when it runs a script that reads none.
pub(super) fn link_without(linker: &mut Linker<Guest>) -> Result<(), wasmtime::Error> {
    for name in ["request-body", "response-body"] {
        let mut body = interface(linker, name)?;
        body.func_wrap("read", |_: Store<'_>, (_,): (u64,)| {
            Ok((Err::<Vec<u8>, _>(BodyError::Unavailable),))
        })?;
        body.func_wrap("replace", |_: Store<'_>, (_,): (WasmList<u8>,)| {
            Ok((Err::<(), _>(BodyError::Unavailable),))
        })?;
    }
    Ok(())
}

/// The body of the request, or of the response, if the call is about that one.
fn at_hand(guest: &mut Guest, head: Head) -> Option<&mut Body> {
    let about_response = guest.message.response.is_some();
    if about_response != matches!(head, Head::Response) {
        return None;
    }
    guest.message.body.as_mut()
}

/// Reads as much as both the guest and its operator allow. The time until it comes is its sender's.
async fn read(guest: &mut Guest, head: Head, limit: u64) -> Result<Bytes, BodyError> {
    let limit = limit.min(guest.plugin.settings.body);
    at_hand(guest, head).ok_or(BodyError::Unavailable)?;
    // Nobody else looks at it meanwhile, as the guest waits.
    let mut body = guest.message.body.take().ok_or(BodyError::Unavailable)?;
    let mut reading = Box::pin(body.read(limit));
    let read = match reading.as_mut().now_or_never() {
        Some(read) => read,
        None => {
            let since = guest.wait_for_sender();
            let read = reading.as_mut().await;
            guest.go_on(since);
            read
        }
    };
    drop(reading);
    guest.message.body = Some(body);
    read
}
