//! HTTP/2 connections of one worker to one server: a message takes a stream on one that has room, and
//! where none has, another connection is opened rather than that messages wait behind each other.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::{Connections, Origin, Pool, dial};
use crate::upstream::{UpstreamError, dial::DialError, http2::Http2};

/// What a server is taken to allow before one has said it: RFC 9113 recommends no less.
const USUAL_ROOM: usize = 100;

/// What the messages to one server share.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Messages that wait for room.
    waiting: AtomicUsize,
    room: Notify,
}

#[derive(Default)]
struct State {
    open: Vec<Open>,
    /// Being opened.
    dialling: usize,
    /// Streams that the connection opened last took.
    usual_room: Option<usize>,
    /// Counts connections that could not be opened.
    failures: u64,
}

impl State {
    /// Whether a server with several addresses has fewer connections than those, or one of them has
    /// none, and it may have more.
    fn lacks(&self, pool: &Pool) -> bool {
        let (open, addresses) = (self.open.len() + self.dialling, pool.endpoint.addresses());
        let fewer = open < addresses.min(pool.shared.options.max_connections);
        addresses > 1 && (fewer || self.dialling == 0 && pool.lacks_connection(open))
    }
}

/// A connection that takes messages.
struct Open {
    connection: Http2,
    origin: Origin,
}

impl Open {
    /// Whether it takes another; one that is too old, or leads where its server is no longer, ends with
    /// those that it has.
    fn is_usable(&mut self, pool: &Pool) -> bool {
        let now = pool.shared.now.load(Relaxed);
        self.connection.is_usable() && !self.origin.is_old(now) && self.origin.leads(&pool.endpoint)
    }
}

/// One message's stream on a connection; its room goes to the next when this is dropped.
pub(crate) struct Stream {
    connection: Http2,
    pool: Arc<Pool>,
    reused: bool,
}

impl Stream {
    pub(crate) fn connection(&self) -> &Http2 {
        &self.connection
    }

    /// Whether the connection was open before.
    pub(crate) fn is_on_reused(&self) -> bool {
        self.reused
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.give_stream_back(self.pool.shared.now.load(Relaxed));
        let http2 = &self.pool.http2;
        if http2.waiting.load(Relaxed) > 0 {
            http2.room.notify_one();
        }
    }
}

/// What one who finds no room does.
enum Next {
    Open(Dialling),
    Wait,
}

/// Permission to open a connection.
struct Dialling(Arc<Pool>);

impl Drop for Dialling {
    fn drop(&mut self) {
        self.0.http2.state.lock().dialling -= 1;
        // Whatever came of it, those who waited look again.
        self.0.http2.room.notify_waiters();
    }
}

/// Counts one who waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Pool {
    /// A stream on an open connection that has room; on the one that has the most, so that what one
    /// connection loses concerns few.
    pub(super) fn stream(self: &Arc<Self>, connections: Connections) -> Option<Stream> {
        let stream = self.take_stream(connections, self.endpoint.addresses())?;
        self.shared.metrics.reused.inc();
        Some(stream)
    }

    /// `addresses`: so many the server has, each of which is to have a connection first and its turn then.
    fn take_stream(self: &Arc<Self>, connections: Connections, addresses: usize) -> Option<Stream> {
        let mut state = self.http2.state.lock();
        state.open.retain_mut(|open| open.is_usable(self));
        if addresses > 1 {
            if state.lacks(self) {
                return None;
            }
            // Of those with as much room the last is taken.
            let turn = usize::from(state.open.len() > 1);
            state.open.rotate_left(turn);
        }
        let wanted = |connection: &&Http2| connections != Connections::Except(connection.number());
        let open = state.open.iter().map(|open| &open.connection).filter(wanted);
        let open = open.map(|connection| (connection.room(), connection));
        let (room, connection) = open.max_by_key(|(room, _)| *room)?;
        if room == 0 {
            return None;
        }
        connection.take_stream();
        Some(Stream { connection: connection.clone(), pool: self.clone(), reused: true })
    }

    /// A stream, once there is room on a connection, or one is open.
    pub(super) async fn wait_for_stream(
        self: Arc<Self>,
        mut connections: Connections,
    ) -> Result<Stream, UpstreamError> {
        let deadline = Instant::now() + self.shared.options.queue_timeout;
        if self.http2.waiting.load(Relaxed) >= self.shared.options.max_queue {
            return Err(self.busy());
        }
        let waiting = Waiting::begin(&self.http2.waiting);
        let failures = self.http2.state.lock().failures;
        loop {
            // Listens before it looks, so that it misses nothing.
            let mut room = pin!(self.http2.room.notified());
            room.as_mut().enable();
            if let Some(stream) = self.take_stream(connections, self.endpoint.addresses()) {
                return Ok(stream);
            }
            if let Next::Open(dialling) = self.next(failures) {
                drop(waiting);
                // If another address of the server cannot be reached, one that was may have room.
                let opened = self.open_http2(dialling).await;
                return opened.or_else(|source| {
                    self.take_stream(connections, 1).ok_or_else(|| self.unreachable(source))
                });
            }
            if timeout_at(deadline, room).await.is_err() {
                return Err(self.busy());
            }
            // What there is room on now will do.
            connections = Connections::Any;
        }
    }

    /// One connection is opened for as many messages as it will take, so that a burst opens few; but
    /// when one could not be opened, who waited for it finds out for himself.
    fn next(self: &Arc<Self>, failures: u64) -> Next {
        let mut state = self.http2.state.lock();
        if state.open.len() + state.dialling >= self.shared.options.max_connections {
            return Next::Wait;
        }
        let expected = state.dialling * state.usual_room.unwrap_or(USUAL_ROOM);
        let expected = self.http2.waiting.load(Relaxed) <= expected && state.failures == failures;
        if expected && !state.lacks(self) {
            return Next::Wait;
        }
        state.dialling += 1;
        Next::Open(Dialling(self.clone()))
    }

    /// Opens a connection, and takes a stream on it.
    async fn open_http2(self: &Arc<Self>, dialling: Dialling) -> Result<Stream, DialError> {
        let options = &self.shared.options;
        let begun = async {
            let stream = dial(&self.endpoint, options.connect_timeout).await?;
            let origin = Origin::of(&stream, self);
            let connection = Http2::begin(stream, options, &self.shared.metrics).await?;
            Ok(Open { connection, origin })
        };
        let begun = begun.await;
        let mut state = self.http2.state.lock();
        let open = begun.inspect_err(|_| state.failures += 1)?;
        let connection = open.connection.clone();
        self.shared.metrics.opened.inc();
        state.usual_room = Some(connection.room().max(1));
        connection.take_stream();
        state.open.push(open);
        drop(state);
        drop(dialling);
        Ok(Stream { connection, pool: self.clone(), reused: false })
    }
}

impl Shared {
    /// Lets go of connections that are closed, or have carried nothing for too long.
    pub(super) fn close_idle(&self, pool: &Pool, now: u64, idle_timeout: u64) {
        let closed: Vec<_> = {
            let over = |open: &mut Open| !open.is_usable(pool) || open.connection.is_idle(now, idle_timeout);
            self.state.lock().open.extract_if(.., over).collect()
        };
        drop(closed);
    }

    pub(super) fn is_unused(&self) -> bool {
        let state = self.state.lock();
        state.dialling == 0 && state.open.iter().all(|open| open.connection.streams() == 0)
    }

    /// No connection is open.
    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().open.is_empty()
    }
}
