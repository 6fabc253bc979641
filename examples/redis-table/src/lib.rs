//! A routing-table adapter that keeps its data in Redis, over a TCP connection that it is granted.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `PREFIX:revision` | number | the revision |
//! | `PREFIX:entries` | hash | `KIND\0KEY` → value |
//! | `PREFIX:modified` | hash | `KIND\0KEY` → the revision at which the entry changed last |
//! | `PREFIX:deleted` | hash | two digits → the revision at which an entry whose hash begins so was deleted last |
//! | `PREFIX:changes` | stream | `REVISION-NUMBER` → kind, key and value of a change |
//! | `PREFIX:client:CLIENT` | hash | `router`, and `@SERVICE` → an assignment as JSON |
//! | `PREFIX:expiry` | sorted set | `SERVICE\0CLIENT` by the time at which the assignment expires |
//! | `PREFIX:stamp` | number | the last stamp of an assignment |
//!
//! What must happen together is a script (`scripts.rs`), which Redis runs wholly and alone.

#![cfg(target_arch = "wasm32")]

mod assignments;
mod connection;
mod entries;
mod reply;
mod scripts;

use message_flow_sdk::{
    RoutingTable,
    routing_table::{
        Assignment, Change, ChangeSet, ClientRecord, Condition, Proposal, Revision, Snapshot, TableError,
    },
};

struct Redis;

message_flow_sdk::export!(Redis: RoutingTable);

impl RoutingTable for Redis {
    fn read() -> Result<Snapshot, TableError> {
        entries::read()
    }

    fn changes(after: Revision) -> Result<ChangeSet, TableError> {
        entries::changes(after)
    }

    fn write(changes: Vec<Change>, expect: Option<Revision>) -> Result<Revision, TableError> {
        entries::write(&changes, expect)
    }

    fn assigned(client: String, service: String) -> Result<Option<Assignment>, TableError> {
        assignments::assigned(&client, &service)
    }

    fn assign(proposal: Proposal, condition: Condition) -> Result<Option<Assignment>, TableError> {
        assignments::assign(&proposal, &condition)
    }

    fn forget(client: String, service: String) -> Result<(), TableError> {
        assignments::forget(&client, &service)
    }

    fn client(client: String) -> Result<ClientRecord, TableError> {
        assignments::client(&client)
    }

    fn locate(client: String, router: Option<String>) -> Result<(), TableError> {
        assignments::locate(&client, router.as_deref())
    }

    fn sweep(now: u64, limit: u32) -> Result<u32, TableError> {
        assignments::sweep(now, limit)
    }
}
