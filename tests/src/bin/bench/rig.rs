//! Origin and load generator in one thread with one epoll: neither allocates per request, and
//! neither waits for the other to be scheduled, so one core keeps a proxy on another core busy.

mod client;
mod origin;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context;
use mio::{Events, Interest, Poll, Token, net::TcpListener};

use client::{Client, Heard};
pub(crate) use client::{Target, Watch};
use origin::Origin;

use crate::histogram::Histogram;

const CLIENTS: usize = 1 << 10;
const ORIGINS: usize = 1 << 20;
/// An answer that takes longer is lost, and the benchmark with it.
const LOST: Duration = Duration::from_secs(10);

/// The origins, always there, and the poll that drives everything.
pub(crate) struct Rig {
    poll: Poll,
    events: Events,
    listeners: Vec<TcpListener>,
    origins: Vec<Option<Origin>>,
}

/// How requests are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// The next one on each connection as soon as the one before is answered.
    Closed,
    /// So many per second, whatever the answers do; latency counts from when a request was due.
    Open(u32),
    /// This many altogether, as in a closed loop.
    Count(u32),
}

/// What came of it.
pub(crate) struct Outcome {
    /// Answered with 200.
    pub(crate) served: u64,
    /// Answered with anything else.
    pub(crate) failed: u64,
    /// Answered by another origin than the same client's earlier requests.
    pub(crate) moved: u64,
    /// Connections that the other end closed.
    pub(crate) dropped: u64,
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
    /// Of all answers.
    pub(crate) latencies: Histogram,
}

/// Kept-alive connections to one proxy.
pub(crate) struct Session {
    clients: Vec<Client>,
    target: Target,
}

impl Session {
    /// From now on in an order of clients without locality.
    pub(crate) fn scatter(&mut self) {
        self.target.scatter();
    }

    /// What was seen of a filter's marks.
    pub(crate) fn watch(&self) -> Option<&Watch> {
        self.target.watch()
    }
}

impl Rig {
    /// With so many origins.
    ///
    /// # Errors
    /// No sockets.
    pub(crate) fn new(origins: usize) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut listeners = vec![];
        for at in 0..origins {
            let mut listener = TcpListener::bind("127.0.0.1:0".parse()?)?;
            poll.registry().register(&mut listener, Token(at), Interest::READABLE)?;
            listeners.push(listener);
        }
        Ok(Self { poll, events: Events::with_capacity(1024), listeners, origins: vec![] })
    }

    /// Where the origins listen.
    ///
    /// # Errors
    /// Never, on a bound socket.
    pub(crate) fn origins(&self) -> anyhow::Result<Vec<SocketAddr>> {
        Ok(self.listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?)
    }

    /// Opens connections to a proxy.
    ///
    /// # Errors
    /// It does not accept them.
    pub(crate) fn open(&self, target: Target, connections: usize) -> anyhow::Result<Session> {
        let clients = (0..connections).map(|at| {
            let mut client = Client::connect(&target)?;
            self.poll.registry().register(&mut client.stream, Token(CLIENTS + at), Interest::READABLE)?;
            Ok(client)
        });
        Ok(Session { clients: clients.collect::<anyhow::Result<_>>()?, target })
    }

    /// Sends requests for a time and then waits for the last answers.
    ///
    /// # Errors
    /// An answer was lost, or a socket failed in a way that no proxy accounts for.
    pub(crate) fn drive(
        &mut self,
        session: &mut Session,
        load: Load,
        time: Duration,
    ) -> anyhow::Result<Outcome> {
        let mut run = Run::new(session, load, time);
        run.start()?;
        while !run.over() {
            let patience = run.patience();
            self.poll.poll(&mut self.events, Some(patience)).or_else(interrupted)?;
            for event in &self.events {
                match event.token().0 {
                    at if at >= ORIGINS => serve(&mut self.origins[at - ORIGINS]),
                    at if at >= CLIENTS => run.hear(at - CLIENTS, self.poll.registry())?,
                    at => accept(at, &self.listeners[at], &self.poll, &mut self.origins)?,
                }
            }
            run.send_due()?;
        }
        Ok(run.outcome)
    }
}

