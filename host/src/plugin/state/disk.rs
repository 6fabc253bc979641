//! Where a durable store is kept, and in which form: a log (`crate::durable::log`) whose records are changes, each
//! with the key and what it holds from then on.
//!
//! `{data}/state/NAME.state` is the log, `{data}/high-water/NAME.json` how far it had come some seconds ago: a log that
//! is shorter than that, or gone, lost what was acknowledged. Both are the only places that say so, since a log that
//! was cut off between two records looks like one that never had more.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    entries::{Entries, Entry, Stored},
    former,
};
use crate::{
    durable::{
        log::{Begin, Failure, Log, OpenError, Position},
        storage::{Disk, RealDisk},
        whole::{self, Unreadable},
    },
    files::{self, Hold},
};

/// A record holds changes of about so many bytes, where they need not hold together.
pub(super) const PAGE: usize = 512 << 10;
/// In the place of a value's length: the key was removed.
const REMOVED: u32 = u32::MAX;

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// What was there; it is there again if the change cannot be kept.
    pub(super) before: Option<Entry>,
    /// None: it was removed.
    pub(super) after: Option<Entry>,
}

/// Changes to be committed together, by key.
pub(super) type Changes = BTreeMap<Arc<str>, Change>;

/// Why a store cannot be kept on disk.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// What is there is not what was written.
    #[error(
        "{why}; `message-flow data check` says more, and `message-flow data repair` keeps what is whole of it"
    )]
    Damaged { why: String },
}

/// Where a store is kept.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) log: PathBuf,
    pub(super) high_water: PathBuf,
    /// Where an earlier version kept it.
    pub(super) former: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    /// The data directory; none: nobody else comes near.
    pub(super) hold: Option<Hold>,
}

/// How far a log had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct HighWater {
    id: u64,
    generation: u64,
    records: u64,
}

impl Place {
    /// Of a plugin, below a data directory.
    pub(super) fn new(data: &Path, plugin: &str, hold: Option<Hold>) -> Self {
        let state = data.join("state");
        Self {
            log: state.join(format!("{plugin}.state")),
            former: state.join(format!("{plugin}.redb")),
            high_water: data.join("high-water").join(format!("{plugin}.json")),
            disk: Arc::new(RealDisk),
            hold,
        }
    }

    /// Opens the log, or begins one; returns what it holds.
    pub(super) fn open(&self) -> Result<(Log, Entries), DiskError> {
        let high_water = self.high_water()?;
        let mut entries = Entries::default();
        let opened = Log::open(&*self.disk, &self.log, &mut |body| replay(body, &mut entries));
        match opened {
            Ok(log) => self.accept(log, high_water).map(|log| (log, entries)),
            Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                self.begin(high_water)
            }
            Err(OpenError::Io { path, source }) => Err(DiskError::Io { path, source }),
            Err(error @ OpenError::Damaged { .. }) => Err(DiskError::Damaged { why: error.to_string() }),
        }
    }

    fn accept(&self, log: Log, high_water: Option<HighWater>) -> Result<Log, DiskError> {
        let is = HighWater::from(log.position());
        let path = self.log.display();
        let why = match high_water {
            Some(was) if !was.is_of(is) => {
                format!("{path} is another file than the one that was used last")
            }
            Some(was) if was > is => format!(
                "{path} was cut off or is an old copy: it ends with record {} of generation {}, and {was}",
                is.records, is.generation
            ),
            _ => return Ok(log),
        };
        Err(DiskError::Damaged { why })
    }

    fn begin(&self, high_water: Option<HighWater>) -> Result<(Log, Entries), DiskError> {
        let entries = match former::load(&self.former)? {
            Some(entries) => entries,
            None if high_water.is_some() => {
                let (path, was) = (self.log.display(), self.high_water.display());
                return Err(DiskError::Damaged {
                    why: format!("{path} is gone, and {was} says that there was one"),
                });
            }
            None => Entries::default(),
        };
        let begin = Begin { id: rand::random(), generation: 1 };
        let log = self.write(begin, &entries).map_err(|source| self.failed(source))?;
        self.note(log.position()).map_err(|source| self.failed(source))?;
        former::set_aside(&self.former);
        Ok((log, entries))
    }

    /// Writes what a store holds into a log of its own and puts it in place.
    pub(super) fn write(&self, begin: Begin, entries: &Entries) -> io::Result<Log> {
        let mut anew = Anew::begin(self, begin)?;
        let mut page = Page::default();
        for (key, entry) in entries.iter() {
            page.add(key, Some(entry));
            if page.is_full() {
                anew.append(&page.take()).map_err(Failure::into_io)?;
            }
        }
        anew.append(&page.take()).map_err(Failure::into_io)?;
        anew.finish()
    }

    pub(super) fn failed(&self, source: io::Error) -> DiskError {
        DiskError::Io { path: self.log.clone(), source }
    }

    /// How far the log had come; nothing if nobody knows.
    fn high_water(&self) -> Result<Option<HighWater>, DiskError> {
        match whole::load_or_set_aside(&self.high_water) {
            Ok(high_water) => Ok(Some(high_water)),
            Err(Unreadable::Io { path, source }) => Err(DiskError::Io { path, source }),
            Err(Unreadable::Absent(_) | Unreadable::Damaged { .. }) => Ok(None),
        }
    }

    /// Notes how far the log has come.
    pub(super) fn note(&self, position: Position) -> io::Result<()> {
        files::make_directory(self.high_water.parent().unwrap_or(Path::new(".")))?;
        whole::save(&self.high_water, &HighWater::from(position))
    }

    /// Makes sure that what is written anew is written into a directory of this process.
    pub(super) fn secure(&self) -> io::Result<()> {
        self.hold.as_ref().map_or(Ok(()), Hold::secure)
    }
}

