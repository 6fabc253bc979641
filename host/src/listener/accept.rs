//! The accept loop: it never fails and never waits for a connection.

use std::{io, sync::Arc, time::Duration};

use tokio::net::{TcpListener, TcpStream};

use super::{
    Handler, Unserved,
    connection::{self, Admitted},
    worker::Worker,
};

/// After an error that is the process's own, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the listener stops; [`rest`] takes who waits then.
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
}

/// Takes who still waits in the kernel's queue, and closes the socket: who is left in it then is reset.
/// The socket is asked itself, because the runtime may not have heard yet of who came last.
pub(crate) fn rest<H: Handler>(worker: &Arc<Worker<H>>, listener: TcpListener) {
    let Ok(listener) = listener.into_std() else { return };
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                if let Ok(stream) = stream {
                    admit(worker, stream);
                }
            }
            Err(error) if is_of_the_connection(&error) => {}
            Err(_) => return,
        }
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
    let admitted = Admitted { peer, place, open: worker.opened() };
    tokio::spawn(connection::serve(worker.clone(), stream, admitted));
}

fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// Goes on at once after an error of the connection alone. When the process lacks something, a pause
/// leaves the rest of it time to give that back; who waits meanwhile is in the kernel's backlog.
async fn recover<H: Handler>(worker: &Worker<H>, error: &io::Error) {
    if is_of_the_connection(error) {
        return;
    }
    worker.handler.unserved(Unserved::Exhausted, None);
    if let Some(unsaid) = worker.said.turn() {
        tracing::warn!(%error, unsaid, "cannot accept connections; trying again");
    }
    let _ = tokio::time::timeout(PAUSE, worker.stop.stopping()).await;
}
