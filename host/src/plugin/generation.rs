//! One loaded build of a plugin, and what it can be asked.

mod account;
mod calling;
mod care;
mod first_moments;
mod troubles;

use std::{
    fmt,
    sync::{Arc, OnceLock, Weak, atomic::AtomicBool},
    time::Instant,
};

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;

use super::{
    CallError, Message, Settings,
    aside::{Aside, Ward},
    bounds::Whole,
    call::Cause,
    conduct::Standing,
    instance::{Instance, Template},
    pool::Pool,
    stats::Stats,
    trial::Trial,
    types,
};
use crate::{table::ServiceId, text::shown};
use account::Account;
use care::Care;
use troubles::Troubles;

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

/// One loaded build of a plugin. Dropped when the last message that began with it has ended.
pub struct Generation {
    pub(super) number: u64,
    pub(super) sha256: Arc<str>,
    pub(super) template: Arc<Template>,
    pub(super) stats: Stats,
    pub(super) since: Instant,
    /// The build that is tried out beside it.
    pub(super) trial: Option<Trial>,
    pool: Arc<Pool>,
    care: Care,
    /// What its calls take of the workers' time.
    account: Mutex<Account>,
    ward: Ward,
    /// The build that stands in for it where it crashes.
    earlier: OnceLock<Weak<Self>>,
    /// It crashed so often in its first moments that the build before it should come back.
    unfit: AtomicBool,
    /// It missed its deadline so often that it should not be tried out any longer.
    slow: AtomicBool,
    troubles: Mutex<Troubles>,
}

impl Generation {
    pub(super) fn new(
        number: u64,
        sha256: Arc<str>,
        template: Template,
        stats: Stats,
        aside: Arc<Aside>,
    ) -> Self {
        let pool = Arc::new(Pool::new(&template));
        let ward = Ward::new(aside, template.plugin.settings.instances.max(1) as usize);
        Self {
            number,
            sha256,
            template: Arc::new(template),
            stats,
            since: Instant::now(),
            trial: None,
            pool,
            care: Care::default(),
            account: Mutex::default(),
            ward,
            earlier: OnceLock::new(),
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
        let confined = self.care.standing() == Standing::Confined;
        self.template.shape.waits || self.settings().durable_state || self.trial.is_some() || confined
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
        let (answer,) = self.call(message, "on-event", |functions| functions.on_event.as_ref()).await?;
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
        let (answer,) = self.call(message, "resolve", |functions| functions.resolve.as_ref()).await?;
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
        let (answer,) = self.call(message, "on-request", |functions| functions.on_request.as_ref()).await?;
        match answer {
            Ok(types::Verdict::Forward) => Ok(Verdict::Forward),
            Ok(types::Verdict::Respond(rejection)) => Ok(Verdict::Respond(lift(rejection))),
            Ok(types::Verdict::Other(other)) => Err(self.unknown("on-request", &other.0, message)),
            Err(said) => Err(self.said("on-request", said, message)),
        }
    }

    pub(super) async fn on_response_alone(&self, message: &mut Message) -> Result<(), CallError> {
        let (answer,) = self.call(message, "on-response", |functions| functions.on_response.as_ref()).await?;
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
        let started = self.call(&mut message, "start", |functions| functions.start.as_ref()).await?;
        started.0.map_err(|said| self.said("start", said, &message))
    }

    /// A decision of it cannot be followed, for this reason; it counts as a call that gave no answer.
    pub fn misled(&self, function: &'static str, why: &str, service: &ServiceId, client: &str) {
        let message = Message { service: Some(service.clone()), client: client.into(), ..Message::default() };
        self.failed(function, Cause::Nonsense(why.into()), &message);
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

fn lift(rejection: types::Rejection) -> Rejection {
    let status =
        StatusCode::from_u16(rejection.status).ok().filter(|status| (200..600).contains(&status.as_u16()));
    Rejection { status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), reason: rejection.reason.0 }
}
