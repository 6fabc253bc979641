//! What comes in with a request: path segments, queries and JSON bodies, each with its problem.

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, header, request::Parts},
};
use serde::de::DeserializeOwned;

use super::{
    State,
    problem::{Kind, Problem},
};
use crate::table::record::{ServiceId, is_client_id};

/// The parameters of the path, percent-decoded.
pub(super) struct Segments<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(segments)) => Ok(Self(segments)),
            Err(rejection) => Err(Problem::new(Kind::Malformed, rejection.body_text())),
        }
    }
}

/// The parameters of the query.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(Problem::new(Kind::Malformed, rejection.body_text())),
        }
    }
}

/// A JSON body of any shape.
pub(super) struct Json(pub(super) serde_json::Value);

impl FromRequest<State> for Json {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &State) -> Result<Self, Problem> {
        must_be_json(request.headers())?;
        let limit = state.config.borrow().api.limits.body;
        parse(&read(request.into_body(), limit).await?).map(Self)
    }
}

/// Which key counts of two that are equal nobody knows, so such a document is malformed.
fn parse(bytes: &[u8]) -> Result<serde_json::Value, Problem> {
    let value = crate::json::read(bytes);
    value.map_err(|error| {
        Problem::new(Kind::Malformed, format!("the body is not JSON that can be read one way: {error}"))
    })
}

/// A JSON body of any shape, or none: then an empty object.
pub(super) struct JsonOrNothing(pub(super) serde_json::Value);

impl FromRequest<State> for JsonOrNothing {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &State) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let limit = state.config.borrow().api.limits.body;
        let bytes = read(body, limit).await?;
        if bytes.is_empty() {
            return Ok(Self(serde_json::json!({})));
        }
        must_be_json(&parts.headers)?;
        parse(&bytes).map(Self)
    }
}

/// What curl says of itself, or nothing at all, passes for JSON; other types are a mistake. Web
/// pages cannot send these requests: a browser asks first about any PUT, and is told no.
fn must_be_json(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(written) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = written.to_str().unwrap_or("?").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let json = essence.starts_with("application/") && essence.ends_with("+json");
    if json || matches!(essence.as_str(), "application/json" | "application/x-www-form-urlencoded") {
        return Ok(());
    }
    Err(Problem::new(
        Kind::NotJson,
        format!("`{essence}` is not JSON: send `Content-Type: application/json`"),
    ))
}

async fn read(body: Body, limit: usize) -> Result<axum::body::Bytes, Problem> {
    use http_body_util::{BodyExt, LengthLimitError, Limited};
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Problem::new(Kind::TooLarge, format!("the body may have {limit} bytes (`api.limits.body`)")))
        }
        Err(error) => Err(Problem::new(Kind::Malformed, format!("the body broke off: {error}"))),
    }
}

/// A client id as it stands in a path or a query: one that a message could have.
pub(super) fn client_id(text: String) -> Result<String, Problem> {
    if is_client_id(text.as_bytes()) {
        return Ok(text);
    }
    let detail = "a client id is 1 to 256 printable ASCII characters";
    Err(Problem::new(Kind::Malformed, detail))
}

/// A service as it stands in a path.
pub(super) fn service_id(text: &str) -> Result<ServiceId, Problem> {
    text.parse().map_err(|error| Problem::new(Kind::Malformed, format!("{error}")))
}
