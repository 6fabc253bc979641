//! Over real files.

use std::path::Path;

use super::*;
use crate::condition::Condition;

const VALID: &str = "[service.chat]\nservers = ['http://127.0.0.1:1']\n";
const OTHER: &str = "[service.mail]\nservers = ['http://127.0.0.1:1']\n";

struct Following {
    configs: watch::Receiver<Arc<Config>>,
    nudge: mpsc::Sender<()>,
    supervisor: Supervisor,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Following {
    fn start(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.toml");
        std::fs::write(&file, text).unwrap();
        Self::of(dir, file)
    }

    fn of(dir: tempfile::TempDir, file: PathBuf) -> Self {
        let config = Config::load(Some(&file), &Overrides::default()).unwrap();
        let (nudge, nudges) = mpsc::channel(1);
        let (metrics, supervisor) =
            (Metrics::new(&prometheus::Registry::new()).unwrap(), Supervisor::default());
        let source = (file.clone(), Overrides::default());
        let configs = follow(source, Arc::new(config), nudges, (metrics, supervisor.clone()));
        Self { configs, nudge, supervisor, file, _dir: dir }
    }

    fn replace(&self, bytes: impl AsRef<[u8]>) {
        let other = self.file.with_extension("new");
        std::fs::write(&other, bytes).unwrap();
        std::fs::rename(&other, &self.file).unwrap();
    }

    async fn next(&mut self) -> Arc<Config> {
        let changed = tokio::time::timeout(Duration::from_secs(30), self.configs.changed()).await;
        changed.expect("a change is seen in time").unwrap();
        self.configs.borrow_and_update().clone()
    }

    /// The detail of the condition, once there is one that holds this.
    async fn refused(&self, part: &str) {
        let wanted = |raised: &[Condition]| match raised {
            [] => part.is_empty(),
            [one, ..] => !part.is_empty() && one.detail.contains(part),
        };
        for _ in 0..600 {
            if wanted(&self.supervisor.conditions().raised()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not `{part}`: {:?}", self.supervisor.conditions().raised());
    }
}

#[tokio::test]
async fn a_valid_file_takes_over_and_an_invalid_one_does_not() {
    let mut following = Following::start("");
    std::fs::write(&following.file, "[service.chat]\nservers = 1\n").unwrap();
    following.refused("not valid").await;
    assert!(!following.configs.has_changed().unwrap());
    following.replace(VALID);
    assert_eq!(following.next().await.services.len(), 1);
    following.refused("").await;
}

#[tokio::test]
async fn what_is_no_configuration_keeps_what_runs() {
    let following = Following::start(VALID);
    for (bytes, reason) in [
        (&b""[..], "is empty"),
        (b"\n \t\r\n", "is empty"),
        (&[0; 512], "is empty"),
        (b"[service.chat]\nservers = ['http://127.0.0.1:\xff']\n", "UTF-8"),
        (b"[service.chat]\nservers = ['http://127.0.", "not valid"),
        (b"# nothing is meant\n", "opens"),
    ] {
        following.replace(bytes);
        following.refused(reason).await;
    }
    std::fs::remove_file(&following.file).unwrap();
    following.refused("is not there").await;
    std::fs::create_dir(&following.file).unwrap();
    following.refused("cannot be read").await;
    std::fs::remove_dir(&following.file).unwrap();
    assert!(!following.configs.has_changed().unwrap());
    following.replace(VALID);
    following.refused("").await;
    assert!(!following.configs.has_changed().unwrap());
}

#[tokio::test]
async fn an_operator_may_open_what_the_file_alone_may_not() {
    let rule = format!("[[access]]\ntoken_sha256 = '{}'\nactions = ['read']\n", "0".repeat(64));
    let mut following = Following::start(&(VALID.to_owned() + &rule));
    following.replace(OTHER);
    following.refused("opens").await;
    assert!(!following.configs.has_changed().unwrap());
    following.nudge.send(()).await.unwrap();
    let config = following.next().await;
    assert!(config.access.is_open() && config.services.keys().any(|id| id.as_str() == "mail"));
    following.refused("").await;
    // Not even then: it says nothing at all.
    following.replace("");
    following.refused("is empty").await;
    following.nudge.send(()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!following.configs.has_changed().unwrap());
}

#[tokio::test]
async fn a_file_that_is_empty_from_the_start_is_what_runs() {
    let following = Following::start("");
    following.nudge.send(()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    following.refused("").await;
}

#[tokio::test]
async fn looking_is_no_reason_to_look_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.toml");
    std::fs::write(&file, VALID).unwrap();
    let (hint, mut hints) = mpsc::channel(1);
    let mut follower = follower(&file, VALID);
    let _watcher = follower.watch(hint);
    follower.look(Asked::ByItself).await;
    assert!(tokio::time::timeout(Duration::from_millis(300), hints.recv()).await.is_err());
    std::fs::write(&file, "").unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(20), hints.recv()).await.is_ok());
}

fn follower(file: &Path, running: &str) -> Follower {
    let config = Config::parse(running, file, &Overrides::default()).unwrap();
    Follower {
        file: file.to_owned(),
        overrides: Overrides::default(),
        sender: watch::channel(Arc::new(config)).0,
        judged: None,
        said: None,
        metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
        supervisor: Supervisor::default(),
    }
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
    let links = dir.path().to_owned();
    let mut following = Following::of(dir, file);
    std::os::unix::fs::symlink("v2", links.join("..new")).unwrap();
    std::fs::rename(links.join("..new"), links.join("..data")).unwrap();
    assert_eq!(following.next().await.services.len(), 1);
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

#[test]
fn a_public_api_keeps_its_rules() {
    let rule = format!("[[access]]\ntoken_sha256 = '{}'\nactions = ['read']\n", "0".repeat(64));
    let follower = follower(Path::new("a.toml"), &format!("api.listen = '0.0.0.0:1'\n{rule}"));
    let refused = follower.judge(VALID.as_bytes(), Asked::ByWord).unwrap_err();
    assert!(refused.lines[0].contains("0.0.0.0:1"), "{refused:?}");
    follower.judge(format!("{VALID}{rule}").as_bytes(), Asked::ByItself).unwrap();
    let config = follower.sender.borrow().clone();
    assert!(!config.access.is_open() && config.services.len() == 1);
}
