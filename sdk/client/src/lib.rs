//! A service's connection to Message Flow: who it is, what it needs, and what it is told.
//!
//! ```no_run
//! use message_flow_client::{Definition, Event, Options, connect};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), message_flow_client::InvalidRouter> {
//! let definition = Definition::new("carchase-service").port(9877).requires(["explosion-service"]);
//! let (service, mut events) = connect(["ws://127.0.0.1:8081"], definition, Options::default())?;
//! while let Some(event) = events.next().await {
//!     match event {
//!         Event::Required(there) => println!("{} is at {}:{}", there.name, there.host, there.port),
//!         Event::Lost(gone) => println!("{} is gone", gone.name),
//!         Event::Refused(problem) => eprintln!("{}", problem.reason),
//!     }
//! }
//! # drop(service);
//! # Ok(())
//! # }
//! ```
//!
//! When a connection is lost the next router is tried, after a pause that doubles up to ten seconds
//! and is random; it is told the highest revision that was seen, so that nothing is missed and nothing
//! told twice. A server that is not registered any more although its connection is open, and that nobody
//! removed, is registered again. Dropping the [`Service`] and the [`Events`] ends the connection.

mod backoff;
mod connection;
mod definition;
mod event;
mod router;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::sync::{mpsc, watch};

pub use backoff::Backoff;
pub use definition::Definition;
pub use event::{Event, LostService, Refused, RequiredService, Revision};
pub use router::InvalidRouter;

use connection::{Command, Connection};
use router::Router;

/// Commands that wait to be carried out.
const COMMANDS: usize = 64;
/// Events that wait to be read; a reader that is slower than this slows its own connection.
const EVENTS: usize = 1024;

/// How a service connects; all of it has a default.
#[derive(Clone, Debug)]
pub struct Options {
    /// An access token.
    pub token: Option<String>,
    /// The highest revision that was seen in an earlier run, with these requirements.
    pub since: Option<Revision>,
    /// Pauses between attempts.
    pub backoff: Backoff,
    /// After so much silence the router is asked whether it is there, and after as much again it is
    /// given up.
    pub silence: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { token: None, since: None, backoff: Backoff::default(), silence: Duration::from_secs(10) }
    }
}

/// Connects a service to the first of these routers that answers, and again whenever the connection
/// is lost, on the current runtime.
///
/// # Errors
/// A router is not written `ws://HOST:PORT`, or there is none.
pub fn connect<R: AsRef<str>>(
    routers: impl IntoIterator<Item = R>,
    definition: Definition,
    options: Options,
) -> Result<(Service, Events), InvalidRouter> {
    let routers = routers.into_iter().map(|router| Router::parse(router.as_ref(), options.token.as_deref()));
    let routers: Vec<Router> = routers.collect::<Result<_, _>>()?;
    if routers.is_empty() {
        return Err(InvalidRouter(String::new()));
    }
    let (commands, asked) = mpsc::channel(COMMANDS);
    let (told, events) = mpsc::channel(EVENTS);
    let (drained, is_drained) = watch::channel(false);
    let connection = Connection::new(routers, definition, options, told, drained);
    tokio::spawn(connection.run(asked));
    Ok((Service { commands, drained: is_drained }, Events(events)))
}

/// What a service says; cheap to clone.
#[derive(Clone, Debug)]
pub struct Service {
    commands: mpsc::Sender<Command>,
    drained: watch::Receiver<bool>,
}

impl Service {
    /// Needs this service as well, such as `explosion-service` or `explosion-service@2`.
    pub async fn require(&self, name: impl Into<String>) {
        self.say(Command::Require(name.into())).await;
    }

    /// Needs this service no longer.
    pub async fn release(&self, name: impl Into<String>) {
        self.say(Command::Release(name.into())).await;
    }

    /// Replaces the definition.
    pub async fn define(&self, definition: Definition) {
        self.say(Command::Define(Box::new(definition))).await;
    }

    /// Returns when no router sends anything here any more: then it is safe to exit.
    pub async fn drain(&self) {
        self.say(Command::Drain).await;
        let _ = self.drained.clone().wait_for(|drained| *drained).await;
    }

    /// Nobody listens once the events are dropped: then there is nothing left to say.
    async fn say(&self, command: Command) {
        let _ = self.commands.send(command).await;
    }
}

/// What a service is told, in order.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; none once the connection has ended for good. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}
