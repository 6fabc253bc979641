//! The connection: one task that dials, follows and dials again, and the only one that knows what
//! the service is and has seen.

use std::{collections::BTreeSet, ops::ControlFlow, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message},
};

use crate::{
    Backoff, Definition, Event, Options, Revision,
    definition::Resuming,
    event::{Heard, Said},
    router::Router,
};

/// Of a handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// A registration that lasted so long was a good one.
const GOOD_AFTER: Duration = Duration::from_secs(5);

/// What the service wants.
#[derive(Debug)]
pub(crate) enum Command {
    Require(String),
    Release(String),
    Define(Box<Definition>),
    Drain,
}

pub(crate) struct Connection {
    routers: Vec<Router>,
    definition: Definition,
    options: Options,
    told: mpsc::Sender<Event>,
    drained: watch::Sender<bool>,
    draining: bool,
    /// Requirements of which something was told, so that `since` is about them.
    known: BTreeSet<String>,
    /// When its server is registered again over this connection.
    registers: Option<Instant>,
    registered: Instant,
    again: Backoff,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Nobody is interested any more.
struct Over;

#[derive(Serialize)]
struct Drain {
    r#type: &'static str,
}

impl Connection {
    pub(crate) fn new(
        routers: Vec<Router>,
        definition: Definition,
        options: Options,
        told: mpsc::Sender<Event>,
        drained: watch::Sender<bool>,
    ) -> Self {
        let known = match options.since {
            Some(_) => definition.requires.iter().cloned().collect(),
            None => BTreeSet::new(),
        };
        let (again, registered) = (options.backoff.clone(), Instant::now());
        Self {
            routers,
            definition,
            options,
            told,
            drained,
            draining: false,
            known,
            registers: None,
            registered,
            again,
        }
    }

