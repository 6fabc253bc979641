//! Watches: one stream for each range that is asked for, held open between calls and taken up again
//! after each loss at the revision where it broke off.
//!
//! A revision is taken from events and from progress notifications of the same watcher only. The
//! header of a response may run ahead of the events that are still to come.

use std::{collections::HashMap, sync::Arc, time::Duration};

use etcd_client::{GetOptions, WatchResponse, WatchStream};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    Batch, EtcdError, KeyRange, Revision,
    backlog::{Backlog, Taken},
    convert,
    lineage::{Landmark, Lineage},
    link::{Connection, Link},
};

/// A plugin watches one or two.
const WATCHES: usize = 16;
/// A watch that nobody asked for this long is closed.
const IDLE: Duration = Duration::from_secs(120);
/// How often a silent stream is asked for a sign of life, and after which silence it is dead.
const PROBE: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(25);
const OPEN: Duration = Duration::from_secs(3);
/// Between attempts. The link adds its own, longer ones.
const PAUSE: Duration = Duration::from_millis(100);
/// A response of many small events; etcd splits larger ones.
const RESPONSE_BYTES: usize = 64 << 20;

pub(super) struct Watches {
    link: Arc<Link>,
    by_range: Mutex<HashMap<KeyRange, Watch>>,
}

/// Ends its task when dropped.
struct Watch {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    state: Mutex<State>,
    /// There are events, or an error.
    arrived: Notify,
    /// Events were taken.
    taken: Notify,
}

struct State {
    backlog: Backlog,
    standing: Standing,
    asked: Instant,
    /// It was disconnected and is not any more: whoever asks next hears of that at once.
    back: bool,
    lineage: Option<Lineage>,
    landmark: Option<Landmark>,
}

enum Standing {
    Following,
    /// Disconnected, and why; it goes on trying.
    Broken(EtcdError),
    /// It cannot go on.
    Compacted(Revision),
    /// Nobody asked for a long time.
    Closed,
}

enum Answer {
    Batch(Batch),
    Failed(EtcdError),
    Wait(Revision),
    Restart,
}

impl Watches {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link, by_range: Mutex::default() }
    }

    pub(super) async fn next(
        &self,
        keys: &KeyRange,
        after: Revision,
        patience: Duration,
    ) -> Result<Batch, EtcdError> {
        let deadline = Instant::now() + patience;
        loop {
            let shared = self.watch(keys, after)?;
            let arrived = shared.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            match shared.take(after) {
                Answer::Batch(batch) => return Ok(batch),
                Answer::Failed(error) => {
                    if matches!(error, EtcdError::Compacted(_)) {
                        self.end_watch(keys);
                    }
                    return Err(error);
                }
                Answer::Restart => self.end_watch(keys),
                Answer::Wait(revision) => {
                    if timeout_at(deadline, arrived).await.is_err() {
                        return Ok(Batch { events: Vec::new(), revision });
                    }
                }
            }
        }
    }

    /// The earliest revision after which a watch would go on; none: there is no watch.
    pub(super) fn needed(&self) -> Option<Revision> {
        let by_range = self.by_range.lock();
        by_range.values().map(|watch| watch.shared.state.lock().backlog.resume_after()).min()
    }

    pub(super) fn end(&self) {
        self.by_range.lock().clear();
    }

    fn end_watch(&self, keys: &KeyRange) {
        self.by_range.lock().remove(keys);
    }

    /// The watch of a range; begun now, after that revision, if there is none.
    fn watch(&self, keys: &KeyRange, after: Revision) -> Result<Arc<Shared>, EtcdError> {
        let mut by_range = self.by_range.lock();
        if let Some(watch) = by_range.get(keys) {
            return Ok(Arc::clone(&watch.shared));
        }
        by_range.retain(|_, watch| !matches!(watch.shared.state.lock().standing, Standing::Closed));
        if by_range.len() >= WATCHES {
            return Err(EtcdError::Invalid(format!("more than {WATCHES} ranges are watched")));
        }
        let shared = Arc::new(Shared::after(after));
        let follower =
            Follower { link: Arc::clone(&self.link), keys: keys.clone(), shared: Arc::clone(&shared) };
        let task = self.link.runtime().spawn(follower.run()).abort_handle();
        by_range.insert(keys.clone(), Watch { shared: Arc::clone(&shared), task });
        Ok(shared)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn after(revision: Revision) -> Self {
        let state = State {
            backlog: Backlog::after(revision),
            standing: Standing::Following,
            asked: Instant::now(),
            back: false,
            lineage: None,
            landmark: None,
        };
        Self { state: Mutex::new(state), arrived: Notify::new(), taken: Notify::new() }
    }

    fn take(&self, after: Revision) -> Answer {
        let mut state = self.state.lock();
        state.asked = Instant::now();
        let taken = state.backlog.take(after);
        self.taken.notify_one();
        let back = std::mem::take(&mut state.back);
        match (taken, &state.standing) {
            (Taken::Gone, _) | (_, Standing::Closed) => Answer::Restart,
            (Taken::Batch(batch), _) => Answer::Batch(batch),
            (Taken::Nothing(_), Standing::Broken(error)) => Answer::Failed(error.clone()),
            (Taken::Nothing(_), Standing::Compacted(oldest)) => Answer::Failed(EtcdError::Compacted(*oldest)),
            (Taken::Nothing(revision), Standing::Following) if back => {
                Answer::Batch(Batch { events: Vec::new(), revision })
            }
            (Taken::Nothing(revision), Standing::Following) => Answer::Wait(revision),
        }
    }

    fn stand(&self, standing: Standing) {
        self.state.lock().standing = standing;
        self.arrived.notify_waiters();
    }

    fn is_idle(&self) -> bool {
        self.state.lock().asked.elapsed() > IDLE
    }
}

