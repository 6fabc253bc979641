//! This router's own record: written at the start, whenever what it says changes, and again whenever it disappears;
//! and only against itself, so that no two processes are one router (see [`identity`]).

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use super::{
    Status, TableError, View,
    adapter::Change,
    identity::{self, Claim, Found, Identity, Next, Source},
    record::RouterRecord,
    shared::Shared,
};
use crate::{condition::Name, durable::whole};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Keeps the record there until dropped.
pub(super) async fn announce(shared: Arc<Shared>) {
    let (mut views, mut status) = (shared.views.subscribe(), shared.status.subscribe());
    let mut drained = shared.drained.subscribe();
    let (mut written, mut other, mut pause) = (None, None, FIRST_PAUSE);
    loop {
        if status.wait_for(|status| *status == Status::Current).await.is_err() {
            return;
        }
        let (view, identity) = (Arc::clone(&views.borrow_and_update()), shared.identity());
        let own = own(&shared, &identity, &drained.borrow_and_update());
        shared.tell_clash(&identity, &view);
        let there = view.routers().get(&*identity.id);
        let found = Found {
            there,
            seen_for: seen_for(&mut other, there, &own),
            held: identity.claim == Claim::Held,
            alone: shared.options.alone,
        };
        match identity::next(&own, &found) {
            Next::Taken => {
                if !shared.give_up_id(&identity, there) {
                    return;
                }
                continue;
            }
            Next::Wait => {
                let until = Instant::now() + identity::PATIENCE.saturating_sub(found.seen_for);
                if matches!(timeout_at(until, views.changed()).await, Ok(Err(_))) {
                    return;
                }
                continue;
            }
            Next::Write if there == Some(&own) || written.as_ref() == Some(&own) && there.is_some() => {
                shared.claim(Claim::Held);
                if !changed(&mut views, &mut drained).await {
                    return;
                }
                continue;
            }
            Next::Write => {}
        }
        match write(&shared, &identity, &own, &view).await {
            Ok(()) => (written, pause) = (Some(own), FIRST_PAUSE),
            // Somebody wrote meanwhile; the view will say what.
            Err(TableError::Conflict(_)) => {}
            Err(error) => {
                tracing::debug!(%error, "this router's record was not written");
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        sleep(pause.mul_f64(shared.options.jitter.within(0.5..1.0))).await;
    }
}

/// False: nobody changes it any more.
async fn changed(
    views: &mut watch::Receiver<Arc<View>>,
    drained: &mut watch::Receiver<std::collections::BTreeMap<String, u32>>,
) -> bool {
    tokio::select! {
        changed = views.changed() => changed.is_ok(),
        changed = drained.changed() => changed.is_ok(),
    }
}

/// What this router would say of itself.
fn own(
    shared: &Shared,
    identity: &Identity,
    drained: &std::collections::BTreeMap<String, u32>,
) -> RouterRecord {
    RouterRecord {
        drained: drained.clone(),
        instead_of: identity.instead_of.as_deref().map(str::to_owned),
        ..shared.options.record.clone()
    }
}

/// For how long this record of another process has been there as far as this one knows.
fn seen_for(
    other: &mut Option<(String, Instant)>,
    there: Option<&RouterRecord>,
    own: &RouterRecord,
) -> Duration {
    let Some(there) = there.filter(|there| there.incarnation != own.incarnation) else {
        *other = None;
        return Duration::ZERO;
    };
    match other {
        Some((incarnation, since)) if *incarnation == there.incarnation => since.elapsed(),
        _ => {
            *other = Some((there.incarnation.clone(), Instant::now()));
            Duration::ZERO
        }
    }
}

/// Writes the record, if the one that is there is still that of the view, and takes away what this process wrote under
/// an id that it no longer has.
async fn write(
    shared: &Shared,
    identity: &Identity,
    own: &RouterRecord,
    view: &View,
) -> Result<(), TableError> {
    let value = serde_json::to_string(own).expect("a record of texts and numbers");
    let mut changes = vec![record(&identity.id, Some(value))];
    let left = view
        .routers()
        .iter()
        .filter(|(id, router)| ***id != *identity.id && router.incarnation == own.incarnation);
    changes.extend(left.map(|(id, _)| record(id, None)));
    shared.adapter.write(changes, Some(view.revision)).await?;
    shared.poke.notify_one();
    Ok(())
}

/// Removes the record: this router leaves.
pub(super) async fn leave(shared: &Shared) -> Result<(), TableError> {
    let (view, id) = (shared.view(), shared.identity().id);
    let ours = |there: &RouterRecord| there.incarnation == shared.options.record.incarnation;
    match view.routers().get(&*id).is_some_and(ours) {
        true => shared.adapter.write(vec![record(&id, None)], None).await.map(drop),
        false => Ok(()),
    }
}

fn record(id: &str, value: Option<String>) -> Change {
    Change { kind: "router".to_owned(), key: id.to_owned(), value, ephemeral: true }
}

impl Shared {
    pub(super) fn identity(&self) -> Identity {
        self.identity.borrow().clone()
    }

    fn claim(&self, claim: Claim) {
        self.identity.send_if_modified(|identity| {
            let changed = identity.claim != claim;
            identity.claim = claim;
            changed
        });
    }

    /// Another router has this id: goes by another, or does not at all. Returns whether it goes on.
    fn give_up_id(&self, identity: &Identity, there: Option<&RouterRecord>) -> bool {
        let (id, uri) = (&identity.id, there.map_or("", |there| &there.uri));
        let new: String = match &self.options.source {
            Source::File(file) => {
                let new = format!("router-{:016x}", rand::random::<u64>());
                if let Err(error) = whole::save(file, &new) {
                    let file = file.display();
                    tracing::error!(%file, %error, "the new id is not kept: the next start begins with the old one");
                }
                new
            }
            // It has begun to serve, so what is connected to it must not be lost.
            Source::Configuration if identity.claim == Claim::Held || self.serves() => {
                format!("{id}-{}", self.options.record.incarnation)
            }
            Source::Configuration => {
                self.claim(Claim::Refused(format!(
                    "the router id `{id}` is in use by the router at {uri}: give this one another `[router] id`, \
                     or stop that one"
                )));
                return false;
            }
        };
        tracing::warn!(
            "the router id `{id}` is in use by the router at {uri}: this one goes by `{new}` from now on; \
             give each router a data directory (and a `[router] id`, if any) of its own"
        );
        let instead_of = Some(identity.instead_of.clone().unwrap_or_else(|| Arc::clone(id)));
        self.identity.send_replace(Identity { id: new.into(), instead_of, claim: Claim::Open });
        true
    }

    /// Says of two routers that came with one id that they did.
    fn tell_clash(&self, identity: &Identity, view: &View) {
        let conditions = self.options.tasks.conditions();
        let routers = view.routers().iter().map(|(id, router)| (Arc::clone(id), router));
        match identity::clash(identity, routers) {
            None => drop(conditions.clear(Name::RouterId)),
            Some(clash) => {
                let known = conditions.raised().into_iter().find(|known| known.name == Name::RouterId);
                if known.is_none_or(|known| known.detail != clash) {
                    tracing::warn!("{clash}");
                }
                conditions.raise(Name::RouterId, clash);
            }
        }
    }
}
