//! What the calls of a build take of the workers' time, and what comes of that.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Generation;
use crate::{
    plugin::{
        conduct::{Conduct, End, Standing},
        published::Confinement,
    },
    units::{Span, utc},
};

/// The account of one build.
pub(super) struct Account {
    conduct: Conduct,
    confined: Option<Confinement>,
}

impl Default for Account {
    fn default() -> Self {
        Self { conduct: Conduct::new(Instant::now()), confined: None }
    }
}

impl Generation {
    /// Why it is called on threads of its own, if it is.
    pub(in crate::plugin) fn confined(&self) -> Option<Confinement> {
        self.account.lock().confined.clone()
    }

    /// A call held a worker, or a thread of its own, for so long.
    #[cold]
    pub(super) fn charge(&self, held: Duration, end: End) {
        let mut account = self.account.lock();
        let Some(standing) = account.conduct.charge(held, end, Instant::now()) else { return };
        self.care.set_standing(standing);
        if standing != Standing::Confined {
            return;
        }
        let reason = format!(
            "its calls take more than their share of the workers' time, a twentieth of one of them; the last one \
             held its thread for {}",
            Span(held)
        );
        tracing::warn!(
            plugin = self.name(),
            generation = self.number,
            reason,
            calm = %Span(account.conduct.calm()),
            "plugin confined: it is called on threads of its own until it keeps to its share"
        );
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = utc(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        account.confined = Some(Confinement { since, reason });
        self.stats.set_confined(true);
    }

    /// Whether it is to be called on threads of its own, now.
    pub(super) fn is_confined_now(&self) -> bool {
        if self.care.standing() != Standing::Confined {
            return false;
        }
        let mut account = self.account.lock();
        if !account.conduct.release(Instant::now()) {
            return account.conduct.standing() == Standing::Confined;
        }
        account.confined = None;
        self.care.set_standing(account.conduct.standing());
        drop(account);
        self.stats.set_confined(false);
        self.pool.empty_aside();
        tracing::info!(
            plugin = self.name(),
            generation = self.number,
            "plugin called in place again: it kept to its share of the workers' time"
        );
        false
    }
}
