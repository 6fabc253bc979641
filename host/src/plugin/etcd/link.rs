//! The connection: made when needed, proved before it is used, replaced when it is lost.
//!
//! One caller's need starts a connect task; all others wait for its outcome. After a failure there
//! is a pause, longer each time, during which every call fails at once with the cause: callers do not
//! queue for a cluster that is known to be down. Endpoints take turns.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use etcd_client::{Client, ConnectOptions, KvClient};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};

use super::{EtcdError, EtcdMetrics, EtcdSettings, convert};

/// For connecting to one endpoint, authentication and proof included.
const CONNECT: Duration = Duration::from_secs(2);
/// etcd closes connections that ping more often than every five seconds.
const PING_EVERY: Duration = Duration::from_secs(8);
const PING_WITHIN: Duration = Duration::from_secs(3);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// Short: routers that come back late route by an old view. Whoever asks meanwhile costs etcd nothing.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// After so many calls in a row without an answer the connection counts as lost.
const TIMEOUTS: u32 = 3;
const CALLS_AT_ONCE: usize = 1024;
/// A page of the largest values that the routing table allows; the library's own limit is 4 MiB.
const RESPONSE_BYTES: usize = 128 << 20;

pub(super) struct Link {
    settings: EtcdSettings,
    deadline: Duration,
    runtime: Handle,
    phase: watch::Sender<Phase>,
    endpoint: AtomicUsize,
    epoch: AtomicU64,
    /// Losses and failed connects since a call last succeeded.
    failures: AtomicU32,
    timeouts: AtomicU32,
    calls: Semaphore,
    metrics: EtcdMetrics,
}

/// A connection that worked when it was made.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) client: Client,
    /// Tells it from those before and after it.
    pub(super) epoch: u64,
}

#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one of it for each cluster")]
enum Phase {
    /// Whoever needs it next connects. The trouble is what the last connection was lost by.
    Idle {
        trouble: Option<EtcdError>,
    },
    /// Callers wait for this attempt, unless one before it failed already.
    Connecting {
        trouble: Option<EtcdError>,
        first: bool,
    },
    Ready(Connection),
    /// Nobody tries for a while.
    Down {
        error: EtcdError,
        until: Instant,
    },
}

impl Phase {
    fn is_worth_waiting(&self) -> bool {
        matches!(self, Self::Connecting { first: true, .. })
    }

    fn trouble(&self) -> Option<&EtcdError> {
        match self {
            Self::Idle { trouble } | Self::Connecting { trouble, .. } => trouble.as_ref(),
            Self::Down { error, .. } => Some(error),
            Self::Ready(_) => None,
        }
    }
}

impl Link {
    pub(super) fn new(settings: EtcdSettings, deadline: Duration, runtime: Handle) -> Self {
        Self {
            settings,
            deadline,
            runtime,
            phase: watch::Sender::new(Phase::Idle { trouble: None }),
            endpoint: AtomicUsize::new(0),
            epoch: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            timeouts: AtomicU32::new(0),
            calls: Semaphore::new(CALLS_AT_ONCE),
            metrics: EtcdMetrics::default(),
        }
    }

    pub(super) fn metrics(&self) -> &EtcdMetrics {
        &self.metrics
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(super) fn trouble(&self) -> Option<EtcdError> {
        self.phase.borrow().trouble().cloned()
    }

    /// A call that may be repeated: once, if its connection is lost under it.
    pub(super) async fn read<T, F>(self: &Arc<Self>, call: impl Fn(Client) -> F) -> Result<T, EtcdError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.within_deadline(async {
            let epoch = match self.attempt(&call).await {
                Err(Failed { epoch: Some(epoch), .. }) => epoch,
                ended => return ended.map_err(|failed| failed.error),
            };
            tracing::debug!(epoch, "etcd connection lost; reading again");
            self.attempt(&call).await.map_err(|failed| failed.error)
        })
        .await
    }

