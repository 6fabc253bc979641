//! The head of the table: which revision it is at and what its change log holds. Every change
//! that has a revision expects the head that it read, which makes these changes one after another.

use message_flow_sdk::{
    clock,
    routing_table::{Revision, TableError},
    state,
};

use crate::{
    Cell, apply,
    codec::{Reader, Writer},
    until_applied,
};

const KEY: &str = "r";

/// As stored under `r`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The latest.
    pub(crate) revision: Revision,
    /// The latest that changed an entry, not only an assignment.
    pub(crate) entries: Revision,
    /// Changes after this revision are in the log.
    pub(crate) floor: Revision,
    /// Bytes in the log.
    pub(crate) bytes: u64,
}

impl Head {
    /// The head now. A new table begins at the time of day, so that its revisions are none of a
    /// table that was there before.
    pub(crate) fn read() -> Result<Self, TableError> {
        until_applied(|| {
            if let Some(stored) = state::get(KEY) {
                return Self::decode(&stored).map(Some);
            }
            let revision = clock::now().max(1);
            let head = Self { revision, entries: revision, floor: revision, bytes: 0 };
            Ok(apply(&[head.cell()], &[(KEY.to_owned(), None)])?.then_some(head))
        })
    }

    /// To be written, or expected.
    pub(crate) fn cell(&self) -> Cell {
        let mut writer = Writer::default();
        writer.number(self.revision).number(self.entries).number(self.floor).number(self.bytes);
        (KEY.to_owned(), Some(writer.0))
    }

    fn decode(stored: &[u8]) -> Result<Self, TableError> {
        let mut reader = Reader(stored);
        Ok(Self {
            revision: reader.number()?,
            entries: reader.number()?,
            floor: reader.number()?,
            bytes: reader.number()?,
        })
    }
}
