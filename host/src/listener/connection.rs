//! One connection: TLS if there is to be, HTTP/1.1 or HTTP/2, until it ends, is overdue or the
//! listener stops.

use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request};
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    BoxError, Connection, Handler, Phase, framing::Framing, io::Watched, limit::Place, refuse, worker::Worker,
};

/// How HTTP/2 begins where nothing else announces it (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What one connection's reads are buffered in at most.
const BUFFER: usize = 64 << 10;
/// Between pings that find out whether an HTTP/2 client is still there, and for the answer.
const PING: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// Serves a connection to its end.
pub(crate) async fn serve<H: Handler>(
    worker: Arc<Worker<H>>,
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
) {
    let Some(acceptor) = &worker.tls else {
        return sniff_and_serve(worker, stream, peer, place).await;
    };
    let accepted = match timeout(worker.options.handshake_timeout, acceptor.accept(stream)).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => return worker.handler.overdue(Phase::FirstByte),
    };
    if accepted.get_ref().1.alpn_protocol() == Some(b"h2") {
        run(worker, accepted, Bytes::new(), Protocol::Http2, (peer, place)).await;
    } else {
        sniff_and_serve(worker, accepted, peer, place).await;
    }
}

async fn sniff_and_serve<H: Handler, S>(worker: Arc<Worker<H>>, mut stream: S, peer: SocketAddr, place: Place)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let sniffed = tokio::select! {
        sniffed = timeout(worker.options.first_byte_timeout, sniff(&mut stream)) => sniffed,
        () = worker.stop.stopping() => return,
    };
    match sniffed {
        Ok(Some((protocol, read))) => run(worker, stream, read, protocol, (peer, place)).await,
        Ok(None) => {}
        Err(_) => worker.handler.overdue(Phase::FirstByte),
    }
}

/// What is spoken, and the bytes it took to find out. None if nothing is.
async fn sniff(stream: &mut (impl AsyncRead + Unpin)) -> Option<(Protocol, Bytes)> {
    let mut read = BytesMut::with_capacity(PREFACE.len());
    loop {
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
        if !PREFACE.starts_with(&read) {
            return Some((Protocol::Http1, read.freeze()));
        }
        if read.len() == PREFACE.len() {
            return Some((Protocol::Http2, read.freeze()));
        }
    }
}

async fn run<H: Handler, S>(
    worker: Arc<Worker<H>>,
    stream: S,
    read: Bytes,
    protocol: Protocol,
    (peer, place): (SocketAddr, Place),
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connection = Arc::new(Connection {
        peer,
        peer_text: HeaderValue::try_from(peer.ip().to_canonical().to_string())
            .expect("an address is a header value"),
        tls: worker.tls.is_some(),
        multiplexed: protocol == Protocol::Http2,
        clock: worker.clock.clone(),
        watch: worker.clock.watch(),
        framing: Arc::new(Framing::default()),
        keep_alive: worker.options.keep_alive_timeout,
        stop: worker.stop.clone(),
        _place: place,
        _open: worker.opened(),
    });
    let mut io = Watched::new(stream, read, connection.watch.clone(), worker.options.head_timeout);
    match protocol {
        Protocol::Http1 => {
            io.scan_heads(connection.framing.clone());
            connection.watch.arm(Phase::FirstByte, worker.options.first_byte_timeout);
            serve_http1(&worker, io, connection).await;
        }
        Protocol::Http2 => {
            connection.watch.arm(Phase::Streams, worker.options.keep_alive_timeout);
            serve_http2(&worker, io, connection).await;
        }
    }
}

