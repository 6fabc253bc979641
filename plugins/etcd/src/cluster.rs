//! The seam to etcd: the host's functions, or in tests a cluster written by hand.

use message_flow_sdk::{
    etcd::{self, Batch, Comparison, EtcdError, KeyRange, Operation, Outcome, Page, Put, Revision},
    routing_table::TableError,
};

/// As `wit/etcd.wit` says.
pub(crate) trait Cluster {
    fn get(&self, keys: &KeyRange, limit: u32, at: Option<Revision>) -> Result<Page, EtcdError>;
    fn transact(
        &self,
        when: &[Comparison],
        then: &[Operation],
        otherwise: &[Operation],
    ) -> Result<Outcome, EtcdError>;
    fn next(&self, keys: &KeyRange, after: Revision, timeout_ms: u32) -> Result<Batch, EtcdError>;
}

/// The cluster that the host is configured for.
pub(crate) struct Host;

impl Cluster for Host {
    fn get(&self, keys: &KeyRange, limit: u32, at: Option<Revision>) -> Result<Page, EtcdError> {
        etcd::get(keys, limit, at)
    }

    fn transact(
        &self,
        when: &[Comparison],
        then: &[Operation],
        otherwise: &[Operation],
    ) -> Result<Outcome, EtcdError> {
        etcd::transact(when, then, otherwise)
    }

    fn next(&self, keys: &KeyRange, after: Revision, timeout_ms: u32) -> Result<Batch, EtcdError> {
        etcd::next(keys, after, timeout_ms)
    }
}

pub(crate) fn one(key: String) -> KeyRange {
    KeyRange { start: key, end: None }
}

pub(crate) fn put(key: String, value: Vec<u8>) -> Operation {
    Operation::Put(Put { key, value, leased: false })
}

pub(crate) fn delete(key: String) -> Operation {
    Operation::Delete(one(key))
}

pub(crate) fn failed(error: EtcdError) -> TableError {
    match error {
        EtcdError::Unavailable(reason) => TableError::Unavailable(reason),
        EtcdError::Compacted(_) => TableError::Compacted,
        EtcdError::Denied(reason) => TableError::Refused(reason),
        EtcdError::Invalid(reason) => TableError::Invalid(reason),
        EtcdError::Other(reason) => TableError::Other(reason),
    }
}

/// Every key of a range, page by page, at one revision.
pub(crate) fn each_page(
    cluster: &impl Cluster,
    mut keys: KeyRange,
    page_keys: u32,
    mut take: impl FnMut(Page),
) -> Result<Revision, EtcdError> {
    let mut at = None;
    loop {
        let page = cluster.get(&keys, page_keys, at)?;
        let revision = at.unwrap_or(page.revision);
        at = Some(revision);
        let Some(last) = page.entries.last().filter(|_| page.more) else {
            take(page);
            return Ok(revision);
        };
        keys.start = format!("{}\0", last.key);
        take(page);
    }
}
