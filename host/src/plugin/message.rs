//! The message at hand, as the proxy hands it to a plugin and gets it back.
//!
//! For the time of a call it is moved into the guest's store and afterwards back, so that the
//! ambient functions of `wit/request.wit` read and change it in place. After a call that failed
//! under `on_error = "open"` it is as before the call.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, uri::PathAndQuery};

pub use super::body::{Body, BodyFailed, BodyStream};
use super::candidates::Candidates;
use crate::table::ServiceId;

/// What a plugin may see and change of a request, and of its response once there is one.
#[derive(Default)]
pub struct Message {
    /// As received.
    pub method: Method,
    /// Path and query in origin form.
    pub uri: Uri,
    /// So many bytes of their beginning the server will not see; what is left begins with `/`.
    pub cut: usize,
    /// What the client asked for; none: what the header `host` says.
    pub authority: Option<Arc<str>>,
    /// The request's headers, without those of the connection.
    pub headers: HeaderMap,
    /// Who sends it.
    pub client: ClientId,
    /// The other end of the connection.
    pub peer: Option<SocketAddr>,
    /// With the version that was chosen.
    pub service: Option<ServiceId>,
    /// The id of the chosen server, once there is one.
    pub server: Option<Arc<str>>,
    /// Asked for when the plugin is a registrar.
    pub candidates: Option<Arc<dyn Candidates>>,
    /// Present in response filters.
    pub response: Option<Box<ResponseHead>>,
    /// Present in event filters.
    pub event: Option<Box<Event>>,
    /// The body of the response if there is one, else of the request. None unless the plugin
    /// reads bodies ([`super::Generation::reads_body`]).
    pub body: Option<Body>,
    /// The plugin is asked what it would do, and is to change nothing by it.
    pub dry: bool,
    /// From where plugins are called.
    pub place: Place,
    /// It may be shown to another build if the call fails, as it was.
    pub again: bool,
    /// The last call changed something that outlasts it.
    pub acted: bool,
}

/// From where plugins are called about a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// From the thread of a worker: what a plugin takes of its time is bounded.
    Worker,
    /// From there too, by who does not wait: the call is made in place.
    WorkerAtOnce,
    /// From anywhere else.
    #[default]
    Elsewhere,
}

impl Message {
    /// What the client asked for: `Host` or `:authority`.
    pub(super) fn authority(&self) -> &str {
        let host = || self.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
        self.authority.as_deref().or_else(host).unwrap_or_default()
    }

    /// Whether a plugin had to do with less than the whole body, for which it cannot be blamed.
    pub(super) fn lacks_body(&self) -> bool {
        let unread = self.response.is_none() && self.unread().is_some();
        unread || self.body.as_ref().is_some_and(|body| body.broken().is_some())
    }

    /// Path and query, as the server will see them.
    pub fn target(&self) -> &str {
        target(&self.uri, self.cut)
    }
}

/// Path and query without so many bytes of their beginning.
pub fn target(uri: &Uri, cut: usize) -> &str {
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    target.get(cut..).unwrap_or(target)
}

/// The header by which a plugin's requests show to the proxy of their own router where they come from.
pub const PASS: &str = "message-flow-plugin";

/// Whether a header, in lower case, is how the router tells servers who sends a message; with `_` for `-`
/// it is to many of them. Neither clients nor plugins write these.
pub fn is_routers(name: &str) -> bool {
    let is = |own: &str| {
        let same = |(written, own): (u8, u8)| written == own || (written == b'_' && own == b'-');
        name.len() == own.len() && name.bytes().zip(own.bytes()).all(same)
    };
    is("message-flow-client") || is("message-flow-verified")
}

/// A client's id. It stays where it came from, so that it is copied for nobody who does not ask for it.
#[derive(Clone, Debug)]
pub enum ClientId {
    /// The value of a header, of visible ASCII characters.
    Header(HeaderValue),
    /// From anywhere else.
    Text(Arc<str>),
}

impl ClientId {
    /// Its text.
    pub fn as_str(&self) -> &str {
        match self {
            // Checked when it was made.
            Self::Header(value) => value.to_str().unwrap_or_default(),
            Self::Text(text) => text,
        }
    }

    /// As the value of a header.
    pub fn to_value(&self) -> HeaderValue {
        match self {
            Self::Header(value) => value.clone(),
            // Checked when it was made.
            Self::Text(text) => HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("")),
        }
    }

    /// Its text, to keep.
    pub fn to_arc(&self) -> Arc<str> {
        match self {
            Self::Header(_) => self.as_str().into(),
            Self::Text(text) => text.clone(),
        }
    }
}

impl Default for ClientId {
    fn default() -> Self {
        Self::Header(HeaderValue::from_static(""))
    }
}

impl From<&str> for ClientId {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
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
