//! What the next build would have done, compared with what was done.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;

use super::Counts;
use crate::{
    plugin::{CallError, Decision, Generation, Message, Verdict, bounds::REASON},
    text::cut,
};

/// A message to show to the next build, and what became of it.
pub(super) struct Job {
    pub(super) function: Function,
    pub(super) message: Message,
    pub(super) expected: Outcome,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Function {
    Resolve,
    OnRequest,
    OnResponse,
}

/// What a call did.
pub(super) enum Outcome {
    Decision(Decision),
    Verdict(Verdict, Box<Changed>),
    Response(Box<Changed>),
    Failed(String),
}

/// A message after a call.
pub(super) struct Changed {
    target: String,
    status: Option<StatusCode>,
    headers: HeaderMap,
}

/// What was last said of differences.
#[derive(Default)]
pub(in crate::plugin) struct Differences {
    last: Mutex<Option<String>>,
}

impl Differences {
    /// The latest.
    pub(in crate::plugin) fn last(&self) -> Option<String> {
        self.last.lock().clone()
    }
}

impl Outcome {
    pub(super) fn of_decision(answer: &Result<Decision, CallError>) -> Self {
        answer.as_ref().map_or_else(Self::failed, |decision| Self::Decision(decision.clone()))
    }

    pub(super) fn of_verdict(answer: &Result<Verdict, CallError>, after: &Message) -> Self {
        let changed = |verdict: &Verdict| Self::Verdict(verdict.clone(), Box::new(Changed::of(after)));
        answer.as_ref().map_or_else(Self::failed, changed)
    }

    pub(super) fn of_response(answer: &Result<(), CallError>, after: &Message) -> Self {
        answer.as_ref().map_or_else(Self::failed, |()| Self::Response(Box::new(Changed::of(after))))
    }

    fn failed(error: &CallError) -> Self {
        Self::Failed(error.cause.to_string())
    }

    /// How another outcome differs, without the values of headers, which may be secret.
    fn difference(&self, next: &Self) -> Option<String> {
        match (self, next) {
            (Self::Decision(one), Self::Decision(other)) if one == other => None,
            (Self::Decision(one), Self::Decision(other)) => Some(format!("{one:?}, and next {other:?}")),
            (Self::Verdict(one, _), Self::Verdict(other, _)) if one != other => {
                Some(format!("{one:?}, and next {other:?}"))
            }
            (Self::Verdict(_, one), Self::Verdict(_, other)) => one.difference(other),
            (Self::Response(one), Self::Response(other)) => one.difference(other),
            (Self::Failed(one), Self::Failed(other)) if one == other => None,
            (Self::Failed(_), Self::Failed(other)) => Some(format!("both failed, next with: {other}")),
            (_, Self::Failed(error)) => Some(format!("next failed: {error}")),
            (Self::Failed(error), _) => Some(format!("next did not fail, where it failed: {error}")),
            _ => Some("next answered to something else".to_owned()),
        }
    }
}

impl Changed {
    fn of(message: &Message) -> Self {
        let response = message.response.as_ref();
        Self {
            target: message.target().to_owned(),
            status: response.map(|head| head.status),
            headers: response.map_or(&message.headers, |head| &head.headers).clone(),
        }
    }

    fn difference(&self, next: &Self) -> Option<String> {
        let mut parts = Vec::new();
        if self.target != next.target {
            parts.push("the path".to_owned());
        }
        if self.status != next.status {
            parts.push("the status".to_owned());
        }
        let mut names: Vec<_> = self.headers.keys().chain(next.headers.keys()).collect();
        names.sort_by_key(|name| name.as_str());
        names.dedup();
        let values = |headers: &HeaderMap, name| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
        names.retain(|name| values(&self.headers, *name) != values(&next.headers, *name));
        parts.extend(names.iter().map(|name| format!("the header {name}")));
        (!parts.is_empty()).then(|| format!("next changed otherwise: {}", parts.join(", ")))
    }
}

/// The thread of a trial.
pub(super) struct Mirror {
    pub(super) plugin: Arc<str>,
    pub(super) next: Arc<Generation>,
    pub(super) counts: Counts,
    pub(super) differences: Arc<Differences>,
}

/// Between two lines in the log about differences of one build.
const LOG_EVERY: Duration = Duration::from_secs(1);

impl Mirror {
    /// Until the trial ends.
    pub(super) fn run(self, jobs: &mpsc::Receiver<Box<Job>>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime.inspect_err(|error| tracing::error!(%error, "no shadow without a runtime"))
        else {
            return;
        };
        let mut logged = None;
        while let Ok(job) = jobs.recv() {
            runtime.block_on(self.play(*job, &mut logged));
        }
    }

    async fn play(&self, job: Job, logged: &mut Option<Instant>) {
        let Job { function, mut message, expected } = job;
        let (next, message) = (&self.next, &mut message);
        let outcome = match function {
            Function::Resolve => Outcome::of_decision(&next.resolve_alone(message).await),
            Function::OnRequest => {
                let answer = next.on_request_alone(message).await;
                Outcome::of_verdict(&answer, message)
            }
            Function::OnResponse => {
                let answer = next.on_response_alone(message).await;
                Outcome::of_response(&answer, message)
            }
        };
        let Some(difference) = expected.difference(&outcome) else { return self.counts.same.inc() };
        let difference = cut(&difference, REASON).to_owned();
        self.counts.different.inc();
        if logged.is_none_or(|logged: Instant| logged.elapsed() > LOG_EVERY) {
            *logged = Some(Instant::now());
            let (client, service) =
                (message.client.as_str(), message.service.as_ref().map(ToString::to_string));
            let different = self.counts.different.get();
            tracing::warn!(
                plugin = &*self.plugin,
                client,
                service,
                ?function,
                different,
                "the shadow differs: {difference}"
            );
        }
        *self.differences.last.lock() = Some(difference);
    }
}
