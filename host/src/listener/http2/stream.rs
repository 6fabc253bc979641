//! One stream: has the handler answer its request, and hands the response over as the client takes it.
//! Each is a task of its own, because the streams of a connection wait for different things.

use std::{
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, response::Parts};
use http_body::Body;
use http_body_util::Full;
use tokio::time::timeout;

use super::{
    super::{
        BoxError, Carrier, Handler, Interim, Phase, Watch, refuse, socket::Socket, wire::Upgraded,
        worker::Worker,
    },
    Active, ClientTunnel,
    request::{self, Link, Read, Tunnelled, Unread},
};
use crate::{
    http1::outbox::length,
    http2::{
        outgoing::{Outgoing, Unsent},
        strip_forbidden,
        tunnel::StreamTunnel,
    },
};

/// For a client to read an answer that came early, before it is told that it may go on.
const PAUSE: Duration = Duration::from_millis(250);
/// A client that may go on and sends nothing for so long has read its answer, or never will.
const SILENCE: Duration = Duration::from_secs(2);

/// Serves a stream to its end.
pub(super) async fn serve<H: Handler>(
    worker: Arc<Worker<H>>,
    active: Active,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let watch = active.connection().clock.watch();
    let stream = Stream { worker, active, watch, link: Arc::default(), respond };
    let to_head = request.method() == Method::HEAD;
    match request::read(request, &stream.link, stream.worker.options.max_head) {
        Ok(Read { request, expects_continue, tunnelled }) => {
            stream.message(request, Asked { to_head, expects_continue, tunnelled }).await;
        }
        Err(unread) => stream.refuse(unread, to_head).await,
    }
}

/// One stream's.
struct Stream<H: Handler> {
    worker: Arc<Worker<H>>,
    active: Active,
    watch: Arc<Watch>,
    link: Arc<Link>,
    respond: SendResponse<Bytes>,
}

/// What matters of a request for its response.
struct Asked {
    to_head: bool,
    expects_continue: bool,
    tunnelled: Option<Tunnelled>,
}

