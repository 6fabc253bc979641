//! A file of records that grows: appended to, synced, read back in order.
//!
//! After a crash its last record may be torn, which is cut off: it was not acknowledged. Anything else that is wrong
//! is a [`Fault`], and the log does not open. A record that was flipped as a whole at the very end is told from a torn
//! one by the [mark](Log::mark) that follows it as soon as nothing else does.
//!
//! A write that failed either left nothing behind ([`Failure::Refused`]), or nobody knows ([`Failure::Unknown`]); then
//! the log takes nothing any more, and another has to be [written](Log::create) and [put](Log::put_in_place) in its
//! place.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    record::{self, FRAME, HEADER, Header, Kind, Tail},
    storage::{Disk, Storage},
};

/// Read at once.
const CHUNK: usize = 1 << 20;
/// In [`Kind::Begin`]: what the records are, and in which format.
const FORMAT: u32 = 1;

/// Which log this is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Begin {
    /// Random, the same for as long as what is kept is the same.
    pub id: u64,
    /// How often it was written anew.
    pub generation: u64,
}

/// How far a log has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Which log.
    pub begin: Begin,
    /// How many records it has.
    pub records: u64,
}

/// Bytes of a log that are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where the wrong record begins.
    pub offset: u64,
    /// Where the next whole one begins, or the file ends.
    pub end: u64,
    /// The number of the wrong record.
    pub record: u64,
    /// How many records are missing.
    pub missing: u64,
}

/// Why a log does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{path}: {why}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
    },
}

/// Why a record is not there.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It is known not to be there, and the log takes others.
    #[error("{0}")]
    Refused(io::Error),
    /// It may be there. The log takes no others.
    #[error("{0}")]
    Unknown(io::Error),
    /// The file is not in its place any more, so the record is not there. The log takes no others.
    #[error("{0}")]
    Displaced(io::Error),
}

/// An open log.
pub struct Log {
    file: Box<dyn Storage>,
    path: PathBuf,
    begin: Begin,
    end: u64,
    records: u64,
    /// The last record is a mark, or was never acknowledged.
    marked: bool,
    poisoned: bool,
    buffer: Vec<u8>,
}

/// One pass over a log.
pub struct Reading {
    /// Which log; none: its first record is wrong.
    pub begin: Option<Begin>,
    /// What is wrong with it.
    pub faults: Vec<Fault>,
    /// Where its last whole record ends.
    pub end: u64,
    /// The number of the next record.
    pub records: u64,
    /// Bytes behind it, of a record that was never acknowledged.
    pub torn: u64,
}

