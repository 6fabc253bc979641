//! One loaded build of a plugin, and what it can be asked.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;

use super::{
    CallError, Message, Settings,
    bounds::Whole,
    call::Cause,
    instance::{Answer, Instance, Params, Template},
    pool::{Call, Pick, Pool},
    reconcile::Wake,
    stats::Stats,
    trial::Trial,
    types,
};
use crate::{
    table::{ServiceId, hash},
    text::shown,
};

/// What a plugin is, by what it exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Asked which server a client's messages go to.
    Registrar,
    /// Sees requests.
    RequestFilter,
    /// Sees responses.
    ResponseFilter,
    /// Sees events.
    EventFilter,
    /// Keeps the routing table.
    RoutingTable,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registrar => "registrar",
            Self::RequestFilter => "request filter",
            Self::ResponseFilter => "response filter",
            Self::EventFilter => "event filter",
            Self::RoutingTable => "routing table",
        })
    }
}

/// What a message gets when a plugin fails: `on_error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// 503.
    Closed,
    /// Goes on as if the plugin were not there.
    Open,
}

/// An answer in place of a server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// From 200 to 599.
    pub status: StatusCode,
    /// For people.
    pub reason: String,
}

/// A registrar's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A candidate's id, or an absolute URI.
    Server(String),
    /// No opinion.
    Pass,
    /// The client gets this.
    Reject(Rejection),
}

/// A request filter's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it on.
    Forward,
    /// The client gets this.
    Respond(Rejection),
}

/// An event filter's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventVerdict {
    /// Store and deliver it.
    Accept,
    /// Acknowledge it and forget it.
    Drop,
    /// Publish it to this topic instead.
    Redirect(String),
    /// Refuse it, for this reason.
    Reject(String),
}

/// For so long, and by so many crashes, a new build is judged.
const PROBATION: Duration = Duration::from_secs(10);
const CRASHES: u64 = 5;
/// So many missed deadlines in that time, and a build is not called in place any more.
const OVERRUNS: usize = 5;
/// For so many clients: one that sends the same again and again judges nothing.
const CLIENTS: usize = 3;

/// One loaded build of a plugin. Dropped when the last message that began with it has ended.
pub struct Generation {
    pub(super) number: u64,
    pub(super) sha256: Arc<str>,
    pub(super) template: Template,
    pub(super) stats: Stats,
    pub(super) since: Instant,
    /// The build that is tried out beside it.
    pub(super) trial: Option<Trial>,
    pool: Pool,
    /// It crashed so often in its first moments that the build before it should come back.
    unfit: AtomicBool,
    /// It overran its deadline so often that it should give way to others while it runs.
    slow: AtomicBool,
    troubles: Mutex<Troubles>,
}

/// What is said of calls without an answer.
#[derive(Default)]
struct Troubles {
    last: Option<CallError>,
    logged: Option<Instant>,
    unlogged: u64,
    /// For which clients it crashed in its first moments, at most [`CLIENTS`] of them.
    crashed: Vec<u64>,
    /// When it missed its deadline, at most [`OVERRUNS`] of these.
    overruns: Vec<Instant>,
}

/// Between two lines in the log about calls of one build that gave no answer.
const LOG_EVERY: Duration = Duration::from_secs(1);

impl Generation {
    pub(super) fn new(number: u64, sha256: Arc<str>, template: Template, stats: Stats) -> Self {
        let pool = Pool::new(&template);
        Self {
            number,
            sha256,
            template,
            stats,
            since: Instant::now(),
            trial: None,
            pool,
            unfit: AtomicBool::new(false),
            slow: AtomicBool::new(false),
            troubles: Mutex::default(),
        }
    }

    /// The plugin's name: the file's stem.
    pub fn name(&self) -> &str {
        &self.template.plugin.name
    }

    /// Counts up with every build or setting that was published for any plugin.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What it is.
    pub fn kinds(&self) -> &[Kind] {
        &self.template.shape.kinds
    }

    /// Whether it exports this.
    pub fn is(&self, kind: Kind) -> bool {
        self.kinds().contains(&kind)
    }

