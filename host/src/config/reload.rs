//! Follows the configuration file: a new version that is whole and valid takes the place of the old
//! one; anything else is reported, and the old one stays.
//!
//! File events only hasten the next look, because editors replace files and mounts swap symbolic
//! links in ways that events do not show. A look reads the file and compares its bytes. What a file
//! no longer says may be what was lost on the way: what [opens](Config::opens) anything is taken only
//! when an operator asks, with SIGHUP, and an empty file never is.

mod metrics;
mod whole;

use std::{path::PathBuf, sync::Arc, time::Duration};

use notify::{
    EventKind, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::{Mutex, mpsc, watch};

use super::{Config, ConfigError, Overrides};
use crate::{condition::Name, supervise::Supervisor};
use metrics::Reason;
use whole::NotWhole;

pub use metrics::Metrics;

/// From one look at the file to the next, without events.
const INTERVAL: Duration = Duration::from_secs(3);

/// Follows a file from a configuration that was read from it, on the current runtime, until every
/// receiver is gone. `nudge` makes it look at once, and is the operator's word for what the file
/// opens, as SIGHUP is.
pub fn follow(
    source: (PathBuf, Overrides),
    running: Arc<Config>,
    nudge: mpsc::Receiver<()>,
    (metrics, supervisor): (Metrics, Supervisor),
) -> watch::Receiver<Arc<Config>> {
    let (sender, receiver) = watch::channel(running);
    let (file, overrides) = source;
    let closed = sender.clone();
    let tasks = supervisor.clone();
    let follower = Follower { file, overrides, sender, judged: None, said: None, metrics, supervisor };
    let follower = Arc::new(Mutex::new((follower, nudge)));
    let run = move || {
        let follower = Arc::clone(&follower);
        async move {
            let (follower, nudge) = &mut *follower.lock().await;
            follower.run(nudge).await;
        }
    };
    tokio::spawn(async move {
        tokio::select! {
            () = tasks.keep("configuration", run) => {}
            () = closed.closed() => {}
        }
    });
    receiver
}

struct Follower {
    file: PathBuf,
    overrides: Overrides,
    sender: watch::Sender<Arc<Config>>,
    /// The bytes that were judged last, and what came of it.
    judged: Option<(Vec<u8>, Result<(), Refused>)>,
    /// Why the file is not what runs, as it was said last.
    said: Option<Refused>,
    metrics: Metrics,
    supervisor: Supervisor,
}

/// Who asks for a look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// A file event, or the time.
    ByItself,
    /// An operator.
    ByWord,
}

/// Why a version of the file is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused {
    reason: Reason,
    /// Every line of the log.
    lines: Vec<String>,
}

impl Refused {
    fn new(reason: Reason, lines: Vec<String>) -> Self {
        Self { reason, lines }
    }

    fn line(reason: Reason, line: &str) -> Self {
        Self::new(reason, vec![line.to_owned()])
    }
}

impl From<NotWhole> for Refused {
    fn from(found: NotWhole) -> Self {
        match found {
            NotWhole::Gone => Self::line(Reason::Gone, "the file is not there"),
            NotWhole::Unreadable => Self::line(Reason::Unreadable, "the file cannot be read"),
            NotWhole::Changing => Self::line(
                Reason::Changing,
                "the file changes all the time; write another and rename it into its place",
            ),
        }
    }
}

impl From<ConfigError> for Refused {
    fn from(error: ConfigError) -> Self {
        let lines = match error {
            ConfigError::Invalid(problems) => problems.iter().map(ToString::to_string).collect(),
            read @ ConfigError::Read { .. } => vec![read.to_string()],
        };
        Self::new(Reason::Invalid, lines)
    }
}

