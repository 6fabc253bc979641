//! One connection of an origin: answers every request with 1 KiB that says which origin it is, and
//! gives back the header `stamp` of the request as `inked`.

use std::io::{ErrorKind, Read, Write};

use mio::net::TcpStream;

const BODY: usize = 1024;

/// A connection from a proxy.
pub(crate) struct Origin {
    stream: TcpStream,
    answer: Vec<u8>,
    head: usize,
    heard: Vec<u8>,
}

impl Origin {
    /// Of origin number `at`, from 0 to 9.
    pub(crate) fn new(stream: TcpStream, at: usize) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {BODY}\r\n");
        let head = head.into_bytes();
        let mut body = vec![b'.'; BODY];
        body[0] = b'0' + u8::try_from(at).expect("few origins");
        let length = head.len();
        let answer = [head, b"\r\n".to_vec(), body].concat();
        Self { stream, answer, head: length, heard: Vec::with_capacity(4096) }
    }

    /// Answers what was asked; false once the connection is closed.
    pub(crate) fn serve(&mut self) -> bool {
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return false,
                Ok(length) => {
                    self.heard.extend_from_slice(&chunk[..length]);
                    // A short read has emptied the socket: the next bytes are a new event.
                    if length < chunk.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        while let Some(end) = find(&self.heard, b"\r\n\r\n") {
            if self.answer(end).is_err() {
                return false;
            }
            self.heard.drain(..end + 4);
        }
        true
    }

    fn answer(&mut self, end: usize) -> std::io::Result<()> {
        let Some(at) = find(&self.heard[..end], b"\r\nstamp: ") else {
            return self.stream.write_all(&self.answer);
        };
        let value = &self.heard[at + 9..end];
        let value = value.split(|&byte| byte == b'\r').next().unwrap_or_default();
        let parts = [&self.answer[..self.head], b"inked: ", value, b"\r\n", &self.answer[self.head..]];
        self.stream.write_all(&parts.concat())
    }
}

/// Where `needle` begins.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = needle[0];
    let mut from = 0;
    while let Some(found) = haystack[from..].iter().position(|&byte| byte == first) {
        let at = from + found;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}
