//! `request-body` and `response-body`: reading waits for the sender, so these are on the async
//! lane only. Whoever does not import them never holds a body up.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use wasmtime::{
    StoreContextMut,
    component::{Linker, WasmList},
};

use super::interface;
use crate::plugin::{
    guest::{Guest, Head},
    message::{Body, BodyFailed, BodyStream},
    types::BodyError,
};

type Store<'a> = StoreContextMut<'a, Guest>;

pub(super) fn link(linker: &mut Linker<Guest>) -> Result<(), wasmtime::Error> {
    for (name, head) in [("request-body", Head::Request), ("response-body", Head::Response)] {
        let mut body = interface(linker, name)?;
        body.func_wrap_async("read", move |mut store: Store<'_>, (limit,): (u64,)| {
            Box::new(async move {
                let own = store.data().plugin.settings.body;
                let Some(body) = at_hand(store.data_mut(), head) else {
                    return Ok((Err(BodyError::Unavailable),));
                };
                Ok((read(body, limit.min(own)).await.map(|bytes| bytes.to_vec()),))
            })
        })?;
        body.func_wrap("replace", move |mut store: Store<'_>, (bytes,): (WasmList<u8>,)| {
            let bytes = Bytes::copy_from_slice(bytes.as_le_slice(&store));
            let Some(body) = at_hand(store.data_mut(), head) else {
                return Ok((Err(BodyError::Unavailable),));
            };
            body.replaced = Some(bytes.len() as u64);
            body.stream = whole(bytes);
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

/// Reads all of a body and puts it back to be sent on, whatever comes of it.
async fn read(body: &mut Body, limit: u64) -> Result<Bytes, BodyError> {
    let mut stream = std::mem::replace(&mut body.stream, whole(Bytes::new()));
    let mut read = Vec::new();
    let mut trailers = None;
    let ended = loop {
        match stream.frame().await {
            None => break Ok(()),
            Some(Err(error)) => break Err(BodyError::Incomplete(error.to_string())),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => read.extend_from_slice(&data),
                Err(frame) => trailers = Some(frame),
            },
        }
        if read.len() as u64 > limit {
            break Err(BodyError::TooLarge(limit));
        }
    };
    let read = Bytes::from(read);
    let first = http_body::Frame::data(read.clone());
    let frames = futures_util::stream::iter([Some(first), trailers].into_iter().flatten().map(Ok));
    body.stream = match &ended {
        Ok(()) => StreamBody::new(frames).boxed_unsync(),
        Err(_) => {
            let rest = http_body_util::BodyStream::new(stream);
            StreamBody::new(futures_util::StreamExt::chain(frames, rest)).boxed_unsync()
        }
    };
    ended.map(|()| read)
}

fn whole(bytes: Bytes) -> BodyStream {
    UnsyncBoxBody::new(Full::new(bytes).map_err(|never| -> BodyFailed { match never {} }))
}
