//! Room that is kept for heartbeats, deletions and promotions while there is none for anything new.
//!
//! It is held by a cell of zeros. What registers a service, a server or a pin holds it again if it is not held, or is
//! refused; what keeps the table going gives it up when there is no other room.

use message_flow_sdk::state;

use crate::Cell;

const KEY: &str = "z";
/// As much as is kept, or a sixteenth of the room if that is less.
const BYTES: u64 = 16 << 10;
const SHARE: u64 = 16;

/// What holds the room; none: it is held.
pub(crate) fn cell(limit: Option<u64>) -> Option<Cell> {
    let bytes = limit.map_or(BYTES, |limit| BYTES.min(limit / SHARE));
    let held = state::get(KEY).is_some();
    (!held).then(|| (KEY.to_owned(), Some(vec![0; usize::try_from(bytes).unwrap_or(0)])))
}

/// Gives up the room; false: it was given up.
pub(crate) fn give_up() -> bool {
    state::delete(KEY)
}
