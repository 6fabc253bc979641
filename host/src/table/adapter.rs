//! The seam to a routing-table adapter, in domain types. Its meaning, function by function, is
//! documented in `wit/routing-table.wit`; the plugin host implements it over a component, tests
//! implement it by hand.

use futures_util::future::BoxFuture;

/// The kind of what lies among the entries and is none: its key is where, its value why.
pub const STRAY: &str = "stray";

/// Grows with every change to an entry; means nothing across datastores.
pub type Revision = u64;

/// One record of the table that is held in the view: a service, server, release or router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `service`, `server`, `release`, `router`, or one that this version does not know.
    pub kind: String,
    /// Unique within its kind.
    pub key: String,
    /// A JSON document.
    pub value: String,
}

/// Every entry, at one revision.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// In no particular order.
    pub entries: Vec<Entry>,
    /// At which exactly these were there.
    pub revision: Revision,
}

/// A change to one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// As in [`Entry`]; `assignment` for one that was pinned, forgotten or replaced.
    pub kind: String,
    /// As in [`Entry`]; for an `assignment`, `CLIENT/SERVICE` with the client percent-encoded.
    pub key: String,
    /// None: deleted.
    pub value: Option<String>,
    /// On write: goes away by itself soon after this router dies.
    pub ephemeral: bool,
}

/// What changed after a revision.
#[derive(Clone, Debug, Default)]
pub struct ChangeSet {
    /// In the order in which they happened; may be empty.
    pub changes: Vec<Change>,
    /// After the last of them.
    pub revision: Revision,
}

/// The stored server of a client for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// A server's id, or a URI that a registrar gave.
    pub server: String,
    /// Milliseconds since the Unix epoch; none: pinned.
    pub expires: Option<u64>,
    /// The id of the router that wrote it.
    pub router: String,
    /// Changes with every write.
    pub stamp: u64,
}

/// What a router would like to store.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The client id.
    pub client: String,
    /// Written `chat` or `chat@2`.
    pub service: String,
    /// A server's id, or a URI that a registrar gave.
    pub server: String,
    /// In the table's [time](super::TableTime); none: pinned.
    pub expires: Option<u64>,
    /// The id of this router.
    pub router: String,
}

/// On what storing a [`Proposal`] depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// There is no assignment.
    Absent,
    /// The assignment there still has this stamp; every router is told if the server is another.
    Unchanged(u64),
    /// None: a pin.
    Always,
}

/// All that is known of a client.
#[derive(Clone, Debug, Default)]
pub struct ClientRecord {
    /// The router that last said that the client is connected to it.
    pub router: Option<String>,
    /// By service, written `chat` or `chat@2`.
    pub assignments: Vec<(String, Assignment)>,
}

/// Why the table could not be read or written.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum TableError {
    /// The datastore cannot be reached or did not answer in time.
    #[error("routing table unavailable: {0}")]
    Unavailable(String),
    /// The datastore may have carried out what it was asked to, or not.
    #[error("whether the routing table took this is not known: {0}; it may have been carried out")]
    Unknown(String),
    /// What came after the revision asked for is no longer known.
    #[error("routing table was compacted; a new snapshot is needed")]
    Compacted,
    /// An entry that was to be written changed after the revision expected; this one holds that.
    #[error("an entry of the routing table changed meanwhile, at revision {0} or before")]
    Conflict(Revision),
    /// The datastore answered no.
    #[error("routing table refused: {0}")]
    Refused(String),
    /// Stored data or an argument that cannot be understood.
    #[error("routing table holds or was given something invalid: {0}")]
    Invalid(String),
    /// The adapter plugin itself failed: it trapped, timed out or is not there.
    #[error("routing-table adapter failed: {0}")]
    Adapter(String),
}

/// What an adapter answers.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, TableError>>;

/// A routing-table adapter. Every call ends within the adapter's deadline.
pub trait Adapter: Send + Sync {
    /// Every entry, at one revision.
    fn snapshot(&self) -> Answer<'_, Snapshot>;
    /// What changed after a revision; may wait up to half a minute, may return an empty set at once.
    fn changes(&self, after: Revision) -> Answer<'_, ChangeSet>;
    /// Resolves when an adapter whose `changes` does not wait may have something new since this
    /// future was made (not since it was first polled); may never.
    fn stirred(&self) -> BoxFuture<'_, ()>;
    /// Applies all of these or none; at most 64.
    fn write(&self, changes: Vec<Change>, expect: Option<Revision>) -> Answer<'_, Revision>;
    /// The assignment of a client for a service, expired or not.
    fn assigned(&self, client: String, service: String) -> Answer<'_, Option<Assignment>>;
    /// Stores if the condition holds; returns what is stored afterwards, which is nothing when
    /// the condition is [`Condition::Unchanged`] and the assignment is gone.
    fn assign(&self, proposal: Proposal, condition: Condition) -> Answer<'_, Option<Assignment>>;
    /// Removes an assignment, there or not.
    fn forget(&self, client: String, service: String) -> Answer<'_, ()>;
    /// All that is known of a client.
    fn client(&self, client: String) -> Answer<'_, ClientRecord>;
    /// Stores, or with none removes, the router that a client is connected to.
    fn locate(&self, client: String, router: Option<String>) -> Answer<'_, ()>;
    /// Removes up to `limit` assignments that expired before `now` (Unix milliseconds).
    fn sweep(&self, now: u64, limit: u32) -> Answer<'_, u32>;
}
