//! How a connection ends: with a Close frame in both directions (RFC 6455, section 7), and only then the socket.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::CloseFrame};

/// How long the other end has to answer and to close. It has nothing else to do than that.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that are read and thrown away at a time.
const SCRATCH: usize = 1 << 10;

/// Says goodbye with this frame, or answers the goodbye that came; then waits for the other end to close.
/// What still comes is read and thrown away: a socket that is closed with something unread is reset, and the
/// reset takes our frame away from a peer that has not read it yet.
pub(super) async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    frame: Option<CloseFrame>,
) {
    let goodbye = async {
        if let Some(frame) = frame {
            let _ = socket.close(Some(frame)).await;
        }
        // Reading on sends the answer to a Close that came, and ends after the answer to ours.
        while let Some(Ok(_)) = socket.next().await {}
        let io = socket.get_mut();
        if io.shutdown().await.is_ok() {
            let mut scratch = [0; SCRATCH];
            while io.read(&mut scratch).await.is_ok_and(|read| read > 0) {}
        }
    };
    let _ = timeout(PATIENCE, goodbye).await;
}
