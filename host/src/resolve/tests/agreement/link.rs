//! One router's way to the datastore, in all weathers: calls are late, so that their answers overtake
//! each other, or never arrive, or are carried out and the answer is lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Either, select},
};
use tokio::{sync::watch, time::sleep};

use crate::table::{
    Adapter, TableError,
    adapter::{Answer, Assignment, Change, ChangeSet, ClientRecord, Condition, Proposal, Revision, Snapshot},
    hash,
    testing::TestTable,
};

/// No call takes longer, as with a real adapter.
const DEADLINE: Duration = Duration::from_secs(5);

/// Random numbers that are the same for the same seed.
pub(super) struct Dice(AtomicU64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(hash::affinity(seed, 0x5eed)))
    }

    pub(super) fn bits(&self) -> u64 {
        hash::affinity(self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed), 0)
    }

    pub(super) fn below(&self, limit: u64) -> u64 {
        self.bits() % limit
    }

    pub(super) fn one<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.below(of.len() as u64)).expect("the length of a slice")]
    }
}

/// What becomes of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    /// They take up to some milliseconds.
    Calm,
    /// They take up to two seconds either way.
    Slow,
    /// Many get lost on their way there or back.
    Lossy,
    /// Nothing arrives.
    Cut,
}

pub(super) struct Link {
    far: Arc<TestTable>,
    dice: Dice,
    weather: watch::Sender<Weather>,
    /// How often the table that this adapter knows was restored.
    restored: AtomicU64,
}

impl Link {
    pub(super) fn new(far: &Arc<TestTable>, seed: u64) -> Arc<Self> {
        let weather = watch::Sender::new(Weather::Calm);
        Arc::new(Self { far: Arc::clone(far), dice: Dice::new(seed), weather, restored: AtomicU64::new(0) })
    }

    /// From now on; what is under way when it becomes calm ends at once, as connections are made anew.
    pub(super) fn becomes(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    fn now(&self) -> Weather {
        *self.weather.borrow()
    }

    /// A call that goes on over there even if nobody waits for it any more.
    fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(Arc<TestTable>) -> BoxFuture<'static, Result<T, TableError>>,
    ) -> Answer<'_, T> {
        let (there, back) = (self.delay(), self.delay());
        let (arrives, returns) = (self.arrives(), self.arrives());
        let call = call(Arc::clone(&self.far));
        let mut weather = self.weather.subscribe();
        let carried_out = tokio::spawn(async move {
            until_calm(&mut weather, there).await;
            match arrives {
                true => Some(call.await),
                false => None,
            }
        });
        async move {
            let answer = async {
                let answer = carried_out.await.ok().flatten();
                until_calm(&mut self.weather.subscribe(), back).await;
                match answer.filter(|_| returns && self.now() != Weather::Cut) {
                    Some(answer) => answer,
                    None => self.lost().await,
                }
            };
            tokio::time::timeout(DEADLINE, answer).await.unwrap_or_else(|_| Err(late()))
        }
        .boxed()
    }

    /// As etcd's adapter does, which knows the cluster by its id. It is asked only once an answer is here.
    fn is_another_table(&self) -> bool {
        let restored = self.far.restored.load(Relaxed);
        self.restored.swap(restored, Relaxed) != restored
    }

    /// Nothing comes back: until the deadline, or until the connection is made anew.
    async fn lost<T>(&self) -> Result<T, TableError> {
        until_calm(&mut self.weather.subscribe(), DEADLINE).await;
        Err(late())
    }

    fn delay(&self) -> Duration {
        Duration::from_millis(match self.now() {
            Weather::Calm | Weather::Lossy => self.dice.below(6),
            Weather::Slow => self.dice.below(2000),
            Weather::Cut => 0,
        })
    }

    fn arrives(&self) -> bool {
        match self.now() {
            Weather::Calm | Weather::Slow => true,
            Weather::Lossy => self.dice.below(3) > 0,
            Weather::Cut => false,
        }
    }
}

fn late() -> TableError {
    TableError::Unavailable("no answer".to_owned())
}

/// Waits for so long, but no longer than until it becomes calm.
async fn until_calm(weather: &mut watch::Receiver<Weather>, time: Duration) {
    // A call that set out in other weather arrives in that of now.
    let is_calm = *weather.borrow_and_update() == Weather::Calm;
    let time = if is_calm { time.min(Duration::from_millis(5)) } else { time };
    let calm = async {
        while weather.changed().await.is_ok() {
            if *weather.borrow() == Weather::Calm {
                return;
            }
        }
        std::future::pending::<()>().await;
    };
    let (slept, calm) = (std::pin::pin!(sleep(time)), std::pin::pin!(calm));
    match select(slept, calm).await {
        Either::Left(_) | Either::Right(_) => {}
    }
}

impl Adapter for Link {
    fn snapshot(&self) -> Answer<'_, Snapshot> {
        self.call(|far| async move { far.snapshot().await }.boxed())
    }

    fn changes(&self, after: Revision) -> Answer<'_, ChangeSet> {
        async move {
            let mut weather = self.weather.subscribe();
            if self.now() == Weather::Cut {
                return self.lost().await;
            }
            let changes = self.far.changes(after).await;
            until_calm(&mut weather, self.delay()).await;
            match self.now() == Weather::Cut || !self.arrives() {
                true => self.lost().await,
                false if self.is_another_table() => Err(TableError::Compacted),
                false => changes,
            }
        }
        .boxed()
    }

    fn stirred(&self) -> BoxFuture<'_, ()> {
        self.far.stirred()
    }

    fn write(&self, changes: Vec<Change>, expect: Option<Revision>) -> Answer<'_, Revision> {
        self.call(move |far| async move { far.write(changes, expect).await }.boxed())
    }

    fn assigned(&self, client: String, service: String) -> Answer<'_, Option<Assignment>> {
        self.call(move |far| async move { far.assigned(client, service).await }.boxed())
    }

    fn assign(&self, proposal: Proposal, condition: Condition) -> Answer<'_, Option<Assignment>> {
        self.call(move |far| async move { far.assign(proposal, condition).await }.boxed())
    }

    fn forget(&self, client: String, service: String) -> Answer<'_, ()> {
        self.call(move |far| async move { far.forget(client, service).await }.boxed())
    }

    fn client(&self, client: String) -> Answer<'_, ClientRecord> {
        self.call(move |far| async move { far.client(client).await }.boxed())
    }

    fn locate(&self, client: String, router: Option<String>) -> Answer<'_, ()> {
        self.call(move |far| async move { far.locate(client, router).await }.boxed())
    }

    fn sweep(&self, now: u64, limit: u32) -> Answer<'_, u32> {
        self.call(move |far| async move { far.sweep(now, limit).await }.boxed())
    }
}
