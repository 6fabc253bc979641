//! Undoes a promotion that goes wrong: for its first minutes the new version is compared with the
//! old one, and when it does worse by the margin of the release, what was live before is again.
//!
//! Each router compares what it saw itself, so a version that fails at one router alone is found
//! out there; the table sees to it that only one of them rolls back, and only the change that it
//! watched.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use super::{ChangeError, change};
use crate::table::{
    Clock, ServiceId, Table, View,
    record::{Guard, Move, ReleaseAction, ReleaseNote, ReleaseRecord, Rollback},
};

/// From one look to the next.
const LOOK: Duration = Duration::from_secs(1);

/// What was seen of a service's messages since this router started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// Answered.
    pub messages: u64,
    /// Of these, with 5xx.
    pub errors: u64,
    /// From their heads to the ends of their responses, together.
    pub seconds: f64,
}

/// Where it is looked up what was seen.
pub trait Counts: Send + Sync {
    /// Of a service, by its id.
    fn seen(&self, service: &ServiceId) -> Seen;
}

/// Which change of a release is watched, and what had been seen when it was made.
struct Watched {
    number: u64,
    new: Vec<(ServiceId, Seen)>,
    old: Vec<(ServiceId, Seen)>,
}

/// Watches every release that asks for it, until dropped.
pub async fn watch(table: Arc<Table>, counts: Arc<dyn Counts>, clock: Clock) {
    let mut watched = HashMap::<Arc<str>, Watched>::new();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let view = table.view();
        watched.retain(|name, watched| is_watched(&view, name, watched, clock.now()));
        for (name, release) in view.releases() {
            let Some(guard) = due(release, clock.now()) else { continue };
            let watching =
                watched.entry(Arc::clone(name)).or_insert_with(|| Watched::begin(name, release, &*counts));
            if let Some(why) = watching.worse(guard, &*counts) {
                roll_back(&table, name, release.number, why, clock.now()).await;
            }
        }
    }
}

fn is_watched(view: &View, name: &str, watched: &Watched, now: u64) -> bool {
    let release = view.release(name).filter(|release| due(release, now).is_some());
    release.is_some_and(|release| release.number == watched.number)
}

/// The guard of a release whose latest change is a promotion that can be undone, in its first minutes.
fn due(release: &ReleaseRecord, now: u64) -> Option<&Guard> {
    let (guard, latest) = (release.rollback.as_ref()?, release.latest()?);
    let within = u64::try_from(guard.within.0.as_millis()).unwrap_or(u64::MAX);
    let fresh = now.saturating_sub(latest.at) <= within;
    (fresh && latest.action == ReleaseAction::Promote && latest.back.is_some()).then_some(guard)
}

impl Watched {
    fn begin(name: &str, release: &ReleaseRecord, counts: &dyn Counts) -> Self {
        let before = release.latest().and_then(|latest| latest.back);
        let before = release.history.iter().find(|change| Some(change.number) == before);
        let was =
            |version: &str| before.map_or(0, |before| before.weights.get(version).copied().unwrap_or(0));
        let id = |version: &String| ServiceId::versioned(name, version).ok();
        let seen = |id: ServiceId| {
            let seen = counts.seen(&id);
            (id, seen)
        };
        let grown = |(version, weight): &(&String, &u32)| **weight > 0 && was(version) == 0;
        let new = release.weights.iter().filter(grown).filter_map(|(version, _)| id(version)).map(seen);
        let old = before.into_iter().flat_map(|before| &before.weights);
        let old = old.filter(|(_, weight)| **weight > 0).filter_map(|(version, _)| id(version)).map(seen);
        Self { number: release.number, new: new.collect(), old: old.collect() }
    }

    /// In which way a new version does worse than the old ones.
    fn worse(&self, guard: &Guard, counts: &dyn Counts) -> Option<String> {
        let old = self.old.iter().map(|(id, before)| (counts.seen(id), *before));
        let (since, ever) = old.fold((Seen::default(), Seen::default()), |(since, ever), (now, before)| {
            (since.plus(now.minus(before)), ever.plus(now))
        });
        // An old version that gets nothing any more is judged by all that was seen of it.
        let old = if since.messages >= guard.messages { since } else { ever };
        self.new.iter().find_map(|(id, before)| {
            let new = counts.seen(id).minus(*before);
            let why = (new.messages >= guard.messages).then(|| exceeds(guard, new, old))??;
            Some(format!("{id} {why}, after {} messages", new.messages))
        })
    }
}

