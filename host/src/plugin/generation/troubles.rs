//! Calls without an answer: what the log is told, and what they say of a build.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    Generation, Kind, OnError,
    first_moments::{Crash, FirstMoments},
};
use crate::{
    plugin::{CallError, Message, call::Cause, message::Place, reconcile::Wake},
    table::{ServiceId, hash},
};

/// For so long a new build is judged.
const PROBATION: Duration = Duration::from_secs(10);
/// So many missed deadlines in that time, and a next build is not tried out any longer.
const OVERRUNS: usize = 5;

/// Between two lines in the log about calls of one build that gave no answer.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// What is said of calls without an answer.
#[derive(Default)]
pub(super) struct Troubles {
    last: Option<CallError>,
    logged: Option<Instant>,
    unlogged: u64,
    first_moments: FirstMoments,
    /// When it missed its deadline, at most [`OVERRUNS`] of these.
    overruns: Vec<Instant>,
}

impl Generation {
    /// Logs the first of a burst of errors, and then how many there were.
    #[cold]
    pub(super) fn trouble(&self, error: &CallError, message: &Message) {
        if matches!(error.cause, Cause::Sender) {
            return;
        }
        if error.cause.is_crash() && !self.is_judged_later(message) {
            self.judge(Crash::Alone, message);
        }
        let mut troubles = self.troubles.lock();
        if matches!(error.cause, Cause::Deadline(..)) && !self.template.shape.waits {
            self.overran(&mut troubles);
        }
        troubles.last = Some(error.clone());
        if troubles.logged.is_some_and(|logged| logged.elapsed() < LOG_EVERY) {
            troubles.unlogged += 1;
            return;
        }
        let not_logged_before = std::mem::take(&mut troubles.unlogged);
        troubles.logged = Some(Instant::now());
        drop(troubles);
        let service = message.service.as_ref().map(ServiceId::as_str);
        let client = message.service.as_ref().map(|_| message.client.as_str());
        let generation = self.number;
        tracing::warn!(plugin = self.name(), service, client, generation, not_logged_before, "{error}");
    }

    /// Why the last call that gave no answer did not.
    pub(in crate::plugin) fn last_error(&self) -> Option<String> {
        self.troubles.lock().last.as_ref().map(ToString::to_string)
    }

    /// Where another build may stand in, what that one does is part of the judgement.
    fn is_judged_later(&self, message: &Message) -> bool {
        self.care.is_watched() && message.place != Place::Elsewhere
    }

    /// It crashed on a message.
    pub(super) fn judge(&self, crash: Crash, message: &Message) {
        if self.since.elapsed() >= PROBATION || self.is_unfit() {
            return;
        }
        let client = hash::stable(message.client.as_str());
        let counts = self.stats.calls_and_crashes();
        let unfit = self.troubles.lock().first_moments.is_unfit(crash, client, counts);
        let earlier = self.earlier.get().and_then(Weak::upgrade);
        if unfit && earlier.is_none_or(|earlier| self.is_worse_than(&earlier)) {
            self.note(&self.unfit);
        }
    }

    fn overran(&self, troubles: &mut Troubles) {
        let recent = |at: &Instant| at.elapsed() < PROBATION;
        troubles.overruns.retain(recent);
        troubles.overruns.push(Instant::now());
        if troubles.overruns.len() >= OVERRUNS {
            troubles.overruns.clear();
            self.note(&self.slow);
        }
    }

    /// Something is to be done about this build.
    fn note(&self, what: &AtomicBool) {
        if !what.swap(true, Ordering::Relaxed)
            && let Some(nudge) = &self.template.plugin.nudge
        {
            let _ = nudge.try_send(Wake::Judge);
        }
    }

    /// This build takes the place of another, or is tried out beside it: that one stands in where this one
    /// crashes, for as long as it is held.
    pub(in crate::plugin) fn succeed(&self, earlier: &Arc<Self>) {
        if self.earlier.set(Arc::downgrade(earlier)).is_ok() {
            self.care.watch();
        }
    }

    /// Whether it has served long enough for the build before it to be let go.
    pub(in crate::plugin) fn has_proved_itself(&self) -> bool {
        self.since.elapsed() > PROBATION && !self.is_unfit()
    }

    /// Whether it crashed so often in its first moments, and in such a way, that it cannot be meant to.
    pub(in crate::plugin) fn is_unfit(&self) -> bool {
        self.unfit.load(Ordering::Relaxed)
    }

    /// Whether it missed its deadline again and again.
    pub(in crate::plugin) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// How many messages on which it crashed the build before it answered.
    pub(in crate::plugin) fn answered_by_earlier(&self) -> u64 {
        self.troubles.lock().first_moments.answered()
    }

    /// Whether a larger share of its calls crashed than of another build's: what crashes either is a
    /// matter of the messages.
    pub(in crate::plugin) fn is_worse_than(&self, other: &Self) -> bool {
        is_worse(self.stats.calls_and_crashes(), other.stats.calls_and_crashes())
    }

    /// Whether the build before it may come back without an operator's word. A filter that closes its
    /// service when it fails protects it, and an older build of it may be what was attacked.
    pub(in crate::plugin) fn may_roll_back(&self) -> bool {
        let filters = [Kind::RequestFilter, Kind::ResponseFilter, Kind::EventFilter];
        let protects = self.on_error() == OnError::Closed && filters.iter().any(|kind| self.is(*kind));
        self.settings().rollback.unwrap_or(!protects)
    }
}

/// Of how many calls how many crashed: whether that is at least twice the share of the other.
fn is_worse((calls, crashes): (u64, u64), (other_calls, other_crashes): (u64, u64)) -> bool {
    let wide = |one: u64, other: u64| u128::from(one) * u128::from(other);
    wide(crashes, other_calls.max(1)) >= 2 * wide(other_crashes, calls.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::is_worse;

    #[test]
    fn builds_are_compared_by_the_share_of_calls_that_crashed() {
        for (now, before, worse) in [
            ((5, 5), (0, 0), true),
            ((5, 5), (1000, 0), true),
            ((10, 6), (1000, 10), true),
            ((10, 6), (10, 6), false),
            ((10, 6), (1000, 500), false),
            ((10, 10), (10, 4), true),
        ] {
            assert_eq!(is_worse(now, before), worse, "{now:?} after {before:?}");
        }
    }
}
