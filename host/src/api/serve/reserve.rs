//! Room for health checks and operators while the API has all the connections that it may have.
//!
//! What a connection is for is known only when its request has been read. So some are accepted over
//! the bound, each for a single request, which the guard refuses unless it is one of theirs; and the
//! one that has waited longest without a request makes room for the next.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{task::AbortHandle, time::timeout};

/// So many connections at once.
const PLACES: usize = 16;
/// A request's head comes within this, the handshake of TLS before it too.
pub(super) const HEAD: Duration = Duration::from_secs(5);
/// No connection lasts longer.
const LONGEST: Duration = Duration::from_secs(60);

/// The connections over the bound.
#[derive(Default)]
pub(super) struct Reserve(Mutex<VecDeque<Reserved>>);

struct Reserved {
    task: AbortHandle,
    asked: Asked,
}

/// Whether a connection has had its request.
#[derive(Clone, Debug, Default)]
pub(in crate::api) struct Asked(Arc<AtomicBool>);

impl Asked {
    /// It has; false if it had it before.
    pub(super) fn asks(&self) -> bool {
        !self.0.swap(true, Relaxed)
    }
}

impl Reserve {
    /// Serves a connection; false if every place is taken by a request.
    pub(super) fn serve<F: Future<Output = ()> + Send + 'static>(
        &self,
        connection: impl FnOnce(Asked) -> F,
    ) -> bool {
        let mut places = self.0.lock();
        places.retain(|place| !place.task.is_finished());
        if places.len() >= PLACES {
            let waiting = places.iter().position(|place| !place.asked.0.load(Relaxed));
            match waiting.and_then(|waiting| places.remove(waiting)) {
                Some(waiting) => waiting.task.abort(),
                None => return false,
            }
        }
        let asked = Asked::default();
        let served = timeout(LONGEST, connection(asked.clone()));
        let task = tokio::spawn(async move { drop(served.await) }).abort_handle();
        places.push_back(Reserved { task, asked });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_who_ask_nothing_make_room() {
        let reserve = Reserve::default();
        let asks = || {
            reserve.serve(|asked| async move {
                asked.asks();
                std::future::pending().await
            })
        };
        for _ in 0..PLACES * 3 {
            assert!(reserve.serve(|_| std::future::pending()));
        }
        assert_eq!(reserve.0.lock().len(), PLACES);
        for _ in 0..PLACES {
            assert!(asks());
            tokio::task::yield_now().await;
        }
        assert!(!asks() && !reserve.serve(|_| std::future::pending()), "all of them have a request");
        reserve.0.lock()[3].task.abort();
        tokio::task::yield_now().await;
        assert!(asks());
    }
}
