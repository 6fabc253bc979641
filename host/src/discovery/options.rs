//! How discovery is configured.

use std::time::Duration;

/// `[discovery]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a server whose connection ended is kept.
    pub grace: Duration,
    /// Silence after which a connection is asked whether it still lives.
    pub ping: Duration,
    /// Silence after which a connection is taken to be dead.
    pub deadline: Duration,
    /// How long the clients of a server that leaves may stay, unless it says otherwise.
    pub drain: Duration,
    /// Bytes of one message.
    pub message: usize,
    /// Requirements of one connection.
    pub requirements: usize,
    /// Connections at once.
    pub connections: usize,
    /// Messages that one connection may send each second, on average.
    pub rate: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(10),
            ping: Duration::from_secs(5),
            deadline: Duration::from_secs(15),
            drain: Duration::from_secs(10),
            message: 32 << 10,
            requirements: 256,
            connections: 20_000,
            rate: 50,
        }
    }
}