impl Follower {
    async fn run(&mut self, nudge: &mut mpsc::Receiver<()>) {
        let (hint, mut hints) = mpsc::channel(1);
        let _watcher = self.watch(hint.clone());
        let mut nudged = true;
        loop {
            let mut asked = Asked::ByItself;
            tokio::select! {
                more = nudge.recv(), if nudged => match more {
                    Some(()) => asked = Asked::ByWord,
                    None => nudged = false,
                },
                _ = hints.recv() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
            self.look(asked).await;
        }
    }

    /// Events of the file's directory; without them, the interval has to do.
    fn watch(&self, hint: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
        let changed = move |event: notify::Result<notify::Event>| {
            if !event.is_ok_and(|event| is_reading(event.kind)) {
                let _ = hint.try_send(());
            }
        };
        let watcher = notify::recommended_watcher(changed).and_then(|mut watcher| {
            let directory = self.file.parent().filter(|parent| !parent.as_os_str().is_empty());
            watcher.watch(directory.unwrap_or(".".as_ref()), RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            tracing::debug!(%error, "no file events for the configuration; looking every {INTERVAL:?}");
        }
        watcher.ok()
    }

    async fn look(&mut self, asked: Asked) {
        let known = self.judged.as_ref().filter(|_| asked == Asked::ByItself);
        let read = whole::read(&self.file, known.map(|(bytes, _)| &**bytes)).await;
        let judged = match (read, known) {
            // What was refused stays refused, and what was taken is taken, until the file changes.
            (Ok(bytes), Some((known, judged))) if bytes == *known => judged.clone(),
            (Ok(bytes), _) => {
                let judged = self.judge(&bytes, asked);
                self.judged = Some((bytes, judged.clone()));
                judged
            }
            (Err(found), _) => Err(found.into()),
        };
        match judged {
            Ok(()) => self.is_current(),
            Err(refused) => self.refuse(refused, asked),
        }
    }

    fn judge(&self, bytes: &[u8], asked: Asked) -> Result<(), Refused> {
        const EMPTY: &str = "the file is empty; if the defaults are meant, write a comment into it";
        let blank = bytes.iter().all(|byte| byte.is_ascii_whitespace() || *byte == 0);
        let text = std::str::from_utf8(bytes);
        let text = text.map_err(|_| Refused::line(Reason::NotText, "the file is not UTF-8 text"))?;
        let parsed = Config::parse(text, &self.file, &self.overrides);
        let running = self.sender.borrow().clone();
        match parsed {
            Ok(config) if config == *running => Ok(()),
            _ if blank => Err(Refused::line(Reason::Empty, EMPTY)),
            Ok(config) => self.take(config, &running, asked),
            Err(error) => Err(error.into()),
        }
    }

    fn take(&self, mut config: Config, running: &Config, asked: Asked) -> Result<(), Refused> {
        let opens = config.opens(running);
        if !opens.is_empty() && asked == Asked::ByItself {
            return Err(Refused::new(Reason::Opens, opens));
        }
        let fixed = config.keep_fixed(running);
        if config.exposes_the_api() {
            let line = format!(
                "it has no access rules, and the API listens on {}, which is not a loopback address, until the \
                 next start; restart, or keep the [[access]] sections",
                running.api.listen
            );
            return Err(Refused::line(Reason::Opens, &line));
        }
        for key in fixed {
            tracing::warn!(
                key,
                "the configuration changed a key that takes a restart; what was set at the start holds"
            );
        }
        for what in opens {
            tracing::warn!("the configuration opens what was closed, as SIGHUP asked: {what}");
        }
        if config != *running {
            tracing::info!(file = %self.file.display(), "configuration reloaded");
            self.sender.send_replace(Arc::new(config));
        }
        Ok(())
    }

    fn is_current(&mut self) {
        self.metrics.current.set(1);
        if self.said.take().is_some() {
            self.supervisor.conditions().clear(Name::Configuration);
            tracing::info!(file = %self.file.display(), "the configuration file is what runs again");
        }
    }

    /// Says once why the file is not taken, or each time that somebody asked.
    fn refuse(&mut self, refused: Refused, asked: Asked) {
        if self.said.as_ref() == Some(&refused) && asked == Asked::ByItself {
            return;
        }
        let file = self.file.display();
        let (reason, hint) = (refused.reason.word(), refused.reason.hint());
        for line in &refused.lines {
            tracing::error!(%file, reason, "configuration not reloaded; the one before it stays: {line}{hint}");
        }
        self.metrics.refused(refused.reason);
        let what = refused.reason.shown();
        let detail = format!("{file} {what}; the configuration before it stays, the log says why{hint}");
        self.supervisor.conditions().raise(Name::Configuration, detail);
        self.said = Some(refused);
    }
}

/// A look reads the file, and reading makes events too: taken for changes they would never end.
fn is_reading(event: EventKind) -> bool {
    event.is_access() && event != EventKind::Access(AccessKind::Close(AccessMode::Write))
}

impl Config {
    /// Puts back what cannot change while the process runs; returns the keys that differed.
    pub fn keep_fixed(&mut self, running: &Self) -> Vec<&'static str> {
        let mut kept = Vec::new();
        let (proxy, fixed) = (&mut self.proxy, &running.proxy);
        macro_rules! keep {
            ($($key:literal: $new:expr => $running:expr;)*) => {
                $(if $new != $running {
                    $new.clone_from(&$running);
                    kept.push($key);
                })*
            };
        }
        keep! {
            "router": self.router => running.router;
            "proxy.listen": proxy.listen => fixed.listen;
            "proxy.tls": proxy.tls => fixed.tls;
            "proxy.workers": proxy.workers => fixed.workers;
            "proxy.limits.connections": proxy.limits.connections => fixed.limits.connections;
            "proxy.limits.connections_per_peer":
                proxy.limits.connections_per_peer => fixed.limits.connections_per_peer;
            "proxy.limits.streams": proxy.limits.streams => fixed.limits.streams;
            "proxy.limits.head": proxy.limits.head => fixed.limits.head;
            "proxy.limits.unread": proxy.limits.unread => fixed.limits.unread;
            "proxy.limits.upstream_connections":
                proxy.limits.upstream_connections => fixed.limits.upstream_connections;
            "proxy.limits.upstream_idle": proxy.limits.upstream_idle => fixed.limits.upstream_idle;
            "proxy.limits.upstream_waiting": proxy.limits.upstream_waiting => fixed.limits.upstream_waiting;
            "discovery.grace": self.discovery.grace => running.discovery.grace;
            "discovery.connections": self.discovery.connections => running.discovery.connections;
            "proxy.timeouts.handshake": proxy.timeouts.handshake => fixed.timeouts.handshake;
            "proxy.timeouts.first_byte": proxy.timeouts.first_byte => fixed.timeouts.first_byte;
            "proxy.timeouts.head": proxy.timeouts.head => fixed.timeouts.head;
            "proxy.timeouts.keep_alive": proxy.timeouts.keep_alive => fixed.timeouts.keep_alive;
            "proxy.timeouts.drain_idle": proxy.timeouts.drain_idle => fixed.timeouts.drain_idle;
            "proxy.timeouts.unread": proxy.timeouts.unread => fixed.timeouts.unread;
            "proxy.timeouts.connect": proxy.timeouts.connect => fixed.timeouts.connect;
            "proxy.timeouts.wait": proxy.timeouts.wait => fixed.timeouts.wait;
            "proxy.timeouts.upstream_idle": proxy.timeouts.upstream_idle => fixed.timeouts.upstream_idle;
            "proxy.timeouts.upstream_age": proxy.timeouts.upstream_age => fixed.timeouts.upstream_age;
            "proxy.ejection.failures": proxy.ejection.failures => fixed.ejection.failures;
            "proxy.ejection.time": proxy.ejection.time => fixed.ejection.time;
            "api.listen": self.api.listen => running.api.listen;
            "api.tls": self.api.tls => running.api.tls;
            "api.open": self.api.open => running.api.open;
            "api.limits": self.api.limits => running.api.limits;
            "api.timeouts": self.api.timeouts => running.api.timeouts;
            "data": self.data => running.data;
            "table": self.table => running.table;
            "plugins": self.plugins => running.plugins;
            "log": self.log => running.log;
        }
        kept
    }

    /// Whether anybody who reaches this machine could use the API, and nobody said so.
    fn exposes_the_api(&self) -> bool {
        let public = !self.api.listen.ip().to_canonical().is_loopback();
        public && self.access.is_open() && !self.api.open
    }
}

#[cfg(test)]
mod tests;
