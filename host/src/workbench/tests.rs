//! `message-flow plugin test`: a plugin held against scenarios, each with a fresh state.

use std::time::{Duration, Instant};

use http::HeaderMap;
use http_body_util::BodyExt;

use super::{
    WorkbenchError,
    scenario::{Call, Decision, Expect, Scenario, Values, Verdict},
    stage,
};
use crate::plugin::{
    self, CallError, Generation, Message, Rejection, Settings, Solo, body::BodyStream, message::Event,
};

/// What became of one scenario.
#[derive(Debug)]
pub struct Outcome {
    /// The scenario's name.
    pub name: String,
    /// What was not as expected; empty: it passed.
    pub wrong: Vec<String>,
    /// How long the call took.
    pub took: Duration,
}

/// Plays every scenario; each is told to `each` when it is done.
pub async fn run(
    solo: &Solo,
    settings: &Settings,
    scenarios: &[Scenario],
    mut each: impl FnMut(&Outcome),
) -> Result<Vec<Outcome>, WorkbenchError> {
    let mut outcomes = Vec::with_capacity(scenarios.len());
    for scenario in scenarios {
        let outcome = play(solo, settings.clone(), scenario).await?;
        each(&outcome);
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// The settings of a plugin with what a scenario configures.
pub(super) fn configured(mut settings: Settings, scenario: &Scenario) -> Settings {
    settings.config.extend(scenario.config.clone());
    settings
}

async fn play(solo: &Solo, settings: Settings, scenario: &Scenario) -> Result<Outcome, WorkbenchError> {
    let build = solo.load(configured(settings, scenario)).await?;
    let mut played = Outcome { name: scenario.name.clone(), wrong: Vec::new(), took: Duration::ZERO };
    for _ in 0..scenario.before {
        if let Ok(mut message) = stage::message(scenario) {
            let _ = call(&build, scenario.call, &mut message).await;
        }
    }
    match stage::message(scenario) {
        Ok(mut message) => {
            let began = Instant::now();
            let answer = call(&build, scenario.call, &mut message).await;
            played.took = began.elapsed();
            played.wrong = differences(&scenario.expect, answer, message).await;
        }
        Err(reason) => played.wrong.push(reason),
    }
    Ok(played)
}

/// What a plugin answered.
pub(super) enum Answer {
    Decision(plugin::Decision),
    Verdict(plugin::Verdict),
    Event(plugin::EventVerdict),
    Shown,
}

/// Calls the function that a scenario names.
pub(super) async fn call(
    build: &Generation,
    function: Call,
    message: &mut Message,
) -> Result<Answer, CallError> {
    match function {
        Call::Resolve => build.resolve(message).await.map(Answer::Decision),
        Call::OnRequest => build.on_request(message).await.map(Answer::Verdict),
        Call::OnResponse => build.on_response(message).await.map(|()| Answer::Shown),
        Call::OnEvent => build.on_event(message).await.map(Answer::Event),
    }
}

async fn differences(
    expect: &Expect,
    answer: Result<Answer, CallError>,
    mut message: Message,
) -> Vec<String> {
    let answer = match (answer, &expect.error) {
        (Ok(answer), None) => answer,
        (Ok(answer), Some(error)) => {
            return vec![format!("expected an error with `{error}`, got {}", answer.describe())];
        }
        (Err(error), None) => return vec![error.to_string()],
        (Err(error), Some(part)) if error.to_string().contains(part.as_str()) => return Vec::new(),
        (Err(error), Some(part)) => return vec![format!("expected an error with `{part}`, got `{error}`")],
    };
    let mut wrong = Vec::new();
    wrong.extend(wrong_answer(expect, &answer));
    if let Some(path) = expect.path.as_ref().filter(|path| message.target() != path.as_str()) {
        wrong.push(format!("expected the path `{path}`, got `{}`", message.target()));
    }
    let body = message.take_body();
    let Message { headers, response, event, .. } = message;
    let after = response.as_ref().map_or(&headers, |head| &head.headers);
    wrong.extend(wrong_headers(expect, after));
    if let (Some(status), Some(head)) = (expect.status, &response)
        && head.status != status
    {
        wrong.push(format!("expected the status {status}, got {}", head.status.as_u16()));
    }
    wrong.extend(event.iter().flat_map(|event| wrong_event(expect, event)));
    if let Some(text) = &expect.body {
        wrong.extend(wrong_body(text, body).await);
    }
    wrong
}

fn wrong_answer(expect: &Expect, answer: &Answer) -> Option<String> {
    let as_expected = match answer {
        Answer::Decision(decision) => is_decision(expect, decision),
        Answer::Verdict(verdict) => match (expect.verdict, verdict) {
            (None, _) | (Some(Verdict::Forward), plugin::Verdict::Forward) => true,
            (Some(Verdict::Respond), plugin::Verdict::Respond(rejection)) => is_rejection(expect, rejection),
            _ => false,
        },
        Answer::Event(verdict) => is_event_verdict(expect, verdict),
        Answer::Shown => true,
    };
    (!as_expected).then(|| format!("expected {}, got {}", described(expect), answer.describe()))
}

fn is_decision(expect: &Expect, decision: &plugin::Decision) -> bool {
    match (expect.decision, decision) {
        (Some(Decision::Server), plugin::Decision::Server(server)) => {
            expect.server.as_ref().is_none_or(|expected| expected == server)
        }
        (Some(Decision::Pass), plugin::Decision::Pass) => true,
        (Some(Decision::Reject), plugin::Decision::Reject(rejection)) => is_rejection(expect, rejection),
        _ => false,
    }
}

fn is_event_verdict(expect: &Expect, verdict: &plugin::EventVerdict) -> bool {
    let is = |expected: &Option<String>, found: &String| expected.as_ref().is_none_or(|text| text == found);
    match (expect.verdict, verdict) {
        (None, _)
        | (Some(Verdict::Accept), plugin::EventVerdict::Accept)
        | (Some(Verdict::Drop), plugin::EventVerdict::Drop) => true,
        (Some(Verdict::Redirect), plugin::EventVerdict::Redirect(topic)) => is(&expect.topic, topic),
        (Some(Verdict::Reject), plugin::EventVerdict::Reject(reason)) => is(&expect.reason, reason),
        _ => false,
    }
}

fn is_rejection(expect: &Expect, rejection: &Rejection) -> bool {
    expect.status.is_none_or(|status| rejection.status == status)
        && expect.reason.as_ref().is_none_or(|reason| *reason == rejection.reason)
}

fn described(expect: &Expect) -> String {
    let rejection = |word: &str| {
        let status = expect.status.map(|status| format!(" {status}")).unwrap_or_default();
        let reason = expect.reason.as_ref().map(|reason| format!(" {reason:?}")).unwrap_or_default();
        format!("{word}{status}{reason}")
    };
    match (expect.decision, expect.verdict) {
        (Some(Decision::Server), _) => match &expect.server {
            Some(server) => format!("server {server:?}"),
            None => "a server".to_owned(),
        },
        (Some(Decision::Pass), _) => "pass".to_owned(),
        (Some(Decision::Reject), _) => rejection("reject"),
        (None, Some(Verdict::Respond)) => rejection("respond"),
        (None, Some(Verdict::Reject)) => rejection("reject"),
        (None, Some(Verdict::Accept)) => "accept".to_owned(),
        (None, Some(Verdict::Drop)) => "drop".to_owned(),
        (None, Some(Verdict::Redirect)) => match &expect.topic {
            Some(topic) => format!("redirect {topic:?}"),
            None => "redirect".to_owned(),
        },
        (None, Some(Verdict::Forward) | None) => "forward".to_owned(),
    }
}

impl Answer {
    fn describe(&self) -> String {
        let rejection =
            |rejection: &Rejection| format!("{} {:?}", rejection.status.as_u16(), rejection.reason);
        match self {
            Self::Decision(plugin::Decision::Server(server)) => format!("server {server:?}"),
            Self::Decision(plugin::Decision::Pass) => "pass".to_owned(),
            Self::Decision(plugin::Decision::Reject(answer)) => format!("reject {}", rejection(answer)),
            Self::Verdict(plugin::Verdict::Respond(answer)) => format!("respond {}", rejection(answer)),
            Self::Verdict(plugin::Verdict::Forward) | Self::Shown => "forward".to_owned(),
            Self::Event(plugin::EventVerdict::Accept) => "accept".to_owned(),
            Self::Event(plugin::EventVerdict::Drop) => "drop".to_owned(),
            Self::Event(plugin::EventVerdict::Redirect(topic)) => format!("redirect {topic:?}"),
            Self::Event(plugin::EventVerdict::Reject(reason)) => format!("reject {reason:?}"),
        }
    }
}

fn wrong_headers(expect: &Expect, after: &HeaderMap) -> Vec<String> {
    let values = |name: &str| -> Vec<String> {
        let values = after.get_all(name).iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    };
    let missing = |(name, expected): (&String, &Values)| {
        let found = values(name);
        (found != expected.all())
            .then(|| format!("expected the header {name}: {:?}, got {found:?}", expected.all()))
    };
    let left = |name: &&String| after.contains_key(name.as_str());
    let left = expect.removed.iter().filter(left);
    let left = left.map(|name| format!("expected no header {name}, got {:?}", values(name)));
    expect.set.iter().filter_map(missing).chain(left).collect()
}

fn wrong_event(expect: &Expect, after: &Event) -> Vec<String> {
    let payload = String::from_utf8_lossy(&after.payload);
    let other = expect.payload.as_ref().filter(|expected| **expected != payload);
    let other = other.map(|expected| format!("expected the payload {expected:?}, got {payload:?}"));
    let attribute = |(name, expected): (&String, &String)| {
        let found = after.attributes.get(name);
        (found != Some(expected))
            .then(|| format!("expected the attribute {name}: {expected:?}, got {found:?}"))
    };
    other.into_iter().chain(expect.attributes.iter().filter_map(attribute)).collect()
}

async fn wrong_body(expected: &str, body: Option<BodyStream>) -> Option<String> {
    let bytes = match body {
        Some(body) => body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default(),
        None => bytes::Bytes::new(),
    };
    (bytes != expected.as_bytes())
        .then(|| format!("expected the body {expected:?}, got {:?}", String::from_utf8_lossy(&bytes)))
}
