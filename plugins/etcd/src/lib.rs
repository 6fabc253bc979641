//! The etcd routing-table adapter: the table's logic over the host's `etcd` capability.
//!
//! Below the prefix (`[plugin.etcd] config.prefix`, `/message-flow` unless set) each key holds one
//! JSON object:
//!
//! | key | what |
//! |---|---|
//! | `assignments/CLIENT/SERVICE` | an assignment |
//! | `clients/CLIENT` | where a client is connected |
//! | `notice` | the assignment that was pinned, forgotten or replaced last, as `CLIENT/SERVICE` |
//! | `others/KIND/KEY` | an entry of a kind that this adapter does not know |
//! | `releases/NAME`, `routers/ID`, `servers/SERVICE/ID`, `services/ID` | the entries |
//! | `revision/NN` | nothing: written when an entry is deleted that falls to this marker, one of 32 |
//! | `revision` | nothing: written by earlier versions with every change to entries |
//!
//! `CLIENT` is percent-encoded, so that it holds no `/`. The order of these names is used: routers
//! watch from `notice` to the end, and so see nothing of assignments and clients, of which there may
//! be millions. The markers give every write an event, and make deletions visible to those that
//! expect an entry to be unchanged: of a deleted key etcd knows no revision. One key for all notices
//! is enough, because a watch reports every change of a key and not its last value only.

mod assignments;
mod cluster;
mod entries;
#[cfg(test)]
mod fake;
mod keys;
#[cfg(test)]
mod tests;

use message_flow_sdk::{
    Lifecycle, RoutingTable, config,
    routing_table::{
        Assignment, Change, ChangeSet, ClientRecord, Condition, Proposal, Revision, Snapshot, TableError,
    },
};

use cluster::Host;
use keys::Keys;

struct Etcd;

message_flow_sdk::export!(Etcd: RoutingTable + Lifecycle);

/// What `[plugin.etcd] config` may hold; all but the last is for the host.
const SETTINGS: [&str; 8] = ["endpoints", "user", "password", "ca", "cert", "key", "compact", "prefix"];

impl Lifecycle for Etcd {
    fn start() -> Result<(), String> {
        let unknown = config::entries().into_iter().find(|(key, _)| !SETTINGS.contains(&key.as_str()));
        match unknown {
            Some((key, _)) => Err(format!("config has no `{key}`; it may hold {}", SETTINGS.join(", "))),
            None => Keys::configured().map(|_| ()),
        }
    }
}

impl RoutingTable for Etcd {
    fn read() -> Result<Snapshot, TableError> {
        entries::read(&Host, &keys()?)
    }

    fn changes(after: Revision) -> Result<ChangeSet, TableError> {
        entries::changes(&Host, &keys()?, after)
    }

    fn write(changes: Vec<Change>, expect: Option<Revision>) -> Result<Revision, TableError> {
        entries::write(&Host, &keys()?, &changes, expect)
    }

    fn assigned(client: String, service: String) -> Result<Option<Assignment>, TableError> {
        assignments::assigned(&Host, &keys()?, &client, &service)
    }

    fn assign(proposal: Proposal, condition: Condition) -> Result<Option<Assignment>, TableError> {
        assignments::assign(&Host, &keys()?, &proposal, condition)
    }

    fn forget(client: String, service: String) -> Result<(), TableError> {
        assignments::forget(&Host, &keys()?, &client, &service)
    }

    fn client(client: String) -> Result<ClientRecord, TableError> {
        assignments::client(&Host, &keys()?, &client)
    }

    fn locate(client: String, router: Option<String>) -> Result<(), TableError> {
        assignments::locate(&Host, &keys()?, &client, router)
    }

    fn sweep(now: u64, limit: u32) -> Result<u32, TableError> {
        assignments::sweep(&Host, &keys()?, now, limit)
    }
}

fn keys() -> Result<Keys, TableError> {
    Keys::configured().map_err(TableError::Invalid)
}
