//! One service's connection: its socket, its timers and its [`Session`], in one task.
//!
//! Each message is carried out before the next one is read, and what is told is made from the latest
//! state when the socket has room for it. So the cost of a peer that sends too much or reads too
//! slowly is its own.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Bytes, Error, Message, Utf8Bytes,
        error::CapacityError,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{
    Discovery, Peer,
    bell::{Bell, News},
    fault::{Cause, Code, Fault},
    frame, goodbye,
    options::Options,
    order::{Order, Wish},
    primus::{self, Dialect, Word},
    session::{Act, Moment, Session},
};
use crate::{
    auth::Action,
    drain::Drain,
    table::{
        TableError,
        lease::{Draining, Held, Lease},
        record::ServerUri,
    },
    units::Span,
};

/// Of a buffer that every idle connection has.
const READ_BUFFER: usize = 1 << 10;
/// Several messages go into one write up to this.
const WRITE_BUFFER: usize = 4 << 10;
/// Messages longer than allowed are read, and refused, up to this many times what is allowed.
const READ_ANYWAY: usize = 4;
/// So many messages may come at once before they have to wait.
const BURST: f64 = 100.0;

/// Serves a connection until it ends. `io` has just become a WebSocket.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(
    discovery: Arc<Discovery>,
    io: S,
    peer: Peer,
    drain: Drain,
) {
    let options = discovery.options();
    let most = options.message.saturating_mul(READ_ANYWAY);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(1 << 20)
        .max_message_size(Some(most))
        .max_frame_size(Some(most));
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let number = discovery.next_connection();
    let asks = (peer.dialect == Dialect::Primus).then(|| Instant::now() + options.ping);
    let mut connection = Connection {
        socket,
        peer,
        number,
        registration: number,
        asks,
        session: Session::default(),
        reaches: Vec::new(),
        bell: Arc::default(),
        writing: None,
        heard: Instant::now(),
        credit: BURST,
        credited: Instant::now(),
        discovery,
    };
    connection.discovery.metrics.connections.inc();
    let ended = connection.run(drain).await;
    connection.end(ended).await;
}

struct Connection<S> {
    socket: WebSocketStream<S>,
    peer: Peer,
    number: u64,
    /// In the lease of its server; another after each end of one, so that what was said of that is not of this.
    registration: u64,
    session: Session,
    /// Where its server leads, if it has registered one.
    reaches: Vec<ServerUri>,
    bell: Arc<Bell>,
    /// A registration that is being written.
    writing: Option<oneshot::Receiver<Result<(), TableError>>>,
    heard: Instant,
    /// When a peer that speaks Primus is asked next; none: it does not, or asks by itself.
    asks: Option<Instant>,
    /// Messages that may come without waiting.
    credit: f64,
    credited: Instant,
    discovery: Arc<Discovery>,
}

