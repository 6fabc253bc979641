//! Finds requests that say their length twice: `content-length` beside `transfer-encoding`.
//!
//! Such a request is how smuggling begins (RFC 9112, section 6.1), and hyper hides it: it believes
//! `transfer-encoding` and removes the other header before anyone can see it. Nothing can be
//! smuggled through that, as the request is written anew, but it must be refused. So the bytes of
//! each head are looked at on their way in, line by line. What follows a head with a body is not
//! looked at until the message ends: at worst a request is then not refused, and hyper's framing
//! and its closing of the connection hold.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Long enough for the two names with their colon.
const PREFIX: usize = 18;
const LENGTH: u8 = 1;
const ENCODING: u8 = 2;
const CONFLICT: u8 = 4;
const IN_BODY: u8 = 8;

/// What the heads of one connection said, shared between its reader and its requests.
#[derive(Default)]
pub struct Framing {
    flags: AtomicU8,
}

impl Framing {
    /// Whether a head that has `transfer-encoding` had `content-length` too.
    pub fn conflicts(&self) -> bool {
        self.flags.load(Relaxed) & CONFLICT != 0
    }

    /// The message has ended: what comes next is a head.
    pub fn message_ended(&self) {
        if self.flags.load(Relaxed) & IN_BODY != 0 {
            self.flags.store(self.flags.load(Relaxed) & CONFLICT, Relaxed);
        }
    }
}

/// Reads the lines of heads as they arrive in pieces.
pub(crate) struct Scanner {
    /// The beginning of the line at hand, in lower case.
    line: [u8; PREFIX],
    /// How long that line is, as far as it matters.
    length: usize,
}

impl Default for Scanner {
    fn default() -> Self {
        Self { line: [0; PREFIX], length: 0 }
    }
}

impl Scanner {
    /// Looks at the next bytes of the connection.
    pub(crate) fn scan(&mut self, framing: &Framing, mut bytes: &[u8]) {
        let mut flags = framing.flags.load(Relaxed);
        while flags & IN_BODY == 0 && !bytes.is_empty() {
            let end = memchr::memchr(b'\n', bytes);
            let (line, rest) = match end {
                Some(end) => (&bytes[..end], &bytes[end + 1..]),
                None => (bytes, &[][..]),
            };
            flags = match end {
                Some(_) if self.length == 0 => finished(line, flags),
                Some(_) => {
                    self.take(line);
                    let line = &self.line[..self.length.min(PREFIX)];
                    self.length = 0;
                    finished(line, flags)
                }
                None => {
                    self.take(line);
                    flags
                }
            };
            bytes = rest;
        }
        framing.flags.store(flags, Relaxed);
    }

    fn take(&mut self, line: &[u8]) {
        let room = PREFIX - self.length.min(PREFIX);
        let taken = line.len().min(room);
        if taken > 0 {
            self.line[self.length..self.length + taken].copy_from_slice(&line[..taken]);
        }
        self.length = (self.length + line.len()).min(PREFIX + 1);
    }
}

/// What is known once this line, or as much of it as matters, has ended.
fn finished(line: &[u8], flags: u8) -> u8 {
    match line.first() {
        None => head_ended(flags),
        Some(b'\r') if line.len() == 1 => head_ended(flags),
        Some(b'c' | b'C') if starts_with(line, b"content-length:") => flags | LENGTH,
        Some(b't' | b'T') if starts_with(line, b"transfer-encoding:") => flags | ENCODING,
        Some(_) => flags,
    }
}

fn starts_with(line: &[u8], name: &[u8]) -> bool {
    line.len() >= name.len() && line[..name.len()].eq_ignore_ascii_case(name)
}

fn head_ended(flags: u8) -> u8 {
    match flags & (LENGTH | ENCODING) {
        0 => flags,
        both if both == LENGTH | ENCODING => CONFLICT | IN_BODY,
        _ => (flags & CONFLICT) | IN_BODY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&str], conflicts: bool) {
        let (framing, mut scanner) = (Framing::default(), Scanner::default());
        for piece in pieces {
            scanner.scan(&framing, piece.as_bytes());
        }
        assert_eq!(framing.conflicts(), conflicts, "{pieces:?}");
    }

    #[test]
    fn finds_both_lengths_in_one_head() {
        check(&["POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"], true);
        check(&["POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length:5\r\n\r\n"], true);
        check(&["POST / HTTP/1.1\nTRANSFER-ENCODING: chunked\nCONTENT-LENGTH: 5\n\n"], true);
        check(
            &["POST / HTTP/1.1\r\nContent-Len", "gth: 5\r\nTransf", "er-Encoding: chunked\r\n", "\r\n"],
            true,
        );
        check(&["POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n"], false);
        check(&["POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"], false);
    }

    #[test]
    fn separate_heads_do_not_conflict() {
        check(&["GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n"], false);
        let (framing, mut scanner) = (Framing::default(), Scanner::default());
        scanner.scan(&framing, b"POST / HTTP/1.1\r\nContent-Length: 33\r\n\r\n");
        scanner.scan(&framing, b"x\r\nTransfer-Encoding: chunked\r\n\r\n");
        framing.message_ended();
        scanner.scan(&framing, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert!(!framing.conflicts());
    }

    #[test]
    fn long_lines_are_not_headers() {
        check(
            &["GET /transfer-encoding: HTTP/1.1\r\nx-content-length: 1\r\ncontent-lengthy: 2\r\n\r\n"],
            false,
        );
    }
}
