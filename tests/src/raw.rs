//! Bytes on a connection, for what a well-behaved client would never send.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::wait::{PATIENCE, within};

/// A connection that says what it is told to and keeps what it hears.
pub struct Raw {
    stream: TcpStream,
    heard: Vec<u8>,
}

impl Raw {
    /// Connects.
    pub async fn connect(to: SocketAddr) -> Self {
        let stream = within(PATIENCE, "connect", TcpStream::connect(to)).await.expect("connect");
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream, heard: vec![] }
    }

    /// A server that answers every request with these bytes, for as long as the test runs; its address.
    pub async fn serving(answer: &str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("a bound socket");
        let answer = answer.to_owned();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    let mut client = Self { stream, heard: vec![] };
                    while client.more().await {
                        while let Some(at) = find(&client.heard, b"\r\n\r\n") {
                            client.heard.drain(..at + 4);
                            client.say(&answer).await;
                        }
                    }
                });
            }
        });
        address
    }

    /// Sends bytes. That the other end has closed is not an error: the answer tells.
    pub async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = within(PATIENCE, "write", self.stream.write_all(bytes.as_ref())).await;
    }

    /// Reads until `text` was heard; gives what was heard up to its end. Panics on a close.
    pub async fn hear(&mut self, text: &str) -> String {
        within(PATIENCE, format!("hearing {text:?}"), async {
            loop {
                if let Some(at) = find(&self.heard, text.as_bytes()) {
                    let rest = self.heard.split_off(at + text.len());
                    return lossy(std::mem::replace(&mut self.heard, rest));
                }
                let closed = !self.more().await;
                assert!(!closed, "closed before {text:?}, heard {:?}", String::from_utf8_lossy(&self.heard));
            }
        })
        .await
    }

    /// Everything until the other end closes; panics if it does not within `limit`.
    pub async fn until_closed(&mut self, limit: Duration) -> String {
        within(limit, "the other end closing", async { while self.more().await {} }).await;
        lossy(std::mem::take(&mut self.heard))
    }

    /// Everything that comes until the other end closes or says nothing for `quiet`.
    pub async fn until_quiet(&mut self, quiet: Duration) -> String {
        while timeout(quiet, self.more()).await.unwrap_or(false) {}
        lossy(std::mem::take(&mut self.heard))
    }

    async fn more(&mut self) -> bool {
        self.stream.read_buf(&mut self.heard).await.is_ok_and(|n| n > 0)
    }
}

/// Sends bytes over a connection of their own; gives all that comes back until it is quiet.
pub async fn exchange(to: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut raw = Raw::connect(to).await;
    raw.say(bytes).await;
    raw.until_quiet(Duration::from_millis(700)).await
}

/// The status of each response in a transcript, by its status line.
pub fn statuses(transcript: &str) -> Vec<u16> {
    let lines = transcript.match_indices("HTTP/1.1 ");
    lines.filter_map(|(at, found)| transcript[at + found.len()..].get(..3)?.parse().ok()).collect()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
