//! Interim responses (1xx, RFC 9110, section 15.2) on their way to a client, before its response.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;

use super::Connection;
use crate::http1::outbox::write_headers;

/// Bytes of interim responses that wait for a client to take them; more are dropped, as any may be.
const MOST_WAITING: usize = 64 << 10;

/// Takes the interim responses of one message on a connection that carries several at a time.
pub trait Informs: Send + Sync {
    /// Passes one on, or drops it if the client takes none any more. `headers` have nothing that
    /// belongs to the server's connection.
    fn inform(&self, status: StatusCode, headers: HeaderMap);
}

/// Where the interim responses of one message go.
#[derive(Clone, Default)]
pub enum Interim {
    /// Nowhere: a client of HTTP/1.0 knows none (RFC 9110, section 15.2).
    #[default]
    Nowhere,
    /// On the connection, which has this message alone.
    Connection,
    /// On the stream of the message.
    Stream(Arc<dyn Informs>),
}

impl Interim {
    /// Passes a response with a status of 1xx, but not 101, on. `connection` is that of the message.
    pub fn inform(&self, connection: &Connection, status: StatusCode, headers: HeaderMap) {
        match self {
            Self::Nowhere => {}
            Self::Connection => {
                connection.interim.push(status, &headers);
                connection.watch.wake();
            }
            Self::Stream(stream) => stream.inform(status, headers),
        }
    }
}

/// What is to be written on an HTTP/1.1 connection before the response.
#[derive(Default)]
pub(super) struct Waiting {
    /// Looked at for each message, which a lock would cost more.
    any: AtomicBool,
    text: Mutex<Vec<u8>>,
}

impl Waiting {
    fn push(&self, status: StatusCode, headers: &HeaderMap) {
        let mut text = self.text.lock();
        let before = text.len();
        text.extend_from_slice(b"HTTP/1.1 ");
        text.extend_from_slice(status.as_str().as_bytes());
        text.push(b' ');
        text.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
        text.extend_from_slice(b"\r\n");
        // One that says how long it is would be read in two ways: it has no body.
        write_headers(&mut text, headers, |name| {
            !matches!(*name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONNECTION)
        });
        text.extend_from_slice(b"\r\n");
        if text.len() > MOST_WAITING {
            text.truncate(before);
        }
        self.any.store(!text.is_empty(), Relaxed);
    }

    /// What waits, which then does so no more. Mostly nothing.
    pub(super) fn take(&self) -> Option<Vec<u8>> {
        if !self.any.load(Relaxed) {
            return None;
        }
        let mut text = self.text.lock();
        self.any.store(false, Relaxed);
        Some(std::mem::take(&mut *text)).filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_waits_is_bounded_and_taken_once() {
        let waiting = Waiting::default();
        assert_eq!(waiting.take(), None);
        let mut headers = HeaderMap::new();
        headers.insert(header::LINK, HeaderValue::from_static("</a>"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("3"));
        waiting.push(StatusCode::EARLY_HINTS, &headers);
        let one = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
        assert_eq!(waiting.take().unwrap(), one.as_bytes());
        assert_eq!(waiting.take(), None);
        for _ in 0..MOST_WAITING {
            waiting.push(StatusCode::EARLY_HINTS, &headers);
        }
        let taken = waiting.take().unwrap();
        assert!(taken.len() <= MOST_WAITING && taken.len() % one.len() == 0, "{}", taken.len());
    }
}
