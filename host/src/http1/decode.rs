//! The body of a message, out of the bytes of its connection.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};
use httparse::Status;

use super::Malformed;

/// A line that begins a chunk, its extensions included.
const LONGEST_LINE: usize = 4 << 10;
/// The trailers of one message.
const LONGEST_TRAILERS: usize = 16 << 10;
const MOST_TRAILERS: usize = 64;

/// How the rest of a body is told from what follows it.
#[derive(Debug)]
pub enum Decoder {
    /// So many bytes are left, at least one.
    Length(u64),
    /// Each piece says how long it is.
    Chunked(Chunked),
    /// Until the other end closes.
    UntilClose,
    /// All of it was received.
    Done,
}

/// What comes next in a chunked body.
#[derive(Debug)]
pub enum Chunked {
    /// How long the next chunk is.
    Size,
    /// So many bytes of a chunk.
    Data(u64),
    /// The line's end after a chunk.
    End,
    /// What comes after the last chunk.
    Trailers,
}

impl Decoder {
    /// Of so many bytes.
    pub fn length(length: u64) -> Self {
        if length == 0 { Self::Done } else { Self::Length(length) }
    }

    /// In chunks, before the first.
    pub fn chunked() -> Self {
        Self::Chunked(Chunked::Size)
    }

    /// Whether all of it was received.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// How much is still to come, as far as that was said.
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Done => SizeHint::with_exact(0),
            Self::Chunked(_) | Self::UntilClose => SizeHint::default(),
        }
    }

    /// Bytes that it would be good to read next.
    pub fn wants(&self) -> usize {
        let left = match self {
            Self::Length(left) | Self::Chunked(Chunked::Data(left)) => *left,
            _ => 0,
        };
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// The next piece; none if more must be read first, or if it is done.
    pub fn decode(&mut self, read: &mut BytesMut) -> Result<Option<Frame<Bytes>>, Malformed> {
        loop {
            match self {
                Self::Done => return Ok(None),
                Self::UntilClose => return Ok(take(read, u64::MAX).map(Frame::data)),
                Self::Length(left) => {
                    let Some(data) = take(read, *left) else { return Ok(None) };
                    *self = Self::length(*left - data.len() as u64);
                    return Ok(Some(Frame::data(data)));
                }
                Self::Chunked(Chunked::Data(left)) => {
                    let Some(data) = take(read, *left) else { return Ok(None) };
                    *self = Self::Chunked(match *left - data.len() as u64 {
                        0 => Chunked::End,
                        left => Chunked::Data(left),
                    });
                    return Ok(Some(Frame::data(data)));
                }
                Self::Chunked(next) => match next.step(read)? {
                    Step::More => return Ok(None),
                    Step::On(after) => *self = Self::Chunked(after),
                    Step::Over(trailers) => {
                        *self = Self::Done;
                        return Ok(trailers.map(Frame::trailers));
                    }
                },
            }
        }
    }

    /// The other end closed. Whether the body may end so.
    pub fn end_of_stream(&mut self) -> bool {
        let whole = matches!(self, Self::UntilClose | Self::Done);
        if whole {
            *self = Self::Done;
        }
        whole
    }
}

/// What came of looking at what stands around chunks.
enum Step {
    /// More must be read.
    More,
    On(Chunked),
    Over(Option<HeaderMap>),
}

impl Chunked {
    fn step(&self, read: &mut BytesMut) -> Result<Step, Malformed> {
        match self {
            Self::Size => size(read),
            Self::End => match read.len() {
                0 | 1 => Ok(Step::More),
                _ if read.starts_with(b"\r\n") => {
                    read.advance(2);
                    Ok(Step::On(Self::Size))
                }
                _ => Err(Malformed("a chunk that is longer than it says")),
            },
            Self::Trailers => trailers(read),
            Self::Data(left) => Ok(Step::On(Self::Data(*left))),
        }
    }
}

fn size(read: &mut BytesMut) -> Result<Step, Malformed> {
    match httparse::parse_chunk_size(read) {
        Ok(Status::Complete((line, size))) if line <= LONGEST_LINE => {
            read.advance(line);
            Ok(Step::On(if size == 0 { Chunked::Trailers } else { Chunked::Data(size) }))
        }
        Ok(Status::Partial) if read.len() < LONGEST_LINE => Ok(Step::More),
        Ok(_) => Err(Malformed("the line of a chunk is too long")),
        Err(_) => Err(Malformed("the size of a chunk")),
    }
}

