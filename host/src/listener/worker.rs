//! Workers: one thread, one single-threaded runtime and one listening socket each.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{
    Clock, Handler, ListenerOptions, accept,
    bind::{self, Bound},
    limit::Limits,
    tls,
};
use crate::pace::Pace;

/// Why a listener could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be had.
    #[error("cannot listen on {address}")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// No thread for a worker.
    #[error("cannot start a worker thread")]
    Thread(#[source] io::Error),
}

/// What all connections of a worker share.
pub(crate) struct Worker<H> {
    pub(crate) handler: Arc<H>,
    pub(crate) options: ListenerOptions,
    pub(crate) clock: Arc<Clock>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) stop: Arc<Stop>,
    /// Of the log lines that no connection could be accepted, those of all workers.
    pub(crate) said: Arc<Pace>,
    pub(crate) tls: Option<tls::Acceptor>,
    /// Connections and tunnels of this worker.
    pub(crate) open: Arc<watch::Sender<usize>>,
}

/// For connections that are cut off to say so to the other end.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The two steps in which a listener ends.
pub struct Stop {
    step: watch::Sender<Step>,
    aborted: AtomicBool,
    started: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Running,
    /// No new connections or requests; what runs is finished.
    Stopping,
    /// What still runs is cut off.
    Aborting,
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            step: watch::channel(Step::Running).0,
            aborted: AtomicBool::new(false),
            started: AtomicBool::new(false),
        }
    }
}

impl Stop {
    /// Whether connections should end after the message at hand.
    pub fn is_stopping(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }

    /// Whether connections should end now.
    pub fn is_aborting(&self) -> bool {
        self.aborted.load(Ordering::Relaxed)
    }

    /// Resolves once stopping.
    pub async fn stopping(&self) {
        self.reached(Step::Stopping).await;
    }

    /// Resolves once what runs is to be cut off.
    pub async fn aborting(&self) {
        self.reached(Step::Aborting).await;
    }

    async fn reached(&self, step: Step) {
        // Only fails if the sender is gone, which `self` holds.
        let _ = self.step.subscribe().wait_for(|now| *now >= step).await;
    }

    fn go(&self, step: Step) {
        self.started.store(true, Ordering::Relaxed);
        self.aborted.store(step == Step::Aborting, Ordering::Relaxed);
        self.step.send_replace(step);
    }
}

/// A listener that runs.
pub struct Running {
    address: SocketAddr,
    /// Those that the workers listen on, to be handed over; none any more once it drains.
    sockets: Vec<std::net::TcpListener>,
    stop: Arc<Stop>,
    limits: Arc<Limits>,
    clocks: Vec<Arc<Clock>>,
    threads: Vec<JoinHandle<()>>,
    options: ListenerOptions,
}

/// Binds and starts every worker; `handler` makes one for each, by number. What is `inherited` listens
/// already and is used where it is at the address that is wanted.
pub fn start<H: Handler>(
    options: ListenerOptions,
    inherited: Vec<std::net::TcpListener>,
    handler: impl Fn(usize, Arc<Clock>) -> Arc<H>,
) -> Result<Running, ListenError> {
    let certificates = options.tls.as_ref().map(tls::load).transpose()?;
    let certificates = certificates.map(|config| Arc::new(ArcSwap::new(config)));
    let Bound { address, sockets } = bind::sockets(&options, inherited)?;
    let kept: Vec<_> = sockets
        .iter()
        .flatten()
        .map(std::net::TcpListener::try_clone)
        .collect::<Result<_, _>>()
        .map_err(|source| ListenError::Bind { address, source })?;
    let (stop, said) = (Arc::new(Stop::default()), Arc::new(Pace::default()));
    let limits = Limits::new(options.max_connections, options.max_connections_per_peer);
    let mut running = Running {
        address,
        sockets: kept,
        stop: stop.clone(),
        limits: limits.clone(),
        clocks: Vec::new(),
        threads: Vec::new(),
        options: options.clone(),
    };
    for (number, sockets) in sockets.into_iter().enumerate() {
        let clock = Arc::new(Clock::default());
        running.clocks.push(clock.clone());
        let worker = Arc::new(Worker {
            handler: handler(number, clock.clone()),
            options: options.clone(),
            clock,
            limits: limits.clone(),
            stop: stop.clone(),
            said: said.clone(),
            tls: certificates.clone().map(tls::Acceptor::new),
            open: Arc::new(watch::channel(0).0),
        });
        running.threads.push(spawn(number, worker, sockets).map_err(ListenError::Thread)?);
    }
    Ok(running)
}