impl Log {
    /// Begins a log in a file that was not there. It counts once it was [put](Self::put_in_place) in its place.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn create(disk: &dyn Disk, path: &Path, begin: Begin) -> io::Result<Self> {
        let file = disk.create(path)?;
        let path = path.to_owned();
        let mut log =
            Self { file, path, begin, end: 0, records: 0, marked: true, poisoned: false, buffer: Vec::new() };
        let mut body = FORMAT.to_le_bytes().to_vec();
        body.extend(begin.id.to_le_bytes());
        body.extend(begin.generation.to_le_bytes());
        log.add(Kind::Begin, &body).map_err(Failure::into_io)?;
        Ok(log)
    }

    /// Opens a log, and calls with the body of each of its records; what is torn is cut off.
    ///
    /// # Errors
    /// If it cannot be read, or anything in it is not what was written.
    pub fn open(
        disk: &dyn Disk,
        path: &Path,
        each: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let damaged = |why| OpenError::Damaged { path: path.to_owned(), why };
        let file = disk.open(path).map_err(io)?;
        let mut wrong = None;
        let reading = read(&*file, &mut |record, offset, body| {
            if let Err(why) = each(body) {
                wrong.get_or_insert(format!("record {record} at offset {offset}: {why}"));
            }
        });
        let reading = reading.map_err(io)?;
        if let Some(fault) = reading.faults.first() {
            return Err(damaged(fault.to_string()));
        }
        let Some(begin) = reading.begin else {
            return Err(damaged("the file is empty, or was cut off in its first record".to_owned()));
        };
        if let Some(why) = wrong {
            return Err(damaged(why));
        }
        if reading.torn > 0 {
            file.set_len(reading.end).and_then(|()| file.sync()).map_err(io)?;
            let (path, bytes, offset) = (path.display(), reading.torn, reading.end);
            tracing::info!(%path, bytes, offset, "cut off a record that was being written when the process ended");
        }
        let Reading { end, records, .. } = reading;
        let path = path.to_owned();
        Ok(Self { file, path, begin, end, records, marked: false, poisoned: false, buffer: Vec::new() })
    }

    /// Adds a record, which is durable after the next [`Self::sync`].
    ///
    /// # Errors
    /// As [`Failure`] says.
    ///
    /// # Panics
    /// If there is nothing in it: then it would be a mark.
    pub fn append(&mut self, body: &[u8]) -> Result<(), Failure> {
        assert!(!body.is_empty(), "a record holds something");
        self.add(Kind::Data, body)?;
        self.marked = false;
        Ok(())
    }

    /// Says that everything before was acknowledged, unless the last record says so.
    ///
    /// # Errors
    /// As [`Self::append`]; nothing is lost.
    pub fn mark(&mut self) -> Result<(), Failure> {
        if self.marked {
            return Ok(());
        }
        self.add(Kind::Mark, b"")?;
        self.marked = true;
        Ok(())
    }

    fn add(&mut self, kind: Kind, body: &[u8]) -> Result<(), Failure> {
        if self.poisoned {
            return Err(Failure::Unknown(io::Error::other("an earlier write failed")));
        }
        // Where something else cut it off, writing behind its end would make it as long as it was.
        if self.file.len().map_err(Failure::Refused)? != self.end {
            return Err(self.poison(Failure::Displaced(changed())));
        }
        self.buffer.clear();
        record::encode(kind, self.records, body, &mut self.buffer);
        if let Err(error) = self.file.write_at(&self.buffer, self.end) {
            // A part of it is no record, but what follows could not be told from it.
            self.poisoned = self.file.set_len(self.end).is_err();
            return Err(Failure::Refused(error));
        }
        self.end += self.buffer.len() as u64;
        self.records += 1;
        self.buffer.shrink_to(CHUNK);
        Ok(())
    }

    /// Returns once everything appended is on disk, in the file that lies in this log's place.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub fn sync(&mut self) -> Result<(), Failure> {
        if self.poisoned {
            return Err(Failure::Unknown(io::Error::other("an earlier write failed")));
        }
        // What a disk says after it failed to sync is not to be believed: it may have dropped the pages.
        self.file.sync().map_err(|error| self.poison(Failure::Unknown(error)))?;
        self.stays()
    }

    /// Fails if the file is not in its place any more, as it is when its directory was deleted.
    ///
    /// # Errors
    /// [`Failure::Displaced`].
    pub fn stays(&mut self) -> Result<(), Failure> {
        let stays = self.file.stays_at(&self.path, self.end);
        stays.map_err(|error| self.poison(Failure::Displaced(error)))
    }

    fn poison(&mut self, failure: Failure) -> Failure {
        self.poisoned = true;
        failure
    }

    /// Makes this the log at `path`, durably, in place of the one that was there.
    ///
    /// # Errors
    /// If the disk refuses; then the other is still there, unless the last step alone failed.
    pub fn put_in_place(&mut self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        self.file.sync()?;
        disk.rename(&self.path, path)?;
        path.clone_into(&mut self.path);
        self.file.stays_at(path, self.end)
    }

    /// Another handle to the file, to sync it on another thread.
    ///
    /// # Errors
    /// If the system has no more handles.
    pub fn again(&self) -> io::Result<Box<dyn Storage>> {
        self.file.again()
    }

    /// Whether the disk takes a record, which is a mark.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub fn probe(&mut self) -> Result<(), Failure> {
        self.marked = false;
        self.mark()?;
        self.sync()
    }

    /// Whether the last record says that all before it was acknowledged.
    pub fn is_marked(&self) -> bool {
        self.marked
    }

    /// Whether it takes no records any more.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How far it has come.
    pub fn position(&self) -> Position {
        Position { begin: self.begin, records: self.records }
    }

    /// How long it is, in bytes.
    pub fn bytes(&self) -> u64 {
        self.end
    }
}

fn changed() -> io::Error {
    io::Error::other("something else changed it while it was in use")
}

impl Failure {
    /// What the disk said.
    pub fn into_io(self) -> io::Error {
        match self {
            Self::Refused(error) | Self::Unknown(error) | Self::Displaced(error) => error,
        }
    }

    /// Whether there was no room.
    pub fn is_no_space(&self) -> bool {
        let (Self::Refused(error) | Self::Unknown(error) | Self::Displaced(error)) = self;
        matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        )
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { offset, end, record, missing } = self;
        write!(f, "record {record} at offset {offset} is not what was written")?;
        match missing {
            0 | 1 => write!(f, " ({} bytes)", end - offset),
            _ => write!(f, " ({missing} records, {} bytes)", end - offset),
        }
    }
}

