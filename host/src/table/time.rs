//! The table's own time: what assignments expire by, so that no router's wall clock is compared with
//! another's.
//!
//! It is an entry of the table, of the kind `clock` with the key `time` and the value `{"now":MS}`, in
//! milliseconds since the Unix epoch. The first router of a table sets it by its wall clock. Every
//! router reads it with the view and goes on from there by its monotonic clock; whichever has seen no
//! new value for an interval writes the next one, if nobody else did meanwhile. It stands still while
//! no router reaches the table, and goes back only when the table does.

use std::{
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{adapter::Change, clock::millis};

/// The kind of the entry.
pub(super) const KIND: &str = "clock";
/// Its key.
pub(super) const KEY: &str = "time";
/// From one value to the next, at the most.
pub(super) const LONGEST: Duration = Duration::from_secs(5);
/// And at the least, however short a `sticky.ttl` is.
pub(super) const SHORTEST: Duration = Duration::from_millis(250);
/// Without a new value it goes on for so many milliseconds and then stands still.
const AHEAD: u64 = 15_000;

/// The value of the entry.
#[derive(Serialize, Deserialize)]
struct Value {
    now: u64,
}

/// The time of the table as this router knows it. Reading it neither waits nor locks.
#[derive(Debug)]
pub struct TableTime {
    began: Instant,
    /// What it was when this began, as far as is known now, in milliseconds since the Unix epoch.
    base: AtomicU64,
    /// Past this it does not go by itself.
    limit: AtomicU64,
    /// Whether the table has said it yet.
    known: AtomicBool,
}

impl TableTime {
    /// Begins with a guess, which holds until the table is read.
    pub(super) fn new(guess: u64) -> Self {
        let (base, limit) = (AtomicU64::new(guess), AtomicU64::new(u64::MAX));
        Self { began: Instant::now(), base, limit, known: AtomicBool::new(false) }
    }

    /// Milliseconds since the Unix epoch, as all routers of the table count them.
    pub fn now(&self) -> u64 {
        // A limit that is seen comes with the base that was stored before it.
        let limit = self.limit.load(Acquire);
        limit.min(self.base.load(Relaxed).saturating_add(millis(self.began.elapsed())))
    }

    /// Whether the table, or what was saved of it, has said the time yet.
    pub fn is_known(&self) -> bool {
        self.known.load(Relaxed)
    }

    /// The table says this time: it is no earlier here.
    pub(super) fn reach(&self, value: u64) {
        match self.is_known() {
            true => self.set(value.max(self.now()), value),
            false => self.reset(value),
        }
    }

    /// It is this time, whatever it was before: the first that is known, or the table went back.
    pub(super) fn reset(&self, value: u64) {
        self.set(value, value);
        self.known.store(true, Relaxed);
    }

    /// It goes on by itself although the table takes no new value.
    pub(super) fn go_on(&self) {
        let now = self.now();
        self.set(now, now);
    }

    fn set(&self, now: u64, value: u64) {
        self.base.store(now.saturating_sub(millis(self.began.elapsed())), Relaxed);
        self.limit.store(value.max(now).saturating_add(AHEAD), Release);
    }
}

/// Whether this is the entry that says the time.
pub(super) fn is(kind: &str, key: &str) -> bool {
    kind == KIND && key == KEY
}

/// The time that an entry of the table says; none: it is another entry, or cannot be read.
pub(super) fn read(kind: &str, key: &str, value: &str) -> Option<u64> {
    let value: Option<Value> = is(kind, key).then(|| serde_json::from_str(value).ok()).flatten();
    value.map(|value| value.now)
}

/// What makes the table say no time.
pub(super) fn removal() -> Change {
    Change { value: None, ..entry(0) }
}

/// What makes the table say this time.
pub(super) fn entry(now: u64) -> Change {
    let value = serde_json::to_string(&Value { now }).expect("a number");
    Change { kind: KIND.to_owned(), key: KEY.to_owned(), value: Some(value), ephemeral: false }
}
