//! `/v1/explain`: which server a message would go to, and why.

use std::collections::HashSet;

use axum::{
    Json,
    extract::State as Shared,
    http::{HeaderName, HeaderValue, Method, uri::PathAndQuery},
};

use super::{
    State,
    guard::Caller,
    input::{Asked, client_id, service_id},
    problem::{Kind, Problem},
    shown::no_service,
};
use crate::{
    auth::Action,
    path,
    resolve::{Explanation, Question},
};

/// Says where a message would go, and why, by the code that routes; sends and changes nothing.
#[utoipa::path(
    get, path = "/v1/explain", tag = "explain", operation_id = "explain",
    params(
        ("service" = String, Query, description = "`chat` or `chat@2`"),
        ("client" = String, Query, description = "The client id"),
        ("method" = Option<String>, Query, description = "As the registrar sees it; `GET` if it is not given"),
        ("path" = Option<String>, Query, description = "As the server would get it; `/` if it is not given"),
        ("header" = Option<Vec<String>>, Query, description = "`NAME:VALUE`, for the registrar to see; may be repeated"),
    ),
    responses(
        (status = 200, description = "Where it would go, and why", body = Explanation),
        (status = 404, description = "There is no such service", body = Problem),
    ),
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
    let (mut method, mut path, mut headers) = (None, None, Vec::new());
    let mut given = HashSet::new();
    for (key, value) in query {
        if key != "header" && !given.insert(key.clone()) {
            return Err(malformed(&key, "it once: which of several counts nobody knows"));
        }
        match key.as_str() {
            "service" => service = Some(service_id(&value)?),
            "client" => client = Some(client_id(value)?),
            "method" => method = Some(parsed::<Method>(&key, &value, "a method, such as POST")?),
            "path" => path = Some(target(&value)?),
            "header" => headers.push(header(&value)?),
            _ => {
                let known = "nothing: known here are service, client, method, path and header";
                return Err(malformed(&key, known));
            }
        }
    }
    let service =
        service.ok_or_else(|| malformed("service", "the service, as in ?service=chat&client=ann"))?;
    let client =
        client.ok_or_else(|| malformed("client", "the client id, as in ?service=chat&client=ann"))?;
    let mut question = Question::new(service, client);
    question.method = method.unwrap_or(question.method);
    question.path = path.unwrap_or(question.path);
    question.headers.extend(headers);
    Ok(question)
}

fn parsed<T: std::str::FromStr>(key: &str, value: &str, expected: &str) -> Result<T, Problem> {
    value.parse().map_err(|_| malformed(key, expected))
}

/// Read as that of a message.
fn target(text: &str) -> Result<PathAndQuery, Problem> {
    let expected = "a path, such as /rooms?kind=open";
    let normal = path::normal(text).map_err(|error| malformed("path", &format!("{expected}: {error}")))?;
    if text.starts_with('/') {
        parsed("path", &normal.target, expected)
    } else {
        Err(malformed("path", expected))
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), Problem> {
    let parsed = text.split_once(':').and_then(|(name, value)| {
        Some((name.trim().parse().ok()?, HeaderValue::from_str(value.trim()).ok()?))
    });
    parsed.ok_or_else(|| malformed("header", "NAME:VALUE"))
}

fn malformed(parameter: &str, expected: &str) -> Problem {
    let parameter: String = parameter.chars().take(64).collect();
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
        assert_eq!((asked.method, asked.path.as_str()), (Method::GET, "/"));
        let asked =
            ask(&[("service", "a"), ("client", "a"), ("method", "POST"), ("path", "/x/..//%62?c")]).unwrap();
        assert_eq!((asked.method, asked.path.as_str()), (Method::POST, "/b?c"));
        for query in [
            &[("service", "chat")][..],
            &[("client", "a")],
            &[("service", "a b"), ("client", "a")],
            &[("service", "a"), ("client", "a"), ("header", "x")],
            &[("service", "a"), ("client", "a"), ("method", "G T")],
            &[("service", "a"), ("client", "a"), ("path", "b")],
            &[("service", "a"), ("client", "a"), ("path", "/../b")],
            &[("service", "a"), ("client", "a"), ("clint", "a")],
            &[("service", "a"), ("client", "a"), ("service", "a")],
            &[("service", "a"), ("client", "")],
            &[("service", "a"), ("client", "a\n")],
        ] {
            assert!(ask(query).is_err(), "{query:?}");
        }
    }
}
