//! An etcd cluster, as plugins see it: the host's side of the `etcd` capability (`wit/etcd.wit`).
//!
//! An [`EtcdClient`] belongs to a plugin and outlives its builds: it holds one connection, made when
//! first needed and again after each loss ([`link`]), the watches ([`watch`]) and the lease for what
//! goes away when this router dies ([`lease`]). It notices when another history answers than before
//! ([`lineage`]), and keeps the history short ([`compaction`]). Every call ends within its deadline, and while etcd
//! is known to be down at once. It knows nothing of guests, wasmtime or the routing table; only the
//! files in `etcd/` name the client library.

mod backlog;
mod compaction;
mod convert;
mod lease;
mod limits;
mod lineage;
mod link;
mod metrics;
mod settings;
mod watch;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::runtime::Handle;

pub use metrics::EtcdMetrics;
pub use settings::{EtcdSettings, InvalidEtcdSettings};

use compaction::Compacting;
use lease::Lease;
use link::Link;
use watch::Watches;

/// etcd's count of changes. Means nothing across clusters.
pub type Revision = u64;

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key; what is not UTF-8 is U+FFFD.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// The revision of the last change to this key.
    pub modified: Revision,
    /// The number of changes to this key since it was created; 1 at its creation.
    pub version: u64,
}

/// The keys from `start` on and before `end`; without `end`, the one key `start`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The first.
    pub start: String,
    /// The first that is no longer part of it.
    pub end: Option<String>,
}

/// Part of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order of their keys.
    pub entries: Vec<KeyValue>,
    /// There are more than were asked for.
    pub more: bool,
    /// The revision at which these were read.
    pub revision: Revision,
}

/// On what a transaction depends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The key was last changed at this revision; 0: it is absent.
    Modified(String, Revision),
    /// No key of this range changed after this revision. (It does not see deletions.)
    NoneModifiedAfter(KeyRange, Revision),
}

/// What a transaction does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Stores a value.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: Vec<u8>,
        /// Attach it to this router's lease: it goes away when the router dies.
        leased: bool,
    },
    /// Deletes every key of a range.
    Delete(KeyRange),
    /// Reads one key, after the transaction's changes so far.
    Get(String),
}

/// If all comparisons hold, `then`, else `otherwise`; atomically.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// At most 128.
    pub when: Vec<Comparison>,
    /// At most 128.
    pub then: Vec<Operation>,
    /// At most 128.
    pub otherwise: Vec<Operation>,
}

/// What came of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether all comparisons held, and so `then` was carried out.
    pub succeeded: bool,
    /// What each `Get` found, in order.
    pub found: Vec<Option<KeyValue>>,
    /// After the transaction.
    pub revision: Revision,
}

/// A change to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key.
    pub key: String,
    /// None: it was deleted, or its lease ended.
    pub value: Option<Vec<u8>>,
    /// At which it happened.
    pub revision: Revision,
    /// As in [`KeyValue`]; 0 for a deletion.
    pub version: u64,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// In the order in which it happened; empty if nothing did in the time given.
    pub events: Vec<Event>,
    /// Every change up to this revision is in this batch or an earlier one.
    pub revision: Revision,
}

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum EtcdError {
    /// Not reachable, no leader, or too slow. Of a change that may have happened all the same, the text
    /// says so.
    #[error("etcd is unavailable: {0}")]
    Unavailable(String),
    /// The revision asked for is no longer kept; the oldest kept one is this (0: not known).
    #[error("etcd no longer keeps that revision; the oldest it keeps is {0}")]
    Compacted(Revision),
    /// Permission denied or credentials refused.
    #[error("etcd denied it: {0}")]
    Denied(String),
    /// A request that etcd does not accept.
    #[error("etcd does not accept this: {0}")]
    Invalid(String),
    /// Anything else.
    #[error("etcd failed: {0}")]
    Other(String),
}

/// A plugin's way to its etcd cluster.
pub struct EtcdClient {
    link: Arc<Link>,
    watches: Arc<Watches>,
    /// Begun with the first watch: who follows nothing leaves the history to others.
    compacting: OnceLock<Compacting>,
    lease: Arc<Lease>,
}

impl EtcdClient {
    /// A client that will connect when first used. Calls end a fifth before `deadline`, so that a
    /// guest with that deadline still hears why; tasks and connections live on `runtime`, whichever
    /// thread calls.
    pub fn new(settings: EtcdSettings, deadline: Duration, runtime: Handle) -> Self {
        let link = Arc::new(Link::new(settings, deadline.mul_f64(0.8), runtime));
        Self {
            watches: Arc::new(Watches::new(Arc::clone(&link))),
            compacting: OnceLock::new(),
            lease: Arc::new(Lease::new(Arc::clone(&link))),
            link,
        }
    }

    /// Reads at most `limit` keys of a range, linearizably, or as they were at an earlier revision.
    pub async fn get(&self, keys: &KeyRange, limit: u32, at: Option<Revision>) -> Result<Page, EtcdError> {
        limits::check_range(keys)?;
        let key = keys.start.clone();
        let options = convert::get_options(keys, limit, at)?;
        let read = self.link.read(move |client| {
            let (key, options) = (key.clone(), options.clone());
            async move { link::roomy(client.kv_client()).get(key, Some(options)).await }
        });
        Ok(convert::page(read.await?))
    }

    /// Carries out a transaction.
    pub async fn transact(&self, transaction: Transaction) -> Result<Outcome, EtcdError> {
        limits::check(&transaction)?;
        self.lease.transact(transaction).await
    }

    /// The changes to a range after a revision, none left out; waits up to `patience` for the first.
    /// While etcd is down it fails as any call does, and misses nothing when called again.
    pub async fn next(
        &self,
        keys: &KeyRange,
        after: Revision,
        patience: Duration,
    ) -> Result<Batch, EtcdError> {
        limits::check_range(keys)?;
        self.compacting.get_or_init(|| Compacting::start(&self.link, &self.watches));
        self.watches.next(keys, after, patience).await
    }

    /// What keeps this client from etcd, if anything is known to.
    pub fn trouble(&self) -> Option<EtcdError> {
        self.link.trouble()
    }

    /// What this client counted.
    pub fn metrics(&self) -> &EtcdMetrics {
        self.link.metrics()
    }

    /// Ends the watches and revokes the lease, so that what it held goes away now.
    pub async fn drain(&self) {
        self.watches.end();
        self.lease.revoke().await;
    }
}