impl Seen {
    fn minus(self, before: Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(before.messages),
            errors: self.errors.saturating_sub(before.errors),
            seconds: (self.seconds - before.seconds).max(0.0),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            messages: self.messages + other.messages,
            errors: self.errors + other.errors,
            seconds: self.seconds + other.seconds,
        }
    }

    /// Percent.
    fn error_rate(self) -> f64 {
        share(self.errors) * 100.0 / share(self.messages).max(1.0)
    }

    fn mean(self) -> Option<f64> {
        (self.messages > 0).then(|| self.seconds / share(self.messages))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of messages stay far below 2^52")]
fn share(count: u64) -> f64 {
    count as f64
}

/// In which way the new one is worse than the margins allow.
fn exceeds(guard: &Guard, new: Seen, old: Seen) -> Option<String> {
    if let Some(margin) = guard.errors {
        let (is, was) = (new.error_rate(), old.error_rate());
        if is > was + f64::from(margin) {
            return Some(format!(
                "answered {is:.1} % with errors, {was:.1} % before: more than {margin} points worse"
            ));
        }
    }
    let (margin, is, was) = (guard.latency?, new.mean()?, old.mean()?);
    (is > was * (1.0 + f64::from(margin) / 100.0)).then(|| {
        format!(
            "took {:.1} ms in the mean, {:.1} ms before: more than {margin} % worse",
            is * 1000.0,
            was * 1000.0
        )
    })
}

async fn roll_back(table: &Table, name: &str, number: u64, why: String, at: u64) {
    tracing::warn!(service = name, %why, "rolling back by itself");
    let rollback = Rollback { to: None, moving: Move::Now, action: ReleaseAction::AutomaticRollback };
    let changed = change(table, name, Some(number), |release, versions| {
        let note = ReleaseNote {
            by: "message-flow".to_owned(),
            why: Some(why.clone()),
            at,
            now: table.time().now(),
        };
        release.roll_back(versions, rollback.clone(), note)
    });
    match changed.await {
        Ok(_) | Err(ChangeError::Changed { .. }) => {}
        Err(error) => tracing::error!(service = name, %error, "not rolled back"),
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::{
        table::record::{Promotion, ReleaseVersions},
        units::Span,
    };

    #[derive(Default)]
    struct Told(Mutex<HashMap<String, Seen>>);

    impl Counts for Told {
        fn seen(&self, service: &ServiceId) -> Seen {
            self.0.lock().get(service.as_str()).copied().unwrap_or_default()
        }
    }

    impl Told {
        fn tell(&self, service: &str, messages: u64, errors: u64, seconds: f64) {
            self.0.lock().insert(service.to_owned(), Seen { messages, errors, seconds });
        }
    }

    fn guard() -> Guard {
        Guard { within: Span(Duration::from_secs(60)), errors: Some(5), latency: Some(50), messages: 10 }
    }

    fn promoted() -> ReleaseRecord {
        let versions = ReleaseVersions { name: "chat", versions: vec!["1", "2"] };
        let promote = |release: &ReleaseRecord, version: &str| {
            let weights = Some([(version.to_owned(), 1)].into());
            let promotion = Promotion { weights, rollback: Some(Some(guard())), ..Promotion::default() };
            let note = ReleaseNote { by: "ann".into(), why: None, at: 1000, now: 1000 };
            release.promote(&versions, promotion, note).unwrap()
        };
        promote(&promote(&ReleaseRecord::default(), "1"), "2")
    }

    #[track_caller]
    fn check(new: (u64, u64, f64), expect: Option<&str>) {
        let told = Told::default();
        told.tell("chat@1", 1000, 10, 10.0);
        // What was seen of a version before it was promoted does not count.
        told.tell("chat@2", 100, 100, 100.0);
        let watched = Watched::begin("chat", &promoted(), &told);
        told.tell("chat@2", 100 + new.0, 100 + new.1, 100.0 + new.2);
        let why = watched.worse(&guard(), &told);
        assert_eq!(why.as_deref(), expect);
    }

    #[test]
    fn a_new_version_is_compared_with_the_old_one() {
        check((9, 9, 0.09), None);
        check((100, 5, 1.0), None);
        check(
            (100, 7, 1.0),
            Some(
                "chat@2 answered 7.0 % with errors, 1.0 % before: more than 5 points worse, after 100 messages",
            ),
        );
        check((100, 0, 1.5), None);
        check(
            (100, 0, 1.6),
            Some("chat@2 took 16.0 ms in the mean, 10.0 ms before: more than 50 % worse, after 100 messages"),
        );
    }

    #[test]
    fn only_a_fresh_promotion_is_watched() {
        let release = promoted();
        assert!(due(&release, 61_000).is_some() && due(&release, 61_001).is_none());
        assert_eq!(due(&ReleaseRecord { rollback: None, ..release }, 1000), None);
    }
}
