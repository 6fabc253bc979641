//! A WebSocket client through the gateway.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::wait::{PATIENCE, within};

/// An open WebSocket.
pub struct WebSocket(WebSocketStream<TcpStream>);

impl WebSocket {
    /// Opens one at a path.
    ///
    /// # Errors
    /// The handshake was answered with something else than 101.
    pub async fn open(to: SocketAddr, path: &str) -> anyhow::Result<Self> {
        within(PATIENCE, "the handshake", async {
            let stream = TcpStream::connect(to).await?;
            let (socket, _) = client_async(format!("ws://{to}{path}"), stream).await?;
            Ok(Self(socket))
        })
        .await
    }

    /// As [`Self::open`], with a token.
    ///
    /// # Errors
    /// The handshake was answered with something else than 101.
    pub async fn open_as(to: SocketAddr, path: &str, token: &str) -> anyhow::Result<Self> {
        let mut request = format!("ws://{to}{path}").into_client_request()?;
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
        within(PATIENCE, "the handshake", async {
            let stream = TcpStream::connect(to).await?;
            let (socket, _) = client_async(request, stream).await?;
            Ok(Self(socket))
        })
        .await
    }

    /// Sends a text.
    pub async fn say(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.expect("the WebSocket is open");
    }

    /// Says goodbye and waits for the answer.
    pub async fn close(&mut self) {
        let _ = self.0.close(None).await;
        while let Some(Ok(_)) = within(PATIENCE, "a goodbye", self.0.next()).await {}
    }

    /// The next text; none when the other end closed, with its close code where it gave one.
    ///
    /// # Errors
    /// The close code, 1006 where there was none.
    pub async fn hear(&mut self) -> Result<String, u16> {
        loop {
            return match within(PATIENCE, "a WebSocket message", self.0.next()).await {
                Some(Ok(Message::Text(text))) => Ok(text.to_string()),
                Some(Ok(Message::Close(frame))) => Err(frame.map_or(1005, |frame| frame.code.into())),
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => Err(1006),
            };
        }
    }
}
