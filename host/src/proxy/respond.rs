//! What clients are told when no server answers them: the only place that maps causes to answers.
//!
//! Clients get RFC 9457 problem documents that name what they can do something about. Addresses of
//! servers and errors of sockets are for the log alone.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::reply::Reply;
use crate::{
    grpc,
    listener::{Phase, refuse::problem},
    path::Abnormal,
    plugin::body::coding::KNOWN,
    resolve::Nowhere,
    token::Doubt,
    upstream::{UpstreamError, dial::DialError},
};

/// What a router lets through to servers, and every method that is not in the registry as well.
const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// Why a message is not answered by a server.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request itself is wrong, and what follows on its connection cannot be trusted.
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// The request is well-formed and cannot be served.
    #[error("{1}")]
    Unacceptable(StatusCode, &'static str),
    /// The path can be read in two ways, or leads nowhere.
    #[error("malformed request: {0}")]
    Path(#[from] Abnormal),
    /// The path can be read in two ways, and no route says which is meant.
    #[error(
        "the path has an encoded slash, backslash or NUL, which only `encoded_slashes = \"keep\"` lets through"
    )]
    EncodedSlashes,
    /// A token is required, and none is there, or none that is believed.
    #[error("no valid bearer token{}", .0.map(|doubt| format!(": {doubt}")).unwrap_or_default())]
    Unauthenticated(Option<Doubt>),
    /// It asks this router what it can do, not a server.
    #[error("it asks the router for its options")]
    Options,
    /// No service is named.
    #[error("no service is named")]
    NoService,
    /// No route matches.
    #[error("no route matches")]
    NoRoute,
    /// The service is not known.
    #[error("service {0} is not known")]
    UnknownService(String),
    /// The service is not known, and the routing table was not read yet.
    #[error("service {0} is not known yet: the routing table was not read so far")]
    TableUnread(String),
    /// There are versions of the service, none of which is live.
    #[error("no version of service {0} is live")]
    Unreleased(String),
    /// The routing rule found no server.
    #[error(transparent)]
    Nowhere(Box<Nowhere>),
    /// A plugin says no.
    #[error("a plugin rejected it with {0}: {1}")]
    Rejected(StatusCode, String),
    /// A plugin that the message has to pass is not there.
    #[error("plugin `{0}` is not loaded")]
    PluginMissing(String),
    /// A plugin that the message has to pass failed.
    #[error("{1}")]
    PluginFailed(String, std::sync::Arc<str>),
    /// The server could not be reached or broke off.
    #[error(transparent)]
    Upstream(UpstreamError),
    /// A phase took too long.
    #[error("{} took too long", .0.name())]
    Overdue(Phase),
    /// The client's body broke off or was malformed.
    #[error("the request's body broke off")]
    BrokenBody,
    /// A plugin would be shown what it sent itself.
    #[error("the message goes in circles: plugin `{0}` sent it, and would be asked about it")]
    PluginLoop(String),
    /// The message came by before.
    #[error("the message goes in circles")]
    Loop,
}

