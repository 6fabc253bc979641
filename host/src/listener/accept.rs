//! The accept loop: it never fails and never waits for a connection.

use std::{io, sync::Arc, time::Duration};

use tokio::net::{TcpListener, TcpStream};

use super::{Handler, Unserved, connection, worker::Worker};

/// After an error that is the process's own, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the listener stops; connections already in the backlog are still taken.
pub(crate) async fn run<H: Handler>(worker: Arc<Worker<H>>, listener: &TcpListener) {
    loop {
        tokio::select! {
            biased;
            () = worker.stop.stopping() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => admit(&worker, stream),
                Err(error) => recover(&worker, &error).await,
            },
        }
    }
    while let Some(Ok((stream, _))) = futures_util::FutureExt::now_or_never(listener.accept()) {
        admit(&worker, stream);
    }
}

fn admit<H: Handler>(worker: &Arc<Worker<H>>, stream: TcpStream) {
    let Ok(peer) = stream.peer_addr() else { return };
    let Some(place) = worker.limits.admit(peer.ip()) else {
        tracing::debug!(%peer, "connection refused: too many are open");
        worker.handler.unserved(Unserved::Connections, Some(peer));
        return;
    };
    // Only fails on a socket that is dead already.
    let _ = stream.set_nodelay(true);
    tokio::spawn(connection::serve(worker.clone(), stream, peer, place));
}

/// Goes on at once after an error of the connection alone. When the process lacks something, a pause
/// leaves the rest of it time to give that back; who waits meanwhile is in the kernel's backlog.
async fn recover<H: Handler>(worker: &Worker<H>, error: &io::Error) {
    let of_the_connection = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    );
    if of_the_connection {
        return;
    }
    worker.handler.unserved(Unserved::Exhausted, None);
    if let Some(unsaid) = worker.said.turn() {
        tracing::warn!(%error, unsaid, "cannot accept connections; trying again");
    }
    let _ = tokio::time::timeout(PAUSE, worker.stop.stopping()).await;
}