    /// Until nobody is interested any more.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        for turn in 0.. {
            let router = self.routers[turn % self.routers.len()].clone();
            let (uri, request) = (router.request.uri().clone(), router.request);
            let dialled = async { timeout(PATIENCE, connect_async(request)).await };
            let Ok(dialled) = self.while_waiting(dialled, &mut commands).await else { return };
            match dialled {
                Ok(Ok((socket, _))) => match self.follow(socket, &mut commands).await {
                    Ok(ended) => tracing::debug!(router = %uri, ended, "the connection was lost"),
                    Err(Over) => return,
                },
                Ok(Err(error)) => tracing::debug!(router = %uri, %error, "the router was not reached"),
                Err(_) => tracing::debug!(router = %uri, "the router did not answer in time"),
            }
            let pause = self.options.backoff.next();
            if self.while_waiting(sleep(pause), &mut commands).await.is_err() {
                return;
            }
        }
    }

    /// Commands are heeded while there is no connection as well: they show in the next definition.
    async fn while_waiting<T>(
        &mut self,
        waiting: impl Future<Output = T>,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<T, Over> {
        let mut waiting = std::pin::pin!(waiting);
        let told = self.told.clone();
        loop {
            tokio::select! {
                done = &mut waiting => return Ok(done),
                command = commands.recv() => match command {
                    Some(command) => self.heed(command),
                    None => return Err(Over),
                },
                () = told.closed() => return Err(Over),
            }
        }
    }

    /// One connection; why it ended.
    async fn follow(
        &mut self,
        mut socket: Socket,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<String, Over> {
        if let Err(error) = self.introduce(&mut socket).await {
            return Ok(error.to_string());
        }
        self.registers = None;
        let told = self.told.clone();
        let (mut quiet_until, mut asked) = (Instant::now() + self.options.silence, false);
        loop {
            let step = tokio::select! {
                heard = socket.next() => {
                    (quiet_until, asked) = (Instant::now() + self.options.silence, false);
                    self.hear(heard, &mut socket).await?
                }
                command = commands.recv() => match command {
                    Some(command) => {
                        self.heed(command);
                        continues(self.repeat(&mut socket).await)
                    }
                    None => return Err(Over),
                },
                () = told.closed() => return Err(Over),
                () = due(self.registers) => continues(self.register(&mut socket).await),
                () = sleep_until(quiet_until) => {
                    if asked {
                        return Ok("the router is silent".to_owned());
                    }
                    (quiet_until, asked) = (Instant::now() + self.options.silence, true);
                    continues(socket.send(Message::Ping(Default::default())).await)
                }
            };
            if let ControlFlow::Break(why) = step {
                return Ok(why);
            }
        }
    }

    /// After a handshake: who this is and what it saw last.
    async fn introduce(&self, socket: &mut Socket) -> Result<(), Error> {
        let since = self.options.since.as_ref();
        let requires = self.definition.requires.iter().map(String::as_str);
        let anew = requires.filter(|name| since.is_some() && !self.known.contains(*name)).collect();
        say(socket, &Resuming { definition: &self.definition, since, anew }).await?;
        self.drain(socket).await
    }

    /// After a command: who this is now.
    async fn repeat(&self, socket: &mut Socket) -> Result<(), Error> {
        match self.draining {
            true => self.drain(socket).await,
            false => say(socket, &self.definition).await,
        }
    }

    /// Its server went and nobody meant it.
    async fn register(&mut self, socket: &mut Socket) -> Result<(), Error> {
        (self.registers, self.registered) = (None, Instant::now());
        say(socket, &self.definition).await
    }

    async fn drain(&self, socket: &mut Socket) -> Result<(), Error> {
        match self.draining {
            true => say(socket, &Drain { r#type: "drain" }).await,
            false => Ok(()),
        }
    }

    fn heed(&mut self, command: Command) {
        let requires = &mut self.definition.requires;
        match command {
            Command::Require(name) if !requires.contains(&name) => requires.push(name),
            Command::Require(_) => {}
            Command::Release(name) => requires.retain(|known| *known != name),
            Command::Define(definition) => self.definition = *definition,
            Command::Drain => self.draining = true,
        }
        let requires = &self.definition.requires;
        self.known.retain(|name| requires.contains(name));
    }

    async fn hear(
        &mut self,
        heard: Option<Result<Message, Error>>,
        socket: &mut Socket,
    ) -> Result<ControlFlow<String>, Over> {
        let text = match heard {
            Some(Ok(Message::Text(text))) => text,
            // The library answers pings by itself.
            Some(Ok(Message::Close(frame))) => {
                return Ok(ControlFlow::Break(frame.map_or("closed".to_owned(), |frame| frame.to_string())));
            }
            Some(Ok(_)) => return Ok(ControlFlow::Continue(())),
            Some(Err(error)) => return Ok(ControlFlow::Break(error.to_string())),
            None => return Ok(ControlFlow::Break("closed".to_owned())),
        };
        self.options.backoff.reset();
        let Heard { said, revision } = Heard::read(&text);
        match said {
            // Nothing is registered, so nothing is sent here.
            Said::Event(Event::Refused(refused)) if self.draining && refused.code == "undefined" => {
                let _ = self.drained.send_replace(true);
            }
            Said::Event(event) => {
                let asked = match &event {
                    Event::Refused(refused) if refused.is_end() && self.draining => self.drain(socket).await,
                    Event::Refused(refused) if refused.is_unmeant_end() => {
                        self.register_later();
                        Ok(())
                    }
                    _ => Ok(()),
                };
                self.known.extend(event.requirement());
                self.told.send(event).await.map_err(|_| Over)?;
                if let Err(error) = asked {
                    return Ok(ControlFlow::Break(error.to_string()));
                }
            }
            Said::Drained => drop(self.drained.send_replace(true)),
            Said::Other => {}
        }
        // Only now has the service seen it.
        if let Some(revision) = revision {
            self.options.since = Some(Revision::highest(self.options.since.take(), revision));
        }
        Ok(ControlFlow::Continue(()))
    }

    fn register_later(&mut self) {
        if self.registers.is_none() {
            if self.registered.elapsed() > GOOD_AFTER {
                self.again.reset();
            }
            self.registers = Some(Instant::now() + self.again.next());
        }
    }
}

/// When this time has come; without one, never.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn say(socket: &mut Socket, message: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string(message).expect("definitions have text keys only");
    socket.send(Message::text(text)).await
}

fn continues(sent: Result<(), Error>) -> ControlFlow<String> {
    match sent {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error.to_string()),
    }
}
