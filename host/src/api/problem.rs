//! What went wrong, as an RFC 9457 problem document. The one place that says which cause gets
//! which status.

use axum::{
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{config, table::TableError};

/// The type of these documents.
const PROBLEM: &str = "application/problem+json";

/// Mistakes in a document that are told.
const MOST_ERRORS: usize = 64;
/// Characters of each: what was sent comes back in them, and so much is enough to find it.
const MOST_TEXT: usize = 512;

/// A cause that has a name of its own: part of `type`, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Malformed,
    Unauthenticated,
    Denied,
    HostRefused,
    NotFound,
    MethodNotAllowed,
    Timeout,
    Configured,
    Conflict,
    ConditionFailed,
    TooLarge,
    NotJson,
    Invalid,
    TooMany,
    UpgradeRequired,
    NotReady,
    TableUnread,
    TableUnavailable,
    TableUnknown,
    TableRefused,
    Internal,
    Loop,
}

impl Kind {
    fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Malformed => (400, "malformed", "The request is malformed"),
            Self::Unauthenticated => (401, "unauthenticated", "A valid token is needed"),
            Self::Denied => (403, "denied", "The token does not allow this"),
            Self::HostRefused => (403, "host-refused", "This host name is not served"),
            Self::NotFound => (404, "not-found", "There is no such thing"),
            Self::MethodNotAllowed => (405, "method-not-allowed", "This cannot be done here"),
            Self::Timeout => (408, "timeout", "The request took too long"),
            Self::Configured => (409, "configured", "The configuration defines this"),
            Self::Conflict => (409, "conflict", "Something else changed it meanwhile"),
            Self::ConditionFailed => (412, "condition-failed", "It is not what the request expects it to be"),
            Self::TooLarge => (413, "too-large", "The body is too large"),
            Self::NotJson => (415, "not-json", "The body must be JSON"),
            Self::Invalid => (422, "invalid", "The document is not valid"),
            Self::UpgradeRequired => (426, "upgrade-required", "A WebSocket is needed here"),
            Self::TooMany => (429, "too-many", "There are too many of these"),
            Self::NotReady => (503, "not-ready", "The router is not ready"),
            Self::TableUnread => (503, "table-unread", "The routing table was not read yet"),
            Self::TableUnavailable => (503, "table-unavailable", "The routing table cannot be reached"),
            Self::TableUnknown => {
                (503, "table-unknown", "Whether the routing table took this is not known: it may have")
            }
            Self::TableRefused => (503, "table-refused", "The routing table did not accept this"),
            Self::Internal => (500, "internal", "Something is wrong here"),
            Self::Loop => (508, "loop", "The message goes in circles"),
        }
    }

    /// After how many seconds the same request may be worth another try, where waiting may help.
    fn retry_after(self) -> Option<u16> {
        match self {
            // Until somebody else leaves.
            Self::TooMany => Some(5),
            // The table is asked for again each second.
            Self::NotReady | Self::TableUnread | Self::TableUnavailable => Some(1),
            _ => None,
        }
    }

    /// What the answer has to say besides the document.
    fn headers(self) -> Vec<(HeaderName, HeaderValue)> {
        let fixed: &[(HeaderName, &'static str)] = match self {
            Self::Unauthenticated => &[(header::WWW_AUTHENTICATE, "Bearer realm=\"message-flow\"")],
            // RFC 9110, sections 15.5.22 and 7.8, and RFC 6455, section 4.4.
            Self::UpgradeRequired => &[
                (header::UPGRADE, "websocket"),
                (header::CONNECTION, "upgrade"),
                (header::SEC_WEBSOCKET_VERSION, "13"),
            ],
            _ => &[],
        };
        let fixed = fixed.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let retry = self.retry_after().map(|seconds| (header::RETRY_AFTER, HeaderValue::from(seconds)));
        fixed.chain(retry).collect()
    }
}

