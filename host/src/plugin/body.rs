//! A body in a plugin's hands: read without its coding, replaced, or streamed on as it came.
//!
//! A filter must see what the other end will see, or it protects nobody: so a body is decoded before
//! it is read, and what was read is what is sent on, without the coding. What cannot be decoded
//! is never sent on unread: the call fails, or the request is refused.

pub mod coding;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};

use super::{
    bounds::REASON,
    message::{Message, ResponseHead},
    types::BodyError,
};
use crate::text::cut;
use coding::{Coding, Unreadable};

/// A body that a plugin may read or replace.
pub struct Body {
    /// As it came: what was read of it is put back.
    stream: BodyStream,
    /// What is on it, as the head said before the plugin could write there.
    codings: Result<Vec<Coding>, Unreadable>,
    /// What is sent in its place.
    instead: Option<Instead>,
    /// Of [`DESCRIBING`], the headers that the plugin wrote itself: one bit for each.
    written: u16,
    /// Why it could not be read.
    unreadable: Option<Unreadable>,
    /// Why no more of it came, if the plugin was told so.
    broken: Option<Broken>,
}

/// Why a body broke off, for all who come across it: whoever sends it is to blame.
#[derive(Clone, Debug)]
pub struct Broken(pub Arc<dyn std::error::Error + Send + Sync>);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Broken {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

/// A body as a stream of frames.
pub type BodyStream = UnsyncBoxBody<Bytes, BodyFailed>;

/// Why a body's stream broke off.
pub type BodyFailed = Box<dyn std::error::Error + Send + Sync>;

struct Instead {
    bytes: Bytes,
    trailers: Option<HeaderMap>,
    /// The same content, without its coding.
    decoded: bool,
}

/// The headers that speak of a body's bytes. The first five are those of requests too: the range of
/// a `PUT` says where its body belongs, whatever that is.
const DESCRIBING: [HeaderName; 8] = [
    header::CONTENT_ENCODING,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    header::ETAG,
    header::ACCEPT_RANGES,
    header::CONTENT_RANGE,
];
const OF_REQUESTS: usize = 5;

impl Body {
    /// That of a request with these headers, which nobody has touched.
    pub fn of_request(stream: BodyStream, headers: &HeaderMap) -> Self {
        let codings = coding::of(headers);
        Self { stream, codings, instead: None, written: 0, unreadable: None, broken: None }
    }

    /// That of a response with this head.
    pub fn of_response(stream: BodyStream, head: &ResponseHead) -> Self {
        let mut body = Self::of_request(stream, &head.headers);
        if head.status == StatusCode::PARTIAL_CONTENT {
            body.codings = Err(Unreadable::Part);
        }
        body
    }

    /// Whether other bytes are sent in its place.
    pub fn is_replaced(&self) -> bool {
        self.instead.as_ref().is_some_and(|instead| !instead.decoded)
    }

    /// Why the plugin had to do with less than all of it.
    pub fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    /// All of it, without its codings, if that is at most so many bytes.
    pub(super) async fn read(&mut self, limit: u64) -> Result<Bytes, BodyError> {
        if let Some(instead) = &self.instead {
            let fits = instead.bytes.len() as u64 <= limit;
            return if fits { Ok(instead.bytes.clone()) } else { Err(BodyError::TooLarge(limit)) };
        }
        if let Some(broken) = &self.broken {
            return Err(incomplete(broken));
        }
        let codings = self.codings.clone().map_err(|why| self.note(why))?;
        let longest = if codings.is_empty() { limit } else { limit.saturating_add(coding::OVERHEAD) };
        let (read, trailers) = collect(&mut self.stream, longest).await.map_err(|ended| match ended {
            Ended::TooLarge => BodyError::TooLarge(limit),
            Ended::Broken(broken) => incomplete(self.broken.insert(broken)),
        })?;
        if codings.is_empty() {
            return Ok(read);
        }
        let bytes = match coding::decode(&codings, &read, limit).await {
            Ok(bytes) => bytes,
            Err(Unreadable::TooLarge) => return Err(BodyError::TooLarge(limit)),
            Err(why) => return Err(self.note(why)),
        };
        self.instead = Some(Instead { bytes: bytes.clone(), trailers, decoded: true });
        Ok(bytes)
    }

    fn note(&mut self, why: Unreadable) -> BodyError {
        let error = BodyError::Other(why.to_string());
        self.unreadable = Some(why);
        error
    }

    /// Has these bytes sent in its place.
    pub(super) fn replace(&mut self, bytes: Bytes) {
        let trailers = self.instead.take().and_then(|instead| instead.trailers);
        self.instead = Some(Instead { bytes, trailers, decoded: false });
    }

    /// The plugin wrote this header itself, which therefore stays.
    pub(super) fn describe(&mut self, name: &HeaderName) {
        if let Some(at) = DESCRIBING.iter().position(|describing| describing == name) {
            self.written |= 1 << at;
        }
    }

    /// Why it could not be read, unless other bytes are sent in its place.
    fn unread(&self) -> Option<&Unreadable> {
        self.unreadable.as_ref().filter(|_| self.instead.is_none())
    }

