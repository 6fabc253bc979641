//! The lease: what is put under it goes away soon after this router dies.
//!
//! One for each client, granted when first needed and kept alive by a task. If etcd lost it all the
//! same (the router was cut off for longer than its time), a new one is granted and what the old one
//! held is put back, unless somebody else has put the key meanwhile.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{task::AbortHandle, time::sleep};

use super::{
    Comparison, EtcdError, KeyRange, Operation, Outcome, Transaction, convert, link::Link, link::roomy,
};

const TTL: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// After a keep-alive that failed.
const RETRY: Duration = Duration::from_millis(500);
/// The routing table leases one: its router's.
const KEYS: usize = 64;

pub(super) struct Lease {
    link: Arc<Link>,
    /// Held while it is granted, so that it is granted once.
    held: tokio::sync::Mutex<Option<Held>>,
    keys: Mutex<BTreeMap<String, Vec<u8>>>,
}

struct Held {
    id: i64,
    keeper: AbortHandle,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Lease {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link, held: tokio::sync::Mutex::default(), keys: Mutex::default() }
    }

    /// Carries out a transaction, under the lease where it asks for that.
    pub(super) async fn transact(self: &Arc<Self>, transaction: Transaction) -> Result<Outcome, EtcdError> {
        if !is_leased(&transaction) {
            let outcome = self.send(&transaction, 0).await?;
            self.remember(&transaction, &outcome);
            return Ok(outcome);
        }
        self.check_room(&transaction)?;
        let id = self.id().await?;
        let outcome = match self.send(&transaction, id).await {
            Err(error) if convert::is_lost_lease(&error) => {
                self.give_up(id).await;
                self.send(&transaction, self.id().await?).await?
            }
            answer => answer?,
        };
        self.remember(&transaction, &outcome);
        Ok(outcome)
    }

    /// Ends the lease, and with it what it holds.
    pub(super) async fn revoke(&self) {
        self.keys.lock().clear();
        let Some(held) = self.held.lock().await.take() else { return };
        let id = held.id;
        let revoked =
            self.link.write(move |client| async move { client.lease_client().revoke(id).await }).await;
        if let Err(error) = revoked {
            tracing::warn!(%error, "etcd lease not revoked; it ends within {TTL:?}");
        }
    }

    async fn send(&self, transaction: &Transaction, lease: i64) -> Result<Outcome, EtcdError> {
        let request = convert::transaction(transaction, lease)?;
        let sent = self.link.write(|client| {
            let request = request.clone();
            async move { roomy(client.kv_client()).txn(request).await }
        });
        Ok(convert::outcome(&sent.await?))
    }

    async fn id(self: &Arc<Self>) -> Result<i64, EtcdError> {
        let mut held = self.held.lock().await;
        if let Some(held) = &*held {
            return Ok(held.id);
        }
        let seconds = TTL.as_secs().cast_signed();
        let granted =
            self.link.write(|client| async move { client.lease_client().grant(seconds, None).await });
        let id = granted.await?.id();
        self.link.metrics().leases.one();
        let keeper = self.link.runtime().spawn(keep(Arc::downgrade(self), id)).abort_handle();
        *held = Some(Held { id, keeper });
        Ok(id)
    }

    /// Whether the lease is still there.
    async fn keep_alive(&self, id: i64) -> Result<(), EtcdError> {
        let kept =
            self.link.read(|client| async move { client.lease_client().keep_alive(id).await.map(|_| ()) });
        kept.await
    }

    async fn give_up(&self, id: i64) {
        let mut held = self.held.lock().await;
        held.take_if(|held| held.id == id);
    }

    /// Puts back, under a new lease, what the lost one held.
    async fn restore(self: &Arc<Self>) -> Result<(), EtcdError> {
        let keys = self.keys.lock().clone();
        for (key, value) in keys {
            let when = vec![Comparison::Modified(key.clone(), 0)];
            let then = vec![Operation::Put { key, value, leased: true }];
            self.transact(Transaction { when, then, ..Transaction::default() }).await?;
        }
        Ok(())
    }

    fn check_room(&self, transaction: &Transaction) -> Result<(), EtcdError> {
        let keys = self.keys.lock();
        let new = leased_keys(transaction).filter(|key| !keys.contains_key(*key)).count();
        if keys.len() + new > KEYS {
            return Err(EtcdError::Invalid(format!("more than {KEYS} keys under the lease")));
        }
        Ok(())
    }

    fn remember(&self, transaction: &Transaction, outcome: &Outcome) {
        let mut keys = self.keys.lock();
        let carried_out = if outcome.succeeded { &transaction.then } else { &transaction.otherwise };
        for operation in carried_out {
            match operation {
                Operation::Put { key, value, leased: true } => drop(keys.insert(key.clone(), value.clone())),
                Operation::Put { key, .. } => drop(keys.remove(key)),
                Operation::Delete(range) => keys.retain(|key, _| !contains(range, key)),
                Operation::Get(_) => {}
            }
        }
    }
}

/// Keeps a lease alive until it is lost or nobody needs it. A named type of future, because what
/// follows a lost lease begins with granting one.
fn keep(lease: Weak<Lease>, id: i64) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let mut pause = KEEP_ALIVE;
        loop {
            sleep(pause).await;
            let Some(lease) = lease.upgrade() else { return };
            match lease.keep_alive(id).await {
                Ok(()) => pause = KEEP_ALIVE,
                Err(error) if convert::is_lost_lease(&error) => {
                    tracing::warn!("etcd lease was lost; taking another");
                    // In a task of its own: giving the lease up ends this one.
                    lease.link.runtime().spawn(replace(Arc::downgrade(&lease), id));
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, "etcd lease not kept alive");
                    pause = RETRY;
                }
            }
        }
    })
}

async fn replace(lease: Weak<Lease>, id: i64) {
    while let Some(lease) = lease.upgrade() {
        lease.give_up(id).await;
        match lease.restore().await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "what the etcd lease held is not yet back"),
        }
        drop(lease);
        sleep(RETRY).await;
    }
}

fn is_leased(transaction: &Transaction) -> bool {
    leased_keys(transaction).next().is_some()
}

fn leased_keys(transaction: &Transaction) -> impl Iterator<Item = &String> {
    transaction.then.iter().chain(&transaction.otherwise).filter_map(|operation| match operation {
        Operation::Put { key, leased: true, .. } => Some(key),
        _ => None,
    })
}

fn contains(range: &KeyRange, key: &str) -> bool {
    match range.end.as_deref() {
        None => key == range.start,
        Some("\0") => key >= range.start.as_str(),
        Some(end) => (range.start.as_str()..end).contains(&key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_contains_what_etcd_says() {
        let range = |end: Option<&str>| KeyRange { start: "b".into(), end: end.map(str::to_owned) };
        let contained =
            |end| ["a", "b", "ba", "c", "d"].into_iter().filter(|key| contains(&range(end), key)).collect();
        let check =
            |end, expected: &[&str]| assert_eq!(Vec::<&str>::from_iter::<Vec<_>>(contained(end)), expected);
        check(None, &["b"]);
        check(Some("c"), &["b", "ba"]);
        check(Some("\0"), &["b", "ba", "c", "d"]);
    }
}
