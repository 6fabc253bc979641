//! What the integration tests and the benchmark of Message Flow stand on: real sockets, the real
//! binary as its own process, real plugins built from source, a real etcd.
//!
//! A test reads as a script: start an [`Upstream`], start a [`Gateway`], send a [`Call`], expect.
//! These types hide sockets and processes, never behaviour; every wait in them has a deadline, and
//! what goes wrong fails the test with the gateway's log. This crate does not link the gateway.

pub mod call;
pub mod etcd;
pub mod gateway;
pub mod guests;
pub mod languages;
pub mod nginx;
pub mod raw;
pub mod readme;
pub mod relay;
pub mod service;
pub mod upstream;
pub mod wait;
pub mod websocket;

pub use call::{Call, Reply};
pub use etcd::Etcd;
pub use gateway::Gateway;
pub use nginx::Nginx;
pub use relay::Relay;
pub use service::Service;
pub use upstream::Upstream;
pub use wait::{eventually, eventually_within, within};