impl<H: Handler> Stream<H> {
    async fn message(mut self, request: Request<super::super::Incoming>, mut asked: Asked) {
        let handler = self.worker.handler.clone();
        let carrier = Carrier {
            connection: self.active.connection().clone(),
            watch: self.watch.clone(),
            interim: Interim::Stream(self.link.clone()),
        };
        let response = {
            let handling = pin!(handler.handle(carrier, request));
            self.answer(handling, &mut asked.expects_continue).await
        };
        let Some(response) = response else { return };
        let (head, body) = response.into_parts();
        match (head.status, asked.tunnelled) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(tunnelled)) => self.hand_over(head, tunnelled),
            (_, tunnelled) => {
                self.respond(head, body, asked.to_head).await;
                self.linger(tunnelled.map(|tunnelled| tunnelled.receive)).await;
            }
        }
    }

    /// None if there is nothing to answer, or nobody.
    async fn answer<F>(
        &mut self,
        mut handling: Pin<&mut F>,
        expects_continue: &mut bool,
    ) -> Option<Response<H::Body>>
    where
        F: Future<Output = Result<Response<H::Body>, BoxError>>,
    {
        let answered = std::future::poll_fn(|cx| {
            let answered = handling.as_mut().poll(cx);
            for (status, headers) in self.link.interim() {
                self.inform(status, headers);
            }
            if answered.is_pending() && *expects_continue && self.link.wanted.load(Relaxed) {
                *expects_continue = false;
                self.inform(StatusCode::CONTINUE, HeaderMap::new());
            }
            match answered {
                Poll::Ready(answered) => Poll::Ready(Some(answered)),
                Poll::Pending => self.poll_cancelled(cx).map(|()| None),
            }
        });
        match answered.await? {
            Ok(response) => Some(response),
            Err(error) => {
                self.broke_off(&*error);
                self.respond.send_reset(Reason::INTERNAL_ERROR);
                None
            }
        }
    }

    fn inform(&mut self, status: StatusCode, mut headers: HeaderMap) {
        strip_forbidden(&mut headers);
        // One that says how long it is would be read in two ways: it has no body.
        headers.remove(header::CONTENT_LENGTH);
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        // If it cannot be sent, there is nobody to wait for it.
        let _ = self.respond.send_informational(response);
    }

    /// Ready once the client has cancelled the stream, or is gone.
    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.respond.poll_reset(cx).map(|cancelled| {
            if cancelled.is_ok() {
                self.active.cancelled();
            }
        })
    }

    /// Sends a response to its end, or resets the stream.
    async fn respond<B>(&mut self, head: Parts, body: B, to_head: bool)
    where
        B: Body<Data = Bytes, Error = BoxError> + Unpin,
    {
        let (head, length, ends) = response_head(head, &body, to_head);
        let sent = match self.respond.send_response(head, ends) {
            Ok(_) if ends => Ok(()),
            Ok(stream) => self.send(Outgoing::new(body, stream, length)).await,
            Err(error) => {
                self.respond.send_reset(Reason::INTERNAL_ERROR);
                Err(error.into())
            }
        };
        match sent {
            Ok(()) => self.active.answered(),
            Err(error) => self.broke_off(&*error),
        }
    }

    async fn send<B>(&mut self, mut body: Outgoing<B>) -> Result<(), BoxError>
    where
        B: Body<Data = Bytes, Error = BoxError> + Unpin,
    {
        let sent = std::future::poll_fn(|cx| self.poll_send(cx, &mut body)).await;
        let reason = match &sent {
            Ok(()) | Err(Unsent::Reset(_) | Unsent::Connection(_)) => return sent.map_err(BoxError::from),
            Err(Unsent::Overdue) => Reason::CANCEL,
            Err(Unsent::Body(_)) => {
                // A reset drops what is not written yet; waiting once lets it go out.
                tokio::task::yield_now().await;
                Reason::INTERNAL_ERROR
            }
        };
        body.reset(reason);
        sent.map_err(BoxError::from)
    }

    fn poll_send<B>(&self, cx: &mut Context<'_>, body: &mut Outgoing<B>) -> Poll<Result<(), Unsent>>
    where
        B: Body<Data = Bytes, Error = BoxError> + Unpin,
    {
        self.watch.register(cx.waker());
        let before = body.sent();
        let sent = body.poll(cx);
        if body.sent() != before {
            self.watch.touch();
        }
        // A client that opens no window: nobody asks the body for more, so nobody else ends it.
        match self.watch.overdue() {
            Some(phase) if sent.is_pending() => {
                self.worker.handler.overdue(phase, self.active.connection().peer);
                Poll::Ready(Err(Unsent::Overdue))
            }
            _ => sent,
        }
    }

    /// Throws away for a while what the client still sends of a body that nobody wants: many a client
    /// takes a stream that is reset before it has said everything for one that failed, though it has the
    /// whole answer. At first without opening the window for more: a client that has read the answer
    /// stops by itself, and curl, told in the same breath that it may go on, ends its body short.
    async fn linger(self, tunnelled: Option<RecvStream>) {
        let unread = tunnelled.or_else(|| self.link.unread.lock().take());
        let Some(stream) = unread else { return };
        let options = &self.worker.options;
        let mut unread = Unwanted { stream, left: options.max_unread, owed: 0, open: false };
        self.watch.arm(Phase::RequestBody, PAUSE);
        let discarded = std::future::poll_fn(|cx| {
            self.watch.register(cx.waker());
            loop {
                let over = unread.poll(cx, &self.watch).is_ready();
                let overdue = self.watch.overdue().is_some();
                match (over, overdue && !unread.open) {
                    (false, true) => {
                        self.watch.arm(Phase::RequestBody, SILENCE);
                        unread.open();
                    }
                    _ if over || overdue => return Poll::Ready(()),
                    _ => return Poll::Pending,
                }
            }
        });
        // What is left then is not taken: the stream is reset with it, which harms no answer.
        let _ = timeout(options.unread_timeout, discarded).await;
    }

    /// Says that the stream is something else from now on, and lets go of it.
    fn hand_over(mut self, mut head: Parts, tunnelled: Tunnelled) {
        // What HTTP/1.1 says by 101 and a digest of the key is a plain success here (RFC 8441, section 5).
        head.status = StatusCode::OK;
        head.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        strip_forbidden(&mut head.headers);
        let sent: Result<SendStream<Bytes>, _> =
            self.respond.send_response(Response::from_parts(head, ()), false);
        match sent {
            Ok(send) => {
                let tunnel = StreamTunnel::new(send, tunnelled.receive);
                let socket = Socket::Stream(Box::new(ClientTunnel { tunnel, _active: self.active }));
                // Whoever asked for it may have given up.
                let _ = tunnelled.upgraded.send(Upgraded { socket, read: Bytes::new() });
            }
            Err(error) => self.broke_off(&error),
        }
    }

    /// Says why a request is not served.
    async fn refuse(mut self, unread: Unread, to_head: bool) {
        let Unread { refused, is_call, receive } = unread;
        tracing::debug!(peer = %self.active.connection().peer, %refused, "request refused");
        let (why, response) = refuse::response(refused, is_call);
        self.worker.handler.unserved(why, Some(self.active.connection().peer));
        let (head, body) = response.into_parts();
        self.watch.arm(Phase::ResponseBody, self.worker.options.head_timeout);
        let body = http_body_util::BodyExt::map_err(Full::new(body), |never| match never {});
        self.respond(head, body, to_head).await;
        self.linger(Some(receive)).await;
    }

    fn broke_off(&self, error: &dyn std::error::Error) {
        tracing::debug!(peer = %self.active.connection().peer, %error, "stream broke off");
    }
}

