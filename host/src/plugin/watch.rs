//! Events of the plugins directory, as hints that it is worth looking.
//!
//! What is watched is the directory that is there now: when another takes its place, by its name or
//! behind a link, that one is. So its parents are watched as well, for what happens to it. Without
//! events (a file system that has none, too many watches, a link further up that moves) changes are
//! found by looking, a little later.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::mpsc,
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};

use super::reconcile::Wake;

/// The watch of one directory.
pub(super) struct Watch {
    wakes: mpsc::SyncSender<Wake>,
    watched: Option<(Place, Option<RecommendedWatcher>)>,
}

/// What is watched: another one is another watch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// As configured.
    path: PathBuf,
    /// Where its links lead.
    real: PathBuf,
    /// Device, inode and mode; none: it is not there.
    directory: Option<(u64, u64, u32)>,
}

impl Place {
    fn of(directory: &Path) -> Self {
        let path = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        let metadata = fs::metadata(&path).ok().filter(fs::Metadata::is_dir);
        let directory = metadata.map(|metadata| (metadata.dev(), metadata.ino(), metadata.mode()));
        Self { real: path.canonicalize().unwrap_or_else(|_| path.clone()), path, directory }
    }

    /// Whether something happened in it or to it.
    fn is_about(&self, changed: &Path) -> bool {
        changed.starts_with(&self.path) || changed.starts_with(&self.real)
    }

    fn parents(&self) -> impl Iterator<Item = &Path> {
        let (own, real) = (self.path.parent(), self.real.parent());
        own.into_iter().chain(real.filter(|real| Some(*real) != own))
    }
}

impl Watch {
    pub(super) fn new(directory: &Path, wakes: mpsc::SyncSender<Wake>) -> Self {
        let mut watch = Self { wakes, watched: None };
        watch.ensure(directory);
        watch
    }

    /// Watches what is there now, if it is not watched already.
    pub(super) fn ensure(&mut self, directory: &Path) {
        let place = Place::of(directory);
        if self.watched.as_ref().is_some_and(|(watched, _)| *watched == place) {
            return;
        }
        let watcher = begin(&place, self.wakes.clone());
        let log = |error: &notify::Error| tracing::warn!(directory = %directory.display(), %error, "no events from the plugins directory; looking every few seconds");
        self.watched = Some((place, watcher.inspect_err(log).ok()));
    }
}

fn begin(place: &Place, wakes: mpsc::SyncSender<Wake>) -> notify::Result<RecommendedWatcher> {
    let own = place.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !is_hint(&own, &event)) {
            return;
        }
        let _ = wakes.try_send(Wake::Look);
    })?;
    for parent in place.parents() {
        // Of one that cannot be watched, what happens to the directory is found by looking.
        let _ = watcher.watch(parent, RecursiveMode::NonRecursive);
    }
    if place.directory.is_some() {
        watcher.watch(&place.path, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// Reading the files makes events too; only what may have changed them is a hint.
fn is_hint(place: &Place, event: &notify::Event) -> bool {
    let changes = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        kind => !kind.is_access(),
    };
    changes && (event.paths.is_empty() || event.paths.iter().any(|path| place.is_about(path)))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, time::Duration};

    use super::*;

    struct Hints(mpsc::Receiver<Wake>);

    impl Hints {
        fn come(&self, what: &str) {
            assert!(self.0.recv_timeout(Duration::from_secs(20)).is_ok(), "no hint after {what}");
            while self.0.recv_timeout(Duration::from_millis(50)).is_ok() {}
        }
    }

    fn watch(directory: &Path) -> (Watch, Hints) {
        let (wakes, hints) = mpsc::sync_channel(64);
        (Watch::new(directory, wakes), Hints(hints))
    }

    #[test]
    fn a_directory_that_is_made_again_is_watched_again() {
        let top = tempfile::tempdir().unwrap();
        let plugins = top.path().join("plugins");
        let (mut watch, hints) = watch(&plugins);
        for round in 0..2 {
            fs::create_dir(&plugins).unwrap();
            hints.come("it was made");
            watch.ensure(&plugins);
            fs::write(plugins.join("geo.js"), [round]).unwrap();
            hints.come("a file came");
            fs::remove_dir_all(&plugins).unwrap();
            hints.come("it went");
            watch.ensure(&plugins);
        }
    }

    #[test]
    fn a_link_that_is_moved_is_watched_where_it_leads() {
        let top = tempfile::tempdir().unwrap();
        let path = |name: &str| top.path().join(name);
        for name in ["one", "two"] {
            fs::create_dir(path(name)).unwrap();
        }
        symlink("one", path("plugins")).unwrap();
        let (mut watch, hints) = watch(&path("plugins"));
        symlink("two", path("next")).unwrap();
        fs::rename(path("next"), path("plugins")).unwrap();
        hints.come("the link was moved");
        watch.ensure(&path("plugins"));
        fs::write(path("two").join("geo.js"), "").unwrap();
        hints.come("a file came where it leads");
    }
}