/// A log that is written anew, and counts once it is finished. Dropped before, it is gone.
pub(super) struct Anew {
    log: Option<Log>,
    place: Place,
}

impl Anew {
    pub(super) fn begin(place: &Place, begin: Begin) -> io::Result<Self> {
        let log = Log::create(&*place.disk, &files::partial(&place.log), begin)?;
        Ok(Self { log: Some(log), place: place.clone() })
    }

    /// Adds changes, if there are any.
    pub(super) fn append(&mut self, body: &[u8]) -> Result<(), Failure> {
        match &mut self.log {
            Some(log) if !body.is_empty() => log.append(body),
            _ => Ok(()),
        }
    }

    pub(super) fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }

    /// Puts it in place.
    pub(super) fn finish(mut self) -> io::Result<Log> {
        let Some(mut log) = self.log.take() else { return Err(io::Error::other("it was finished")) };
        if let Err(error) = log.put_in_place(&*self.place.disk, &self.place.log) {
            self.log = Some(log);
            return Err(error);
        }
        Ok(log)
    }
}

impl Drop for Anew {
    fn drop(&mut self) {
        if let Some(log) = self.log.take().filter(|log| log.path() != self.place.log) {
            // Swept at the next start, if it cannot be removed now.
            let _ = self.place.disk.remove(log.path());
        }
    }
}

/// Changes on their way into one record.
#[derive(Default)]
pub(super) struct Page(Vec<u8>);

impl Page {
    /// Key, expiry (0 for none) and value, each text after its length.
    pub(super) fn add(&mut self, key: &str, entry: Option<&Entry>) {
        let bytes = &mut self.0;
        let length = |length: usize| u32::try_from(length).unwrap_or(REMOVED - 1).to_le_bytes();
        bytes.extend_from_slice(&length(key.len()));
        bytes.extend_from_slice(key.as_bytes());
        match entry {
            Some(entry) => {
                let value = entry.stored.value();
                bytes.extend_from_slice(&length(value.len()));
                bytes.extend_from_slice(&entry.expires.unwrap_or(0).to_le_bytes());
                bytes.extend_from_slice(&value);
            }
            None => bytes.extend_from_slice(&REMOVED.to_le_bytes()),
        }
    }

    pub(super) fn of(changes: &Changes) -> Vec<u8> {
        let mut page = Self::default();
        changes.iter().for_each(|(key, change)| page.add(key, change.after.as_ref()));
        page.0
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= PAGE
    }

    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// Carries out the changes of a record.
fn replay(body: &[u8], entries: &mut Entries) -> Result<(), String> {
    each(body, &mut |key, entry| match entry {
        // The limit is for changes; what was kept under a larger one stays.
        Some(entry) => drop(entries.put(key, entry, u64::MAX)),
        None => drop(entries.remove(key)),
    })
}

/// Calls with each change of a record, as far as it can be read.
pub(super) fn each(body: &[u8], call: &mut dyn FnMut(&str, Option<Entry>)) -> Result<(), String> {
    let mut rest = body;
    while !rest.is_empty() {
        let (key, entry) = next(&mut rest).ok_or("it holds something else than changes")?;
        call(key, entry);
    }
    Ok(())
}

fn next<'a>(rest: &mut &'a [u8]) -> Option<(&'a str, Option<Entry>)> {
    fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
        let (taken, after) = rest.split_at_checked(count)?;
        *rest = after;
        Some(taken)
    }
    fn length(rest: &mut &[u8]) -> Option<u32> {
        Some(u32::from_le_bytes(*take(rest, 4)?.first_chunk()?))
    }
    let count = length(rest)?;
    let key = str::from_utf8(take(rest, count as usize)?).ok()?;
    let count = length(rest)?;
    if count == REMOVED {
        return Some((key, None));
    }
    let expires = u64::from_le_bytes(*take(rest, 8)?.first_chunk()?);
    let value = take(rest, count as usize)?;
    let expires = Some(expires).filter(|expires| *expires > 0);
    Some((key, Some(Entry { stored: Stored::Bytes(value.into()), expires })))
}

impl HighWater {
    /// Whether both are of one store.
    pub(super) fn is_of(self, other: Self) -> bool {
        self.id == other.id
    }

    pub(super) fn generation(self) -> u64 {
        self.generation
    }
}

impl fmt::Display for HighWater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "had {} records in generation {}", self.records, self.generation)
    }
}

impl From<Position> for HighWater {
    fn from(Position { begin, records }: Position) -> Self {
        Self { id: begin.id, generation: begin.generation, records }
    }
}
