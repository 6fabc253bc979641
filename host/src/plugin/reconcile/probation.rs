//! What becomes of a build that crashes in its first moments.

use std::sync::Arc;

use super::{Reconciler, Refused};
use crate::plugin::Generation;

impl Reconciler {
    /// Ends the trial of a next build that crashed at once; the look that follows does the rest.
    fn end_trials(&mut self) {
        let trials = self.known.iter().filter_map(|(name, known)| {
            let active = known.active.as_ref()?;
            let ends = |next: &Generation| next.is_unfit() || next.is_slow();
            let trial = active.trial.as_ref().filter(|trial| ends(&trial.next))?;
            Some((Arc::clone(name), trial.content.clone(), active.settings().clone()))
        });
        let unfit: Vec<_> = trials.collect();
        for (name, content, settings) in unfit {
            let reason =
                "its calls trapped or exceeded a limit, in its first moments or again and again".to_owned();
            self.refuse_next(&name, &content, &settings, reason, true);
        }
    }

    /// Has what follows from crashes take effect, before any file is looked at.
    pub(super) fn judge(&mut self) {
        if self.roll_back() {
            self.show(true);
        }
    }

    /// Brings back what served before a build that crashed at once, or that an operator took back.
    fn roll_back(&mut self) -> bool {
        self.end_trials();
        let mut changed = false;
        for (name, known) in &mut self.known {
            let told = std::mem::take(&mut known.taken_back);
            let (Some(active), Some(previous)) = (known.active.clone(), known.previous.clone()) else {
                continue;
            };
            let unfit = active.is_unfit() && active.is_worse_than(&previous);
            if !told && !unfit {
                continue;
            }
            if !told && !active.may_roll_back() {
                known.unfit.get_or_insert_with(|| kept(name, &active));
                continue;
            }
            let reason =
                if told { "rolled back: an operator said so".to_owned() } else { rolled_back(&active) };
            tracing::error!(
                plugin = &**name,
                generation = active.number(),
                back_to = previous.number(),
                reason,
                "plugin rolled back"
            );
            let settings = active.settings().clone();
            let sha256 = Some(Arc::clone(&active.sha256));
            (known.previous, known.unfit) = (None, None);
            known.refused = Some(Refused::new(sha256, settings, reason.into(), true));
            known.draining.push(Arc::downgrade(&active));
            known.active = Some(previous);
            self.published.note_rollback();
            changed = true;
        }
        changed
    }

    pub(super) fn end_probation(&mut self) {
        for known in self.known.values_mut() {
            if known.active.as_ref().is_some_and(|active| active.has_proved_itself()) {
                known.previous = None;
            }
            known.draining.retain(|draining| draining.strong_count() > 0);
        }
    }
}

fn rolled_back(unfit: &Generation) -> String {
    let (calls, crashes) = unfit.stats.calls_and_crashes();
    let answered = match unfit.answered_by_earlier() {
        0 => String::new(),
        answered => format!("; the build before it answered {answered} of these messages"),
    };
    format!("rolled back: {crashes} of its first {calls} calls trapped or exceeded a limit{answered}")
}

/// Why a build goes on that crashed at once, and what can be done about it.
fn kept(name: &str, unfit: &Generation) -> Arc<str> {
    let (calls, crashes) = unfit.stats.calls_and_crashes();
    let reason = format!(
        "{crashes} of its first {calls} calls trapped or exceeded a limit; a filter that closes its service is not \
         rolled back by itself: POST /v1/plugins/{name}/rollback, or write `rollback = true` under [plugin.{name}]"
    );
    tracing::error!(plugin = name, generation = unfit.number(), reason, "plugin is unfit and goes on");
    reason.into()
}
