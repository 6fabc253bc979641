//! Promoting the next build of a plugin, and going back.
//!
//! What serves is what lies in the plugins directory. So to promote is to put the next build's file
//! there, and to keep the one that it replaces; to roll back is to put that one there again. A build
//! that was rolled back is not tried out again, not even after a restart, until its file changes.

use std::{fs, io, path::PathBuf, sync::Arc};

use tokio::sync::oneshot;

use super::Reconciler;
use crate::{
    files,
    plugin::{
        Generation,
        directory::{Content, Format},
    },
};

/// Who asked for a switch, and waits to hear what became of it.
pub(in crate::plugin) type Reply = oneshot::Sender<Result<(), SwitchError>>;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plugin) enum Switch {
    Promote,
    RollBack,
}

/// Why a plugin was not switched.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SwitchError {
    /// There is no such plugin.
    #[error("there is no plugin `{0}`")]
    Unknown(String),
    /// No next build is tried out.
    #[error("plugin `{0}` has no next build: name its file as `shadow` under [plugin.{0}]")]
    NothingNext(String),
    /// Nothing was promoted, and nothing is tried out.
    #[error("plugin `{0}` has nothing to go back to: no next build is tried out, and none was promoted")]
    NothingBefore(String),
    /// The file system says no.
    #[error("plugin `{0}`: {1}")]
    Files(String, Arc<io::Error>),
    /// The host is stopping.
    #[error("the plugin host is stopping")]
    Stopping,
}

/// The file that stands for a default plugin that had no file.
const BUILTIN: &str = ".builtin";
const REJECTED: &str = ".rolled-back";

impl Reconciler {
    /// Changes files; the look that follows does the rest.
    pub(super) fn switch(&mut self, name: &str, switch: Switch) -> Result<(), SwitchError> {
        let known = self.known.get(name).ok_or_else(|| SwitchError::Unknown(name.to_owned()))?;
        let active = known.active.as_ref().ok_or_else(|| SwitchError::Unknown(name.to_owned()))?;
        let failed = |error| SwitchError::Files(name.to_owned(), Arc::new(error));
        match (switch, &active.trial) {
            (Switch::Promote, Some(trial)) => self.promote(name, &trial.content).map_err(failed),
            (Switch::Promote, None) => Err(SwitchError::NothingNext(name.to_owned())),
            (Switch::RollBack, Some(trial)) => self.reject(name, &trial.content.sha256).map_err(failed),
            (Switch::RollBack, None) => match self.kept(name) {
                Some(kept) => {
                    let switched = self.reject(name, &active.sha256).and_then(|()| self.restore(name, &kept));
                    self.presence.removed(name);
                    switched.map_err(failed)
                }
                // The file stays, and is not loaded again until it changes.
                None => self.take_back(name).ok_or_else(|| SwitchError::NothingBefore(name.to_owned())),
            },
        }
    }

    /// Has the build come back that served before one that is unfit, while it is kept.
    fn take_back(&mut self, name: &str) -> Option<()> {
        let unfit = |active: &Arc<Generation>| active.is_unfit();
        let known = self.known.get_mut(name).filter(|known| known.active.as_ref().is_some_and(unfit))?;
        known.previous.as_ref()?;
        known.taken_back = true;
        Some(())
    }

    fn promote(&self, name: &str, next: &Content) -> io::Result<()> {
        tracing::info!(plugin = name, sha256 = &*next.sha256, "promoted");
        files::make_directory(&self.replaced())?;
        if let Some((kept, _)) = self.kept(name) {
            fs::remove_file(kept)?;
        }
        let before = self.files.get(name).and_then(|file| file.content.as_ref().ok());
        match before {
            Some(before) => {
                let kept = self.replaced().join(format!("{name}{}", before.format.extension()));
                files::replace(&kept, &before.bytes)?;
                if before.format != next.format {
                    fs::remove_file(self.file(name, before.format))?;
                }
            }
            None => files::replace(&self.replaced().join(format!("{name}{BUILTIN}")), b"")?,
        }
        files::replace_shown(&self.file(name, next.format), &next.bytes)
    }

    /// The build with this hash is not tried out any more.
    fn reject(&self, name: &str, sha256: &str) -> io::Result<()> {
        tracing::info!(plugin = name, sha256, "rolled back");
        files::make_directory(&self.replaced())?;
        files::replace(&self.replaced().join(format!("{name}{REJECTED}")), sha256.as_bytes())
    }

    /// Whether the build with this hash was rolled back.
    pub(super) fn is_rejected(&self, name: &str, sha256: &str) -> bool {
        let rejected = fs::read_to_string(self.replaced().join(format!("{name}{REJECTED}")));
        rejected.is_ok_and(|rejected| rejected == sha256)
    }

    fn restore(&self, name: &str, (kept, format): &(PathBuf, Option<Format>)) -> io::Result<()> {
        if let Some(format) = format {
            files::replace_shown(&self.file(name, *format), &fs::read(kept)?)?;
        }
        for other in Format::ALL {
            let path = self.file(name, other);
            if Some(other) != *format && path.exists() {
                fs::remove_file(path)?;
            }
        }
        fs::remove_file(kept)
    }

    /// What the last promotion replaced.
    fn kept(&self, name: &str) -> Option<(PathBuf, Option<Format>)> {
        let formats = Format::ALL.map(|format| (format.extension(), Some(format)));
        let path = |extension| self.replaced().join(format!("{name}{extension}"));
        let kept = formats.into_iter().chain([(BUILTIN, None)]);
        let mut kept = kept.map(|(extension, format)| (path(extension), format));
        kept.find(|(path, _)| path.exists())
    }

    /// Where a build of this format serves from.
    pub(super) fn file(&self, name: &str, format: Format) -> PathBuf {
        self.directory.join(format!("{name}{}", format.extension()))
    }

    fn replaced(&self) -> PathBuf {
        self.data.join("replaced")
    }
}
