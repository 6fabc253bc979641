//! HTTP/2 as both sides of this router use it: what is decided of its settings, bodies on their way
//! into and out of a stream, and a stream as a tunnel. Frames, windows and header compression are the
//! crate `h2`'s, which is driven without anything between: only so are deadlines of single streams,
//! interim responses and extended CONNECT in reach.
//!
//! This module knows no deadlines, pools or sockets, and nobody else's types; [`crate::listener`] and
//! [`crate::upstream`] have them.

pub(crate) mod cookies;
pub(crate) mod outgoing;
pub(crate) mod received;
pub(crate) mod settings;
pub(crate) mod tunnel;

use http::{HeaderMap, header};

/// Takes off what HTTP/2 forbids in every message (RFC 9113, section 8.2.2), so that what a filter
/// added breaks nothing.
pub(crate) fn strip_forbidden(headers: &mut HeaderMap) {
    const FORBIDDEN: [&str; 5] =
        ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    for name in FORBIDDEN {
        headers.remove(name);
    }
    if headers.get(header::TE).is_some_and(|te| te != "trailers") {
        headers.remove(header::TE);
    }
}