/// Reads a log from its beginning to its end, over what is wrong; calls with the number, place and body of each record
/// that is whole.
///
/// # Errors
/// If the disk cannot be read.
pub fn read(file: &dyn Storage, each: &mut dyn FnMut(u64, u64, &[u8])) -> io::Result<Reading> {
    let len = file.len()?;
    let mut reading = Reading { begin: None, faults: Vec::new(), end: 0, records: 0, torn: 0 };
    let mut window = Window { file, len, at: 0, bytes: Vec::new() };
    while reading.end < len {
        let whole = match window.record(reading.end)? {
            Some((header, body)) if reading.accepts(&header) => {
                reading.take(&header, body, each);
                true
            }
            _ => false,
        };
        if !whole && !reading.skip(&mut window)? {
            break;
        }
    }
    Ok(reading)
}

impl Reading {
    fn accepts(&self, header: &Header) -> bool {
        header.number == self.records && (header.kind == Kind::Begin) == (header.number == 0)
    }

    fn take(&mut self, header: &Header, body: &[u8], each: &mut dyn FnMut(u64, u64, &[u8])) {
        match header.kind {
            Kind::Begin => self.begin = begin(body),
            Kind::Data => each(header.number, self.end, body),
            Kind::Mark => {}
        }
        self.end += header.bytes() as u64;
        self.records = header.number + 1;
    }

    /// Goes on behind what is no record; false: nothing whole follows.
    fn skip(&mut self, window: &mut Window<'_>) -> io::Result<bool> {
        let left = window.rest(self.end)?;
        let offset = self.end;
        if let Some((at, header)) = record::find(left, self.records + 1) {
            let end = offset + at as u64;
            let missing = header.number - self.records;
            // Nothing else is as short as a mark, which is needed only where nothing follows.
            let is_mark = at == FRAME && missing == 1;
            if !is_mark {
                self.faults.push(Fault { offset, end, record: self.records, missing });
            }
            (self.end, self.records) = (end, header.number);
            return Ok(true);
        }
        let torn = record::judge(left, offset) == Tail::Torn && self.records > 0;
        match torn {
            true => self.torn = left.len() as u64,
            false => {
                let end = offset + left.len() as u64;
                self.faults.push(Fault { offset, end, record: self.records, missing: 1 });
            }
        }
        Ok(false)
    }
}

fn begin(body: &[u8]) -> Option<Begin> {
    let (format, rest) = body.split_first_chunk()?;
    let (id, generation) = rest.split_first_chunk()?;
    let generation = u64::from_le_bytes(*generation.first_chunk()?);
    (u32::from_le_bytes(*format) == FORMAT).then_some(Begin { id: u64::from_le_bytes(*id), generation })
}

/// A part of a file in memory, of at least [`CHUNK`] where there is so much.
struct Window<'a> {
    file: &'a dyn Storage,
    len: u64,
    at: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// The record at this place, if there is a whole one.
    fn record(&mut self, offset: u64) -> io::Result<Option<(Header, &[u8])>> {
        let Some(header) = self.get(offset, HEADER)?.first_chunk().and_then(Header::decode) else {
            return Ok(None);
        };
        // A length is believed only as far as the file goes.
        if header.bytes() as u64 > self.len - offset {
            return Ok(None);
        }
        let body = header.body(self.get(offset, header.bytes())?);
        Ok(body.map(|body| (header, body)))
    }

    /// Everything from this place on.
    fn rest(&mut self, offset: u64) -> io::Result<&[u8]> {
        let rest = usize::try_from(self.len - offset).unwrap_or(usize::MAX);
        self.get(offset, rest)
    }

    /// Up to `count` bytes from this place on.
    fn get(&mut self, offset: u64, count: usize) -> io::Result<&[u8]> {
        let within = |window: &Self| {
            let begin = usize::try_from(offset.checked_sub(window.at)?).ok()?;
            (begin + count <= window.bytes.len()).then_some(begin)
        };
        if within(self).is_none() {
            let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
            self.bytes.resize(count.max(CHUNK.min(left)), 0);
            let read = self.file.read_at(&mut self.bytes, offset)?;
            self.bytes.truncate(read);
            self.at = offset;
        }
        let begin = within(self).unwrap_or(0);
        Ok(&self.bytes[begin..(begin + count).min(self.bytes.len())])
    }
}
