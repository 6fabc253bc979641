//! How long a message waits for the table, over all that it has to ask there.

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, timeout};

use crate::{
    table::{TableError, clock::millis},
    units::Span,
};

/// What is left of the time that one message may wait for the table. Only waiting takes of it.
#[derive(Debug)]
pub struct Wait {
    whole: Duration,
    /// In milliseconds.
    left: AtomicU64,
}

impl Clone for Wait {
    fn clone(&self) -> Self {
        Self { whole: self.whole, left: self.left.load(Relaxed).into() }
    }
}

impl Wait {
    /// All of it is left.
    pub fn new(whole: Duration) -> Self {
        Self { whole, left: millis(whole).into() }
    }

    /// The answer, unless it takes longer than what is left.
    pub(super) async fn bound<T>(
        &self,
        answer: impl Future<Output = Result<T, TableError>>,
    ) -> Result<T, TableError> {
        let late = || Err(TableError::Unavailable(format!("no answer within {}", Span(self.whole))));
        let (left, began) = (self.left.load(Relaxed), Instant::now());
        if left == 0 {
            return late();
        }
        let answer = timeout(Duration::from_millis(left), answer).await;
        self.left.store(left.saturating_sub(millis(began.elapsed())), Relaxed);
        answer.unwrap_or_else(|_| late())
    }
}