async fn serve_http1<H: Handler, S>(worker: &Worker<H>, io: Watched<S>, connection: Arc<Connection>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = conn::http1::Builder::new();
    builder.max_buf_size(BUFFER.max(worker.options.max_head)).max_header_size(worker.options.max_head);
    let service = service(worker.handler.clone(), connection.clone());
    let mut served = builder.serve_connection(TokioIo::new(io), service).with_upgrades();
    let end = Ending { worker, connection: &connection };
    let overdue = std::future::poll_fn(|cx| {
        end.poll(
            cx,
            &mut served,
            |served| Pin::new(served).graceful_shutdown(),
            |served, cx| Pin::new(served).poll(cx).map(|end| end.map_err(Into::into)),
        )
    });
    if let Some(Phase::RequestHead) = overdue.await
        && let Some(parts) = served.into_parts()
    {
        // The client may not even read; its socket's buffer takes this much.
        let mut io = parts.io.into_inner();
        let _ = timeout(PING, async {
            io.write_all(refuse::TIMED_OUT).await?;
            io.shutdown().await
        })
        .await;
    }
}

async fn serve_http2<H: Handler, S>(worker: &Worker<H>, io: Watched<S>, connection: Arc<Connection>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(worker.options.max_streams)
        .max_header_list_size(u32::try_from(worker.options.max_head).unwrap_or(u32::MAX))
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    let service = service(worker.handler.clone(), connection.clone());
    let mut served = pin!(builder.serve_connection(TokioIo::new(io), service));
    let end = Ending { worker, connection: &connection };
    std::future::poll_fn(|cx| {
        end.poll(
            cx,
            &mut served,
            |served| served.as_mut().graceful_shutdown(),
            |served, cx| served.as_mut().poll(cx).map(|end| end.map_err(Into::into)),
        )
    })
    .await;
}

fn service<H: Handler>(
    handler: Arc<H>,
    connection: Arc<Connection>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = http::Response<H::Body>,
    Error = BoxError,
    Future = impl Future<Output = Result<http::Response<H::Body>, BoxError>> + Send + 'static,
> {
    service_fn(move |request| handler.clone().handle(connection.clone(), request))
}

/// Drives a connection and sees when it has to end.
struct Ending<'a, H> {
    worker: &'a Worker<H>,
    connection: &'a Arc<Connection>,
}

impl<H: Handler> Ending<'_, H> {
    /// Ready once it has ended, with the phase that took too long if that is why.
    fn poll<C>(
        &self,
        cx: &mut Context<'_>,
        served: &mut C,
        finish: impl Fn(&mut C),
        drive: impl Fn(&mut C, &mut Context<'_>) -> Poll<Result<(), BoxError>>,
    ) -> Poll<Option<Phase>> {
        let watch = &self.connection.watch;
        watch.register(cx.waker());
        if self.worker.stop.is_stopping() {
            if self.worker.stop.is_aborting() {
                return Poll::Ready(None);
            }
            finish(served);
        }
        let overdue = watch.overdue();
        match overdue {
            Some(phase @ (Phase::FirstByte | Phase::RequestHead | Phase::KeepAlive)) => {
                self.worker.handler.overdue(phase);
                return Poll::Ready(Some(phase));
            }
            Some(Phase::Streams) => self.without_streams(served, finish),
            _ => {}
        }
        match drive(served, cx) {
            Poll::Ready(Ok(())) => Poll::Ready(None),
            Poll::Ready(Err(error)) => {
                let error = error.to_string();
                tracing::debug!(peer = %self.connection.peer, error, "connection broke off");
                Poll::Ready(None)
            }
            // A client that does not read: nobody asks the body for more, so nobody ends it.
            Poll::Pending if overdue == Some(Phase::ResponseBody) && watch.overdue() == overdue => {
                self.worker.handler.overdue(Phase::ResponseBody);
                Poll::Ready(Some(Phase::ResponseBody))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Several messages at a time: the connection is idle once none of them holds it.
    fn without_streams<C>(&self, served: &mut C, finish: impl Fn(&mut C)) {
        // This function's caller and the service hold it besides.
        let busy = Arc::strong_count(self.connection) > 2;
        self.connection.watch.arm(Phase::Streams, self.worker.options.keep_alive_timeout);
        if !busy {
            finish(served);
        }
    }
}
