//! A service that connects to the gateway, as a plain WebSocket client.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::time::{Duration, timeout};

use crate::websocket::WebSocket;

/// How long a test listens before it believes that nothing comes.
const SILENCE: Duration = Duration::from_millis(300);

/// A connected service.
pub struct Service(WebSocket);

impl From<WebSocket> for Service {
    fn from(socket: WebSocket) -> Self {
        Self(socket)
    }
}

impl Service {
    /// Connects to an API and says who it is.
    pub async fn connect(to: SocketAddr, definition: Value) -> Self {
        let mut service = Self::open(to).await;
        service.say(definition).await;
        service
    }

    /// Connects and says nothing.
    pub async fn open(to: SocketAddr) -> Self {
        Self(WebSocket::open(to, "/v1/connect").await.expect("a handshake"))
    }

    /// Sends a message.
    pub async fn say(&mut self, message: Value) {
        self.0.say(&message.to_string()).await;
    }

    /// Sends any text.
    pub async fn say_text(&mut self, text: &str) {
        self.0.say(text).await;
    }

    /// The next message.
    pub async fn hear(&mut self) -> Value {
        let text = self.0.hear().await.expect("the connection is open");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The next message, which says that a requirement is there; what it says of it.
    #[track_caller]
    pub fn required(&mut self, name: &str) -> impl Future<Output = Value> {
        self.expect("required-service", name)
    }

    /// The next message, which says that a requirement is lost.
    pub async fn lost(&mut self, name: &str) {
        self.expect("required-service-lost", name).await;
    }

    async fn expect(&mut self, kind: &str, name: &str) -> Value {
        let heard = self.hear().await;
        assert!(heard["type"] == kind && heard["payload"]["name"] == name, "not {kind} {name}: {heard}");
        heard["payload"].clone()
    }

    /// The next message, which is an error with this code; its reason.
    pub async fn refused(&mut self, code: &str) -> String {
        let heard = self.hear().await;
        assert!(heard["type"] == "error" && heard["payload"]["code"] == code, "not {code}: {heard}");
        heard["payload"]["reason"].as_str().unwrap_or_default().to_owned()
    }

    /// Fails the test if anything comes.
    pub async fn hears_nothing(&mut self) {
        if let Ok(heard) = timeout(SILENCE, self.0.hear()).await {
            panic!("nothing was expected, and {heard:?} came");
        }
    }

    /// Waits for an answer to something that is always answered: all before it was carried out.
    pub async fn settled(&mut self) {
        self.say(json!({ "type": "settled?" })).await;
        self.refused("unknown-type").await;
    }

    /// The close code with which the gateway ends the connection.
    pub async fn closed(&mut self) -> u16 {
        loop {
            if let Err(code) = self.0.hear().await {
                return code;
            }
        }
    }

    /// Says goodbye.
    pub async fn close(mut self) {
        self.0.close().await;
    }
}
