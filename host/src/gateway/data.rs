//! The data directory: one process at a time, and what makes this router itself again after a
//! restart.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context, bail};

use super::takeover;
use crate::{
    condition::Name,
    durable::{
        DAMAGED,
        whole::{self, Unreadable},
    },
    files::{self, Hold},
    plugin::Plugins,
    table::Table,
};

/// So often it is looked whether the directory is still there.
const LOOK: Duration = Duration::from_millis(250);

/// What lies in it, written by this module and by those that know the rest: `table`, `discovery`, `plugin`.
const OURS: [&str; 10] = [
    "lock",
    "router-id",
    "view.json",
    "assignments.json",
    "told.json",
    "compiled",
    "replaced",
    "state",
    "high-water",
    takeover::NAME,
];

/// The directory, held as long as this is.
pub(super) struct Data {
    directory: PathBuf,
    pub(super) hold: Hold,
    router: OnceLock<String>,
}

impl Data {
    /// Locks a directory, and makes it if it is not there; `inherited` is its lock, if another process handed
    /// it over.
    pub(super) fn open(directory: &Path, inherited: Option<File>) -> anyhow::Result<Self> {
        let shown = directory.display();
        let hold = match inherited {
            Some(lock) => Ok(Some(Hold::inherit(directory, lock))),
            None => Hold::take(directory),
        };
        let hold = hold.with_context(|| format!("cannot write to the data directory {shown}"))?;
        let Some(hold) = hold else {
            bail!(
                "the data directory {shown} is in use by another process; name another with `[data] dir` or \
                 --data, or take the other's place with --takeover"
            )
        };
        keep_to_ourselves(directory)
            .with_context(|| format!("cannot look into the data directory {shown}"))?;
        Ok(Self { directory: directory.to_owned(), hold, router: OnceLock::new() })
    }

    /// Where the id is kept that this router has if the configuration says none.
    pub(super) fn router_id_file(&self) -> PathBuf {
        self.directory.join("router-id")
    }

    /// What tells this directory from every other that a running process may hold: which start of which machine, and
    /// which file there is locked. A copy is another. None where the system does not say.
    pub(super) fn identity(&self) -> Option<String> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let lock = fs::metadata(self.directory.join("lock")).ok()?;
        Some(format!("{}/{}/{}", boot.trim(), lock.dev(), lock.ino()))
    }

    /// Made at the first start, the same from then on.
    pub(super) fn router_id(&self) -> anyhow::Result<String> {
        if let Some(id) = self.router.get() {
            return Ok(id.clone());
        }
        let path = self.router_id_file();
        let id = match former_router_id(&path) {
            Some(id) => id,
            None => match whole::load_or_set_aside::<String>(&path) {
                Ok(id) => return Ok(self.router.get_or_init(|| id).clone()),
                Err(Unreadable::Io { path, source }) => {
                    return Err(source).with_context(|| format!("cannot read {}", path.display()));
                }
                Err(_) => format!("router-{:016x}", rand::random::<u64>()),
            },
        };
        whole::save(&path, &id).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(self.router.get_or_init(|| id).clone())
    }

    /// Looks whether the directory is still there and its disk takes what should last; says so if not, and makes a
    /// directory that was deleted again.
    pub(super) async fn watch(self: Arc<Self>, plugins: Arc<Plugins>, table: Arc<Table>) {
        let conditions = table.tasks().conditions().clone();
        let mut written = self.hold.made_again();
        loop {
            if let Err(error) = self.hold.secure() {
                let directory = self.directory.display();
                conditions.raise(Name::Data, format!("the data directory {directory} was deleted: {error}"));
            } else {
                let failures = plugins.state_failures();
                let failures: Vec<_> =
                    failures.iter().map(|(plugin, why)| format!("state of plugin {plugin}: {why}")).collect();
                match failures.is_empty() {
                    true => drop(conditions.clear(Name::Data)),
                    false => conditions.raise(Name::Data, failures.join("; ")),
                }
            }
            if self.hold.made_again() != written {
                written = self.hold.made_again();
                self.write_again(&table).await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What was compiled and what was replaced is not made again until it is needed.
    async fn write_again(&self, table: &Table) {
        let directory = self.directory.display();
        tracing::error!(%directory, "the data directory was deleted or renamed while it was in use; it was made again, and what is known is written into it");
        let path = self.directory.join("router-id");
        // It may go by another id than the one that it found here.
        let id = self.router.get().map(|_| table.router().0.to_string());
        if let Some(Err(error)) = id.map(|id| whole::save(&path, &id)) {
            tracing::error!(path = %path.display(), %error, "cannot write; check the data directory");
        }
        table.save().await;
    }
}

/// The id as an earlier version kept it: nothing else in the file.
pub(super) fn former_router_id(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let digits = text.trim().strip_prefix("router-")?;
    let made = digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    made.then(|| text.trim().to_owned())
}

/// Takes what is ours from everybody else, and the directory too unless something else lies in it, which others may
/// want to reach.
fn keep_to_ourselves(directory: &Path) -> std::io::Result<()> {
    files::sweep(directory)?;
    let mut alone = true;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let name = name.strip_suffix(DAMAGED).unwrap_or(&name);
        if !OURS.contains(&name) {
            alone = false;
        } else if let Err(error) = files::make_private(&entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "others may read this");
        }
    }
    if !files::is_shared(directory)? {
        return Ok(());
    }
    let made = if alone { files::make_private(directory) } else { Ok(()) };
    if !alone || made.is_err() {
        tracing::warn!(
            directory = %directory.display(),
            "others may look into the data directory: chmod 700, or name one of its own with `[data] dir`"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn nobody_else_reads_what_is_in_it() {
        let scratch = tempfile::tempdir().unwrap();
        let loose = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let made = scratch.path().join("made");
        let data = Data::open(&made, None).unwrap();
        data.router_id().unwrap();
        assert_eq!(mode(&made), 0o700);
        drop(data);
        // As an earlier version left it.
        loose(&made, 0o755);
        fs::create_dir(made.join("state")).unwrap();
        loose(&made.join("state"), 0o755);
        fs::write(made.join("view.json"), "{}").unwrap();
        for file in ["router-id", "lock", "view.json"] {
            loose(&made.join(file), 0o644);
        }
        drop(Data::open(&made, None).unwrap());
        let modes = ["", "lock", "router-id", "view.json", "state"].map(|name| mode(&made.join(name)));
        assert_eq!(modes, [0o700, 0o600, 0o600, 0o600, 0o700]);
        // A directory with something else in it stays as it is, but for what is ours.
        loose(&made, 0o755);
        fs::write(made.join("letter.txt"), "").unwrap();
        drop(Data::open(&made, None).unwrap());
        assert_eq!(mode(&made), 0o755);
    }
}