    /// For how long etcd's history is to be kept, if it is to be compacted.
    pub(super) fn keeps(&self) -> Option<Duration> {
        self.settings.compact
    }

    /// A call that must not happen twice. An error says so of one that may have happened.
    pub(super) async fn write<T, F>(self: &Arc<Self>, call: impl Fn(Client) -> F) -> Result<T, EtcdError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let sent = AtomicBool::new(false);
        let sending = |client| {
            sent.store(true, Ordering::Relaxed);
            call(client)
        };
        let answer =
            self.within_deadline(async { self.attempt(&sending).await.map_err(|failed| failed.error) });
        answer.await.map_err(|error| match error {
            EtcdError::Unavailable(why) if sent.load(Ordering::Relaxed) && !is_refusal(&why) => {
                EtcdError::Unavailable(format!("{why}; it may have been carried out"))
            }
            error => error,
        })
    }

    /// A connection that works, as far as is known.
    pub(super) async fn connection(self: &Arc<Self>) -> Result<Connection, EtcdError> {
        let mut phase = self.phase.subscribe();
        loop {
            self.connect_if_due();
            let settled = phase.wait_for(|phase| !phase.is_worth_waiting()).await.map_err(|_| closed())?;
            match &*settled {
                Phase::Ready(connection) => return Ok(connection.clone()),
                // It was lost as soon as it was made.
                Phase::Idle { .. } => {}
                phase => return Err(phase.trouble().cloned().unwrap_or_else(closed)),
            }
        }
    }

    /// Says that a connection does not work any more.
    pub(super) fn lost(&self, epoch: u64, error: &EtcdError) {
        let replace = |phase: &mut Phase| {
            if !matches!(phase, Phase::Ready(connection) if connection.epoch == epoch) {
                return false;
            }
            tracing::warn!(%error, "etcd connection lost");
            self.endpoint.fetch_add(1, Ordering::Relaxed);
            *phase = match self.pause() {
                Duration::ZERO => Phase::Idle { trouble: Some(error.clone()) },
                pause => Phase::Down { error: error.clone(), until: Instant::now() + pause },
            };
            true
        };
        self.phase.send_if_modified(replace);
    }

    /// Authenticates again on a connection whose token etcd no longer knows.
    pub(super) async fn reauthenticate(&self, connection: &Connection) -> Result<(), EtcdError> {
        self.metrics.reauthentications.one();
        connection.client.refresh_token().await.map_err(|error| convert::error(&error))
    }

    fn works(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.timeouts.store(0, Ordering::Relaxed);
    }

    async fn within_deadline<T>(
        self: &Arc<Self>,
        call: impl Future<Output = Result<T, EtcdError>>,
    ) -> Result<T, EtcdError> {
        self.metrics.calls.one();
        let permitted = async {
            let _permit = self.calls.acquire().await.map_err(|_| closed())?;
            call.await
        };
        let answer = timeout(self.deadline, permitted).await.unwrap_or_else(|_| Err(self.timed_out()));
        match &answer {
            Ok(_) => self.works(),
            Err(_) => self.metrics.failures.one(),
        }
        answer
    }

    async fn attempt<T, F>(self: &Arc<Self>, call: &impl Fn(Client) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let connection = self.connection().await.inspect_err(|_| self.metrics.refused.one())?;
        let mut answer = call(connection.client.clone()).await;
        if let Err(error) = &answer
            && convert::is_stale_authentication(error)
        {
            self.reauthenticate(&connection).await?;
            answer = call(connection.client.clone()).await;
        }
        answer.map_err(|error| {
            let lost = convert::is_loss(&error);
            let error = convert::error(&error);
            if lost {
                self.lost(connection.epoch, &error);
            }
            Failed { error, epoch: lost.then_some(connection.epoch) }
        })
    }

    fn timed_out(&self) -> EtcdError {
        self.metrics.timeouts.one();
        let error = EtcdError::Unavailable(format!("no answer within {:?}", self.deadline));
        if self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS {
            self.timeouts.store(0, Ordering::Relaxed);
            let epoch = match &*self.phase.borrow() {
                Phase::Ready(connection) => Some(connection.epoch),
                _ => None,
            };
            if let Some(epoch) = epoch {
                self.lost(epoch, &error);
            }
        }
        error
    }

    fn connect_if_due(self: &Arc<Self>) {
        let due = self.phase.send_if_modified(|phase| {
            *phase = match phase {
                Phase::Idle { trouble } => Phase::Connecting { trouble: trouble.take(), first: true },
                Phase::Down { error, until } if Instant::now() >= *until => {
                    Phase::Connecting { trouble: Some(error.clone()), first: false }
                }
                _ => return false,
            };
            true
        });
        if due {
            // In a task of its own: the caller may be gone before it is done.
            self.runtime.spawn(Arc::clone(self).connect());
        }
    }

    async fn connect(self: Arc<Self>) {
        let first = self.endpoint.load(Ordering::Relaxed);
        let mut error = closed();
        for turn in 0..self.settings.endpoints.len() {
            let at = (first + turn) % self.settings.endpoints.len();
            match self.connect_to(&self.settings.endpoints[at]).await {
                Ok(client) => {
                    self.endpoint.store(at, Ordering::Relaxed);
                    return self.ready(client);
                }
                Err(cause) => error = cause,
            }
        }
        tracing::debug!(%error, "cannot connect to etcd");
        let pause = self.pause().max(SHORTEST_PAUSE);
        self.phase.send_replace(Phase::Down { error, until: Instant::now() + pause });
    }

    fn ready(&self, client: Client) {
        self.metrics.connects.one();
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::info!(epoch, "connected to etcd");
        self.phase.send_replace(Phase::Ready(Connection { client, epoch }));
    }

    async fn connect_to(&self, endpoint: &str) -> Result<Client, EtcdError> {
        let tls = self.settings.tls().map_err(EtcdError::Denied)?;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT)
            .with_keep_alive(PING_EVERY, PING_WITHIN)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        options = tls.into_iter().fold(options, ConnectOptions::with_tls);
        if let Some((user, password)) = &self.settings.user {
            options = options.with_user(user, password);
        }
        let proved = async {
            let client = Client::connect([endpoint], Some(options)).await?;
            // Connecting is lazy: only an answer shows that somebody is there.
            client.maintenance_client().status().await.map(|status| (client, status.leader()))
        };
        let at = |error: EtcdError| match error {
            EtcdError::Unavailable(cause) => EtcdError::Unavailable(format!("{endpoint}: {cause}")),
            error => error,
        };
        match timeout(CONNECT, proved).await {
            Ok(Ok((_, 0))) => Err(at(EtcdError::Unavailable("it has no leader".into()))),
            Ok(Ok((client, _))) => Ok(client),
            Ok(Err(error)) => Err(at(convert::error(&error))),
            Err(_) => Err(at(EtcdError::Unavailable(format!("no answer within {CONNECT:?}")))),
        }
    }

    /// How long to leave the cluster alone after one more failure.
    fn pause(&self) -> Duration {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed);
        if failures == 0 {
            return Duration::ZERO;
        }
        let pause = SHORTEST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
        // Routers that lost the same cluster should not all come back at once.
        pause.mul_f64(rand::random_range(0.5..1.0))
    }
}

/// A call that failed, and the connection that it took with it.
struct Failed {
    error: EtcdError,
    epoch: Option<u64>,
}

impl From<EtcdError> for Failed {
    fn from(error: EtcdError) -> Self {
        Self { error, epoch: None }
    }
}

/// Whether a request was turned away before anything could come of it.
fn is_refusal(why: &str) -> bool {
    ["too many requests", "no leader", "tcp connect error"].iter().any(|refused| why.contains(refused))
}

fn closed() -> EtcdError {
    EtcdError::Unavailable("the client is closed".into())
}

/// With room for a whole page.
pub(super) fn roomy(client: KvClient) -> KvClient {
    client.max_decoding_message_size(RESPONSE_BYTES)
}
