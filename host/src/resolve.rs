//! The routing rule: which server a client's message to a service goes to.
//!
//! 1. The service has a `server`: that one.
//! 2. The client has an assignment whose server is there and well: that one.
//! 3. The service has a registrar: what it says.
//! 4. The server list: uniformly at random by a hash of the client, biased by the weights. Routers that
//!    cannot ask each other agree by it. A service that remembers nobody draws for each message.
//! 5. Nothing.
//!
//! Which version a name without one means is decided before, by [`version()`].
//!
//! What 3 and 4 decide becomes the assignment by create-if-absent, so that routers that decide at
//! once agree. What was decided while the table could not be asked is held: the client keeps it
//! meanwhile, and it is what is proposed to the table once that answers. While the server of an assignment is there and not well, 3 and 4 decide on a detour:
//! the assignment stays, and the client returns to it. Only a server that is gone or has left voids
//! an assignment, and not even that a pinned one. A detour is the same for the same client while the
//! same servers are well, and costs no write.
//!
//! [`resolve`] is the only place that says this; the proxy and `GET /v1/explain` both
//! call it, with different [`Sources`]. It knows only the types of `table`: no socket, no plugin,
//! no clock.

mod explanation;
mod pick;
mod standing;
#[cfg(test)]
mod tests;
mod trace;
mod version;

use std::{future::Future, sync::Arc};

use http::StatusCode;

use crate::{
    table::{
        TableError,
        adapter::{Assignment, Condition},
        record::{ServerUri, Sticky},
        view::{Server, Service},
    },
    text::shown,
};

pub use explanation::{Explanation, Question};
pub use pick::Unavailable;
use standing::Standing;
pub use trace::{Step, Trace, TraceLine, Untraced};
pub use version::{VersionQuery, VersionSources, version};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The service, of whatever view the caller works with.
    pub service: &'a Service,
    /// The client id.
    pub client: &'a str,
    /// In the table's own time.
    pub now: u64,
    /// Numbers of the servers that this message was already sent to in vain. They are not chosen
    /// again; an assignment to one of them stays, the message goes elsewhere without it.
    pub avoid: &'a [u32],
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The `server` of the service.
    Fixed,
    /// This place in the `servers` of the service.
    Listed(usize),
    /// A URI that the registrar gave and that is not in the server list.
    Elsewhere(ServerUri),
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Send it there.
    To(Target, Step),
    /// The registrar wants the client to get this.
    Rejected(Rejection),
    /// The registrar failed, and `on_error` is `closed`: a text that names it and the cause.
    RegistrarFailed(Arc<str>),
    /// No step had an answer.
    Nowhere(Nowhere),
}

/// An answer in place of a server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// From 200 to 599.
    pub status: StatusCode,
    /// For people.
    pub reason: String,
}

/// Why there is nowhere to send a message, step by step.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "service {service} has no server for this message: no `server` is set; assignment: {assignment}; registrar: {registrar}; server list: {list}"
)]
pub struct Nowhere {
    /// Of which service.
    pub service: String,
    /// What step 2 had.
    pub assignment: String,
    /// What step 3 had.
    pub registrar: String,
    /// What step 4 had.
    pub list: Unavailable,
}

/// How a server is, as far as this router can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Chosen freely.
    Healthy,
    /// Keeps its clients and gets new ones only while no other server is healthy.
    Suspect,
    /// Keeps its clients and gets no new ones.
    Draining,
    /// Messages to it failed in a row: it gets nothing for a while, unless a registrar insists. Its
    /// clients' assignments stay.
    Ejected,
    /// Fails its active checks: it gets nothing. Its clients' assignments stay.
    Unhealthy,
    /// Its drain is over: it gets nothing any more.
    Left,
}

/// An assignment as this router remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The number of its server's id or URI.
    pub server: u32,
    /// It does not expire: somebody wants it so, whatever becomes of the server.
    pub pinned: bool,
    /// If it is followed now, that use should prolong it.
    pub due: bool,
}

/// What a registrar said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A listed server's id, or an absolute URI.
    Server(String),
    /// No opinion.
    Pass,
    /// The client gets this.
    Reject(Rejection),
    /// It is not there, trapped, was too slow or returned an error; a text that names it and why.
    Failed(Arc<str>),
}

/// What follows from a registrar's failure, or from an answer that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// 503.
    Closed,
    /// As if it had passed.
    Open,
}

/// What the rule asks of the world, about the one client and service of the [`Query`].
pub trait Sources: Send {
    /// The unexpired assignment that this router remembers. Must not wait.
    fn cached(&mut self) -> Option<Cached>;