/// The task that follows one range.
struct Follower {
    link: Arc<Link>,
    keys: KeyRange,
    shared: Arc<Shared>,
}

impl Drop for Follower {
    /// Whoever waits would wait for ever for a task that is gone; the next question begins another.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.stand(Standing::Closed);
        }
    }
}

/// Why a stream ended.
enum End {
    Failed(EtcdError),
    Compacted(Revision),
    Idle,
}

impl From<EtcdError> for End {
    fn from(error: EtcdError) -> Self {
        Self::Failed(error)
    }
}

impl Follower {
    async fn run(self) {
        loop {
            match self.follow().await {
                End::Failed(error) => {
                    tracing::debug!(start = self.keys.start, %error, "etcd watch broke off");
                    self.shared.stand(Standing::Broken(error));
                    if self.shared.is_idle() {
                        return self.shared.stand(Standing::Closed);
                    }
                    sleep(PAUSE).await;
                }
                End::Compacted(oldest) => {
                    self.link.metrics().compactions.one();
                    return self.shared.stand(Standing::Compacted(oldest));
                }
                End::Idle => return self.shared.stand(Standing::Closed),
            }
        }
    }

    async fn follow(&self) -> End {
        match self.open().await {
            Ok((connection, stream)) => {
                let end = self.read(stream).await;
                if let End::Failed(error @ EtcdError::Unavailable(_)) = &end {
                    self.link.lost(connection.epoch, error);
                }
                end
            }
            Err(end) => end,
        }
    }

    async fn open(&self) -> Result<(Connection, WatchStream), End> {
        let after = self.shared.state.lock().backlog.resume();
        self.check_history(after).await?;
        let connection = self.link.connection().await?;
        let options = convert::watch_options(&self.keys, after)?;
        let mut client = connection.client.watch_client().max_decoding_message_size(RESPONSE_BYTES);
        self.link.metrics().watch_starts.one();
        let opened = timeout(OPEN, client.watch(self.keys.start.as_str(), Some(options))).await;
        let opened = opened
            .unwrap_or_else(|_| Err(etcd_client::Error::WatchError(format!("not open within {OPEN:?}"))));
        opened.map(|stream| (connection.clone(), stream)).map_err(|cause| {
            let error = convert::error(&cause);
            if convert::is_loss(&cause) {
                self.link.lost(connection.epoch, &error);
            }
            End::Failed(error)
        })
    }

