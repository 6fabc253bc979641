//! What is sent to a server: a head that is borrowed, so that sending it again costs no copy, and a
//! body that is given away and comes back if none of it was sent.

use http::{HeaderMap, Method, Request};

use super::{OnInterim, RequestBody, http2::Wishes};

/// A request that is ready to be sent, as its server speaks.
pub enum Outgoing<'a> {
    /// HTTP/1.1.
    Http1(RequestHead<'a>, RequestBody),
    /// HTTP/2 with prior knowledge.
    Http2(Request<RequestBody>, Wishes<'a>),
}

/// The head of a request over HTTP/1.1.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    /// As it came.
    pub method: &'a Method,
    /// Path and query, to which the server's base is added.
    pub target: &'a str,
    /// Nothing that belongs to the client's connection; lengths are written by the body, not by them.
    pub headers: &'a HeaderMap,
    /// Whether the client holds its body back until it is asked for it, so that the server is asked
    /// whether it wants the body (`expect: 100-continue`, RFC 9110, section 10.1.1).
    pub expects_continue: bool,
    /// Is told of what comes before the response.
    pub interim: &'a dyn OnInterim,
}
