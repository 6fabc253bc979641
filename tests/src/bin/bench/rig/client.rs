//! One kept-alive connection of the load generator.

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use mio::net::TcpStream;

use super::origin::find;

/// What is asked of whom.
pub(crate) struct Target {
    address: SocketAddr,
    request: Vec<u8>,
    /// Where in the request the seven digits of the client id are.
    digits: usize,
    clients: u32,
    /// Steps through all clients in an order without locality.
    state: u64,
    scattered: bool,
    /// The origin that first answered each client, plus one; empty: not looked at.
    origins: Vec<u8>,
    watch: Option<Watch>,
}

/// The marks of a filter's builds, as they appear in answers.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// The mark in the latest answer, and since when.
    pub(crate) latest: Option<(u32, Instant)>,
    /// When each mark was first seen.
    pub(crate) first: Vec<(u32, Instant)>,
    /// Answers whose request passed another build than the response did, or a build older than one
    /// seen before the request was sent.
    pub(crate) mixed: u64,
}

/// What a readable connection had.
pub(crate) enum Heard {
    /// Not yet an answer.
    Part,
    /// A whole one.
    Answer { status: u16, moved: bool, latency: Duration },
    /// The other end closed, while an answer was awaited or not.
    Closed { waiting: bool },
}

/// A connection.
pub(crate) struct Client {
    /// Registered by the rig.
    pub(crate) stream: TcpStream,
    heard: Vec<u8>,
    due: Option<Instant>,
    /// Who sent the request under way.
    client: u32,
}

impl Target {
    /// Requests to `/chat/x` or the like from clients 0 to `clients`, one after the other.
    pub(crate) fn new(address: SocketAddr, path: &str, clients: u32) -> Self {
        let start = format!("GET {path} HTTP/1.1\r\nhost: bench.test\r\nmessage-flow-client: c");
        let request = format!("{start}0000000\r\nink: blue\r\naccept: */*\r\nuser-agent: bench\r\n\r\n");
        Self {
            address,
            request: request.into_bytes(),
            digits: start.len(),
            clients,
            state: 0,
            scattered: false,
            origins: vec![],
            watch: None,
        }
    }

    /// From now on in an order without locality.
    pub(crate) fn scatter(&mut self) {
        self.scattered = true;
    }

    /// Counts answers from another origin than a client had before.
    pub(crate) fn consistent(mut self) -> Self {
        self.origins = vec![0; self.clients as usize];
        self
    }

    /// Looks at a filter's marks.
    pub(crate) fn watched(mut self) -> Self {
        self.watch = Some(Watch::default());
        self
    }

    /// What was seen of marks.
    pub(crate) fn watch(&self) -> Option<&Watch> {
        self.watch.as_ref()
    }

    fn next(&mut self) -> u32 {
        self.state += 1;
        let step =
            if self.scattered { self.state.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32 } else { self.state };
        u32::try_from(step % u64::from(self.clients)).expect("below a u32")
    }

    /// Whether another origin answered this client before.
    fn moved(&mut self, client: u32, origin: u8) -> bool {
        let Some(known) = self.origins.get_mut(client as usize) else { return false };
        let moved = *known != 0 && *known != origin + 1;
        *known = origin + 1;
        moved
    }
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// The proxy does not accept it.
    pub(crate) fn connect(target: &Target) -> anyhow::Result<Self> {
        let stream = std::net::TcpStream::connect_timeout(&target.address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: TcpStream::from_std(stream),
            heard: Vec::with_capacity(4096),
            due: None,
            client: 0,
        })
    }

    /// Sends the target's next request.
    ///
    /// # Errors
    /// The socket's buffer, which holds many, is full. A closed connection shows when it is read.
    pub(crate) fn send(&mut self, target: &mut Target, due: Instant) -> std::io::Result<()> {
        self.client = target.next();
        let mut rest = self.client;
        for digit in target.request[target.digits..target.digits + 7].iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).expect("a digit");
            rest /= 10;
        }
        self.due = Some(due);
        match self.stream.write_all(&target.request) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads what there is.
    pub(crate) fn hear(&mut self, target: &mut Target) -> Heard {
        let mut chunk = [0; 8192];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Heard::Closed { waiting: self.due.is_some() },
                Ok(length) => {
                    self.heard.extend_from_slice(&chunk[..length]);
                    if length < chunk.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return Heard::Closed { waiting: self.due.is_some() },
            }
        }
        self.answer(target).unwrap_or(Heard::Part)
    }

    fn answer(&mut self, target: &mut Target) -> Option<Heard> {
        let head = find(&self.heard, b"\r\n\r\n")?;
        let length =
            value(&self.heard[..head], "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        if self.heard.len() < head + 4 + length {
            return None;
        }
        let status =
            std::str::from_utf8(&self.heard[9..12]).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        let origin = self.heard.get(head + 4).map_or(0, |byte| byte.wrapping_sub(b'0'));
        let moved = status == 200 && target.moved(self.client, origin);
        let due = self.due.take().unwrap_or_else(Instant::now);
        if let Some(watch) = &mut target.watch {
            watch.see(&self.heard[..head], due);
        }
        self.heard.clear();
        Some(Heard::Answer { status, moved, latency: due.elapsed() })
    }
}

impl Watch {
    fn see(&mut self, head: &[u8], due: Instant) {
        let mark =
            |name| value(head, name).map(|text| text.trim_end_matches("blue").parse::<u32>().unwrap_or(0));
        let (Some(stamped), inked) = (mark("stamped"), mark("inked")) else {
            self.mixed += 1;
            return;
        };
        let (latest, since) = self.latest.unwrap_or((stamped, due));
        let stale = stamped < latest && due > since;
        self.mixed += u64::from(stale || inked != Some(stamped));
        if stamped > latest || self.latest.is_none() {
            let now = Instant::now();
            self.latest = Some((stamped, now));
            self.first.push((stamped, now));
        }
    }
}

/// The value of a header.
fn value<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let mut lines = head.split(|&byte| byte == b'\n');
    let line = lines.find(|line| {
        line.get(name.len()) == Some(&b':') && line[..name.len()].eq_ignore_ascii_case(name.as_bytes())
    })?;
    std::str::from_utf8(&line[name.len() + 1..]).ok().map(str::trim)
}
