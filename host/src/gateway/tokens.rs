//! What tokens of clients are verified with: read with the configuration, and again when a file of
//! keys changes. What cannot be read leaves what was there before.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::token::{KeyError, Rules, Verifier};

/// From one look at the files to the next.
const INTERVAL: Duration = Duration::from_secs(5);

/// The verifier of now.
pub(super) struct Tokens {
    rules: Option<Rules>,
    verifier: Option<Arc<Verifier>>,
    next: Instant,
    /// Why the last look was in vain, so that it is said once.
    failed: String,
}

impl Tokens {
    /// Reads the keys for the first time.
    pub(super) fn new(rules: Option<Rules>) -> Result<Self, KeyError> {
        let verifier = rules.as_ref().map(Rules::load).transpose()?.map(Arc::new);
        Ok(Self { rules, verifier, next: Instant::now() + INTERVAL, failed: String::new() })
    }

    pub(super) fn current(&self) -> Option<Arc<Verifier>> {
        self.verifier.clone()
    }

    /// Goes by these rules from now on.
    pub(super) async fn reconfigure(&mut self, rules: Option<&Rules>) {
        if self.rules.as_ref() != rules {
            self.rules = rules.cloned();
            self.look().await;
        }
    }

    /// Returns once a file holds other keys. May be dropped and called again.
    pub(super) async fn changed(&mut self) {
        while self.rules.is_some() {
            sleep_until(self.next).await;
            if self.look().await {
                return;
            }
        }
        std::future::pending().await
    }

    /// Reads the keys; says whether others hold now.
    async fn look(&mut self) -> bool {
        let rules = self.rules.clone();
        let load = move || rules.as_ref().map(Rules::load).transpose();
        let Ok(loaded) = tokio::task::spawn_blocking(load).await else { return false };
        self.next = Instant::now() + INTERVAL;
        match loaded {
            Ok(verifier) => {
                self.failed.clear();
                let changed = verifier.as_ref() != self.verifier.as_deref();
                if changed {
                    self.verifier = verifier.map(Arc::new);
                    tracing::info!("keys of clients' tokens read");
                }
                changed
            }
            Err(error) => {
                self.complain(error);
                false
            }
        }
    }

    fn complain(&mut self, error: KeyError) {
        let why = format!("{:#}", anyhow::Error::from(error));
        if why != self.failed {
            tracing::error!("keys of clients' tokens not read, those before stay: {why}");
            self.failed = why;
        }
    }
}