fn spawn<H: Handler>(
    number: usize,
    worker: Arc<Worker<H>>,
    sockets: Vec<std::net::TcpListener>,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name(format!("proxy-{number}"));
    thread.spawn(move || runtime.block_on(run(number, worker, sockets)))
}

async fn run<H: Handler>(number: usize, worker: Arc<Worker<H>>, sockets: Vec<std::net::TcpListener>) {
    let listeners = sockets.into_iter().map(tokio::net::TcpListener::from_std).collect();
    let listeners: Vec<_> = match listeners {
        Ok(listeners) => listeners,
        Err(error) => return tracing::error!(%error, "cannot use the listening socket"),
    };
    let supervisor = worker.handler.supervisor();
    let ticking = worker.clone();
    tokio::spawn(supervisor.clone().keep("proxy-clock", move || {
        let worker = ticking.clone();
        async move { worker.clock.run(worker.options.tick, |now| worker.handler.tick(now)).await }
    }));
    if let (0, Some(acceptor), Some(files)) = (number, worker.tls.clone(), worker.options.tls.clone()) {
        let follow = move || tls::follow(files.clone(), acceptor.clone());
        tokio::spawn(supervisor.clone().keep("proxy-certificates", follow));
    }
    let (accepts, tasks) = (&worker, &supervisor);
    let accepting =
        |listener| tasks.finish("proxy-accept", move || accept::run(Arc::clone(accepts), listener));
    futures_util::future::join_all(listeners.iter().map(accepting)).await;
    listeners.into_iter().for_each(|listener| accept::rest(&worker, listener));
    worker.ended(&worker.open).await;
}

/// Counts a connection of a worker for as long as it is held.
pub(crate) struct Open(Arc<watch::Sender<usize>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

#[cfg(test)]
impl Open {
    pub(crate) fn for_tests() -> Self {
        Self(Arc::new(watch::channel(1).0))
    }
}

impl<H> Worker<H> {
    /// One more connection.
    pub(crate) fn opened(&self) -> Open {
        self.open.send_modify(|open| *open += 1);
        Open(self.open.clone())
    }

    /// Resolves once no connection of this worker is open any more, or shortly after the listener
    /// began to cut them off.
    async fn ended(&self, open: &watch::Sender<usize>) {
        let mut open = open.subscribe();
        let cut_off = async {
            self.stop.aborting().await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            _ = open.wait_for(|open| *open == 0) => {}
            () = cut_off => {}
        }
    }
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.limits.open()
    }

    /// The listening sockets once more, for another process to go on with.
    pub fn sockets(&self) -> io::Result<Vec<std::net::TcpListener>> {
        self.sockets.iter().map(std::net::TcpListener::try_clone).collect()
    }

    /// How it was started.
    pub fn options(&self) -> &ListenerOptions {
        &self.options
    }

    /// Accepts nothing more, lets what runs come to its end, and cuts off what still runs after
    /// `grace`. Returns once every worker has ended.
    pub async fn drain(mut self, grace: Duration) {
        // With one of these open the kernel would go on to take connections that nobody accepts.
        self.sockets.clear();
        self.go(Step::Stopping);
        let (stop, clocks) = (self.stop.clone(), self.clocks.clone());
        let cut_off = tokio::spawn(async move {
            tokio::time::sleep(grace).await;
            stop.go(Step::Aborting);
            clocks.iter().for_each(|clock| clock.wake_all());
        });
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().filter_map(|thread| thread.join().err()).count()
        });
        if joined.await.is_ok_and(|panicked| panicked > 0) {
            tracing::error!("a proxy worker had panicked");
        }
        cut_off.abort();
    }

    fn go(&self, step: Step) {
        self.stop.go(step);
        self.clocks.iter().for_each(|clock| clock.wake_all());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.go(Step::Aborting);
    }
}
