//! One loaded build of a plugin, and what it can be asked.

use std::{
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
    call::Cause,
    instance::{Answer, Instance, Params, Template},
    pool::{Call, Pick, Pool},
    stats::Stats,
    trial::Trial,
    types,
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
    troubles: Mutex<Troubles>,
}

/// What is said of calls without an answer.
#[derive(Default)]
struct Troubles {
    last: Option<CallError>,
    logged: Option<Instant>,
    unlogged: u64,
}

/// Between two lines in the log about calls of one build that gave no answer.
const LOG_EVERY: Duration = Duration::from_secs(1);

impl Generation {
    pub(super) fn new(number: u64, sha256: Arc<str>, template: Template, stats: Stats) -> Self {
        let pool = Pool::new(&template);
        let unfit = AtomicBool::new(false);
        Self {
            number,
            sha256,
            template,
            stats,
            since: Instant::now(),
            trial: None,
            pool,
            unfit,
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

    /// How it is called: `direct`, `sync` or `async`.
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
        match answer {
            Ok(types::EventVerdict::Accept) => Ok(EventVerdict::Accept),
            Ok(types::EventVerdict::Drop) => Ok(EventVerdict::Drop),
            Ok(types::EventVerdict::Redirect(topic)) => Ok(EventVerdict::Redirect(topic)),
            Ok(types::EventVerdict::Reject(reason)) => Ok(EventVerdict::Reject(reason)),
            Ok(types::EventVerdict::Other(other)) => Err(self.unknown("on-event", &other)),
            Err(text) => Err(self.said("on-event", text)),
        }
    }

    pub(super) async fn resolve_alone(&self, message: &mut Message) -> Result<Decision, CallError> {
        let (answer,) = self.call(message, "resolve", |functions| functions.resolve.as_ref(), ()).await?;
        match answer {
            Ok(types::Decision::Server(server)) => Ok(Decision::Server(server)),
            Ok(types::Decision::Pass) => Ok(Decision::Pass),
            Ok(types::Decision::Reject(rejection)) => Ok(Decision::Reject(lift(rejection))),
            Ok(types::Decision::Other(other)) => Err(self.unknown("resolve", &other)),
            Err(text) => Err(self.said("resolve", text)),
        }
    }

    pub(super) async fn on_request_alone(&self, message: &mut Message) -> Result<Verdict, CallError> {
        let (answer,) =
            self.call(message, "on-request", |functions| functions.on_request.as_ref(), ()).await?;
        match answer {
            Ok(types::Verdict::Forward) => Ok(Verdict::Forward),
            Ok(types::Verdict::Respond(rejection)) => Ok(Verdict::Respond(lift(rejection))),
            Ok(types::Verdict::Other(other)) => Err(self.unknown("on-request", &other)),
            Err(text) => Err(self.said("on-request", text)),
        }
    }

    pub(super) async fn on_response_alone(&self, message: &mut Message) -> Result<(), CallError> {
        let (answer,) =
            self.call(message, "on-response", |functions| functions.on_response.as_ref(), ()).await?;
        answer.map_err(|text| self.said("on-response", text))
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
        started.0.map_err(|text| self.said("start", text))
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
        self.stats.count(began.elapsed(), &result);
        let result = result.inspect_err(|error| self.trouble(error));
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
    fn trouble(&self, error: &CallError) {
        self.judge();
        let mut troubles = self.troubles.lock();
        troubles.last = Some(error.clone());
        if troubles.logged.is_some_and(|logged| logged.elapsed() < LOG_EVERY) {
            troubles.unlogged += 1;
            return;
        }
        let not_logged_before = std::mem::take(&mut troubles.unlogged);
        troubles.logged = Some(Instant::now());
        drop(troubles);
        tracing::warn!(generation = self.number, not_logged_before, "{error}");
    }

    /// Why the last call that gave no answer did not.
    pub(super) fn last_error(&self) -> Option<String> {
        self.troubles.lock().last.as_ref().map(ToString::to_string)
    }

    fn judge(&self) {
        let (calls, crashes) = self.stats.calls_and_crashes();
        if crashes >= CRASHES && 2 * crashes >= calls && self.since.elapsed() < PROBATION {
            self.unfit.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it has served long enough for the build before it to be let go.
    pub(super) fn has_proved_itself(&self) -> bool {
        self.since.elapsed() > PROBATION && !self.is_unfit()
    }

    /// Whether the build before it should come back.
    pub(super) fn is_unfit(&self) -> bool {
        self.unfit.load(Ordering::Relaxed)
    }

    fn said(&self, function: &'static str, text: String) -> CallError {
        let error = self.template.error(function, Cause::Said(text.into()));
        self.stats.count_failure(&error.cause);
        self.trouble(&error);
        error
    }

    fn unknown(&self, function: &'static str, other: &str) -> CallError {
        let text =
            format!("it answered `other`, with `{}`, which this host does not know", other.escape_debug());
        let error = self.template.error(function, Cause::Nonsense(text.into()));
        self.stats.count_failure(&error.cause);
        self.trouble(&error);
        error
    }
}

fn lift(rejection: types::Rejection) -> Rejection {
    let status =
        StatusCode::from_u16(rejection.status).ok().filter(|status| (200..600).contains(&status.as_u16()));
    Rejection { status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), reason: rejection.reason }
}
