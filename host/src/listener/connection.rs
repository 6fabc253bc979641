//! One connection: TLS if there is to be, HTTP/1.1 or HTTP/2, until it ends, is overdue or the
//! listener stops.

use std::{net::SocketAddr, sync::Arc};

use bytes::BytesMut;
use http::HeaderValue;
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use super::{Connection, Handler, Phase, http1, http2, limit::Place, socket::Socket, worker::Worker};

/// How HTTP/2 begins where nothing else announces it (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What the first read of a connection is given room for.
const FIRST: usize = 8 << 10;

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
        return sniff_and_serve(worker, Socket::Plain(stream), peer, place).await;
    };
    let accepted = match timeout(worker.options.handshake_timeout, acceptor.accept(stream)).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => return worker.handler.overdue(Phase::FirstByte, peer),
    };
    let negotiated = accepted.get_ref().1.alpn_protocol() == Some(b"h2");
    let socket = Socket::Tls(Box::new(accepted));
    match negotiated {
        true => run(worker, socket, BytesMut::new(), Protocol::Http2, (peer, place)).await,
        false => sniff_and_serve(worker, socket, peer, place).await,
    }
}

async fn sniff_and_serve<H: Handler>(
    worker: Arc<Worker<H>>,
    mut socket: Socket,
    peer: SocketAddr,
    place: Place,
) {
    let sniffed = tokio::select! {
        sniffed = timeout(worker.options.first_byte_timeout, sniff(&mut socket)) => sniffed,
        () = worker.stop.stopping() => return,
    };
    match sniffed {
        Ok(Some((protocol, read))) => run(worker, socket, read, protocol, (peer, place)).await,
        Ok(None) => {}
        Err(_) => worker.handler.overdue(Phase::FirstByte, peer),
    }
}

/// What is spoken, and the bytes it took to find out. None if nothing is.
async fn sniff(socket: &mut Socket) -> Option<(Protocol, BytesMut)> {
    let mut read = BytesMut::with_capacity(FIRST);
    loop {
        if socket.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
        if read.starts_with(PREFACE) {
            return Some((Protocol::Http2, read));
        }
        if !PREFACE.starts_with(&read) {
            return Some((Protocol::Http1, read));
        }
    }
}

async fn run<H: Handler>(
    worker: Arc<Worker<H>>,
    socket: Socket,
    read: BytesMut,
    protocol: Protocol,
    (peer, place): (SocketAddr, Place),
) {
    let connection = Arc::new(Connection {
        peer,
        peer_text: HeaderValue::try_from(peer.ip().to_canonical().to_string())
            .expect("an address is a header value"),
        tls: worker.tls.is_some(),
        multiplexed: protocol == Protocol::Http2,
        clock: worker.clock.clone(),
        watch: worker.clock.watch(),
        keep_alive: worker.options.keep_alive_timeout,
        stop: worker.stop.clone(),
        interim: Default::default(),
        _place: place,
        _open: worker.opened(),
    });
    match protocol {
        Protocol::Http1 => {
            connection.watch.arm(Phase::FirstByte, worker.options.first_byte_timeout);
            http1::serve(&worker, &connection, socket, read).await;
        }
        Protocol::Http2 => http2::serve(&worker, connection, socket, read).await,
    }
}
