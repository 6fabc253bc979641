//! The message at hand, as the proxy hands it to a plugin and gets it back.
//!
//! For the time of a call it is moved into the guest's store and afterwards back, so that the
//! ambient functions of `wit/request.wit` read and change it in place. After a call that failed
//! under `on_error = "open"` it is as before the call.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};

use super::candidates::Candidates;
use crate::table::ServiceId;

/// What a plugin may see and change of a request, and of its response once there is one.
#[derive(Default)]
pub struct Message {
    /// As received.
    pub method: Method,
    /// Path and query in origin form, as the server will see them.
    pub uri: Uri,
    /// What the client asked for; empty: what the header `host` says.
    pub authority: Arc<str>,
    /// The request's headers, without those of the connection.
    pub headers: HeaderMap,
    /// The client id.
    pub client: Arc<str>,
    /// The other end of the connection.
    pub peer: Option<SocketAddr>,
    /// With the version that was chosen.
    pub service: Option<ServiceId>,
    /// The id of the chosen server, once there is one.
    pub server: Option<Arc<str>>,
    /// Asked for when the plugin is a registrar.
    pub candidates: Option<Arc<dyn Candidates>>,
    /// Present in response filters.
    pub response: Option<ResponseHead>,
    /// Present in event filters.
    pub event: Option<Event>,
    /// The body of the response if there is one, else of the request. Empty unless the plugin
    /// reads bodies ([`super::Generation::reads_body`]).
    pub body: Option<Body>,
}

impl Message {
    /// What the client asked for: `Host` or `:authority`.
    pub(super) fn authority(&self) -> &str {
        let host = || self.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
        Some(&*self.authority).filter(|authority| !authority.is_empty()).or_else(host).unwrap_or_default()
    }
}

/// The head of a response.
#[derive(Debug, Default)]
pub struct ResponseHead {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, without those of the connection.
    pub headers: HeaderMap,
}

/// What a plugin may see and change of an event.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// The topic or queue that it is published to.
    pub topic: Arc<str>,
    /// What was published.
    pub payload: Bytes,
    /// Such as `content-type`.
    pub attributes: BTreeMap<String, String>,
}

/// A body that a plugin may read or replace; streamed on if it does neither.
pub struct Body {
    /// What is still to be sent on.
    pub stream: BodyStream,
    /// Set when the bytes were replaced: `content-length` follows it.
    pub replaced: Option<u64>,
}

/// A body as a stream of frames.
pub type BodyStream = http_body_util::combinators::UnsyncBoxBody<Bytes, BodyFailed>;

/// Why a body's stream broke off.
pub type BodyFailed = Box<dyn std::error::Error + Send + Sync>;
