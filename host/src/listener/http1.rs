//! Serves the requests of an HTTP/1.1 connection, one after the other, in one task: reads a head,
//! has the handler answer it, writes the response. What requests and responses look like is
//! [`crate::http1`]'s; here is when they are read and written, and when the connection ends.

use std::{
    io::{self, Write},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::SystemTime,
};

use bytes::BytesMut;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header, response::Parts};
use http_body::Body;
use parking_lot::Mutex;
use tokio::{io::AsyncWriteExt, sync::oneshot, time::timeout};

use super::{
    BoxError, Carrier, Connection, Handler, Incoming, Interim, OnUpgrade, Phase,
    linger::SILENCE,
    refuse,
    socket::Socket,
    wire::{Upgraded, Wire, WireBody, Writer},
    worker::Worker,
};
use crate::http1::{
    Unwritten,
    outbox::{Framing, Outbox, length, write_framing, write_headers, write_line},
    request::{Parser, RequestHead},
};

/// Headers of a message that the connection keeps the space of, at most.
const SPARE: usize = 64;

/// Serves a connection to its end. `read` was read already.
pub(super) async fn serve<H: Handler>(
    worker: &Worker<H>,
    connection: &Arc<Connection>,
    socket: Socket,
    read: BytesMut,
) {
    let mut client = Client {
        worker,
        connection,
        wire: Arc::new(Mutex::new(Wire::new(socket, read))),
        parser: Parser::new(worker.options.max_head),
        outbox: Outbox::default(),
        spare: HeaderMap::new(),
        unread: worker.options.max_unread,
        leaving: false,
    };
    loop {
        let head = match std::future::poll_fn(|cx| client.poll_head(cx)).await {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(answer) => return client.take_leave(&answer, true).await,
        };
        match client.message(head).await {
            After::Next => {}
            After::Nothing => return,
            After::Leave { unread } => return client.take_leave(b"", unread).await,
        }
    }
}

/// One connection's.
struct Client<'a, H: Handler> {
    worker: &'a Worker<H>,
    connection: &'a Arc<Connection>,
    wire: Arc<Mutex<Wire>>,
    parser: Parser,
    outbox: Outbox<H::Body>,
    /// The space of a map that is not used any more.
    spare: HeaderMap,
    /// Bytes of the message at hand that may still be read and thrown away.
    unread: u64,
    /// The listener stops, and a request that is on its way is waited for.
    leaving: bool,
}

/// What comes after a message.
enum After {
    /// Another.
    Next,
    /// The connection is gone, or somebody else's.
    Nothing,
    /// The end, with or without something that the client sent and nobody will read.
    Leave { unread: bool },
}

/// What matters of a request for its response.
#[derive(Clone, Copy)]
struct To {
    head: bool,
    http11: bool,
    takes_trailers: bool,
}

