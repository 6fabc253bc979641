//! The memory routing-table adapter: the table's logic over the plugin's own `state`.
//!
//! Its state is shared by all instances and outlives each of them; with
//! `[plugin.memory] state = "durable"` it outlives the router as well. So nothing is kept in the
//! guest, and every change is one `state.apply`: all of it or nothing, and only if what it was
//! decided by is still there. Who loses a race reads again and tries again.
//!
//! | key | value |
//! |---|---|
//! | `r` | the [`head::Head`]: revision and what the change log holds |
//! | `e/KIND/KEY` | an entry |
//! | `l/REVISION` | what a revision changed ([`log`]) |
//! | `a/CLIENT/SERVICE` | an assignment ([`assignment`]) |
//! | `x/EXPIRY/CLIENT/SERVICE` | nothing: the assignments in the order in which they expire |
//! | `c/CLIENT` | the router that the client is connected to |
//! | `z` | zeros: the [`reserve`] |
//!
//! Numbers in keys have 16 hexadecimal digits, so that their order is that of the keys; texts are
//! escaped ([`keys`](message_flow_sdk::keys)) so that none holds a `/`.

mod assignment;
mod codec;
mod entry;
mod head;
mod log;
mod reserve;
#[cfg(test)]
mod tests;

use message_flow_sdk::{
    RoutingTable,
    routing_table::{
        Assignment, Change, ChangeSet, ClientRecord, Condition, Proposal, Revision, Snapshot, TableError,
    },
    state::{self, StateError},
};

struct Memory;

message_flow_sdk::export!(Memory: RoutingTable);

impl RoutingTable for Memory {
    fn read() -> Result<Snapshot, TableError> {
        entry::snapshot()
    }

    fn changes(after: Revision) -> Result<ChangeSet, TableError> {
        log::changes(after)
    }

    fn write(changes: Vec<Change>, expect: Option<Revision>) -> Result<Revision, TableError> {
        entry::write(&changes, expect)
    }

    fn assigned(client: String, service: String) -> Result<Option<Assignment>, TableError> {
        assignment::assigned(&client, &service)
    }

    fn assign(proposal: Proposal, condition: Condition) -> Result<Option<Assignment>, TableError> {
        assignment::assign(&proposal, condition)
    }

    fn forget(client: String, service: String) -> Result<(), TableError> {
        assignment::forget(&client, &service)
    }

    fn client(client: String) -> Result<ClientRecord, TableError> {
        assignment::client(&client)
    }

    fn locate(client: String, router: Option<String>) -> Result<(), TableError> {
        assignment::locate(&client, router.as_deref())
    }

    fn sweep(now: u64, limit: u32) -> Result<u32, TableError> {
        assignment::sweep(now, limit)
    }
}

/// A key and what it holds, or that it is absent.
type Cell = (String, Option<Vec<u8>>);

/// So often a change that lost a race is tried again.
const ATTEMPTS: usize = 64;

/// So often room is made for one change: as much as the largest takes.
const EVICTIONS: usize = 4096;

/// What a change is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// A client's doing: its number is the clients' to choose.
    Client,
    /// Something new of an operator or a service.
    Growth,
    /// What keeps the table going, such as a heartbeat, a deletion or a promotion.
    Upkeep,
}

/// Changes state if what is expected is there; false: read again and try again.
///
/// Names that clients invent make assignments and locations: so when there is no room, the assignments that were not
/// used for the longest go, and then locations, whoever needs it. Entries and pins, which operators and services wrote,
/// never do. The change log keeps to an eighth of the room, and gives way when nothing else is left. Only upkeep
/// gets at the [`reserve`].
fn apply_for(purpose: Purpose, changes: &[Cell], expected: &[Cell]) -> Result<bool, TableError> {
    for _ in 0..EVICTIONS {
        let reserve = if purpose == Purpose::Growth { reserve::cell() } else { None };
        let all: Vec<Cell>;
        let changes = match reserve {
            Some(reserve) => {
                all = changes.iter().cloned().chain([reserve]).collect();
                &all
            }
            None => changes,
        };
        match state::apply(changes, expected) {
            Err(StateError::Full(limit)) => {
                let made = log::shrink(limit / 8)?
                    || assignment::evict()?
                    || assignment::evict_locations()?
                    || log::shrink(0)?
                    || purpose == Purpose::Upkeep && reserve::give_up();
                if !made {
                    return Err(full(limit));
                }
            }
            applied => return applied.map_err(failed),
        }
    }
    Err(TableError::Unavailable("assignments came faster than room was made".to_owned()))
}

/// As [`apply_for`] upkeep.
fn apply(changes: &[Cell], expected: &[Cell]) -> Result<bool, TableError> {
    apply_for(Purpose::Upkeep, changes, expected)
}

fn failed(error: StateError) -> TableError {
    match error {
        StateError::Full(limit) => full(limit),
        StateError::NotANumber => {
            TableError::Invalid("its state holds a number where none belongs".to_owned())
        }
        StateError::Other(reason) => TableError::Other(reason),
    }
}

/// There is nothing left that may go.
fn full(limit: u64) -> TableError {
    TableError::Refused(format!(
        "its state is full at {limit} bytes; raise `state_limit` in the [plugin] section of this adapter"
    ))
}

/// Tries until `attempt` is not outrun by another instance.
fn until_applied<T>(mut attempt: impl FnMut() -> Result<Option<T>, TableError>) -> Result<T, TableError> {
    for _ in 0..ATTEMPTS {
        if let Some(done) = attempt()? {
            return Ok(done);
        }
    }
    Err(TableError::Unavailable(format!("outrun by other writers {ATTEMPTS} times")))
}
