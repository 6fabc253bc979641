//! What can be set about the sockets on which messages arrive.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// A listener, its workers and the limits of its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerOptions {
    /// Where; port 0 takes a free one. Default 127.0.0.1:8080.
    pub listen: SocketAddr,
    /// Threads, each with its own socket and connections; 0 (the default) is one for each CPU.
    pub workers: usize,
    /// TLS with this certificate; none (the default) is plain text.
    pub tls: Option<TlsFiles>,
    /// Connections not yet accepted that the kernel keeps for each worker. Default 1024.
    pub backlog: u32,
    /// Open connections of all workers; more are closed at once. Default 16,384.
    pub max_connections: usize,
    /// Open connections from one IP address; 0 (the default) does not count them.
    pub max_connections_per_peer: usize,
    /// Request line and headers together. More is answered 431. Default 32 KiB.
    pub max_head: usize,
    /// Bytes of a request that are read and thrown away once it was answered, for the client to get its
    /// answer and for its connection to be used again. Default 64 MiB.
    pub max_unread: u64,
    /// For how long. Default 30 s.
    pub unread_timeout: Duration,
    /// Concurrent messages on one HTTP/2 connection. Default 256.
    pub max_streams: u32,
    /// From accepting a connection to its first byte. Default 10 s.
    pub first_byte_timeout: Duration,
    /// For the TLS handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// From the first byte of a request to the end of its head. Default 10 s.
    pub head_timeout: Duration,
    /// Between requests on one connection. Default 75 s.
    pub keep_alive_timeout: Duration,
    /// How long an idle connection stays open once the listener stops, for a request that is on its way
    /// already. Default 3 s.
    pub drain_idle: Duration,
    /// How often deadlines are looked at, and so how coarse they are. Default 250 ms.
    pub tick: Duration,
}

/// PEM files; read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, the server's own first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            workers: 0,
            tls: None,
            backlog: 1024,
            max_connections: 16_384,
            max_connections_per_peer: 0,
            max_head: 32 << 10,
            max_unread: 64 << 20,
            unread_timeout: Duration::from_secs(30),
            max_streams: 256,
            first_byte_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(75),
            drain_idle: Duration::from_secs(3),
            tick: Duration::from_millis(250),
        }
    }
}

impl ListenerOptions {
    /// How many workers there will be.
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            set => set,
        }
    }
}
