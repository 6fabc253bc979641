//! Room that is kept for heartbeats, deletions and promotions while there is none for anything new.
//!
//! It is held by a cell of zeros. What registers a service, a server or a pin holds it again if it is not held, or is
//! refused; what keeps the table going gives it up when there is no other room.

use message_flow_sdk::state;

use crate::Cell;

const KEY: &str = "z";
/// So much is kept: a promotion, or the heartbeats of a batch, and what the change log says of them.
const BYTES: usize = 16 << 10;

/// What holds the room; none: it is held.
pub(crate) fn cell() -> Option<Cell> {
    let held = state::get(KEY).is_some();
    (!held).then(|| (KEY.to_owned(), Some(vec![0; BYTES])))
}

/// Gives up the room; false: it was given up.
pub(crate) fn give_up() -> bool {
    state::delete(KEY)
}