/// Why a connection ended.
enum Ended {
    /// The other end closed it, or it broke.
    Closed,
    /// Nothing came, or nothing could be sent, for too long.
    Dead,
    /// It sent something that cannot be read on after.
    Unreadable(CloseCode, &'static str),
    /// It may no longer be what it is.
    Denied(String),
    /// This process stops.
    Leaving,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    async fn run(&mut self, drain: Drain) -> Ended {
        let mut asked = false;
        loop {
            let Options { ping, deadline, .. } = *self.discovery.options();
            let wake = self.heard + if asked { deadline } else { ping };
            let bell = Arc::clone(&self.bell);
            let step = tokio::select! {
                frame = self.socket.next(), if self.writing.is_none() => {
                    asked = false;
                    self.heard = Instant::now();
                    self.take(frame).await
                }
                () = bell.rung() => self.tell().await,
                written = outcome(&mut self.writing) => self.written(written).await,
                () = sleep_until(wake), if self.writing.is_none() => match asked {
                    true => Err(Ended::Dead),
                    false => {
                        asked = true;
                        self.send(Message::Ping(Bytes::new())).await
                    }
                },
                () = due(self.asks) => self.ask().await,
                () = due(self.session.looks_again()) => self.tell().await,
                Ok(()) = self.peer.identity.changed() => self.still_allowed(),
                () = drain.requested() => Err(Ended::Leaving),
            };
            if let Err(ended) = step {
                return ended;
            }
        }
    }

    async fn take(&mut self, frame: Option<Result<Message, Error>>) -> Result<(), Ended> {
        let text = match frame {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Binary(bytes))) => match bytes.try_into() {
                Ok(text) => text,
                Err(_) => return self.fault(&Fault::new(Code::Malformed, "not UTF-8: send JSON")).await,
            },
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return self.flush().await,
            Some(Err(Error::Capacity(CapacityError::MessageTooLong { size, .. }))) => {
                self.fault(&self.too_large(size)).await?;
                return Err(Ended::Unreadable(CloseCode::Size, "message too large"));
            }
            Some(Err(Error::Utf8(_))) => return Err(Ended::Unreadable(CloseCode::Invalid, "not UTF-8")),
            Some(Err(Error::Protocol(_))) => {
                return Err(Ended::Unreadable(CloseCode::Protocol, "not a WebSocket frame"));
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Ended::Closed),
        };
        self.throttle().await;
        if let Some(word) = primus::read(&text) {
            return self.answer(word).await;
        }
        let allowed = self.discovery.options().message;
        let said = match text.len() > allowed {
            true => Err(self.too_large(text.len())),
            false => frame::read(&text, self.peer.address, self.discovery.limits()),
        };
        let limit = self.discovery.limits().requirements;
        let view = self.discovery.table.view();
        let allowed = said.and_then(|said| self.peer.allows(&said, &view).map(|()| said));
        let acts = allowed.and_then(|said| self.session.hear(said, limit));
        match acts {
            Ok(acts) => self.carry_out(acts).await,
            Err(fault) => self.fault(&fault).await,
        }
    }

    /// Asks a peer that speaks Primus whether it lives. It wants to be asked, whatever else it is told.
    async fn ask(&mut self) -> Result<(), Ended> {
        self.asks = Some(Instant::now() + self.discovery.options().ping);
        let now = self.discovery.table.clock().now();
        self.send(Message::text(primus::ping(now))).await
    }

    /// Answers Primus itself, not its application.
    async fn answer(&mut self, word: Word) -> Result<(), Ended> {
        match word {
            Word::Pong => Ok(()),
            Word::Ping(pong) => {
                // One that asks does not expect to be asked, and would take that for a message.
                self.asks = None;
                self.send(Message::text(pong)).await
            }
            Word::Id => {
                let (router, _) = self.discovery.table.router();
                self.send(Message::text(primus::id(&format!("{router}-{}", self.number)))).await
            }
        }
    }

    fn too_large(&self, size: usize) -> Fault {
        let allowed = self.discovery.options().message;
        let reason =
            format!("a message of {size} bytes, at most {allowed} are allowed (`[discovery] message`)");
        Fault::new(Code::TooLarge, reason)
    }

    /// A peer that sends too much has to wait; nobody else does.
    async fn throttle(&mut self) {
        let rate = f64::from(self.discovery.options().rate);
        let now = Instant::now();
        self.credit = BURST.min(self.credit + rate * (now - self.credited).as_secs_f64()) - 1.0;
        self.credited = now;
        if self.credit < 0.0 {
            self.discovery.metrics.throttled.inc();
            sleep(Duration::from_secs_f64(-self.credit / rate)).await;
        }
    }

    /// The access rules have changed. One who is or needs what it no longer may connects again, and is
    /// told then what it may not.
    fn still_allowed(&mut self) -> Result<(), Ended> {
        match self.peer.denied_now(self.session.server(), &self.reaches, self.session.needs()) {
            Some(reason) => Err(Ended::Denied(reason)),
            None => Ok(()),
        }
    }

    async fn carry_out(&mut self, acts: Vec<Act>) -> Result<(), Ended> {
        let (mut looks, mut orders) = (false, Vec::new());
        for act in acts {
            match act {
                Act::Need(service) => {
                    looks = true;
                    self.discovery.index.need(service, self.number, &self.bell);
                }
                Act::Unneed(service) => self.discovery.index.unneed(&service, self.number),
                Act::Register(service, offered) => {
                    let place = super::session::Place { service, server: offered.id.as_str().into() };
                    let (lease, bell) = (self.lease(), Arc::clone(&self.bell));
                    self.reaches = offered.record.uris().cloned().collect();
                    let view = self.discovery.table.view();
                    let register = |holdings: &mut super::Holdings| {
                        holdings.register(&view, &place, self.number, offered.record, lease, bell)
                    };
                    orders.push(register(&mut self.discovery.holdings.lock()));
                }
                Act::Remove(place) => {
                    orders.extend(self.discovery.holdings.lock().remove(&place, self.number));
                }
                Act::Drain(place, deadline) => {
                    let lease = self.discovery.holdings.lock().lease(&place, self.number).cloned();
                    if lease.is_none() {
                        continue;
                    }
                    let deadline = Span(deadline.unwrap_or(self.discovery.options().drain));
                    let draining = Draining { stamp: rand::random(), deadline, over: deadline.0.is_zero() };
                    orders.push(Order { place, wish: Wish::Drain(lease, draining) });
                }
            }
        }
        if !orders.is_empty() {
            self.writing = Some(self.discovery.order_and_answer(orders).await);
        }
        if looks { self.tell().await } else { Ok(()) }
    }

    fn lease(&self) -> Lease {
        let (router, record) = self.discovery.table.router();
        Lease::Connection(Held {
            router: router.to_string(),
            incarnation: record.incarnation.clone(),
            connection: self.registration,
            ended: None,
        })
    }

    async fn written(&mut self, written: Result<(), TableError>) -> Result<(), Ended> {
        self.heard = Instant::now();
        let Err(error) = written else { return Ok(()) };
        let reason = format!("{error}; it is tried again for as long as this connection is open");
        self.fault(&Fault::new(Code::Unavailable, reason)).await
    }

    /// Tells whatever there is to tell.
    async fn tell(&mut self) -> Result<(), Ended> {
        for news in self.bell.news() {
            match news {
                News::Drained => self.send(Message::text(frame::DRAINED)).await?,
                News::Taken => {
                    self.deregistered(Cause::Replaced, "was registered over another connection").await?
                }
                News::Removed => self.deregistered(Cause::Removed, "was removed").await?,
            }
        }
        let looked = self.discovery.index.look(self.session.needs());
        let table = &self.discovery.table;
        let told = self.session.tell(&looked, Moment { now: Instant::now(), confirmed: table.confirmed() });
        if self.session.looks_again().is_some() {
            table.hurry();
        }
        if told.is_empty() {
            return Ok(());
        }
        let metrics = &self.discovery.metrics;
        let lost = told.iter().filter(|text| text.starts_with(frame::LOST)).count();
        metrics.losses.inc_by(lost as u64);
        metrics.notifications.inc_by((told.len() - lost) as u64);
        let deadline = self.discovery.options().deadline;
        let sending = async {
            for text in told {
                self.socket.feed(Message::text(text)).await?;
            }
            self.socket.flush().await
        };
        ended(timeout(deadline, sending).await)
    }

    async fn deregistered(&mut self, cause: Cause, how: &str) -> Result<(), Ended> {
        let Some(place) = self.session.server().cloned() else { return Ok(()) };
        self.session.deregistered();
        self.registration = self.discovery.next_connection();
        let reason = format!(
            "server {} of service {} {how}; define it again to register it",
            place.server, place.service
        );
        self.fault(&Fault::new(Code::Deregistered(cause), reason)).await
    }

    async fn fault(&mut self, fault: &Fault) -> Result<(), Ended> {
        self.discovery.metrics.faults.inc();
        tracing::debug!(peer = %self.peer.address, service = ?self.session.service(), %fault, "a service is told of its mistake");
        self.send(Message::text(frame::error(fault))).await
    }

    async fn send(&mut self, message: Message) -> Result<(), Ended> {
        let deadline = self.discovery.options().deadline;
        ended(timeout(deadline, self.socket.send(message)).await)
    }

    async fn flush(&mut self) -> Result<(), Ended> {
        let deadline = self.discovery.options().deadline;
        ended(timeout(deadline, self.socket.flush()).await)
    }

    /// Says goodbye where somebody may hear it, and leaves nothing behind but a suspect.
    async fn end(mut self, ended: Ended) {
        self.discovery.metrics.connections.dec();
        let farewell = self.farewell(&ended);
        let order = self.leave(matches!(ended, Ended::Leaving));
        let ordered = async {
            if let Some(order) = order {
                self.discovery.order(order).await;
            }
        };
        let parting = async {
            if !matches!(ended, Ended::Dead) {
                goodbye::say(&mut self.socket, farewell).await;
            }
        };
        // Neither waits for the other: not the goodbye for the table, not the table for the peer.
        tokio::join!(ordered, parting);
    }

    /// The Close frame for a peer that has sent none.
    fn farewell(&self, ended: &Ended) -> Option<CloseFrame> {
        let (code, reason) = match ended {
            Ended::Closed => return None,
            Ended::Dead => {
                self.discovery.metrics.dead.inc();
                return None;
            }
            Ended::Unreadable(code, reason) => (*code, (*reason).into()),
            Ended::Denied(reason) => {
                tracing::warn!(peer = %self.peer.address, service = ?self.session.service(), reason, "a connection is closed: the access rules have changed");
                (CloseCode::Policy, Utf8Bytes::from(reason.as_str()))
            }
            Ended::Leaving => (CloseCode::Away, "the router is stopping; connect again".into()),
        };
        Some(CloseFrame { code, reason })
    }

    /// Takes back what the connection needs and is; what the table is to be told of that.
    fn leave(&mut self, stopping: bool) -> Option<Order> {
        for service in self.session.needs() {
            self.discovery.index.unneed(service, self.number);
        }
        let place = self.session.server().filter(|_| !stopping)?;
        let (view, at) = (self.discovery.table.view(), self.discovery.table.clock().now());
        let allowed = self.peer.may(Action::Register, &place.service);
        let order = match allowed {
            true => self.discovery.holdings.lock().end(&view, place, self.number, at),
            // Nobody may bring it back, so nobody waits for that.
            false => self.discovery.holdings.lock().remove(place, self.number),
        }?;
        self.discovery.metrics.suspects.inc_by(u64::from(allowed));
        Some(order)
    }
}

fn ended(sent: Result<Result<(), Error>, tokio::time::error::Elapsed>) -> Result<(), Ended> {
    match sent {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Ended::Closed),
        Err(_) => Err(Ended::Dead),
    }
}

/// When this time has come; without one, never.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What became of what is being written; nothing is: waits for ever.
async fn outcome(writing: &mut Option<oneshot::Receiver<Result<(), TableError>>>) -> Result<(), TableError> {
    let Some(receiver) = writing else { return std::future::pending().await };
    let outcome = receiver.await;
    *writing = None;
    outcome.unwrap_or_else(|_| Err(TableError::Unavailable("the router is stopping".to_owned())))
}