/// What is left of a body that nobody wants.
struct Unwanted {
    stream: RecvStream,
    /// Bytes of it that are taken.
    left: u64,
    /// Bytes that were taken and not given back to the window.
    owed: usize,
    /// The client may go on.
    open: bool,
}

impl Unwanted {
    /// Takes what is there, which moves the deadline; ready once the client has ended it, or it is too
    /// much.
    fn poll(&mut self, cx: &mut Context<'_>, watch: &Watch) -> Poll<()> {
        while self.left > 0 {
            let Some(Ok(data)) = ready!(self.stream.poll_data(cx)) else { break };
            self.left = self.left.saturating_sub(data.len() as u64);
            self.owed += data.len();
            if self.open {
                self.open();
                watch.touch();
            }
        }
        Poll::Ready(())
    }

    fn open(&mut self) {
        self.open = true;
        // Only fails for more than was received.
        let _ = self.stream.flow_control().release_capacity(std::mem::take(&mut self.owed));
    }
}

/// A response's head as HTTP/2 has it, the length of what follows, if that is known, and whether
/// nothing does: no body follows, whatever the head says, if there is none to be.
fn response_head(mut head: Parts, body: &impl Body, to_head: bool) -> (Response<()>, Option<u64>, bool) {
    let headers = &mut head.headers;
    strip_forbidden(headers);
    if !headers.contains_key(header::DATE) {
        let now = httpdate::HttpDate::from(SystemTime::now()).to_string();
        headers.insert(header::DATE, HeaderValue::try_from(now).expect("a date is a header value"));
    }
    let bodiless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if to_head || bodiless {
        if head.status == StatusCode::NO_CONTENT {
            headers.remove(header::CONTENT_LENGTH);
        }
        return (Response::from_parts(head, ()), None, true);
    }
    let ends = body.is_end_stream();
    let length = length(headers, body).filter(|_| !ends);
    match length {
        Some(length) => headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length)),
        // That nothing follows the stream says itself.
        None => headers.remove(header::CONTENT_LENGTH),
    };
    (Response::from_parts(head, ()), length, ends)
}