    /// How it is called: `direct`, `sync`, `async` or `yielding`.
    pub fn lane(&self) -> &'static str {
        self.template.lane()
    }

    /// What a message gets when a call fails.
    pub fn on_error(&self) -> OnError {
        self.settings().on_error.unwrap_or(OnError::Closed)
    }

    /// Whether an answer may take more than the call itself: if not, its functions return at once.
    pub fn may_wait(&self) -> bool {
        self.template.shape.waits || self.settings().durable_state || self.trial.is_some()
    }

    /// Whether `Message::body` should be given to it.
    pub fn reads_body(&self) -> bool {
        self.template.shape.reads_body || self.trial.as_ref().is_some_and(|trial| trial.next.reads_body())
    }

    /// Whether it may read the bodies of responses.
    pub fn reads_responses(&self) -> bool {
        let own = self.template.shape.reads_responses();
        own || self.trial.as_ref().is_some_and(|trial| trial.next.reads_responses())
    }

    /// Whether a message was sent by this plugin itself, or on account of what it sent: shown to it,
    /// it would go in circles.
    pub fn led_to(&self, headers: &HeaderMap) -> bool {
        let trial = self.trial.as_ref();
        self.template.shape.waits && self.template.plugin.mark.is_on(headers)
            || trial.is_some_and(|trial| trial.next.led_to(headers))
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.template.plugin.settings
    }

    /// Asks a registrar.
    pub async fn resolve(&self, message: &mut Message) -> Result<Decision, CallError> {
        match &self.trial {
            None => self.resolve_alone(message).await,
            Some(trial) => Box::pin(trial.resolve(self, message)).await,
        }
    }

    /// Shows a request to a filter.
    pub async fn on_request(&self, message: &mut Message) -> Result<Verdict, CallError> {
        match &self.trial {
            None => self.on_request_alone(message).await,
            Some(trial) => Box::pin(trial.on_request(self, message)).await,
        }
    }

    /// Shows a response to a filter.
    pub async fn on_response(&self, message: &mut Message) -> Result<(), CallError> {
        match &self.trial {
            None => self.on_response_alone(message).await,
            Some(trial) => Box::pin(trial.on_response(self, message)).await,
        }
    }

    /// Shows an event to a filter; a next build that is tried out gets none.
    pub async fn on_event(&self, message: &mut Message) -> Result<EventVerdict, CallError> {
        let (answer,) = self.call(message, "on-event", |functions| functions.on_event.as_ref(), ()).await?;
        let function = "on-event";
        match answer {
            Ok(types::EventVerdict::Accept) => Ok(EventVerdict::Accept),
            Ok(types::EventVerdict::Drop) => Ok(EventVerdict::Drop),
            Ok(types::EventVerdict::Redirect(topic)) => {
                self.whole(function, topic, message).map(EventVerdict::Redirect)
            }
            Ok(types::EventVerdict::Reject(reason)) => Ok(EventVerdict::Reject(reason.0)),
            Ok(types::EventVerdict::Other(other)) => Err(self.unknown(function, &other.0, message)),
            Err(said) => Err(self.said(function, said, message)),
        }
    }

    pub(super) async fn resolve_alone(&self, message: &mut Message) -> Result<Decision, CallError> {
        let (answer,) = self.call(message, "resolve", |functions| functions.resolve.as_ref(), ()).await?;
        match answer {
            Ok(types::Decision::Server(server)) => {
                self.whole("resolve", server, message).map(Decision::Server)
            }
            Ok(types::Decision::Pass) => Ok(Decision::Pass),
            Ok(types::Decision::Reject(rejection)) => Ok(Decision::Reject(lift(rejection))),
            Ok(types::Decision::Other(other)) => Err(self.unknown("resolve", &other.0, message)),
            Err(said) => Err(self.said("resolve", said, message)),
        }
    }

    pub(super) async fn on_request_alone(&self, message: &mut Message) -> Result<Verdict, CallError> {
        let (answer,) =
            self.call(message, "on-request", |functions| functions.on_request.as_ref(), ()).await?;
        match answer {
            Ok(types::Verdict::Forward) => Ok(Verdict::Forward),
            Ok(types::Verdict::Respond(rejection)) => Ok(Verdict::Respond(lift(rejection))),
            Ok(types::Verdict::Other(other)) => Err(self.unknown("on-request", &other.0, message)),
            Err(said) => Err(self.said("on-request", said, message)),
        }
    }

    pub(super) async fn on_response_alone(&self, message: &mut Message) -> Result<(), CallError> {
        let (answer,) =
            self.call(message, "on-response", |functions| functions.on_response.as_ref(), ()).await?;
        answer.map_err(|said| self.said("on-response", said, message))
    }

    /// Makes an instance and throws it away.
    pub(super) async fn new_instance(&self) -> Result<(), CallError> {
        self.template.new_instance().await.map(drop)
    }

    /// How many instances exist, and their linear memory in bytes.
    pub fn instances_and_memory(&self) -> (i64, i64) {
        self.stats.instances_and_memory()
    }

    /// Tries the build out: makes its first instance and runs `lifecycle.start`, if it has one.
    pub(super) async fn canary(&self, first: Option<Instance>) -> Result<(), CallError> {
        let mut instance = match first {
            Some(instance) => instance,
            None => self.template.new_instance().await?,
        };
        instance.store.data_mut().tell_memory();
        let starts = instance.functions.start.is_some();
        self.pool.keep(instance);
        if !starts {
            return Ok(());
        }
        let mut message = Message::default();
        let started = self.call(&mut message, "start", |functions| functions.start.as_ref(), ()).await?;
        started.0.map_err(|said| self.said("start", said, &message))
    }

    /// Calls a function within the plugin's deadline.
    pub(super) async fn call<P, R>(
        &self,
        message: &mut Message,
        name: &'static str,
        pick: Pick<P, R>,
        params: P,
    ) -> Result<R, CallError>
    where
        P: Params,
        R: Answer,
    {
        let deadline = self.template.plugin.deadline;
        self.call_within(message, &Call { name, pick, deadline }, params).await
    }

    /// Calls a function. What it changed in a durable `state` is on disk before this returns.
    pub(super) async fn call_within<P, R>(
        &self,
        message: &mut Message,
        call: &Call<P, R>,
        params: P,
    ) -> Result<R, CallError>
    where
        P: Params,
        R: Answer,
    {
        let began = Instant::now();
        let result = self.pool.call(&self.template, message, call, params, began).await;
        let result = match message.lacks_body() {
            // Whatever it made of that, it is not to blame.
            true => result.map_err(|_| self.template.error(call.name, Cause::Sender)),
            false => result,
        };
        if message.dry {
            return result;
        }
        self.stats.count(began.elapsed(), &result);
        let result = result.inspect_err(|error| self.trouble(error, message));
        if self.settings().durable_state {
            self.wait_durable(call.name).await?;
        }
        result
    }

    async fn wait_durable(&self, function: &'static str) -> Result<(), CallError> {
        let state = &self.template.plugin.capabilities.state;
        let durable = state.wait_durable(state.commit_sequence()).await;
        durable.map_err(|error| self.template.error(function, Cause::Host(error.to_string().into())))
    }

    /// Logs the first of a burst of errors, and then how many there were.
    #[cold]
    fn trouble(&self, error: &CallError, message: &Message) {
        if matches!(error.cause, Cause::Sender) {
            return;
        }
        let mut troubles = self.troubles.lock();
        if error.cause.is_crash() {
            self.judge(&mut troubles, message.client.as_str());
        }
        if matches!(error.cause, Cause::Deadline(..)) && !self.template.shape.waits {
            self.overran(&mut troubles);
        }
        troubles.last = Some(error.clone());
        if troubles.logged.is_some_and(|logged| logged.elapsed() < LOG_EVERY) {
            troubles.unlogged += 1;
            return;
        }
        let not_logged_before = std::mem::take(&mut troubles.unlogged);
        troubles.logged = Some(Instant::now());
        drop(troubles);
        let service = message.service.as_ref().map(ServiceId::as_str);
        let client = message.service.as_ref().map(|_| message.client.as_str());
        let generation = self.number;
        tracing::warn!(plugin = self.name(), service, client, generation, not_logged_before, "{error}");
    }

    /// A decision of it cannot be followed, for this reason; it counts as a call that gave no answer.
    pub fn misled(&self, function: &'static str, why: &str, service: &ServiceId, client: &str) {
        let message = Message { service: Some(service.clone()), client: client.into(), ..Message::default() };
        self.failed(function, Cause::Nonsense(why.into()), &message);
    }

    /// Why the last call that gave no answer did not.
    pub(super) fn last_error(&self) -> Option<String> {
        self.troubles.lock().last.as_ref().map(ToString::to_string)
    }

    fn judge(&self, troubles: &mut Troubles, client: &str) {
        if self.since.elapsed() >= PROBATION {
            return;
        }
        let client = hash::stable(client);
        if troubles.crashed.len() < CLIENTS && !troubles.crashed.contains(&client) {
            troubles.crashed.push(client);
        }
        let (calls, crashes) = self.stats.calls_and_crashes();
        if crashes >= CRASHES && 2 * crashes >= calls && troubles.crashed.len() >= CLIENTS {
            self.note(&self.unfit);
        }
    }

    /// While a build is called in place, nothing else goes on on its thread.
    fn overran(&self, troubles: &mut Troubles) {
        let recent = |at: &Instant| at.elapsed() < PROBATION;
        troubles.overruns.retain(recent);
        troubles.overruns.push(Instant::now());
        if troubles.overruns.len() >= OVERRUNS {
            troubles.overruns.clear();
            self.note(&self.slow);
        }
    }

    /// Something is to be done about this build.
    fn note(&self, what: &AtomicBool) {
        if !what.swap(true, Ordering::Relaxed)
            && let Some(nudge) = &self.template.plugin.nudge
        {
            let _ = nudge.try_send(Wake::Look);
        }
    }

    /// Whether it has served long enough for the build before it to be let go.
    pub(super) fn has_proved_itself(&self) -> bool {
        self.since.elapsed() > PROBATION && !self.is_unfit()
    }

    /// Whether it crashed so often in its first moments, and for so many clients, that it cannot be
    /// meant to.
    pub(super) fn is_unfit(&self) -> bool {
        self.unfit.load(Ordering::Relaxed)
    }

    /// Whether it should be called so that it gives way to others.
    pub(super) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Whether a larger share of its calls crashed than of another build's: what crashes either is a
    /// matter of the messages.
    pub(super) fn is_worse_than(&self, other: &Self) -> bool {
        is_worse(self.stats.calls_and_crashes(), other.stats.calls_and_crashes())
    }

    /// Whether the build before it may come back without an operator's word. A filter that closes its
    /// service when it fails protects it, and an older build of it may be what was attacked.
    pub(super) fn may_roll_back(&self) -> bool {
        let filters = [Kind::RequestFilter, Kind::ResponseFilter, Kind::EventFilter];
        let protects = self.on_error() == OnError::Closed && filters.iter().any(|kind| self.is(*kind));
        self.settings().rollback.unwrap_or(!protects)
    }

    fn said(&self, function: &'static str, said: types::Said, message: &Message) -> CallError {
        let cause = if message.lacks_body() { Cause::Sender } else { Cause::Said(said.0.into()) };
        self.failed(function, cause, message)
    }

    fn unknown(&self, function: &'static str, other: &str, message: &Message) -> CallError {
        let text = format!("it answered `other`, with `{}`, which this host does not know", shown(other));
        self.failed(function, Cause::Nonsense(text.into()), message)
    }

    fn whole<const MOST: usize>(
        &self,
        function: &'static str,
        text: Whole<MOST>,
        message: &Message,
    ) -> Result<String, CallError> {
        text.0.map_err(|too_long| {
            self.failed(function, Cause::Nonsense(format!("it answered with {too_long}").into()), message)
        })
    }

    /// A call that came back, with an answer that is none.
    fn failed(&self, function: &'static str, cause: Cause, message: &Message) -> CallError {
        let error = self.template.error(function, cause);
        if !message.dry {
            self.stats.count_failure(&error.cause);
            self.trouble(&error, message);
        }
        error
    }
}

/// Of how many calls how many crashed: whether that is at least twice the share of the other.
fn is_worse((calls, crashes): (u64, u64), (other_calls, other_crashes): (u64, u64)) -> bool {
    let wide = |one: u64, other: u64| u128::from(one) * u128::from(other);
    wide(crashes, other_calls.max(1)) >= 2 * wide(other_crashes, calls.max(1)).max(1)
}

fn lift(rejection: types::Rejection) -> Rejection {
    let status =
        StatusCode::from_u16(rejection.status).ok().filter(|status| (200..600).contains(&status.as_u16()));
    Rejection { status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), reason: rejection.reason.0 }
}

#[cfg(test)]
mod tests {
    use super::is_worse;

    #[test]
    fn builds_are_compared_by_the_share_of_calls_that_crashed() {
        for (now, before, worse) in [
            ((5, 5), (0, 0), true),
            ((5, 5), (1000, 0), true),
            ((10, 6), (1000, 10), true),
            ((10, 6), (10, 6), false),
            ((10, 6), (1000, 500), false),
            ((10, 10), (10, 4), true),
        ] {
            assert_eq!(is_worse(now, before), worse, "{now:?} after {before:?}");
        }
    }
}