    /// Reads the range's revision, linearizably, and finds out whether that is said in the history that
    /// this watch followed so far. Besides, etcd answers a watch with an expired token by a denial; a
    /// read gets a fresh one.
    async fn check_history(&self, after: Revision) -> Result<(), End> {
        let read = self.link.read(|client| {
            let options = GetOptions::new().with_limit(1).with_keys_only();
            let options = self.keys.end.iter().fold(options, |options, end| options.with_range(end.as_str()));
            let key = self.keys.start.clone();
            async move { client.kv_client().get(key, Some(options)).await }
        });
        let response = read.await?;
        let now = Lineage::of(response.header());
        let revision = convert::page(response).revision;
        let (before, landmark) = {
            let mut state = self.shared.state.lock();
            (state.lineage.replace(now), state.landmark.clone())
        };
        let same = before.is_none_or(|before| now.continues(&before));
        if revision >= after && same && self.finds(landmark).await? {
            return Ok(());
        }
        tracing::warn!(
            revision,
            after,
            "etcd answers from another history, as after a restored snapshot: reading everything again"
        );
        Err(End::Compacted(revision))
    }

    /// Whether the last event is where it was, as far as that is still kept.
    async fn finds(&self, landmark: Option<Landmark>) -> Result<bool, End> {
        let Some(landmark) = landmark else { return Ok(true) };
        let at = convert::signed(landmark.revision)?;
        let read = self.link.read(|client| {
            let (key, options) = (landmark.key.clone(), GetOptions::new().with_revision(at).with_keys_only());
            async move { client.kv_client().get(key, Some(options)).await }
        });
        match read.await {
            Ok(response) => {
                let found = convert::page(response).entries.pop();
                Ok(landmark.is_there(found.map(|found| found.modified)))
            }
            Err(EtcdError::Compacted(_)) => Ok(true),
            // A revision that is yet to come.
            Err(EtcdError::Invalid(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn read(&self, mut stream: WatchStream) -> End {
        let mut heard = Instant::now();
        loop {
            if let Err(end) = self.wait_for_room().await {
                return end;
            }
            match timeout(PROBE, stream.message()).await {
                Ok(Ok(Some(response))) => {
                    heard = Instant::now();
                    if let Err(end) = self.receive(&response) {
                        return end;
                    }
                }
                Ok(Ok(None)) => return End::Failed(EtcdError::Unavailable("the watch was closed".into())),
                Ok(Err(error)) => return End::Failed(convert::error(&error)),
                Err(_) if self.shared.is_idle() => return End::Idle,
                Err(_) if heard.elapsed() > SILENCE => {
                    return End::Failed(EtcdError::Unavailable(format!(
                        "the watch was silent for {SILENCE:?}"
                    )));
                }
                Err(_) => {
                    if let Err(error) = stream.request_progress().await {
                        return End::Failed(convert::error(&error));
                    }
                }
            }
        }
    }

    async fn wait_for_room(&self) -> Result<(), End> {
        while self.shared.state.lock().backlog.is_full() {
            if timeout(IDLE, self.shared.taken.notified()).await.is_err() && self.shared.is_idle() {
                return Err(End::Idle);
            }
        }
        Ok(())
    }

    fn receive(&self, response: &WatchResponse) -> Result<(), End> {
        if response.compact_revision() > 0 {
            return Err(End::Compacted(convert::unsigned(response.compact_revision())));
        }
        if response.canceled() {
            return Err(End::Failed(canceled(response.cancel_reason())));
        }
        let mut state = self.shared.state.lock();
        let was_broken = !matches!(state.standing, Standing::Following);
        state.standing = Standing::Following;
        state.back |= was_broken;
        let events: Vec<_> = response.events().iter().filter_map(convert::event).collect();
        if !events.is_empty() {
            state.landmark = events.last().and_then(Landmark::of);
            state.backlog.push(events, response.0.fragment);
        } else if is_progress(response) {
            let revision = response.header().map_or(0, |header| convert::unsigned(header.revision()));
            state.backlog.nothing_until(revision);
            return Ok(());
        } else if !was_broken {
            return Ok(());
        }
        drop(state);
        self.shared.arrived.notify_waiters();
        Ok(())
    }
}

/// Whether this is the watcher's own progress notification. The answer to a progress request goes to
/// watcher -1, and etcd before 3.4.25 and 3.5.8 lets it overtake events.
fn is_progress(response: &WatchResponse) -> bool {
    !response.created() && response.watch_id() >= 0 && response.events().is_empty()
}

fn canceled(reason: &str) -> EtcdError {
    let reason = reason.trim_start_matches("etcdserver: ");
    if reason.contains("permission denied") {
        EtcdError::Denied(reason.into())
    } else {
        EtcdError::Unavailable(format!("the watch was canceled: {reason}"))
    }
}
