//! One record of a log: a header of 24 bytes with a checksum of its own, a body with another, and a byte that is
//! not zero. Pure.
//!
//! ```text
//! 0   "mfl" and the kind: B begin, D data, M mark
//! 4   length of the body, 32 bits
//! 8   the record's number in its file, 64 bits
//! 16  CRC-32 of the body
//! 20  CRC-32 of the 20 bytes before
//! 24  the body
//! …   a newline
//! ```
//!
//! Numbers are little-endian. A CRC-32 finds every flipped bit, every two, and every burst of up to 32.

/// Bytes of a header.
pub const HEADER: usize = 24;
/// Bytes of a record besides its body, and so of a whole [`Kind::Mark`].
pub const FRAME: usize = HEADER + 1;
/// Ends a record: so none of its parts that end in the middle of a sector is zero.
const END: u8 = b'\n';
const MAGIC: &[u8; 3] = b"mfl";
/// What a disk writes at once: after a power failure each of these is there or not.
const SECTOR: u64 = 512;

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first of a file: which file this is.
    Begin,
    /// What is kept.
    Data,
    /// Says that all before it was acknowledged. It has no body, and so is shorter than any other.
    Mark,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is for.
    pub kind: Kind,
    /// Of the body, in bytes.
    pub length: u32,
    /// From 0 on, within its file.
    pub number: u64,
    checksum: u32,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Begin => b'B',
            Self::Data => b'D',
            Self::Mark => b'M',
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Begin, Self::Data, Self::Mark].into_iter().find(|kind| kind.byte() == byte)
    }
}

/// Adds a record to `out`.
///
/// # Panics
/// If the body has 4 GiB or more.
pub fn encode(kind: Kind, number: u64, body: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(body.len()).expect("a body is shorter than 4 GiB");
    let begin = out.len();
    out.extend_from_slice(MAGIC);
    out.push(kind.byte());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    let checksum = crc32fast::hash(&out[begin..]);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(body);
    out.push(END);
}

impl Header {
    /// Reads a header; none: these bytes are not one.
    pub fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if &bytes[..3] != MAGIC || number(20) != crc32fast::hash(&bytes[..20]) {
            return None;
        }
        let kind = Kind::of(bytes[3])?;
        let (length, checksum) = (number(4), number(16));
        let number = u64::from(number(8)) | u64::from(number(12)) << 32;
        Some(Self { kind, length, number, checksum })
    }

    /// Bytes of the whole record.
    pub fn bytes(&self) -> usize {
        FRAME + self.length as usize
    }

    /// The body of the record that begins with this header, if it is the one that was written.
    pub fn body<'a>(&self, record: &'a [u8]) -> Option<&'a [u8]> {
        let body = record.get(HEADER..)?.strip_suffix(&[END])?;
        (body.len() == self.length as usize && crc32fast::hash(body) == self.checksum).then_some(body)
    }
}

/// The first whole record in `bytes`, with its place there; its number is at least `from`.
pub fn find(bytes: &[u8], from: u64) -> Option<(usize, Header)> {
    memchr::memmem::find_iter(bytes, MAGIC).find_map(|at| {
        let header = Header::decode(bytes[at..].first_chunk()?).filter(|header| header.number >= from)?;
        header.body(bytes[at..].get(..header.bytes())?)?;
        Some((at, header))
    })
}

/// What is left at the end of a file behind its last whole record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// A record that was being written when the process or the machine ended: it was not acknowledged.
    Torn,
    /// A record that was written as a whole and is another one now.
    Wrong,
}

/// Judges what is left, which begins at `offset` of its file and holds no whole record.
///
/// What was torn is shorter than it says it is, or has sectors that were never written, which are zero. A mark that
/// is wrong is as good as none.
pub fn judge(left: &[u8], offset: u64) -> Tail {
    let empty = |part: &[u8]| !part.is_empty() && part.iter().all(|byte| *byte == 0);
    let to_next = usize::try_from(SECTOR - offset % SECTOR).unwrap_or(usize::MAX);
    let torn = match left.first_chunk().and_then(Header::decode) {
        _ if left.len() <= FRAME => true,
        Some(header) if left.len() < header.bytes() => true,
        Some(header) => {
            let (first, rest) = left[..header.bytes()].split_at(to_next.min(header.bytes()));
            empty(first) || rest.chunks(SECTOR as usize).any(empty)
        }
        None => empty(&left[..to_next.min(left.len())]) || left.get(to_next..).is_some_and(empty),
    };
    if torn { Tail::Torn } else { Tail::Wrong }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: Kind, number: u64, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(kind, number, body, &mut out);
        out
    }

    #[test]
    fn no_flipped_bit_passes() {
        let whole = record(Kind::Data, 7 << 33, b"what is kept");
        let header = Header::decode(whole.first_chunk().unwrap()).unwrap();
        assert_eq!((header.kind, header.number, header.length), (Kind::Data, 7 << 33, 12));
        assert_eq!(header.body(&whole), Some(&b"what is kept"[..]));
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let passes = Header::decode(flipped.first_chunk().unwrap())
                .is_some_and(|header| header.body(&flipped).is_some());
            assert!(!passes, "bit {bit}");
            assert_eq!(judge(&flipped, 100), Tail::Wrong, "bit {bit}");
            assert_eq!(find(&flipped, 0), None, "bit {bit}");
        }
        for length in 0..whole.len() {
            assert_eq!(judge(&whole[..length], 100), Tail::Torn, "cut to {length}");
        }
    }

    #[test]
    fn sectors_that_were_not_written_tear_a_record() {
        let whole = record(Kind::Data, 3, &[7; 2000]);
        for sector in 0..4 {
            let mut torn = whole.clone();
            torn[sector * 512..(sector * 512 + 512).min(whole.len())].fill(0);
            assert_eq!(judge(&torn, 1024), Tail::Torn, "{sector}");
        }
        let mut torn = whole;
        torn[40..].fill(0);
        assert_eq!(judge(&torn, 1024 - 40), Tail::Torn);
        assert_eq!(judge(&[0; 4096], 77), Tail::Torn);
    }

    #[test]
    fn a_record_is_found_behind_others_that_are_wrong() {
        let mut bytes = b"mflD no record mfl".to_vec();
        bytes.extend(record(Kind::Data, 1, b"old"));
        let at = bytes.len();
        bytes.extend(record(Kind::Mark, 5, b""));
        assert_eq!(find(&bytes, 2).map(|(at, header)| (at, header.kind)), Some((at, Kind::Mark)));
        assert_eq!(find(&bytes, 6), None);
    }
}
