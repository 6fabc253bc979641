//! One process takes the place of another on the same host and the same data directory, and nobody is
//! refused: the listening sockets are never closed, the successor inherits them.
//!
//! A gateway that runs listens on a Unix socket in its data directory. Its successor asks there, and
//!
//! 1. is given the listening sockets and the lock of the data directory, which is never free;
//! 2. waits until the predecessor has let go of everything that has one writer: its API, the
//!    connections of services, the routing table, durable state. The predecessor goes on to accept and to
//!    serve messages, by what it knows;
//! 3. starts, accepts beside the predecessor, and says so;
//! 4. then the predecessor accepts nothing more, finishes what runs, and ends.
//!
//! A successor that goes away before the third step leaves a predecessor that starts again in its own
//! process, on the same sockets.

mod wire;

use std::{
    fs::{File, Permissions},
    io::{self, ErrorKind},
    net::TcpListener,
    os::{
        fd::{AsFd, AsRawFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};

use super::{Gateway, check};
use crate::{config::Config, plugin::Plugins, proxy::Proxy};
use wire::Wire;

/// The socket's name in the data directory.
pub(super) const NAME: &str = "takeover";
/// What both say first; another version says something else.
const GREETING: &str = "message-flow takeover 1";
const TAKE: &str = "let go";
const GONE: &str = "it is yours";
const READY: &str = "ready";

/// For an answer that takes no work.
const ANSWER: Duration = Duration::from_secs(5);
/// For the predecessor to let go.
const LETTING_GO: Duration = Duration::from_secs(30);
/// For the successor to start.
const STARTING: Duration = Duration::from_secs(120);
/// More sockets than a gateway has workers.
const MOST: usize = 1024;

/// What passes from a process to its successor.
#[derive(Debug)]
pub struct Inheritance {
    /// Those of the proxy, one for each worker.
    pub(super) proxy: Vec<TcpListener>,
    /// That of the API.
    pub(super) api: TcpListener,
    /// The data directory, which stays locked for as long as either process holds this.
    pub(super) lock: File,
}

/// The process whose place is taken, which waits for this one to be ready.
pub struct Predecessor(Wire);

/// Asks the gateway that runs on a data directory for its place. None: there is none. Blocks until the
/// predecessor has let go.
///
/// # Errors
/// It does not answer, or not as this version does.
pub fn ask(directory: &Path) -> anyhow::Result<Option<(Inheritance, Predecessor)>> {
    let shown = directory.display();
    let stream = match connect(directory) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("cannot ask who runs on {shown}")),
    };
    let taken = Wire::new(stream).and_then(|wire| Ok((take(&wire)?, wire)));
    let (inheritance, wire) =
        taken.with_context(|| format!("the gateway that runs on {shown} does not hand over"))?;
    Ok(Some((inheritance, Predecessor(wire))))
}

fn take(wire: &Wire) -> io::Result<Inheritance> {
    wire.within(ANSWER)?;
    wire.say(GREETING)?;
    wire.expect(GREETING)?;
    let count: usize = wire.hear()?.parse().map_err(io::Error::other)?;
    if count > MOST {
        return Err(io::Error::other(format!("{count} sockets are too many")));
    }
    let proxy = (0..count).map(|_| wire.take().map(TcpListener::from)).collect::<io::Result<_>>()?;
    let (api, lock) = (wire.take()?.into(), wire.take()?.into());
    wire.say(TAKE)?;
    wire.within(LETTING_GO)?;
    wire.expect(GONE)?;
    Ok(Inheritance { proxy, api, lock })
}

impl Predecessor {
    /// Says that this process serves, which ends the other.
    ///
    /// # Errors
    /// It did not wait so long, and serves itself again.
    pub fn ready(self) -> anyhow::Result<()> {
        self.0.say(READY).context("the gateway before this one did not wait for it, and goes on itself")
    }
}

/// How a takeover went, for the process whose place was asked for.
pub enum Handed {
    /// The successor serves, and everything that ran here has ended.
    Over,
    /// The successor went away before anything was let go of.
    Not(Box<Gateway>),
    /// It went away after that.
    Back(Box<Back>),
}

/// What a gateway is to be started again from, and what remains of the one before, which serves messages
/// until then and is to be drained.
pub struct Back {
    /// The sockets and the lock.
    pub inheritance: Inheritance,
    /// What ran.
    pub config: Config,
    /// Of the gateway before.
    pub remains: Remains,
}

/// What is left of a gateway that has let go of everything that has one writer.
pub struct Remains {
    pub(super) proxy: Proxy,
    pub(super) grace: Duration,
    /// Messages still pass them.
    pub(super) _plugins: Arc<Plugins>,
}

impl Remains {
    /// Accepts nothing more and finishes what runs.
    pub async fn drain(self) {
        tracing::info!(connections = self.proxy.open_connections(), grace = ?self.grace, "draining");
        self.proxy.drain(self.grace).await;
        tracing::info!("drained");
    }
}

/// Where successors ask.
#[derive(Clone)]
pub(super) struct Door(Arc<tokio::net::UnixListener>);

