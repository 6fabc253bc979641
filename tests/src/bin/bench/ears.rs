//! Who is told, and when: one thread with one epoll that takes the time as soon as a connection can be
//! read, and understands nothing of what it reads.

use std::{
    io::{ErrorKind, Read, Write},
    time::{Duration, Instant},
};

use anyhow::Context;
use mio::{Events, Interest, Poll, Token, net::TcpStream};

use crate::histogram::Histogram;

/// What is not heard by then is lost, and the benchmark with it.
const LOST: Duration = Duration::from_secs(10);

/// Connections that listen.
pub(crate) struct Ears {
    poll: Poll,
    events: Events,
    streams: Vec<TcpStream>,
    buffer: Vec<u8>,
}

impl Ears {
    /// Listens on these, which do not block.
    ///
    /// # Errors
    /// No epoll.
    pub(crate) fn new(streams: Vec<std::net::TcpStream>) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut streams: Vec<_> = streams.into_iter().map(TcpStream::from_std).collect();
        for (at, stream) in streams.iter_mut().enumerate() {
            poll.registry().register(stream, Token(at), Interest::READABLE)?;
        }
        Ok(Self { poll, events: Events::with_capacity(1024), streams, buffer: vec![0; 64 << 10] })
    }

    /// Says something and waits until everybody has heard of it; counts how long that took each.
    ///
    /// # Errors
    /// A connection broke off, or somebody heard nothing.
    pub(crate) fn hear(
        &mut self,
        speaker: &mut impl Write,
        says: &[u8],
        latencies: &mut Histogram,
    ) -> anyhow::Result<()> {
        let mut heard = vec![false; self.streams.len()];
        let mut waiting = heard.len();
        let begin = Instant::now();
        speaker.write_all(says)?;
        while waiting > 0 {
            anyhow::ensure!(begin.elapsed() < LOST, "{waiting} services were not told");
            self.poll.poll(&mut self.events, Some(Duration::from_millis(100))).or_else(interrupted)?;
            for event in &self.events {
                let (at, latency) = (event.token().0, begin.elapsed());
                if drain(&mut self.streams[at], &mut self.buffer)? && !std::mem::replace(&mut heard[at], true)
                {
                    latencies.count(latency);
                    waiting -= 1;
                }
            }
        }
        Ok(())
    }
}

/// Reads all that is there; whether there was anything.
fn drain(stream: &mut TcpStream, buffer: &mut [u8]) -> anyhow::Result<bool> {
    let mut any = false;
    loop {
        match stream.read(buffer) {
            Ok(0) => anyhow::bail!("a connection ended"),
            Ok(_) => any = true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(any),
            Err(error) => return Err(error).context("read"),
        }
    }
}

fn interrupted(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

/// A text as a client's frame (RFC 6455), whose mask changes nothing.
pub(crate) fn frame(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    let head: &[u8] = &[0x81, 0x80 | 126];
    [head, &length.to_be_bytes(), &[0; 4], text.as_bytes()].concat()
}