impl Refusal {
    /// What the client gets.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::Path(_) | Self::EncodedSlashes | Self::BrokenBody => {
                StatusCode::BAD_REQUEST
            }
            Self::Unacceptable(status, _) | Self::Rejected(status, _) => *status,
            Self::Options => StatusCode::NO_CONTENT,
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::NoService | Self::NoRoute | Self::UnknownService(_) => StatusCode::NOT_FOUND,
            Self::TableUnread(_)
            | Self::Unreleased(_)
            | Self::Nowhere(_)
            | Self::PluginMissing(_)
            | Self::PluginFailed(..)
            | Self::Upstream(
                UpstreamError::Busy { .. } | UpstreamError::Refused { .. } | UpstreamError::Local { .. },
            ) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Upstream(error) if error.is_local() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Upstream(UpstreamError::Connect { source: DialError::Own(_), .. }) => {
                StatusCode::LOOP_DETECTED
            }
            Self::Upstream(_) => StatusCode::BAD_GATEWAY,
            Self::Overdue(Phase::RequestBody | Phase::RequestHead) => StatusCode::REQUEST_TIMEOUT,
            Self::Overdue(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Loop | Self::PluginLoop(_) => StatusCode::LOOP_DETECTED,
        }
    }

    /// The last part of the document's `type`, the same for the same cause. Where the API has the
    /// cause too, it has the same name there.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Path(_) | Self::EncodedSlashes | Self::BrokenBody => "malformed",
            Self::Unacceptable(status, _) => kind_of(*status),
            Self::Unauthenticated(_) => "unauthenticated",
            Self::Options => "options",
            Self::NoService => "no-service",
            Self::NoRoute => "no-route",
            Self::UnknownService(_) => "unknown-service",
            Self::TableUnread(_) => "table-unread",
            Self::Unreleased(_) => "unreleased",
            Self::Nowhere(_) => "no-server",
            Self::Rejected(..) => "rejected",
            Self::PluginMissing(_) => "plugin-missing",
            Self::PluginFailed(..) => "plugin-failed",
            Self::Upstream(UpstreamError::Local { .. }) => "router-exhausted",
            Self::Upstream(error) if error.is_local() => "router-exhausted",
            Self::Upstream(UpstreamError::Connect { source: DialError::Own(_), .. }) => "loop",
            Self::Upstream(UpstreamError::Connect { .. }) => "server-unreachable",
            Self::Upstream(UpstreamError::Busy { .. } | UpstreamError::Refused { .. }) => "server-busy",
            Self::Upstream(UpstreamError::Broken { .. }) => "server-broke-off",
            Self::Overdue(Phase::RequestBody | Phase::RequestHead) => "timeout",
            Self::Overdue(_) => "server-timeout",
            Self::Loop | Self::PluginLoop(_) => "loop",
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::NoService => "name a service: as the first segment of the path, such as /chat/, or in the \
                 header message-flow-service"
                .to_owned(),
            Self::Unauthenticated(None) => "send a token: Authorization: Bearer TOKEN".to_owned(),
            Self::Unauthenticated(Some(doubt)) => format!("the bearer token is not believed: {doubt}"),
            Self::PluginFailed(name, _) => format!("plugin `{name}` failed"),
            Self::Rejected(_, reason) => reason.clone(),
            Self::Upstream(error) if error.is_local() => {
                "the router has no means to open a connection now; try again".to_owned()
            }
            Self::Upstream(UpstreamError::Connect { source: DialError::Own(_), .. }) => {
                "the service's server is this router's API, which is not reached through the proxy".to_owned()
            }
            Self::Upstream(UpstreamError::Connect { .. }) => "the server cannot be reached".to_owned(),
            Self::Upstream(UpstreamError::Busy { .. } | UpstreamError::Refused { .. }) => {
                "the server is busy; try again".to_owned()
            }
            Self::Upstream(UpstreamError::Broken { .. }) => {
                "the connection to the server broke before it answered".to_owned()
            }
            Self::Overdue(Phase::RequestBody) => "the body of the request did not arrive in time".to_owned(),
            Self::Overdue(_) => "the server did not answer in time".to_owned(),
            other => other.to_string(),
        }
    }

    /// Whether the connection on which the request came is of no more use.
    fn closes(&self) -> bool {
        matches!(
            self,
            Self::Malformed(_)
                | Self::BrokenBody
                | Self::Overdue(Phase::RequestBody)
                | Self::Unacceptable(StatusCode::PAYLOAD_TOO_LARGE, _)
        )
    }

    /// The answer to a call of gRPC.
    pub(crate) fn response_to_call(&self) -> Response<Reply> {
        let mut response = self.response();
        grpc::fail(response.headers_mut(), self.status(), &self.detail());
        *response.status_mut() = StatusCode::OK;
        response.map(|_| Reply::own(Bytes::new()))
    }

    /// The answer.
    pub(crate) fn response(&self) -> Response<Reply> {
        let status = self.status();
        if let Self::Options = self {
            let mut response = Response::new(Reply::own(Bytes::new()));
            *response.status_mut() = status;
            response.headers_mut().insert(header::ALLOW, ALLOWED);
            return response;
        }
        let mut response = Response::new(Reply::own(problem(status, self.kind(), &self.detail()).into()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(KNOWN));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, ALLOWED);
        }
        if let Self::Unauthenticated(doubt) = self {
            headers.insert(header::WWW_AUTHENTICATE, challenge(*doubt));
        }
        if self.closes() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// RFC 6750, section 3: without a token there is no error to speak of.
fn challenge(doubt: Option<Doubt>) -> HeaderValue {
    const PLAIN: HeaderValue = HeaderValue::from_static("Bearer realm=\"message-flow\"");
    let Some(doubt) = doubt else { return PLAIN };
    let invalid =
        format!("Bearer realm=\"message-flow\", error=\"invalid_token\", error_description=\"{doubt}\"");
    HeaderValue::try_from(invalid).unwrap_or(PLAIN)
}

/// What cannot be served, by the status that it gets.
fn kind_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::METHOD_NOT_ALLOWED => "method-not-allowed",
        StatusCode::PAYLOAD_TOO_LARGE => "too-large",
        StatusCode::URI_TOO_LONG => "target-too-long",
        StatusCode::EXPECTATION_FAILED => "expectation",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unknown-coding",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "head-too-large",
        StatusCode::BAD_GATEWAY => "server-broke-protocol",
        StatusCode::NOT_IMPLEMENTED => "not-implemented",
        _ => "malformed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_do_not_give_servers_away() {
        let source = crate::upstream::dial::DialError::Timeout(std::time::Duration::from_secs(1));
        let error = UpstreamError::Connect { server: "http://10.1.2.3:80".into(), source };
        let refusal = Refusal::Upstream(error);
        assert_eq!(refusal.status(), StatusCode::BAD_GATEWAY);
        assert!(!refusal.detail().contains("10.1.2.3"));
        assert!(refusal.to_string().contains("10.1.2.3"));
    }
}
