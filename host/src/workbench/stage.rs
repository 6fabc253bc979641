//! A scenario as the message that the proxy would hand to a plugin.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt, Full};

use super::scenario::{Call, Scenario, Values};
use crate::plugin::{
    Body, Message,
    candidates::{Candidate, Listed},
    message::{BodyStream, Event, ResponseHead},
};

/// The message of a scenario, or what in it cannot be part of one.
pub(super) fn message(scenario: &Scenario) -> Result<Message, String> {
    let request = &scenario.request;
    let invalid = |what: &str, value: &str| format!("`{value}` is not a {what}");
    let response = match scenario.call {
        Call::OnResponse => Some(Box::new(ResponseHead {
            status: StatusCode::from_u16(scenario.response.status)
                .map_err(|_| invalid("status", &scenario.response.status.to_string()))?,
            headers: headers(&scenario.response.headers)?,
        })),
        Call::Resolve | Call::OnRequest | Call::OnEvent => None,
    };
    let body = match scenario.call {
        Call::OnResponse => &scenario.response.body,
        Call::Resolve | Call::OnRequest => &request.body,
        Call::OnEvent => &None,
    };
    let event = (scenario.call == Call::OnEvent).then(|| {
        Box::new(Event {
            topic: scenario.event.topic.as_str().into(),
            payload: scenario.event.payload.clone().into(),
            attributes: scenario.event.attributes.clone(),
        })
    });
    let headers = headers(&request.headers)?;
    let body = body.as_ref().map(|text| match &response {
        Some(head) => Body::of_response(whole(text), head),
        None => Body::of_request(whole(text), &headers),
    });
    Ok(Message {
        method: request.method.parse().map_err(|_| invalid("method", &request.method))?,
        uri: request.path.parse().map_err(|_| invalid("path", &request.path))?,
        cut: 0,
        authority: Some(request.host.as_str()).filter(|host| !host.is_empty()).map(Arc::from),
        headers,
        client: request.client.as_str().into(),
        peer: Some(request.peer),
        service: Some(request.service.clone()),
        server: request.server.as_deref().map(Arc::from),
        candidates: Some(Arc::new(Listed(scenario.candidates.iter().map(candidate).collect()))),
        response,
        event,
        body,
        ..Message::default()
    })
}

fn whole(text: &str) -> BodyStream {
    let bytes = Full::from(text.to_owned()).map_err(|never| match never {});
    bytes.boxed_unsync()
}

fn headers(given: &BTreeMap<String, Values>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, values) in given {
        let parsed: HeaderName = name.parse().map_err(|_| format!("`{name}` is not a header name"))?;
        for value in values.all() {
            let value = HeaderValue::from_str(value).map_err(|_| {
                format!("header `{name}`: `{value}` has a character that HTTP does not allow")
            })?;
            headers.append(&parsed, value);
        }
    }
    Ok(headers)
}

fn candidate(given: &super::scenario::Candidate) -> Candidate {
    Candidate {
        id: given.id.as_str().into(),
        uri: given.uri.clone(),
        weight: given.weight,
        healthy: given.healthy,
        in_flight: given.in_flight,
        metadata: given.metadata.clone().into_iter().collect(),
    }
}