    /// Prolongs the remembered assignment, which was due and is followed. Must not wait.
    fn prolong(&mut self);

    /// The text that a number stands for: a server's id or URI.
    fn text(&self, number: u32) -> Option<Arc<str>>;

    /// The assignment in the table, expired or not.
    fn assigned(&mut self) -> impl Future<Output = Result<Option<Assignment>, TableError>> + Send;

    /// Stores a choice if the condition holds; returns what is stored afterwards, if anything.
    fn claim(
        &mut self,
        server: &str,
        condition: Condition,
    ) -> impl Future<Output = Result<Option<Assignment>, TableError>> + Send;

    /// The number of the server that is held for the client, as the table could not be asked before.
    /// Must not wait.
    fn held(&mut self) -> Option<u32>;

    /// Holds a choice that could not be stored for this reason.
    fn hold(&mut self, server: &str, why: &TableError);

    /// The number of the server on which the registrar decided for the client's detour a moment ago,
    /// here. Must not wait.
    fn detour(&mut self) -> Option<u32>;

    /// Remembers for a moment, here only, what the registrar decided for the client's detour.
    fn remember_detour(&mut self, server: &str);

    /// Whether another router wrote this assignment so lately that it may know servers which this router
    /// does not know yet.
    fn is_news(&self, assignment: &Assignment) -> bool;

    /// How a listed server is. The caller sees to it that a router that has lost its own network
    /// does not call every server unhealthy.
    fn health(&self, server: &Server) -> Health;

    /// Asks the registrar of the service; called only if it has one.
    fn ask(&mut self) -> impl Future<Output = Asked> + Send;

    /// The registrar's answer cannot be followed, for this reason.
    fn misled(&mut self, _why: &str) {}

    /// The registrar's `on_error`.
    fn on_error(&self) -> OnError;

    /// Uniform over all 64 bits.
    fn random(&mut self) -> u64;
}

/// Applies the routing rule. A client whose assignment is cached costs no wait and no allocation.
pub async fn resolve<S: Sources, T: Trace>(query: Query<'_>, sources: &mut S, trace: &mut T) -> Outcome {
    if let Some(uri) = &query.service.record.server {
        trace.note(Step::Server, || format!("set to {uri}"));
        return Outcome::To(Target::Fixed, Step::Server);
    }
    trace.note(Step::Server, || "not set".to_owned());
    let standing = standing::find(query, sources).await;
    trace.note(Step::Assignment, || standing.describe(query.service));
    match standing {
        Standing::Holds(target) | Standing::Held(target, _) => Outcome::To(target, Step::Assignment),
        standing => Deciding { query, sources, trace, standing }.decide().await,
    }
}

/// A message of a client without an assignment that holds.
struct Deciding<'a, S, T> {
    query: Query<'a>,
    sources: &'a mut S,
    trace: &'a mut T,
    standing: Standing,
}

/// What a registrar's answer comes to.
enum Registrar {
    /// There is none, or it passed: why, in words.
    Passed(String),
    To(Target),
    /// It said so before, for the detour that the client still takes.
    Still(Target),
    Over(Outcome),
}

