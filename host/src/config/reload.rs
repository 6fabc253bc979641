//! Follows the configuration file: a new version that is valid takes the place of the old one; one
//! that is not is reported, and the old one stays.
//!
//! File events only hasten the next look, because editors replace files and mounts swap symbolic
//! links in ways that events do not show. A look reads the file and compares its text.

use std::{path::PathBuf, sync::Arc, time::Duration};

use notify::{
    EventKind, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::{mpsc, watch};

use super::{Config, ConfigError, Overrides};

/// From one look at the file to the next, without events.
const INTERVAL: Duration = Duration::from_secs(3);

/// How long a file must stay as it is before it is read, so that half of it is not reported.
const SETTLE: Duration = Duration::from_millis(50);

/// Follows a file from a configuration that was read from it, on the current runtime, until every
/// receiver is gone. `nudge` makes it look at once, as SIGHUP should.
pub fn follow(
    file: PathBuf,
    overrides: Overrides,
    running: Arc<Config>,
    nudge: mpsc::Receiver<()>,
) -> watch::Receiver<Arc<Config>> {
    let (sender, receiver) = watch::channel(running);
    let read = std::fs::read_to_string(&file).unwrap_or_default();
    tokio::spawn(Follower { file, overrides, sender, read }.run(nudge));
    receiver
}

struct Follower {
    file: PathBuf,
    overrides: Overrides,
    sender: watch::Sender<Arc<Config>>,
    /// The text that was judged last, valid or not.
    read: String,
}

impl Follower {
    async fn run(mut self, mut nudge: mpsc::Receiver<()>) {
        let (hint, mut hints) = mpsc::channel(1);
        let _watcher = self.watch(hint.clone());
        let mut nudged = true;
        loop {
            tokio::select! {
                () = self.sender.closed() => return,
                more = nudge.recv(), if nudged => nudged = more.is_some(),
                _ = hints.recv() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
            self.look().await;
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

    async fn look(&mut self) {
        let Some(text) = self.settled().await else { return };
        if text == self.read {
            return;
        }
        let parsed = Config::parse(&text, &self.file, &self.overrides);
        self.read = text;
        match parsed {
            Ok(config) => self.take(config),
            Err(error) => self.refuse(&error),
        }
    }

    /// The text, once two reads agree. A file that is not there for a moment is being replaced.
    async fn settled(&self) -> Option<String> {
        let mut last = None;
        for _ in 0..20 {
            let text = tokio::fs::read_to_string(&self.file).await.ok();
            if text.is_some() && (text == last || text.as_ref() == Some(&self.read)) {
                return text;
            }
            last = text;
            tokio::time::sleep(SETTLE).await;
        }
        None
    }

    fn take(&self, mut config: Config) {
        let running = self.sender.borrow().clone();
        for key in config.keep_fixed(&running) {
            tracing::warn!(
                key,
                "the configuration changed a key that takes a restart; what was set at the start holds"
            );
        }
        if config.exposes_the_api() {
            let listen = running.api.listen;
            tracing::error!(
                %listen,
                "configuration not reloaded: it has no access rules, and the API listens on an address that is \
                 not a loopback one until the next start; restart, or keep the [[access]] sections"
            );
            return;
        }
        if config == *running {
            return;
        }
        tracing::info!(file = %self.file.display(), "configuration reloaded");
        self.sender.send_replace(Arc::new(config));
    }

    fn refuse(&self, error: &ConfigError) {
        let ConfigError::Invalid(problems) = error else { return };
        for problem in problems {
            tracing::error!(%problem, "configuration not reloaded; the one before it stays");
        }
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
            "proxy.timeouts.connect": proxy.timeouts.connect => fixed.timeouts.connect;
            "proxy.timeouts.wait": proxy.timeouts.wait => fixed.timeouts.wait;
            "proxy.timeouts.upstream_idle": proxy.timeouts.upstream_idle => fixed.timeouts.upstream_idle;
            "proxy.timeouts.upstream_age": proxy.timeouts.upstream_age => fixed.timeouts.upstream_age;
            "proxy.ejection.failures": proxy.ejection.failures => fixed.ejection.failures;
            "proxy.ejection.time": proxy.ejection.time => fixed.ejection.time;
            "api": self.api => running.api;
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
mod tests {
    use std::path::Path;

    use super::*;

    const VALID: &str = "[service.chat]\nservers = ['http://127.0.0.1:1']\n";

    async fn next(receiver: &mut watch::Receiver<Arc<Config>>) -> Arc<Config> {
        let changed = tokio::time::timeout(Duration::from_secs(20), receiver.changed()).await;
        changed.expect("a change is seen in time").unwrap();
        receiver.borrow_and_update().clone()
    }

    fn start(file: &Path) -> (watch::Receiver<Arc<Config>>, mpsc::Sender<()>) {
        let config = Config::load(Some(file), &Overrides::default()).unwrap();
        let (nudge, nudges) = mpsc::channel(1);
        (follow(file.to_owned(), Overrides::default(), Arc::new(config), nudges), nudge)
    }

    #[tokio::test]
    async fn a_valid_file_takes_over_and_an_invalid_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.toml");
        std::fs::write(&file, "").unwrap();
        let (mut configs, _nudge) = start(&file);
        std::fs::write(&file, "[service.chat]\nservers = 1\n").unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!configs.has_changed().unwrap());
        let other = dir.path().join(".a.toml.tmp");
        std::fs::write(&other, VALID).unwrap();
        std::fs::rename(&other, &file).unwrap();
        assert_eq!(next(&mut configs).await.services.len(), 1);
    }

    #[tokio::test]
    async fn looking_is_no_reason_to_look_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.toml");
        std::fs::write(&file, VALID).unwrap();
        let (hint, mut hints) = mpsc::channel(1);
        let config = Config::parse(VALID, &file, &Overrides::default()).unwrap();
        let (sender, _configs) = watch::channel(Arc::new(config));
        let mut follower =
            Follower { file: file.clone(), overrides: Overrides::default(), sender, read: VALID.into() };
        let _watcher = follower.watch(hint);
        follower.look().await;
        assert!(tokio::time::timeout(Duration::from_millis(300), hints.recv()).await.is_err());
        std::fs::write(&file, "").unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(20), hints.recv()).await.is_ok());
    }

    #[tokio::test]
    async fn a_swapped_link_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.toml");
        std::fs::create_dir_all(dir.path().join("v1")).unwrap();
        std::fs::create_dir_all(dir.path().join("v2")).unwrap();
        std::fs::write(dir.path().join("v1/a.toml"), "").unwrap();
        std::fs::write(dir.path().join("v2/a.toml"), VALID).unwrap();
        std::os::unix::fs::symlink("v1", dir.path().join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/a.toml", &file).unwrap();
        let (mut configs, _nudge) = start(&file);
        std::os::unix::fs::symlink("v2", dir.path().join("..new")).unwrap();
        std::fs::rename(dir.path().join("..new"), dir.path().join("..data")).unwrap();
        assert_eq!(next(&mut configs).await.services.len(), 1);
    }

    #[test]
    fn what_takes_a_restart_is_put_back_and_named() {
        let parse = |text| Config::parse(text, Path::new("a.toml"), &Overrides::default()).unwrap();
        let running = parse("");
        let mut new = parse("[proxy]\nlisten = '127.0.0.1:1'\nfilters = ['stamp']\n[data]\ndir = 'x'\n");
        assert_eq!(new.keep_fixed(&running), ["proxy.listen", "data"]);
        assert_eq!(new.proxy.listen, running.proxy.listen);
        assert_eq!(new.proxy.filters, ["stamp"]);
        assert_eq!(new.keep_fixed(&running), [""; 0]);
    }

    #[tokio::test]
    async fn a_public_api_keeps_its_rules() {
        let rule = format!("[[access]]\ntoken_sha256 = '{}'\nactions = ['read']\n", "0".repeat(64));
        let parse = |text: &str| Config::parse(text, Path::new("a.toml"), &Overrides::default()).unwrap();
        let running = parse(&format!("api.listen = '0.0.0.0:1'\n{rule}"));
        let (sender, receiver) = watch::channel(Arc::new(running));
        let follower =
            Follower { file: "a.toml".into(), overrides: Overrides::default(), sender, read: String::new() };
        follower.take(parse(VALID));
        assert!(!receiver.has_changed().unwrap());
        follower.take(parse(&format!("{VALID}{rule}")));
        assert!(receiver.has_changed().unwrap());
        assert!(!receiver.borrow().access.is_open());
    }
}
