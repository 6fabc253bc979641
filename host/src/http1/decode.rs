//! The body of a message, out of the bytes of its connection.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};

use super::{
    Malformed, chunk,
    lines::has_ended,
    scan::{self, Headers},
};

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
                    Step::On(length, after) => {
                        read.advance(length);
                        *self = Self::Chunked(after);
                    }
                    Step::Over(length, trailers) => {
                        read.advance(length);
                        *self = Self::Done;
                        return Ok(trailers.map(Frame::trailers));
                    }
                },
            }
        }
    }

    /// Whether what was read can be the beginning of the body, without taking any of it.
    ///
    /// # Errors
    /// What is between its chunks, as far as it was read, is malformed.
    pub fn check(&self, mut read: &[u8]) -> Result<(), Malformed> {
        let Self::Chunked(Chunked::Size) = self else { return Ok(()) };
        let mut next = Chunked::Size;
        loop {
            next = match next {
                Chunked::Data(left) => match usize::try_from(left).ok().and_then(|left| read.get(left..)) {
                    Some(rest) => {
                        read = rest;
                        Chunked::End
                    }
                    None => return Ok(()),
                },
                around => match around.step(read)? {
                    Step::On(length, after) => {
                        read = &read[length..];
                        after
                    }
                    Step::More | Step::Over(..) => return Ok(()),
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

/// What came of looking at what stands around chunks, and how long that is.
enum Step {
    /// More must be read.
    More,
    On(usize, Chunked),
    Over(usize, Option<HeaderMap>),
}

impl Chunked {
    fn step(&self, read: &[u8]) -> Result<Step, Malformed> {
        match self {
            Self::Size => Ok(match chunk::line(read)? {
                Some((length, 0)) => Step::On(length, Self::Trailers),
                Some((length, size)) => Step::On(length, Self::Data(size)),
                None => Step::More,
            }),
            Self::End => match read {
                [b'\r', b'\n', ..] => Ok(Step::On(2, Self::Size)),
                [] | [b'\r'] => Ok(Step::More),
                _ => Err(Malformed("a chunk that does not end where it says")),
            },
            Self::Trailers => trailers(read),
            Self::Data(left) => Ok(Step::On(0, Self::Data(*left))),
        }
    }
}

fn trailers(read: &[u8]) -> Result<Step, Malformed> {
    match read {
        // By far the most common: none.
        [b'\r', b'\n', ..] => return Ok(Step::Over(2, None)),
        [b'\r', _, ..] | [b'\n', ..] => return Err(Malformed("the end of the last chunk")),
        _ => {}
    }
    // Looked at once all of them are there, so that what drips in costs no more than its length.
    if !has_ended(read, 0) {
        return match read.len() < LONGEST_TRAILERS {
            true => Ok(Step::More),
            false => Err(Malformed("the trailers are too long")),
        };
    }
    let mut spans = Vec::new();
    match scan::headers(read, 0, MOST_TRAILERS, &mut spans) {
        Ok(Some(length)) if length <= LONGEST_TRAILERS => {
            let mut trailers = HeaderMap::with_capacity(spans.len());
            let part = |(from, to): (u32, u32)| &read[from as usize..to as usize];
            for span in spans {
                let name = HeaderName::from_bytes(part(span.name));
                let value = HeaderValue::from_bytes(part(span.value));
                let (Ok(name), Ok(value)) = (name, value) else {
                    return Err(Malformed("a trailer"));
                };
                trailers.append(name, value);
            }
            Ok(Step::Over(length, Some(trailers)))
        }
        Ok(None) => Ok(Step::More),
        Ok(Some(_)) | Err(Headers::TooMany) => Err(Malformed("the trailers are too long")),
        Err(Headers::Malformed(malformed)) => Err(malformed),
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
            "\r\n",
            "3\r\nabc\r\n\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "3\r\nabc\r\n0\n\r\n",
            "0\r\n\n",
            "0\r\na: b\n\r\n",
            "0\r\na: b\r\n\n",
            "0\r\na: b\r\n c\r\n\r\n",
            "0\r\na: b\rc\r\n\r\n",
            "1;a=\"\n\"\r\na\r\n0\r\n\r\n",
            &format!("1;{}", "x".repeat(5000)),
            &format!("0\r\na: {}", "x".repeat(LONGEST_TRAILERS)),
        ] {
            for step in [1, 7, body.len()] {
                assert!(decode(Decoder::chunked(), body, step).is_err(), "{body}");
            }
        }
        assert!(Decoder::chunked().check(b"3\r\nabc\r\n0\r\n\n").is_err());
        assert!(Decoder::chunked().check(b"3\r\nabc\r\n2\n").is_err());
        for good in ["", "3", "3\r\n", "3\r\nab", "3\r\nabc", "3\r\nabc\r\n", "3\r\nabc\r\n0\r\n\r\nx"] {
            assert_eq!(Decoder::chunked().check(good.as_bytes()), Ok(()), "{good:?}");
        }
        assert!(decode(Decoder::length(5), "abcd", 4).is_err());
    }
}
