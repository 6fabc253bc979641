//! The codings of a body: which they are (`content-encoding`), and what is under them.

use std::io::{self, Read};

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status, bufread::MultiGzDecoder};
use http::{HeaderMap, header};

use crate::fields::elements;

/// The codings that can be decoded, as `accept-encoding` says it.
pub const KNOWN: &str = "gzip, deflate, br";

/// A coding that can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plugin) enum Coding {
    Gzip,
    Deflate,
    Brotli,
}

/// Why a body was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It has a coding that is not known here, or too many.
    #[error("its content-encoding `{0}` cannot be decoded; what can be is {KNOWN}")]
    Unknown(Box<str>),
    /// It is not what its coding says.
    #[error("it is not whole and valid {0}, which its content-encoding says it is")]
    Malformed(&'static str),
    /// More is in it than may be read.
    #[error("it is longer than may be read")]
    TooLarge,
    /// It is a part of a body.
    #[error("the server sent a part of it (206), which nobody asked for")]
    Part,
}

/// More codings on top of each other than this are a riddle, not a body.
const MOST: usize = 3;

impl Coding {
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
        }
    }
}

/// The codings of a body, in the order in which they were applied.
pub(in crate::plugin) fn of(headers: &HeaderMap) -> Result<Vec<Coding>, Unreadable> {
    let mut codings = Vec::new();
    for element in elements(headers, &header::CONTENT_ENCODING) {
        let coding = match element.to_ascii_lowercase().as_slice() {
            b"" | b"identity" => continue,
            b"gzip" | b"x-gzip" => Coding::Gzip,
            b"deflate" => Coding::Deflate,
            b"br" => Coding::Brotli,
            other => return Err(unknown(other)),
        };
        codings.push(coding);
    }
    if codings.len() > MOST {
        return Err(Unreadable::Unknown(format!("{} codings", codings.len()).into()));
    }
    Ok(codings)
}

fn unknown(coding: &[u8]) -> Unreadable {
    let shown = String::from_utf8_lossy(&coding[..coding.len().min(64)]);
    Unreadable::Unknown(shown.escape_debug().to_string().into())
}

/// By so many bytes a coded body may be longer than what is in it.
pub(super) const OVERHEAD: u64 = 64 << 10;

/// What is under these codings, if it is at most so many bytes.
pub(super) async fn decode(codings: &[Coding], coded: &Bytes, limit: u64) -> Result<Bytes, Unreadable> {
    let mut bytes = coded.clone();
    for (below, coding) in codings.iter().enumerate().rev() {
        // An empty body is one without any of them, as answers to HEAD have it.
        if !bytes.is_empty() {
            let longest = if below == 0 { limit } else { limit.saturating_add(OVERHEAD) };
            bytes = undo(*coding, &bytes, longest).await?;
        }
    }
    Ok(bytes)
}

/// Others go on after so many bytes: a millisecond's work at most.
const STRETCH: usize = 256 << 10;

async fn undo(coding: Coding, coded: &[u8], limit: u64) -> Result<Bytes, Unreadable> {
    let malformed = |_| Unreadable::Malformed(coding.name());
    let mut decoder = Decoder::new(coding, coded);
    let (mut decoded, mut chunk) = (Vec::new(), vec![0; 16 << 10]);
    let mut stretch = 0;
    loop {
        let length = decoder.read(&mut chunk).map_err(malformed)?;
        if length == 0 {
            break;
        }
        decoded.extend_from_slice(&chunk[..length]);
        if decoded.len() as u64 > limit {
            return Err(Unreadable::TooLarge);
        }
        stretch += length;
        if stretch > STRETCH {
            stretch = 0;
            tokio::task::yield_now().await;
        }
    }
    if decoder.has_more() {
        return Err(Unreadable::Malformed(coding.name()));
    }
    Ok(decoded.into())
}

enum Decoder<'a> {
    Gzip(MultiGzDecoder<&'a [u8]>),
    Deflate(Inflate<'a>),
    Brotli(Box<Brotli<'a>>),
}

impl<'a> Decoder<'a> {
    fn new(coding: Coding, coded: &'a [u8]) -> Self {
        match coding {
            Coding::Gzip => Self::Gzip(MultiGzDecoder::new(coded)),
            Coding::Deflate => Self::Deflate(Inflate::new(coded)),
            Coding::Brotli => Self::Brotli(Box::new(Brotli::new(coded))),
        }
    }

    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(to),
            Self::Deflate(decoder) => decoder.read(to),
            Self::Brotli(decoder) => decoder.read(to),
        }
    }

    /// Whether something follows the end of what was decoded.
    fn has_more(&self) -> bool {
        match self {
            // It reads member after member until there is nothing left.
            Self::Gzip(_) => false,
            Self::Deflate(decoder) => !decoder.coded.is_empty(),
            Self::Brotli(decoder) => decoder.left > 0,
        }
    }
}

/// RFC 1950, section 2.2: the method, and a check over both bytes of the head.
fn is_zlib(coded: &[u8]) -> bool {
    matches!(coded, [method, flags, ..]
        if method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31))
}

struct Inflate<'a> {
    /// What is not read yet.
    coded: &'a [u8],
    state: Decompress,
    done: bool,
}

impl<'a> Inflate<'a> {
    /// Some senders leave out the wrapping that the standard asks for.
    fn new(coded: &'a [u8]) -> Self {
        Self { coded, state: Decompress::new(is_zlib(coded)), done: false }
    }

    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while !self.done {
            let (read, made) = (self.state.total_in(), self.state.total_out());
            let status = self.state.decompress(self.coded, to, FlushDecompress::None)?;
            let read = (self.state.total_in() - read) as usize;
            let made = (self.state.total_out() - made) as usize;
            self.coded = &self.coded[read..];
            self.done = status == Status::StreamEnd;
            match (read, made) {
                (0, 0) if !self.done => return Err(io::ErrorKind::UnexpectedEof.into()),
                (_, 0) => {}
                (_, made) => return Ok(made),
            }
        }
        Ok(0)
    }
}

struct Brotli<'a> {
    coded: &'a [u8],
    /// Of it, so many bytes are not read yet.
    left: usize,
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    done: bool,
}

impl<'a> Brotli<'a> {
    fn new(coded: &'a [u8]) -> Self {
        let alloc = StandardAlloc::default;
        // The windows of RFC 7932, of 16 MiB at most: larger ones are an extension that nobody asked for.
        let state = BrotliState::new_strict(alloc(), alloc(), alloc());
        Self { coded, left: coded.len(), state, done: false }
    }

    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.done {
            return Ok(0);
        }
        let (mut at, mut room, mut length, mut total) = (self.coded.len() - self.left, to.len(), 0, 0);
        let result = BrotliDecompressStream(
            &mut self.left,
            &mut at,
            self.coded,
            &mut room,
            &mut length,
            to,
            &mut total,
            &mut self.state,
        );
        match result {
            BrotliResult::ResultSuccess => self.done = true,
            BrotliResult::NeedsMoreOutput => {}
            BrotliResult::NeedsMoreInput => return Err(io::ErrorKind::UnexpectedEof.into()),
            BrotliResult::ResultFailure => return Err(io::ErrorKind::InvalidData.into()),
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests;
