//! `/v1/explain`: which server a message would go to, and why.

use axum::{
    Json,
    extract::State as Shared,
    http::{HeaderMap, HeaderName, HeaderValue},
};
use serde::Serialize;

use super::{
    State,
    guard::Caller,
    input::{Asked, service_id},
    problem::{Kind, Problem},
    shown::no_service,
};
use crate::{
    auth::Action,
    resolve::{Step, TraceLine},
    table::record::ServiceId,
};

/// A message that is not sent.
#[derive(Clone, Debug)]
pub struct Question {
    /// Where to; without a version, the release decides.
    pub service: ServiceId,
    /// The client id.
    pub client: String,
    /// What a registrar would see.
    pub headers: HeaderMap,
}

/// Where a message would go, and why.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Explanation {
    /// With the version that was chosen.
    #[schema(value_type = String)]
    pub service: ServiceId,
    /// The client id.
    pub client: String,
    /// The URI; null if it would go nowhere.
    pub server: Option<String>,
    /// The server's id, if it is in the server list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_id: Option<String>,
    /// The step that decided.
    pub step: Option<Step>,
    /// The status that the client would get instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why the client would get that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Every step that was taken, and what came of it.
    pub trace: Vec<TraceLine>,
}

/// Says where a message would go, and why, by the code that routes; sends and changes nothing.
#[utoipa::path(
    get, path = "/v1/explain", tag = "explain",
    params(
        ("service" = String, Query, description = "`chat` or `chat@2`"),
        ("client" = String, Query, description = "The client id"),
        ("header" = Option<Vec<String>>, Query, description = "`NAME:VALUE`, for the registrar to see; may be repeated"),
    ),
    responses((status = 200, body = Explanation), (status = 404, body = Problem)),
)]
pub(super) async fn explain(
    Shared(state): Shared<State>,
    caller: Caller,
    Asked(query): Asked<Vec<(String, String)>>,
) -> Result<Json<Explanation>, Problem> {
    let question = question(query)?;
    let id = question.service.clone();
    caller.must(Action::Read, Some(id.as_str()))?;
    let explanation = state.routing.explain(question).await;
    explanation.map(Json).ok_or_else(|| no_service(&state.table.view(), &id))
}

fn question(query: Vec<(String, String)>) -> Result<Question, Problem> {
    let (mut service, mut client) = (None, None);
    let mut headers = HeaderMap::new();
    for (key, value) in query {
        match key.as_str() {
            "service" => service = Some(service_id(&value)?),
            "client" => client = Some(value),
            "header" => {
                let (name, value) = header(&value)?;
                headers.append(name, value);
            }
            _ => {
                return Err(malformed(&key, "nothing: known here are service, client and header"));
            }
        }
    }
    let service =
        service.ok_or_else(|| malformed("service", "the service, as in ?service=chat&client=ann"))?;
    let client =
        client.ok_or_else(|| malformed("client", "the client id, as in ?service=chat&client=ann"))?;
    Ok(Question { service, client, headers })
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), Problem> {
    let parsed = text.split_once(':').and_then(|(name, value)| {
        Some((name.trim().parse().ok()?, HeaderValue::from_str(value.trim()).ok()?))
    });
    parsed.ok_or_else(|| malformed("header", "NAME:VALUE"))
}

fn malformed(parameter: &str, expected: &str) -> Problem {
    Problem::new(Kind::Malformed, format!("query parameter `{parameter}`: write {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(query: &[(&str, &str)]) -> Result<Question, Problem> {
        question(query.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_question_needs_a_service_and_a_client() {
        let asked = ask(&[("service", "chat@2"), ("client", "a"), ("header", "x-y: z")]).unwrap();
        assert_eq!((asked.service.as_str(), asked.client.as_str()), ("chat@2", "a"));
        assert_eq!(asked.headers["x-y"], "z");
        for query in [
            &[("service", "chat")][..],
            &[("client", "a")],
            &[("service", "a b"), ("client", "a")],
            &[("service", "a"), ("client", "a"), ("header", "x")],
            &[("service", "a"), ("client", "a"), ("clint", "a")],
        ] {
            assert!(ask(query).is_err(), "{query:?}");
        }
    }
}
