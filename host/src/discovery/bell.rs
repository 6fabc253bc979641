//! What wakes a connection: something may have changed, and what happened to its own server.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use tokio::sync::Notify;

const TAKEN: u8 = 1;
const REMOVED: u8 = 2;
const DRAINED: u8 = 4;

/// Rung by others, heard by one connection. Ringing twice is ringing once.
#[derive(Default)]
pub(super) struct Bell {
    notify: Notify,
    news: AtomicU8,
}

/// What happened to the connection's own server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Another connection registered the same server.
    Taken,
    /// Somebody removed it.
    Removed,
    /// It is drained.
    Drained,
}

impl News {
    fn bit(self) -> u8 {
        match self {
            Self::Taken => TAKEN,
            Self::Removed => REMOVED,
            Self::Drained => DRAINED,
        }
    }
}

impl Bell {
    /// Something may have changed.
    pub(super) fn ring(&self) {
        self.notify.notify_one();
    }

    /// Something happened to the connection's own server.
    pub(super) fn tell(&self, news: News) {
        self.news.fetch_or(news.bit(), Relaxed);
        self.ring();
    }

    /// Waits until it rings. Cancel safe.
    pub(super) async fn rung(&self) {
        self.notify.notified().await;
    }

    /// What happened since the last time that this was asked.
    pub(super) fn news(&self) -> impl Iterator<Item = News> + use<> {
        let news = self.news.swap(0, Relaxed);
        [News::Taken, News::Removed, News::Drained].into_iter().filter(move |one| news & one.bit() != 0)
    }
}