impl<H: Handler> Client<'_, H> {
    /// The next request; none if the client has had enough, or all connections are cut off. An error is
    /// what is said last: the answer to what cannot be served, or nothing to a client that was idle.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<RequestHead>, Vec<u8>>> {
        let watch = &self.connection.watch;
        watch.register(cx.waker());
        if self.connection.stop.is_aborting() {
            return Poll::Ready(Ok(None));
        }
        if let Some(phase) = watch.overdue() {
            let late = phase == Phase::RequestHead;
            if late || !self.leaving {
                self.worker.handler.overdue(phase, self.connection.peer);
            }
            return Poll::Ready(Err(if late { refuse::timed_out() } else { Vec::new() }));
        }
        let mut wire = self.wire.lock();
        loop {
            match self.parser.parse(&mut wire.read, &mut self.spare) {
                Ok(None) => {}
                Ok(head) => return Poll::Ready(Ok(head)),
                Err(refused) => {
                    tracing::debug!(peer = %self.connection.peer, %refused, "request refused");
                    let (why, answer) = refuse::refused(refused);
                    self.worker.handler.unserved(why, Some(self.connection.peer));
                    return Poll::Ready(Err(answer));
                }
            }
            if !wire.read.is_empty() && matches!(watch.phase(), Phase::FirstByte | Phase::KeepAlive) {
                watch.arm(Phase::RequestHead, self.worker.options.head_timeout);
            }
            match wire.poll_fill(cx, 0) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ok(None)),
                Poll::Pending if self.connection.stop.is_stopping() && wire.read.is_empty() => {
                    // What the client sends now it sent before it could know: that is answered, and the
                    // answer says that it is the last.
                    if !std::mem::replace(&mut self.leaving, true) {
                        watch.arm(Phase::KeepAlive, self.worker.options.drain_idle);
                    }
                    return Poll::Pending;
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    async fn message(&mut self, head: RequestHead) -> After {
        let to = To {
            head: head.method == Method::HEAD,
            http11: head.http11,
            takes_trailers: head.takes_trailers,
        };
        let mut keep_alive = head.keep_alive;
        self.unread = self.worker.options.max_unread;
        let (request, upgraded) = self.request(head);
        let (handler, connection) = (self.worker.handler.clone(), self.connection.clone());
        let interim = if to.http11 { Interim::Connection } else { Interim::Nowhere };
        let carrier = Carrier { watch: connection.watch.clone(), connection, interim };
        let handling = pin!(handler.handle(carrier, request));
        let Some(response) = self.answer(handling).await else { return After::Nothing };
        let (mut head, body) = response.into_parts();
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(upgraded)) = (head.status, upgraded) {
            return self.hand_over(&head, body, upgraded).await;
        }
        let framing = framing(to, &head, &body);
        keep_alive &= framing != Some(Framing::UntilClose) && self.may_follow(&head);
        self.outbox.begin(body, framing, |text| write_head(text, to, &head, framing, keep_alive));
        if self.write().await.is_err() {
            return After::Nothing;
        }
        head.headers.clear();
        if head.headers.capacity() <= SPARE {
            self.spare = head.headers;
        }
        if keep_alive && self.discard().await {
            return After::Next;
        }
        // A client that does not know yet that this was the last may have sent more.
        let stopping = self.connection.stop.is_stopping();
        let wire = self.wire.lock();
        After::Leave { unread: stopping || !wire.is_at_end() || !wire.read.is_empty() }
    }

    /// Whether the request was read to its end, if necessary by reading what nobody wants of it.
    async fn discard(&mut self) -> bool {
        if self.wire.lock().is_at_end() {
            return true;
        }
        let limit = self.worker.options.unread_timeout;
        let discarded = std::future::poll_fn(|cx| {
            self.connection.watch.register(cx.waker());
            match self.connection.stop.is_aborting() || !self.is_abandoned() {
                true => Poll::Ready(false),
                false => self.wire.lock().poll_discard(cx, &mut self.unread),
            }
        });
        let at_end = timeout(limit, discarded).await.unwrap_or(false);
        self.connection.watch.arm(Phase::KeepAlive, self.connection.keep_alive);
        at_end
    }

    /// Nobody is left who would read the request's body.
    fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.wire) == 1
    }

    /// As the handler gets it.
    fn request(&self, head: RequestHead) -> (Request<Incoming>, Option<oneshot::Sender<Upgraded>>) {
        let bodiless = head.decoder.is_done();
        let number = self.wire.lock().begin(head.decoder, head.expects_continue);
        let mut upgraded = None;
        let body = match (bodiless, head.upgrades) {
            (false, _) => Incoming::Http1(WireBody::new(self.wire.clone(), number)),
            (true, false) => Incoming::Empty,
            (true, true) => {
                let (sender, receiver) = oneshot::channel();
                upgraded = Some(sender);
                Incoming::Upgradable(OnUpgrade(receiver))
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = head.uri;
        *request.headers_mut() = head.headers;
        *request.version_mut() = if head.http11 { Version::HTTP_11 } else { Version::HTTP_10 };
        (request, upgraded)
    }

    /// None if there is nothing to answer, or nobody.
    async fn answer<F>(&mut self, mut handling: Pin<&mut F>) -> Option<Response<H::Body>>
    where
        F: Future<Output = Result<Response<H::Body>, BoxError>>,
    {
        let answered = std::future::poll_fn(|cx| {
            self.connection.watch.register(cx.waker());
            if self.connection.stop.is_aborting() {
                return Poll::Ready(None);
            }
            let answered = handling.as_mut().poll(cx);
            if let Some(interim) = self.connection.interim.take() {
                self.wire.lock().inform(&interim);
            }
            match answered {
                Poll::Ready(answered) => Poll::Ready(Some(answered)),
                Poll::Pending => self.wire.lock().poll_gone(cx).map(|()| None),
            }
        });
        match answered.await? {
            Ok(response) => Some(response),
            Err(error) => {
                self.broke_off(&*error);
                None
            }
        }
    }

    /// Whether another request may follow on the connection, as far as this end is concerned. If the
    /// request has not been read to its end, what is missing must be little enough to be thrown away.
    fn may_follow(&self, head: &Parts) -> bool {
        let closes = head.headers.get(header::CONNECTION).is_some_and(|value| value == "close");
        let mut wire = self.wire.lock();
        let waits_in_vain = wire.answer();
        let within = wire.rest() <= self.unread;
        within && !waits_in_vain && !closes && !self.connection.stop.is_stopping()
    }

    /// Writes what is in the outbox; an error has been told.
    async fn write(&mut self) -> Result<(), ()> {
        let gathered = std::future::poll_fn(|cx| Poll::Ready(self.outbox.gather(cx))).await;
        let written = match gathered {
            Ok(()) => std::future::poll_fn(|cx| self.poll_write(cx)).await,
            Err(unwritten) => Err(unwritten),
        };
        written.map_err(|unwritten| self.broke_off(&unwritten))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unwritten>> {
        let Connection { watch, stop, .. } = &**self.connection;
        watch.register(cx.waker());
        let broken = |kind: io::ErrorKind| Poll::Ready(Err(Unwritten::Io(kind.into())));
        if stop.is_aborting() {
            return broken(io::ErrorKind::ConnectionAborted);
        }
        if let Poll::Ready(written) = self.outbox.poll(cx, &mut Writer { wire: &self.wire, watch }) {
            return Poll::Ready(written);
        }
        // A client that does not read: nobody asks the body for more, so nobody else ends it.
        if let Some(phase) = watch.overdue() {
            self.worker.handler.overdue(phase, self.connection.peer);
            return broken(io::ErrorKind::TimedOut);
        }
        let mut wire = self.wire.lock();
        if !wire.is_at_end() && Arc::strong_count(&self.wire) == 1 {
            // A client that sends all of its body before it reads would wait for this end, and this end
            // for it.
            let _ = wire.poll_discard(cx, &mut self.unread);
        }
        ready!(wire.poll_gone(cx));
        broken(io::ErrorKind::ConnectionReset)
    }

    fn broke_off(&self, error: &dyn std::error::Error) {
        tracing::debug!(peer = %self.connection.peer, %error, "connection broke off");
    }

    /// Says that the connection is something else from now on, and lets go of it.
    async fn hand_over(&mut self, head: &Parts, body: H::Body, upgraded: oneshot::Sender<Upgraded>) -> After {
        let to = To { head: false, http11: true, takes_trailers: false };
        self.outbox.begin(body, None, |text| write_head(text, to, head, None, true));
        if self.write().await.is_err() {
            return After::Nothing;
        }
        let socket = self.wire.lock().take();
        // Whoever asked for it may have given up.
        let _ = socket.map(|socket| upgraded.send(socket));
        After::Nothing
    }

    /// Says the last, and reads for a while what the client still sends if nobody did: to close at
    /// once would take the answer from it.
    async fn take_leave(&mut self, answer: &[u8], unread: bool) {
        let mut left = if unread { self.unread } else { 0 };
        let mut writer = Writer { wire: &self.wire, watch: &self.connection.watch };
        let leave = async {
            writer.write_all(answer).await?;
            writer.shutdown().await?;
            while left > 0 {
                let read = std::future::poll_fn(|cx| {
                    let mut wire = self.wire.lock();
                    wire.read.clear();
                    wire.poll_fill(cx, 0)
                });
                left = match timeout(SILENCE, read).await {
                    Ok(Ok(read @ 1..)) => left.saturating_sub(read as u64),
                    _ => 0,
                };
            }
            io::Result::Ok(())
        };
        tokio::select! {
            _ = timeout(self.worker.options.unread_timeout, leave) => {}
            () = self.connection.stop.aborting() => {}
        }
    }
}

/// None: no body follows, whatever the head says.
fn framing(to: To, head: &Parts, body: &impl Body) -> Option<Framing> {
    let bodiless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if to.head || bodiless || head.status.is_informational() {
        return None;
    }
    if body.is_end_stream() {
        return Some(Framing::Length(0));
    }
    Some(match length(&head.headers, body) {
        Some(length) => Framing::Length(length),
        None if to.http11 => Framing::Chunked { trailers: to.takes_trailers },
        None => Framing::UntilClose,
    })
}

fn write_head(text: &mut Vec<u8>, to: To, head: &Parts, framing: Option<Framing>, keep_alive: bool) {
    let status = head.status;
    text.extend_from_slice(b"HTTP/1.1 ");
    text.extend_from_slice(status.as_str().as_bytes());
    text.push(b' ');
    text.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    text.extend_from_slice(b"\r\n");
    let (mut dated, mut upgrades) = (false, false);
    write_headers(text, &head.headers, |name| match *name {
        header::UPGRADE => {
            upgrades = status == StatusCode::UPGRADE_REQUIRED;
            true
        }
        header::TRANSFER_ENCODING => false,
        header::CONNECTION => status == StatusCode::SWITCHING_PROTOCOLS,
        header::CONTENT_LENGTH => framing.is_none() && (to.head || status == StatusCode::NOT_MODIFIED),
        header::DATE => {
            dated = true;
            true
        }
        _ => true,
    });
    if !dated {
        let now = httpdate::HttpDate::from(SystemTime::now());
        write!(text, "date: {now}\r\n").expect("a vector takes everything");
    }
    write_framing(text, framing);
    if upgrades {
        // Whoever sends `upgrade` must name it here (RFC 9110, section 7.8).
        write_line(text, "connection", b"upgrade");
    }
    match (keep_alive, to.http11) {
        (true, true) => {}
        (true, false) => write_line(text, "connection", b"keep-alive"),
        (false, _) => write_line(text, "connection", b"close"),
    }
    text.extend_from_slice(b"\r\n");
}
