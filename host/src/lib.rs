//! Message Flow: a gateway that routes every message to the right server, by rules that its users
//! write in any language that compiles to WebAssembly.
//!
//! This page is the map: what happens to a message, where that is written, and what always holds.
//!
//! # The life of a message
//!
//! 1. [`listener`]: a worker accepts the connection, finds out what is spoken on it (TLS, HTTP/1.1,
//!    HTTP/2), and bounds it: how long until the first byte, how large a head, how many at once.
//! 2. `proxy::exchange` tells the rest in order. **Admit**: what could be understood in two ways is
//!    refused (`proxy::head`). **Address**: the target is read once ([`path`], [`authority`]), the route, the path
//!    or the headers name the service, and the client is identified (`proxy::address`,
//!    `proxy::identify`).
//! 3. **Route**: [`resolve`] applies the routing rule: `server`, then the client's assignment, then
//!    the registrar, then the server list. A client that is known is routed without waiting for
//!    anything; the first message of one asks the registrar and the routing table.
//! 4. **Filter**: request filters in order (`proxy::filter`), each a call into a component
//!    ([`plugin`]), or into a core module without one around it (`plugin::direct`).
//! 5. **Forward**: over a pooled connection ([`upstream`]), to another server if that is safe.
//! 6. **Answer**: response filters in reverse order, then the response streams back. Whatever goes
//!    wrong becomes a problem document in one place (`proxy::respond`).
//!
//! # The code, from the outside in
//!
//! | module | what it is |
//! |---|---|
//! | `main`, [`gateway`] | arguments and signals; the composition root, the only module that knows all others; one process in the place of another (`gateway::takeover`) |
//! | [`config`] | what was typed → plain validated data, every error at once |
//! | [`api`], [`auth`] | the HTTP API over the registry, and who may use it |
//! | [`token`] | what the token of a client says, and whether it is to be believed |
//! | [`proxy`] | a message's life; the [`proxy::Plan`] that it is routed by |
//! | [`listener`], [`upstream`] | connections on either side of it |
//! | [`http1`] | HTTP/1.1 as bytes, for both of them |
//! | `http2`, `grpc` | HTTP/2's settings, bodies and tunnels, for both of them; what gRPC expects of answers |
//! | [`discovery`] | services that announce themselves over a WebSocket, and what they are told |
//! | [`resolve`] | the routing rule, pure |
//! | [`table`] | the seam to adapters, the view of the routing table, assignments, the table's own time, under which id this router is there |
//! | [`release`] | which versions are live: changing that, and undoing what goes wrong |
//! | [`webhook`] | tells others of what happened |
//! | [`plugin`] | components: loading, limits, grants, calling; the only module that names wasmtime |
//! | [`workbench`] | the plugin author's tools: check, test, bench, conformance |
//! | [`drain`], [`telemetry`] | ending well; log and metrics |
//! | [`condition`], [`supervise`] | what is wrong while messages are served; tasks that must not end |
//! | [`units`], [`fields`] | durations, sizes and networks; header fields that are lists, trailers |
//! | [`path`], [`authority`] | paths in normal form; `host:port` |
//! | [`forbidden`], [`own`], [`pace`] | addresses that are never dialled, and this router's; log lines that would repeat |
//! | [`text`], [`json`], [`files`] | texts of others, as logs and errors show them; JSON that says each thing once; files written whole |
//! | [`durable`] | records and documents that are read back as they were written, or named |
//!
//! Left may know right: `main → gateway → all`; `api → table, discovery,
//! plugin`; `discovery → table`; `proxy → resolve, table,
//! upstream`, and what `plugin` shows of itself. [`resolve`] knows the types of [`table`] and
//! nothing else; `listener → http1, http2`, `upstream → http1, http2`, `http2 → http1`; [`token`],
//! [`http1`], `grpc`, [`units`], [`fields`], [`path`], [`authority`], [`forbidden`], [`own`], [`pace`], [`text`],
//! [`json`], [`files`] and [`condition`] know nobody, [`durable`] only [`files`], and [`table`] only such leaves; whatever has tasks knows
//! [`supervise`]. A test holds this.
//!
//! # What always holds
//!
//! - **One plan for one message.** Configuration, view and plugin builds are compiled into an
//!   immutable [`proxy::Plan`]; a message takes it at its beginning and keeps it to its end. So a
//!   reload, a registration or a swap of a plugin is an event for later messages only.
//! - **Nothing on a known client's path locks globally, waits for a datastore, or enters a
//!   component without need.** Workers are threads that share no connection; what they share are
//!   atomics and the sharded cache of assignments.
//! - **The table decides, the view answers.** Assignments are stored by create-if-absent, so that
//!   routers agree; everything else is read from the view, which outlives the loss of the table.
//! - **Plugins are guests.** They get what is granted, for as long as their deadline allows, with a
//!   copy of nothing they did not ask for. What they take of the workers' time has a bound; beyond it they are
//!   called on threads of their own. A trap costs one message and one instance. What they
//!   remember is not in them but in `state`, so builds and instances may come and go.
//! - **Everything has a bound**: queues, pools, caches, bodies, calls, files; the configuration
//!   names each.
//!
//! # What is deliberately absent
//!
//! - No hyper between an HTTP/1.1 client and its server: its connection, its message and its server's
//!   connection are one task, without channels between them. HTTP/2 is the crate `h2`'s, driven directly.
//! - No tower of middleware layers: a message's path is a function that can be read.
//! - No global state but the log: registries, clocks and handles are passed.
//! - No HTTPS to servers, no caching of responses, no compression: those are others' work so far.
//! - No retries of anything that a server may have begun to carry out.

pub mod api;
pub mod auth;
pub mod authority;
pub mod condition;
pub mod config;
pub mod discovery;
pub mod drain;
pub mod durable;
pub mod fields;
pub mod files;
pub mod forbidden;
pub mod gateway;
mod grpc;
pub mod http1;
mod http2;
pub mod json;
pub mod listener;
pub mod own;
pub mod pace;
pub mod path;
pub mod plugin;
pub mod proxy;
pub mod release;
pub mod resolve;
pub mod supervise;
pub mod table;
pub mod telemetry;
pub mod text;
pub mod token;
pub mod units;
pub mod upstream;
pub mod webhook;
pub mod workbench;