fn trailers(read: &mut BytesMut) -> Result<Step, Malformed> {
    // By far the most common: none.
    if read.starts_with(b"\r\n") {
        read.advance(2);
        return Ok(Step::Over(None));
    }
    let mut parsed = [httparse::EMPTY_HEADER; MOST_TRAILERS];
    match httparse::parse_headers(read, &mut parsed) {
        Ok(Status::Complete((length, lines))) if length <= LONGEST_TRAILERS => {
            let mut trailers = HeaderMap::with_capacity(lines.len());
            for line in lines {
                let name = HeaderName::from_bytes(line.name.as_bytes());
                let value = HeaderValue::from_bytes(line.value);
                let (Ok(name), Ok(value)) = (name, value) else {
                    return Err(Malformed("a trailer"));
                };
                trailers.append(name, value);
            }
            read.advance(length);
            Ok(Step::Over(Some(trailers)))
        }
        Ok(Status::Partial) if read.len() < LONGEST_TRAILERS => Ok(Step::More),
        Ok(_) => Err(Malformed("the trailers are too long")),
        Err(_) => Err(Malformed("a trailer")),
    }
}

/// Up to `most` of what was read; none if nothing was.
fn take(read: &mut BytesMut, most: u64) -> Option<Bytes> {
    let length = read.len().min(usize::try_from(most).unwrap_or(usize::MAX));
    (length > 0).then(|| read.split_to(length).freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that comes of a body that arrives in pieces of `step` bytes: data, trailers, rest.
    fn decode(mut decoder: Decoder, body: &str, step: usize) -> Result<(String, usize, String), Malformed> {
        let (mut read, mut data, mut trailers) = (BytesMut::new(), String::new(), 0);
        let mut pieces = body.as_bytes().chunks(step);
        loop {
            while let Some(frame) = decoder.decode(&mut read)? {
                match frame.into_data() {
                    Ok(bytes) => data.push_str(&String::from_utf8_lossy(&bytes)),
                    Err(frame) => trailers += frame.trailers_ref().map_or(0, HeaderMap::len),
                }
            }
            if decoder.is_done() {
                break;
            }
            let Some(piece) = pieces.next() else { break };
            read.extend_from_slice(piece);
        }
        if !decoder.is_done() && !decoder.end_of_stream() {
            return Err(Malformed("closed"));
        }
        pieces.for_each(|piece| read.extend_from_slice(piece));
        Ok((data, trailers, String::from_utf8_lossy(&read).into_owned()))
    }

    #[test]
    fn bodies_in_pieces_of_every_size() {
        let chunked = "3\r\nabc\r\n0a;x=y\r\n0123456789\r\n0\r\n\r\nnext";
        let trailed = "1\r\na\r\n0\r\nx: y\r\nz: w\r\n\r\nnext";
        for step in 1..=chunked.len() {
            let text = |data: &str, trailers, rest: &str| (data.to_owned(), trailers, rest.to_owned());
            let length = decode(Decoder::length(5), "abcdefg", step).unwrap();
            assert_eq!((&*length.0, length.1), ("abcde", 0));
            assert_eq!(decode(Decoder::chunked(), chunked, step).unwrap(), text("abc0123456789", 0, "next"));
            assert_eq!(decode(Decoder::chunked(), trailed, step).unwrap(), text("a", 2, "next"));
            assert_eq!(decode(Decoder::UntilClose, "abc", step).unwrap(), text("abc", 0, ""));
        }
    }

    #[test]
    fn broken_bodies_are_errors() {
        for body in [
            "3\r\nabcd\r\n0\r\n\r\n",
            "x\r\n",
            "-1\r\n",
            "fffffffffffffffff\r\n",
            "3\nabc\r\n",
            "3\r\nab",
            "0\r\n",
            "0\r\na b: c\r\n\r\n",
            &format!("1;{}", "x".repeat(LONGEST_LINE)),
            &format!("0\r\na: {}", "x".repeat(LONGEST_TRAILERS)),
        ] {
            for step in [1, 7, body.len()] {
                assert!(decode(Decoder::chunked(), body, step).is_err(), "{body}");
            }
        }
        assert!(decode(Decoder::length(5), "abcd", 4).is_err());
    }
}
