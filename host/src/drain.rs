//! Ending well: tell everything that runs to finish, wait until it has, but not for ever.
//!
//! A [`Drain`] is held by whatever must finish (a connection, a stream); its clones are counted by
//! being there. The one [`Trigger`] asks them to finish and waits until the last is dropped.

use std::{future::Future, io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// Asks the holders of its [`Drain`]s to finish.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// Held as long as something must be waited for.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<bool>);

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every holder finished.
    Finished,
    /// So many had not when the time was over.
    Late(usize),
}

/// A trigger and its first holder.
pub fn drain() -> (Trigger, Drain) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Drain(receiver))
}

impl Trigger {
    /// Another holder.
    pub fn holder(&self) -> Drain {
        Drain(self.0.subscribe())
    }

    /// Asks every holder to finish, without waiting.
    pub fn start(&self) {
        self.0.send_replace(true);
    }

    /// Asks every holder to finish and waits for them, but no longer than `limit`.
    pub async fn finish(self, limit: Duration) -> Drained {
        self.start();
        match tokio::time::timeout(limit, self.0.closed()).await {
            Ok(()) => Drained::Finished,
            Err(_) => Drained::Late(self.0.receiver_count()),
        }
    }
}

impl Drain {
    /// Whether it is time to finish.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is time to finish; also when the trigger is gone.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        let _ = receiver.wait_for(|requested| *requested).await;
    }
}

/// Resolves at the first SIGTERM or SIGINT. From then on a further one ends the process at once,
/// with the status that a shell shows for it. Takes effect when called, not when first polled.
pub fn asked_to_stop() -> io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        either(&mut terminate, &mut interrupt).await;
        tokio::spawn(async move {
            let number = either(&mut terminate, &mut interrupt).await;
            std::process::exit(128 + number);
        });
    })
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn waits_for_every_holder() {
        let (trigger, first) = drain();
        let second = trigger.holder();
        assert!(!first.is_requested());
        let work = tokio::spawn(async move {
            first.requested().await;
            drop(first);
            tokio::task::yield_now().await;
            drop(second);
        });
        assert_eq!(trigger.finish(LONG).await, Drained::Finished);
        work.await.unwrap();
    }

    #[tokio::test]
    async fn gives_up_at_the_limit() {
        let (trigger, holder) = drain();
        let other = holder.clone();
        assert_eq!(trigger.finish(Duration::from_millis(1)).await, Drained::Late(2));
        drop((holder, other));
    }

    #[tokio::test]
    async fn a_lost_trigger_is_a_request() {
        let (trigger, holder) = drain();
        drop(trigger);
        holder.requested().await;
    }
}
