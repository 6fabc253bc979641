//! What can be set about connections to servers.

use std::time::Duration;

use crate::own::Own;

/// Pools, timeouts and ejection; the same for every server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamOptions {
    /// Connections to one server, for each worker; of HTTP/2 each carries many messages. Default 1024.
    pub max_connections: usize,
    /// HTTP/1.1 connections to one server that are kept idle, for each worker. Default 256.
    pub max_idle: usize,
    /// Messages that wait for a connection to one server, for each worker. Default 1024.
    pub max_queue: usize,
    /// For how long they wait. Default 2 s.
    pub queue_timeout: Duration,
    /// For opening a connection, name resolution included. Default 2 s.
    pub connect_timeout: Duration,
    /// A connection that was not used for so long is closed. Default 60 s.
    pub idle_timeout: Duration,
    /// A connection that is older is not used for another message, so that all are used in turn that a
    /// name or a load balancer stands for; 0 lets it be. Default 10 min.
    pub max_age: Duration,
    /// Head of a response, in bytes. Default 64 KiB.
    pub max_head: usize,
    /// So many failures in a row eject a server; 0 never does. Default 5.
    pub eject_after: u32,
    /// For how long the first time; doubles with each ejection that follows. Default 10 s.
    pub eject_for: Duration,
    /// The longest ejection. Default 5 min.
    pub eject_max: Duration,
    /// Where this router's own API listens: nothing there is a server. Default none.
    pub own: Option<Own>,
}

impl Default for UpstreamOptions {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_idle: 256,
            max_queue: 1024,
            queue_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(60),
            max_age: Duration::from_secs(600),
            max_head: 64 << 10,
            eject_after: 5,
            eject_for: Duration::from_secs(10),
            eject_max: Duration::from_secs(300),
            own: None,
        }
    }
}
