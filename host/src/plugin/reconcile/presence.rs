//! What is in the plugins directory, and what only seems to be gone.
//!
//! That a file is not there is no order to unload it: editors and deployments take files away for a moment,
//! mounts come and go, a directory is replaced by another. So what was there is taken to be there until it
//! has been gone for a while; longer, when it looks as if the directory were gone and not the file.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::plugin::directory::Files;

/// For so long a file is taken to be there after it went.
const FILE: Duration = Duration::from_secs(2);

/// For so long all files are, after the directory went, could not be read or was empty.
const DIRECTORY: Duration = Duration::from_secs(5);

/// The next look while something is missing, at the latest.
const SOON: Duration = Duration::from_millis(500);

/// What was there and is not.
#[derive(Default)]
pub(in crate::plugin) struct Presence {
    missing: BTreeMap<Arc<str>, Instant>,
    /// What was taken away on purpose since the last look.
    removed: BTreeSet<String>,
    /// What is wrong with the directory itself.
    trouble: Option<String>,
}

impl Presence {
    /// A file was taken away on purpose: what is not found any more is gone at once.
    pub(super) fn removed(&mut self, name: &str) {
        self.removed.insert(name.to_owned());
    }

    /// The files that count, when these did before and this was found.
    pub(super) fn settle(
        &mut self,
        directory: &Path,
        before: &Files,
        found: io::Result<Files>,
        now: Instant,
    ) -> Files {
        let trouble = match &found {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some("it is not there".to_owned()),
            Err(error) => Some(error.to_string()),
            Ok(files) if files.is_empty() && !before.is_empty() => Some("it is empty".to_owned()),
            Ok(_) => None,
        };
        self.tell(directory, before, trouble, now);
        let grace = if self.trouble.is_some() { DIRECTORY } else { FILE };
        let mut files = found.unwrap_or_default();
        self.missing.retain(|name, _| before.contains_key(name) && !files.contains_key(name));
        for (name, file) in before {
            if files.contains_key(name) {
                continue;
            }
            let since = *self.missing.entry(Arc::clone(name)).or_insert(now);
            if now.saturating_duration_since(since) < grace && !self.removed.contains(&**name) {
                files.insert(Arc::clone(name), file.clone());
            } else {
                self.missing.remove(name);
            }
        }
        self.removed.clear();
        files
    }

    /// When to look again at the latest.
    pub(super) fn next_look(&self, interval: Duration) -> Duration {
        if self.missing.is_empty() { interval } else { interval.min(SOON) }
    }

    fn tell(&mut self, directory: &Path, before: &Files, trouble: Option<String>, now: Instant) {
        if self.trouble == trouble {
            return;
        }
        let directory = directory.display();
        match &trouble {
            Some(trouble) if !before.is_empty() => {
                tracing::warn!(%directory, trouble, "plugins directory: what was loaded from it goes on for {DIRECTORY:?}");
            }
            Some(trouble) => tracing::warn!(%directory, trouble, "plugins directory"),
            None => tracing::info!(%directory, "plugins directory is there again"),
        }
        if trouble.is_none() {
            // They may be on their way, one after the other.
            self.missing.values_mut().for_each(|since| *since = now);
        }
        self.trouble = trouble;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::directory::File;

    fn files(names: &[&str]) -> Files {
        names.iter().map(|name| (Arc::from(*name), File::unreadable("a test"))).collect()
    }

    struct Look {
        presence: Presence,
        files: Files,
        now: Instant,
    }

    impl Look {
        fn at(names: &[&str]) -> Self {
            Self { presence: Presence::default(), files: files(names), now: Instant::now() }
        }

        fn finds(&mut self, after: Duration, found: io::Result<Files>) -> Vec<&str> {
            self.now += after;
            self.files = self.presence.settle(Path::new("plugins"), &self.files, found, self.now);
            self.files.keys().map(|name| &**name).collect()
        }
    }

    const MOMENT: Duration = Duration::from_millis(100);

    #[test]
    fn a_file_that_comes_back_was_never_gone() {
        let mut look = Look::at(&["a", "b"]);
        assert_eq!(look.finds(MOMENT, Ok(files(&["b"]))), ["a", "b"]);
        assert_eq!(look.presence.next_look(FILE), SOON);
        assert_eq!(look.finds(FILE / 2, Ok(files(&["a", "b"]))), ["a", "b"]);
        assert_eq!(look.presence.next_look(FILE), FILE);
        assert_eq!(look.finds(FILE, Ok(files(&["b"]))), ["a", "b"]);
        assert_eq!(look.finds(FILE, Ok(files(&["b"]))), ["b"]);
    }

    #[test]
    fn what_is_taken_away_on_purpose_is_gone() {
        let mut look = Look::at(&["a", "b"]);
        look.presence.removed("a");
        assert_eq!(look.finds(MOMENT, Ok(Files::new())), ["b"]);
    }

    #[test]
    fn a_directory_that_comes_back_was_never_gone() {
        let errors: [fn() -> io::Result<Files>; 3] = [
            || Err(io::ErrorKind::NotFound.into()),
            || Err(io::ErrorKind::PermissionDenied.into()),
            || Ok(Files::new()),
        ];
        for found in errors {
            let mut look = Look::at(&["a", "b"]);
            assert_eq!(look.finds(MOMENT, found()), ["a", "b"]);
            assert_eq!(look.finds(DIRECTORY - MOMENT, found()), ["a", "b"]);
            // Its files arrive one by one.
            assert_eq!(look.finds(Duration::ZERO, Ok(files(&["b"]))), ["a", "b"]);
            assert_eq!(look.finds(FILE / 2, Ok(files(&["a", "b"]))), ["a", "b"]);
            assert_eq!(look.finds(MOMENT, found()), ["a", "b"]);
            assert!(look.finds(DIRECTORY, found()).is_empty());
        }
    }
}