fn interrupted(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

fn accept(
    at: usize,
    listener: &TcpListener,
    poll: &Poll,
    origins: &mut Vec<Option<Origin>>,
) -> anyhow::Result<()> {
    while let Ok((mut stream, _)) = listener.accept() {
        stream.set_nodelay(true)?;
        let slot = origins.iter().position(Option::is_none).unwrap_or(origins.len());
        poll.registry().register(&mut stream, Token(ORIGINS + slot), Interest::READABLE)?;
        let origin = Some(Origin::new(stream, at));
        if slot == origins.len() { origins.push(origin) } else { origins[slot] = origin }
    }
    Ok(())
}

fn serve(slot: &mut Option<Origin>) {
    let open = slot.as_mut().is_none_or(Origin::serve);
    if !open {
        *slot = None;
    }
}

/// One call of [`Rig::drive`].
struct Run<'a> {
    session: &'a mut Session,
    load: Load,
    begin: Instant,
    end: Instant,
    /// Requests sent or, in an open loop, due so far.
    begun: u64,
    answered: u64,
    /// When those were due that found no free connection.
    late: VecDeque<Instant>,
    /// Used in turn, so that none lies idle for longer than the others.
    free: VecDeque<usize>,
    outcome: Outcome,
}

impl<'a> Run<'a> {
    fn new(session: &'a mut Session, load: Load, time: Duration) -> Self {
        let begin = Instant::now();
        let outcome = Outcome {
            served: 0,
            failed: 0,
            moved: 0,
            dropped: 0,
            elapsed: Duration::ZERO,
            latencies: Histogram::new(),
        };
        let free = (0..session.clients.len()).collect();
        let late = VecDeque::new();
        Self { session, load, begin, end: begin + time, begun: 0, answered: 0, late, free, outcome }
    }

    fn start(&mut self) -> anyhow::Result<()> {
        if !matches!(self.load, Load::Open(_)) {
            while let Some(at) = self.free.pop_front() {
                self.next(at)?;
            }
        }
        self.send_due()
    }

    fn over(&mut self) -> bool {
        let now = Instant::now();
        let sending = match self.load {
            Load::Count(count) => self.begun < u64::from(count) && now < self.end,
            Load::Closed | Load::Open(_) => now < self.end,
        };
        self.outcome.elapsed = now - self.begin;
        !sending && self.answered + self.outcome.dropped >= self.begun && self.late.is_empty()
    }

    fn patience(&self) -> Duration {
        // An epoll timeout is in milliseconds: an open loop spins, on a core that it has to itself.
        if matches!(self.load, Load::Open(_)) { Duration::ZERO } else { Duration::from_millis(50) }
    }

    /// Sends the next request of a closed loop, if there is to be one.
    fn next(&mut self, at: usize) -> anyhow::Result<()> {
        let now = Instant::now();
        let more = match self.load {
            Load::Closed => now < self.end,
            Load::Count(count) => self.begun < u64::from(count) && now < self.end,
            Load::Open(_) => false,
        };
        if !more {
            self.free.push_back(at);
            return Ok(());
        }
        self.begun += 1;
        self.send(at, now)
    }

    fn send(&mut self, at: usize, due: Instant) -> anyhow::Result<()> {
        let Session { clients, target } = &mut *self.session;
        clients[at].send(target, due).context("send a request")
    }

    fn send_due(&mut self) -> anyhow::Result<()> {
        let Load::Open(rate) = self.load else { return self.nothing_lost() };
        let now = Instant::now();
        let until = now.min(self.end) - self.begin;
        let due = (until.as_secs_f64() * f64::from(rate)) as u64;
        while self.begun < due {
            self.late.push_back(self.begin + Duration::from_secs_f64(self.begun as f64 / f64::from(rate)));
            self.begun += 1;
        }
        while let (Some(&due), Some(&at)) = (self.late.front(), self.free.front()) {
            self.free.pop_front();
            self.late.pop_front();
            self.send(at, due)?;
        }
        self.nothing_lost()
    }

    fn nothing_lost(&self) -> anyhow::Result<()> {
        let lost = Instant::now() > self.end + LOST;
        anyhow::ensure!(!lost, "{} answers did not come", self.begun - self.answered);
        Ok(())
    }

    fn hear(&mut self, at: usize, registry: &mio::Registry) -> anyhow::Result<()> {
        let Session { clients, target } = &mut *self.session;
        match clients[at].hear(target) {
            Heard::Part => return Ok(()),
            Heard::Answer { status, moved, latency } => {
                self.answered += 1;
                self.outcome.latencies.count(latency);
                self.outcome.served += u64::from(status == 200);
                self.outcome.failed += u64::from(status != 200);
                self.outcome.moved += u64::from(moved);
            }
            Heard::Closed { waiting } => {
                // A request without an answer counts as begun and dropped, an idle close only as dropped.
                self.outcome.dropped += 1;
                self.begun += u64::from(!waiting);
                let mut client = Client::connect(target)?;
                registry.register(&mut client.stream, Token(CLIENTS + at), Interest::READABLE)?;
                let idle = std::mem::replace(&mut clients[at], client);
                drop(idle);
                if !waiting {
                    return Ok(());
                }
            }
        }
        if matches!(self.load, Load::Open(_)) {
            self.free.push_back(at);
            Ok(())
        } else {
            self.next(at)
        }
    }
}