/// A problem document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// `urn:message-flow:problem:NAME`; the same for the same cause.
    #[serde(rename = "type")]
    kind: String,
    /// The cause in words.
    title: &'static str,
    /// The status of the response.
    status: u16,
    /// What is wrong here, and what to do.
    detail: String,
    /// Everything that is wrong with the document, by field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    #[serde(skip)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(super) struct FieldError {
    /// As a path: `servers[1].uri`. Empty: the whole document.
    field: String,
    /// What is wrong, and what to write instead.
    detail: String,
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (status, name, title) = kind.row();
        let headers = kind.headers();
        let kind = format!("urn:message-flow:problem:{name}");
        Self { kind, title, status, detail: detail.into(), errors: Vec::new(), headers }
    }

    /// With what it comes from, before what is wrong.
    pub(super) fn because(mut self, cause: impl std::fmt::Display) -> Self {
        self.detail = format!("{cause}: {}", self.detail);
        self
    }

    /// With a header in its answer.
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// A document that is not valid, with everything that is wrong with it.
    pub(super) fn invalid(problems: Vec<config::Problem>) -> Self {
        let more = problems.len().saturating_sub(MOST_ERRORS);
        let told = problems.iter().take(MOST_ERRORS);
        let mut detail = told.map(|problem| cut(&problem.to_string())).collect::<Vec<_>>().join("; ");
        if more > 0 {
            detail.push_str(&format!("; and {more} more"));
        }
        let error =
            |problem: config::Problem| FieldError { field: cut(&problem.key), detail: cut(&problem.message) };
        let errors = problems.into_iter().take(MOST_ERRORS).map(error).collect();
        Self { errors, ..Self::new(Kind::Invalid, detail) }
    }

    /// One field of a document that is not valid.
    pub(super) fn field(field: &str, detail: impl Into<String>) -> Self {
        let detail = cut(&detail.into());
        let errors = vec![FieldError { field: field.to_owned(), detail: detail.clone() }];
        Self { errors, ..Self::new(Kind::Invalid, format!("{field}: {detail}")) }
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MOST_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl From<TableError> for Problem {
    fn from(error: TableError) -> Self {
        let kind = match error {
            TableError::Unavailable(_) | TableError::Compacted | TableError::Adapter(_) => {
                Kind::TableUnavailable
            }
            TableError::Unknown(_) => Kind::TableUnknown,
            TableError::Conflict(_) => Kind::Conflict,
            TableError::Refused(_) => Kind::TableRefused,
            TableError::Invalid(_) => Kind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (self.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.headers);
        response
    }
}

/// The OpenAPI document as JSON, where the answers that are problems have the type of problems.
pub(super) fn typed(document: &utoipa::openapi::OpenApi) -> serde_json::Value {
    // Cannot fail: the document is made of maps with text for keys.
    let mut document = serde_json::to_value(document).unwrap_or_default();
    let objects =
        |value: &mut serde_json::Value| value.as_object_mut().map(std::mem::take).unwrap_or_default();
    let paths = document.get_mut("paths").and_then(serde_json::Value::as_object_mut);
    let operations = paths.into_iter().flat_map(serde_json::Map::values_mut);
    for operation in
        operations.filter_map(serde_json::Value::as_object_mut).flat_map(|path| path.values_mut())
    {
        let Some(responses) = operation.get_mut("responses").and_then(serde_json::Value::as_object_mut)
        else {
            continue;
        };
        responses.insert("default".to_owned(), anything_else());
        for (_, response) in responses.iter_mut().filter(|(status, _)| status.starts_with(['4', '5'])) {
            let Some(content) = response.get_mut("content") else { continue };
            let retyped = objects(content).into_iter().map(|(_, body)| (PROBLEM.to_owned(), body));
            *content = serde_json::Value::Object(retyped.collect());
        }
    }
    document
}

/// What every operation may be answered: 400, 401, 403, 408, 413, 415, 5xx.
fn anything_else() -> serde_json::Value {
    serde_json::json!({
        "description": "Anything else is a problem, too",
        "content": { PROBLEM: { "schema": { "$ref": "#/components/schemas/Problem" } } },
    })
}

/// What is nowhere, and what everything is asked about.
pub(super) async fn not_found(method: Method, uri: Uri) -> Response {
    let path = uri.path();
    if method == Method::OPTIONS && path == "*" {
        // Of the server as a whole (RFC 9110, section 9.3.7).
        let allow = HeaderValue::from_static("GET, HEAD, PUT, POST, DELETE, OPTIONS");
        return (StatusCode::NO_CONTENT, [(header::ALLOW, allow)]).into_response();
    }
    let hint = match path.strip_suffix('/') {
        Some(without) if !without.is_empty() => {
            format!("paths have no final slash here: try {}", cut(without))
        }
        _ => "/v1/openapi.json lists what there is".to_owned(),
    };
    Problem::new(Kind::NotFound, format!("there is nothing at {}; {hint}", cut(path))).into_response()
}

/// The router says in `Allow` what is possible; that is all that OPTIONS asks for. It allows pages of other origins
/// nothing, as no header here says so.
pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let path = cut(uri.path());
    let detail = format!("{method} is not possible at {path}; see the Allow header");
    Problem::new(Kind::MethodNotAllowed, detail).into_response()
}
