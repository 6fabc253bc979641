//! One connection: TLS if there is to be, HTTP/1.1 or HTTP/2, until it ends, is overdue or the
//! listener stops.

use std::{net::SocketAddr, sync::Arc};

use bytes::BytesMut;
use http::HeaderValue;
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    Connection, Handler, Phase, http1, http2,
    limit::Place,
    linger,
    socket::Socket,
    worker::{Open, Worker},
};

/// How HTTP/2 begins where nothing else announces it (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What the first read of a connection is given room for.
const FIRST: usize = 8 << 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// Who is at the other end of a connection that was accepted, and what it is counted by.
pub(crate) struct Admitted {
    pub(crate) peer: SocketAddr,
    pub(crate) place: Place,
    pub(crate) open: Open,
}

/// Serves a connection to its end.
pub(crate) async fn serve<H: Handler>(worker: Arc<Worker<H>>, stream: TcpStream, admitted: Admitted) {
    let Some(acceptor) = &worker.tls else {
        return sniff_and_serve(worker, Socket::Plain(stream), admitted).await;
    };
    let peer = admitted.peer;
    let accepted = match timeout(worker.options.handshake_timeout, acceptor.accept(stream)).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => return worker.handler.overdue(Phase::FirstByte, peer),
    };
    let negotiated = accepted.get_ref().1.alpn_protocol() == Some(b"h2");
    let socket = Socket::Tls(Box::new(accepted));
    match negotiated {
        true => run(worker, socket, BytesMut::new(), Protocol::Http2, admitted).await,
        false => sniff_and_serve(worker, socket, admitted).await,
    }
}

async fn sniff_and_serve<H: Handler>(worker: Arc<Worker<H>>, mut socket: Socket, admitted: Admitted) {
    let leaving = async {
        worker.stop.stopping().await;
        sleep(worker.options.drain_idle).await;
    };
    let sniffed = tokio::select! {
        biased;
        sniffed = timeout(worker.options.first_byte_timeout, sniff(&mut socket)) => sniffed,
        () = leaving => return linger::close(socket, &worker.stop).await,
    };
    match sniffed {
        Ok(Some((protocol, read))) => run(worker, socket, read, protocol, admitted).await,
        Ok(None) => {}
        Err(_) => worker.handler.overdue(Phase::FirstByte, admitted.peer),
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
    Admitted { peer, place, open }: Admitted,
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
        _open: open,
    });
    match protocol {
        Protocol::Http1 => {
            connection.watch.arm(Phase::FirstByte, worker.options.first_byte_timeout);
            http1::serve(&worker, &connection, socket, read).await;
        }
        Protocol::Http2 => http2::serve(&worker, connection, socket, read).await,
    }
}