    /// What is sent on, which these headers describe from now on.
    fn leave(self, headers: &mut HeaderMap, describing: &[HeaderName]) -> BodyStream {
        let Some(Instead { bytes, trailers, decoded }) = self.instead else { return self.stream };
        for (at, name) in describing.iter().enumerate() {
            match self.written & (1 << at) != 0 {
                true => {}
                false if decoded && *name == header::ETAG => weaken(headers),
                false => drop(headers.remove(name)),
            }
        }
        let trailers = trailers.map(|mut trailers| {
            DESCRIBING.iter().for_each(|name| drop(trailers.remove(name)));
            trailers
        });
        match trailers.filter(|trailers| !trailers.is_empty()) {
            Some(trailers) => {
                headers.remove(header::CONTENT_LENGTH);
                frames(bytes, Some(trailers))
            }
            None => {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
                whole(bytes)
            }
        }
    }
}

impl Message {
    /// Why the body could not be read, unless the plugin has other bytes sent in its place.
    pub fn unread(&self) -> Option<&Unreadable> {
        self.body.as_ref().and_then(Body::unread)
    }

    /// Takes the body as the plugin left it. The head says afterwards what it is.
    pub fn take_body(&mut self) -> Option<BodyStream> {
        let body = self.body.take()?;
        let Some(head) = &mut self.response else {
            return Some(body.leave(&mut self.headers, &DESCRIBING[..OF_REQUESTS]));
        };
        let (replaced, touched) = (body.is_replaced(), body.instead.is_some());
        let sent = body.leave(&mut head.headers, &DESCRIBING);
        if replaced && head.status == StatusCode::PARTIAL_CONTENT {
            head.status = StatusCode::OK;
        }
        if touched && has_no_body(&self.method, head.status) {
            head.headers.remove(header::CONTENT_LENGTH);
            return Some(whole(Bytes::new()));
        }
        Some(sent)
    }

    /// Has another plugin find the body as it came; the head is as it was.
    pub(super) fn renew_body(&mut self) {
        let Some(stream) = self.take_body_unchanged() else { return };
        self.body = Some(match &self.response {
            Some(head) => Body::of_response(stream, head),
            None => Body::of_request(stream, &self.headers),
        });
    }

    /// Takes the body as it came, whatever the plugin made of it.
    pub fn take_body_unchanged(&mut self) -> Option<BodyStream> {
        self.body.take().map(|body| body.stream)
    }
}

/// Whether a response ends with its head (RFC 9112, section 6.3).
fn has_no_body(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Other bytes for the same content have another strong tag, and may share a weak one (RFC 9110,
/// section 8.8.1).
fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get_mut(header::ETAG) else { return };
    if !tag.as_bytes().starts_with(b"W/")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        *tag = weak;
    }
}

/// How reading a body ended before the body did.
enum Ended {
    TooLarge,
    Broken(Broken),
}

fn incomplete(broken: &Broken) -> BodyError {
    BodyError::Incomplete(cut(&broken.to_string(), REASON).to_owned())
}

/// Reads all of a body and puts it back to be sent on, whatever comes of it.
async fn collect(body: &mut BodyStream, limit: u64) -> Result<(Bytes, Option<HeaderMap>), Ended> {
    let mut stream = std::mem::replace(body, whole(Bytes::new()));
    let (mut read, mut trailers) = (Vec::new(), None);
    let ended = loop {
        match stream.frame().await {
            None => break Ok(()),
            Some(Err(error)) => break Err(Ended::Broken(Broken(error.into()))),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => read.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
        }
        if read.len() as u64 > limit {
            break Err(Ended::TooLarge);
        }
    };
    let read = Bytes::from(read);
    let again = frames(read.clone(), trailers.clone());
    let rest = match &ended {
        Ok(()) => None,
        Err(Ended::TooLarge) => Some(stream),
        // Whoever comes to its end again finds the same.
        Err(Ended::Broken(broken)) => Some(broken_off(broken.clone())),
    };
    *body = match rest {
        None => again,
        Some(rest) => {
            let [again, rest] = [again, rest].map(http_body_util::BodyStream::new);
            StreamBody::new(futures_util::StreamExt::chain(again, rest)).boxed_unsync()
        }
    };
    ended.map(|()| (read, trailers))
}

fn broken_off(broken: Broken) -> BodyStream {
    let failed = futures_util::stream::iter([Err(BodyFailed::from(broken))]);
    StreamBody::new(failed).boxed_unsync()
}

fn frames(bytes: Bytes, trailers: Option<HeaderMap>) -> BodyStream {
    let frames = [Some(Frame::data(bytes)), trailers.map(Frame::trailers)];
    StreamBody::new(futures_util::stream::iter(frames.into_iter().flatten().map(Ok))).boxed_unsync()
}

fn whole(bytes: Bytes) -> BodyStream {
    UnsyncBoxBody::new(Full::new(bytes).map_err(|never| -> BodyFailed { match never {} }))
}

/// What a request asks for whose response is to be read: all of it, and as it is. A part says nothing
/// of the rest, and of codings the server knows more than can be decoded.
pub fn ask_for_whole(headers: &mut HeaderMap) {
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.remove(header::RANGE);
    headers.remove(header::IF_RANGE);
}

#[cfg(test)]
mod tests;