impl Door {
    /// Listens in a data directory, which this process has locked.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = at(directory, |path| UnixListener::bind(path))?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self(Arc::new(tokio::net::UnixListener::from_std(listener)?)))
    }

    /// The next process that asks.
    pub(super) async fn successor(&self) -> Successor {
        loop {
            match self.0.accept().await.and_then(|(stream, _)| stream.into_std()) {
                Ok(stream) if is_own(&stream) => match Wire::new(stream) {
                    Ok(wire) => return Successor(wire),
                    Err(error) => tracing::warn!(%error, "a process that asked to take over is gone"),
                },
                Ok(_) => tracing::warn!("a process of another user asked to take over, and is not answered"),
                Err(error) => {
                    tracing::warn!(%error, "no process can ask to take over; trying again");
                    tokio::time::sleep(ANSWER).await;
                }
            }
        }
    }
}

/// Whether the other end is of the same user, or of one who may do everything anyway.
fn is_own(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid();
    let theirs = rustix::net::sockopt::socket_peercred(stream);
    theirs.is_ok_and(|theirs| theirs.uid == own || theirs.uid.is_root())
}

/// A process that asks to take over.
pub struct Successor(Wire);

impl Successor {
    /// Gives it what it inherits, and waits for it to ask for the rest.
    pub(super) async fn give(self, inheritance: Inheritance) -> io::Result<(Self, Inheritance)> {
        self.blocking(move |wire| {
            wire.within(ANSWER)?;
            wire.expect(GREETING)?;
            wire.say(GREETING)?;
            wire.say(&inheritance.proxy.len().to_string())?;
            for socket in inheritance.proxy.iter().chain([&inheritance.api]) {
                wire.give(socket.as_fd())?;
            }
            wire.give(inheritance.lock.as_fd())?;
            wire.expect(TAKE)?;
            Ok(inheritance)
        })
        .await
    }

    /// Tells it that this process has let go, and waits until it serves.
    pub(super) async fn wait(self) -> io::Result<()> {
        let waited = self.blocking(|wire| {
            wire.say(GONE)?;
            wire.within(STARTING)?;
            wire.expect(READY)
        });
        waited.await.map(drop)
    }

    async fn blocking<T: Send + 'static>(
        self,
        talk: impl FnOnce(&Wire) -> io::Result<T> + Send + 'static,
    ) -> io::Result<(Self, T)> {
        let talked = tokio::task::spawn_blocking(move || talk(&self.0).map(|said| (self, said)));
        talked.await.map_err(io::Error::other)?
    }
}

/// A path as long as a data directory may have does not fit into the address of a Unix socket, but its
/// descriptor has a short name.
fn at<T>(directory: &Path, open: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    const LONGEST: usize = 100;
    let path = directory.join(NAME);
    if path.as_os_str().len() <= LONGEST {
        return open(&path);
    }
    let directory = File::open(directory)?;
    open(&PathBuf::from(format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd())))
}

fn connect(directory: &Path) -> io::Result<UnixStream> {
    at(directory, |path| UnixStream::connect(path))
}

/// Refuses what could not be started, before anything is asked for.
///
/// # Errors
/// All that is wrong.
pub async fn must_start(config: &Config) -> anyhow::Result<()> {
    let found = check::check(config).await?;
    if !found.problems.is_empty() {
        bail!(
            "the gateway that runs goes on, because this one would not start:\n{}",
            found.problems.join("\n")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inheritance(directory: &Path) -> Inheritance {
        let socket = || TcpListener::bind("127.0.0.1:0").unwrap();
        let lock = File::create(directory.join("lock")).unwrap();
        lock.try_lock().unwrap();
        Inheritance { proxy: vec![socket(), socket()], api: socket(), lock }
    }

    #[tokio::test]
    async fn what_is_handed_over_arrives_and_stays_locked() {
        let scratch = tempfile::tempdir().unwrap();
        // Longer than the address of a socket may be.
        let directory = scratch.path().join("d".repeat(120));
        std::fs::create_dir(&directory).unwrap();
        assert!(ask(&directory).unwrap().is_none(), "nobody is there");
        let door = Door::open(&directory).unwrap();
        let asking = directory.clone();
        let asked = tokio::task::spawn_blocking(move || ask(&asking).unwrap().unwrap());
        let successor = door.successor().await;
        let given = inheritance(&directory);
        let addresses: Vec<_> = given.proxy.iter().map(|socket| socket.local_addr().unwrap()).collect();
        let (successor, given) = successor.give(given).await.unwrap();
        let waiting = tokio::spawn(successor.wait());
        let (taken, predecessor) = asked.await.unwrap();
        let inherited: Vec<_> = taken.proxy.iter().map(|socket| socket.local_addr().unwrap()).collect();
        assert_eq!(inherited, addresses);
        drop(given);
        let other = File::open(directory.join("lock")).unwrap();
        assert!(other.try_lock().is_err(), "the successor holds it");
        predecessor.ready().unwrap();
        waiting.await.unwrap().unwrap();
        drop(taken);
        other.try_lock().unwrap();
    }

    #[tokio::test]
    async fn a_successor_that_goes_away_is_noticed() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().to_owned();
        let door = Door::open(&directory).unwrap();
        let asking = directory.clone();
        let asked = tokio::task::spawn_blocking(move || drop(ask(&asking).unwrap().unwrap()));
        let (successor, _) = door.successor().await.give(inheritance(&directory)).await.unwrap();
        assert!(successor.wait().await.is_err());
        asked.await.unwrap();
        drop(door);
        assert!(ask(&directory).unwrap().is_none(), "what was left of the socket is nobody");
    }
}
