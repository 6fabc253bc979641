//! Promoting the next build of a plugin, and going back.
//!
//! What serves is what lies in the plugins directory. So to promote is to put the next build's file
//! there, and to keep the one that it replaces; to roll back is to put that one there again. A build
//! that was rolled back is not tried out again, not even after a restart, until its file changes.

use std::{fs, io, path::PathBuf, sync::Arc};

use tokio::sync::oneshot;

use super::{
    Reconciler,
    replaced::{Kept, Replaced},
};
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
            (Switch::RollBack, None) => match self.replaced().kept(name) {
                Some(kept) => {
                    let switched = self.restore(name, &kept).and_then(|()| self.reject(name, &active.sha256));
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
        let before = self.files.get(name).and_then(|file| file.content.as_ref().ok());
        self.replaced().keep(name, before)?;
        if let Some(before) = before.filter(|before| before.format != next.format) {
            fs::remove_file(self.file(name, before.format))?;
        }
        files::replace_shown(&self.file(name, next.format), &next.bytes)
    }

    /// The build with this hash is not tried out any more.
    fn reject(&self, name: &str, sha256: &str) -> io::Result<()> {
        tracing::info!(plugin = name, sha256, "rolled back");
        self.replaced().reject(name, sha256)
    }

    /// Whether the build with this hash was rolled back.
    pub(super) fn is_rejected(&self, name: &str, sha256: &str) -> bool {
        self.replaced().is_rejected(name, sha256)
    }

    fn restore(&self, name: &str, kept: &Kept) -> io::Result<()> {
        if let Some(format) = kept.format {
            files::replace_shown(&self.file(name, format), &self.replaced().read(name, kept)?)?;
        }
        for other in Format::ALL {
            let path = self.file(name, other);
            if Some(other) != kept.format && path.exists() {
                fs::remove_file(path)?;
            }
        }
        self.replaced().forget(name, kept)
    }

    /// Where a build of this format serves from.
    pub(super) fn file(&self, name: &str, format: Format) -> PathBuf {
        self.directory.join(format!("{name}{}", format.extension()))
    }

    fn replaced(&self) -> Replaced {
        Replaced::new(&self.data)
    }
}
