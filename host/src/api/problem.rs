//! What went wrong, as an RFC 9457 problem document. The one place that says which cause gets
//! which status.

use axum::{
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{config, table::TableError};

/// The type of these documents.
const PROBLEM: &str = "application/problem+json";

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
    TooLarge,
    NotJson,
    Invalid,
    TooMany,
    UpgradeRequired,
    NotReady,
    TableUnavailable,
    TableRefused,
    Internal,
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
            Self::TooLarge => (413, "too-large", "The body is too large"),
            Self::NotJson => (415, "not-json", "The body must be JSON"),
            Self::Invalid => (422, "invalid", "The document is not valid"),
            Self::UpgradeRequired => (426, "upgrade-required", "A WebSocket is needed here"),
            Self::TooMany => (429, "too-many", "There are too many of these"),
            Self::NotReady => (503, "not-ready", "The router is not ready"),
            Self::TableUnavailable => (503, "table-unavailable", "The routing table cannot be reached"),
            Self::TableRefused => (503, "table-refused", "The routing table did not accept this"),
            Self::Internal => (500, "internal", "Something is wrong here"),
        }
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
        let kind = format!("urn:message-flow:problem:{name}");
        Self { kind, title, status, detail: detail.into(), errors: Vec::new() }
    }

    /// A document that is not valid, with everything that is wrong with it.
    pub(super) fn invalid(problems: Vec<config::Problem>) -> Self {
        let detail = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let error = |problem: config::Problem| FieldError { field: problem.key, detail: problem.message };
        let errors = problems.into_iter().map(error).collect();
        Self { errors, ..Self::new(Kind::Invalid, detail) }
    }

    /// One field of a document that is not valid.
    pub(super) fn field(field: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let errors = vec![FieldError { field: field.to_owned(), detail: detail.clone() }];
        Self { errors, ..Self::new(Kind::Invalid, format!("{field}: {detail}")) }
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<TableError> for Problem {
    fn from(error: TableError) -> Self {
        let kind = match error {
            TableError::Unavailable(_) | TableError::Compacted | TableError::Adapter(_) => {
                Kind::TableUnavailable
            }
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
        if self.status == 401 {
            headers
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"message-flow\""));
        }
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
        for (_, response) in responses.iter_mut().filter(|(status, _)| status.starts_with(['4', '5'])) {
            let Some(content) = response.get_mut("content") else { continue };
            let retyped = objects(content).into_iter().map(|(_, body)| (PROBLEM.to_owned(), body));
            *content = serde_json::Value::Object(retyped.collect());
        }
    }
    document
}

pub(super) async fn not_found(uri: Uri) -> Problem {
    let path = uri.path();
    Problem::new(Kind::NotFound, format!("there is nothing at {path}; /v1/openapi.json lists what there is"))
}

pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let path = uri.path();
    Problem::new(Kind::MethodNotAllowed, format!("{method} is not possible at {path}; see the Allow header"))
}