impl<S: Sources, T: Trace> Deciding<'_, S, T> {
    async fn decide(mut self) -> Outcome {
        let passed = match self.registrar().await {
            Registrar::Over(outcome) => return outcome,
            Registrar::To(target) => return self.settle(target, Step::Registrar).await,
            Registrar::Still(target) => return Outcome::To(target, Step::Registrar),
            Registrar::Passed(why) => why,
        };
        self.trace.note(Step::Registrar, || passed.clone());
        match self.list() {
            Ok(place) => self.settle(Target::Listed(place), Step::List).await,
            Err(list) => {
                self.trace.note(Step::List, || list.to_string());
                Outcome::Nowhere(self.nowhere(passed, list))
            }
        }
    }

    async fn registrar(&mut self) -> Registrar {
        let Some(name) = &self.query.service.record.registrar else {
            return Registrar::Passed("none is set".to_owned());
        };
        if let Some(target) = self.detour() {
            let text = standing::text(self.query.service, &target);
            self.trace.note(Step::Registrar, || format!("`{name}` chose {text} for this detour before"));
            return Registrar::Still(target);
        }
        match self.sources.ask().await {
            Asked::Pass => Registrar::Passed(format!("`{name}` passed")),
            Asked::Reject(rejection) => {
                let Rejection { status, reason } = &rejection;
                self.trace.note(Step::Registrar, || format!("`{name}` rejected with {status}: {reason}"));
                Registrar::Over(Outcome::Rejected(rejection))
            }
            Asked::Server(text) => match self.answered(&text) {
                Ok(target) => Registrar::To(target),
                Err(why) => {
                    let why = format!("registrar `{name}` answered `{}`, {why}", shown(&text));
                    self.sources.misled(&why);
                    self.failed(why.into())
                }
            },
            Asked::Failed(why) => self.failed(why),
        }
    }

    /// Where the registrar sent this client before, if it is on the same detour and that still goes.
    fn detour(&mut self) -> Option<Target> {
        let Standing::Detour { lasts: true, .. } = self.standing else { return None };
        let number = self.sources.detour()?;
        let target = standing::numbered(self.query.service, self.sources, number)?;
        let goes =
            matches!(standing::health(self.query, self.sources, &target), Health::Healthy | Health::Suspect);
        (goes && !standing::avoided(self.query, &target)).then_some(target)
    }

    /// What a registrar's text means, or why it cannot be followed.
    fn answered(&self, text: &str) -> Result<Target, &'static str> {
        let target = standing::target(self.query.service, text)
            .ok_or("which is neither the id of a server of this service nor an absolute http:// URI")?;
        match standing::health(self.query, self.sources, &target) {
            Health::Unhealthy => Err("which is unhealthy"),
            Health::Draining | Health::Left => Err("which is leaving"),
            // It says where, and this router's own experience is no reason to send the client nowhere.
            Health::Ejected | Health::Suspect | Health::Healthy => {
                match standing::avoided(self.query, &target) {
                    true => Err("which was tried already"),
                    false => Ok(target),
                }
            }
        }
    }

    fn failed(&mut self, why: Arc<str>) -> Registrar {
        match self.sources.on_error() {
            OnError::Open => Registrar::Passed(format!("{why}; passed over, as its on_error is open")),
            OnError::Closed => {
                self.trace.note(Step::Registrar, || why.to_string());
                Registrar::Over(Outcome::RegistrarFailed(why))
            }
        }
    }

    fn list(&mut self) -> Result<usize, Unavailable> {
        match self.standing {
            Standing::Off => pick::at_random(self.query, self.sources),
            _ => pick::by_client(self.query, self.sources),
        }
    }

    /// Makes a choice the client's assignment. Returns it, or what another router stored first.
    async fn settle(self, target: Target, step: Step) -> Outcome {
        let Self { query, sources, trace, standing } = self;
        let text = standing::text(query.service, &target).to_owned();
        trace.note(step, || format!("chose {text}"));
        let condition = match standing {
            Standing::Absent => Condition::Absent,
            Standing::Void { stamp, .. } => Condition::Unchanged(stamp),
            Standing::Unknown(error) => {
                sources.hold(&text, &error);
                return Outcome::To(target, step);
            }
            Standing::Detour { lasts, .. } => {
                // What the list gives is the same each time.
                if lasts && step == Step::Registrar {
                    sources.remember_detour(&text);
                }
                return Outcome::To(target, step);
            }
            Standing::Off | Standing::Holds(_) | Standing::Held(..) => return Outcome::To(target, step),
        };
        match claim(sources, &text, condition).await {
            Ok(Some(stored)) if stored.server != text => {
                let winner = standing::judge(query, sources, &stored);
                trace.note(Step::Assignment, || {
                    format!("another router was first: {}", winner.describe(query.service))
                });
                match winner {
                    Standing::Holds(target) => Outcome::To(target, Step::Assignment),
                    _ => Outcome::To(target, step),
                }
            }
            Ok(_) => Outcome::To(target, step),
            Err(error) => {
                trace.note(Step::Assignment, || format!("not stored: {error}"));
                sources.hold(&text, &error);
                Outcome::To(target, step)
            }
        }
    }

    fn nowhere(&self, registrar: String, list: Unavailable) -> Nowhere {
        let assignment = self.standing.describe(self.query.service);
        Nowhere { service: self.query.service.id.to_string(), assignment, registrar, list }
    }
}

/// Claims; if the assignment that was to be replaced is gone meanwhile, claims its place.
async fn claim<S: Sources>(
    sources: &mut S,
    server: &str,
    condition: Condition,
) -> Result<Option<Assignment>, TableError> {
    match sources.claim(server, condition).await? {
        None if condition != Condition::Absent => sources.claim(server, Condition::Absent).await,
        stored => Ok(stored),
    }
}

fn is_sticky(service: &Service) -> bool {
    service.record.sticky != Sticky::Off
}
