//! The real binary as a child process, on ports of its own choosing and in a directory of its own.

mod binary;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::oneshot,
};

pub(crate) use binary::cargo;
pub use binary::{path as binary, release};

use crate::{
    call::{Call, Reply},
    wait::{PATIENCE, eventually, within},
};

/// A running gateway; killed on drop.
pub struct Gateway {
    child: Child,
    directory: Arc<TempDir>,
    proxy: SocketAddr,
    api: SocketAddr,
    log: Arc<Mutex<String>>,
}

/// How a gateway is to be started.
#[derive(Default)]
pub struct Setup {
    config: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    files: Vec<(String, Vec<u8>)>,
    directory: Option<Arc<TempDir>>,
    api: Option<String>,
    binary: Option<PathBuf>,
    core: Option<usize>,
    stderr: Option<Stdio>,
}

impl Setup {
    /// Another binary than that of the dev profile.
    pub fn binary(mut self, path: &Path) -> Self {
        self.binary = Some(path.to_owned());
        self
    }

    /// With its standard error there; then [`Gateway::log`] has nothing of it.
    pub fn stderr(mut self, to: impl Into<Stdio>) -> Self {
        self.stderr = Some(to.into());
        self
    }

    /// On this core alone.
    pub fn pinned(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// With this configuration; `{dir}` in it stands for the gateway's own directory.
    pub fn config(mut self, toml: impl AsRef<str>) -> Self {
        self.config.push_str(toml.as_ref());
        self
    }

    /// With a plugin in its directory from the start: the guest `guest` as `name.wasm`.
    pub fn plugin(self, name: &str, guest: PathBuf) -> Self {
        self.file(&format!("plugins/{name}.wasm"), std::fs::read(guest).expect("read a guest"))
    }

    /// With a file in its own directory.
    pub fn file(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.to_owned(), bytes.into()));
        self
    }

    /// With its API at this address.
    pub fn api_at(mut self, address: &str) -> Self {
        self.api = Some(address.to_owned());
        self
    }

    /// With a further command line argument.
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// With an environment variable.
    pub fn environment(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Starts it; a gateway that does not come up fails the test with what it said.
    pub async fn start(self) -> Gateway {
        self.try_start().await.unwrap_or_else(|said| panic!("the gateway did not start:\n{said}"))
    }

    /// Starts it.
    ///
    /// # Errors
    /// It ended, or did not say where it listens: all that it said.
    pub async fn try_start(mut self) -> Result<Gateway, String> {
        let (directory, mut command) = self.command();
        command.args(&self.arguments);
        if let Some(stderr) = self.stderr.take() {
            command.stderr(stderr);
        }
        let mut child = command.spawn().expect("start the gateway");
        let log = Arc::new(Mutex::new(String::new()));
        let (proxy_said, proxy) = oneshot::channel();
        let (api_said, api) = oneshot::channel();
        let watched = vec![("proxy listening on ", proxy_said), ("api listening on ", api_said)];
        tokio::spawn(keep(child.stdout.take().expect("piped"), log.clone(), watched));
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(keep(stderr, log.clone(), vec![]));
        }
        let said = || log.lock().expect("never poisoned").clone();
        let up = async { Some((proxy.await.ok()?, api.await.ok()?)) };
        let (proxy, api) = match tokio::time::timeout(PATIENCE, up).await {
            Ok(Some(addresses)) => addresses,
            Ok(None) => return Err(format!("{}{:?}", settled(&log).await, child.wait().await)),
            Err(_) => return Err(format!("{}no listeners within {PATIENCE:?}", said())),
        };
        Ok(Gateway { child, directory, proxy, api, log })
    }

    /// Another start in the same directory.
    #[must_use]
    pub fn again(&self) -> Self {
        let (arguments, environment) = (self.arguments.clone(), self.environment.clone());
        Self { directory: self.directory.clone(), arguments, environment, ..Self::default() }
    }

    /// The exit status and output of `message-flow ARGUMENTS` with this configuration.
    pub async fn run(self, subcommand: &str) -> (ExitStatus, String) {
        let (_directory, mut command) = self.command_for(Some(subcommand));
        command.args(&self.arguments);
        let output = within(PATIENCE, subcommand, command.output()).await.expect("run the gateway");
        let said = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8_lossy(&said).into_owned())
    }

    fn program(&self) -> Command {
        let binary = self.binary.as_deref().unwrap_or_else(|| binary::path());
        let Some(core) = self.core else { return Command::new(binary) };
        let mut command = Command::new("taskset");
        command.arg("-c").arg(core.to_string()).arg(binary);
        command
    }

    fn command(&self) -> (Arc<TempDir>, Command) {
        self.command_for(None)
    }

    fn command_for(&self, subcommand: Option<&str>) -> (Arc<TempDir>, Command) {
        let directory = self
            .directory
            .clone()
            .unwrap_or_else(|| Arc::new(tempfile::tempdir().expect("a temporary directory")));
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(path("plugins")).expect("make the plugins directory");
        for (name, bytes) in &self.files {
            let path = path(name);
            std::fs::create_dir_all(path.parent().expect("in the directory")).expect("make its directory");
            std::fs::write(path, bytes).expect("write a file");
        }
        if self.directory.is_none() || !self.config.is_empty() {
            let config = self.config.replace("{dir}", &directory.path().display().to_string());
            std::fs::write(path("message-flow.toml"), config).expect("write the configuration");
        }
        let mut command = self.program();
        command
            .args(subcommand.into_iter().flat_map(str::split_whitespace))
            .current_dir(directory.path())
            .kill_on_drop(true);
        command.arg("--config").arg(path("message-flow.toml"));
        command.arg("--plugins").arg(path("plugins")).arg("--data").arg(path("data"));
        if subcommand.is_none() {
            let any = "127.0.0.1:0";
            command.args(["--proxy", any, "--api", self.api.as_deref().unwrap_or(any)]);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        (directory, command)
    }
}

impl Gateway {
    /// To be configured.
    pub fn setup() -> Setup {
        Setup::default()
    }

    /// With its defaults.
    pub async fn start() -> Self {
        Self::setup().start().await
    }

    /// Where its proxy listens.
    pub fn proxy(&self) -> SocketAddr {
        self.proxy
    }

    /// Where its API listens.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// A path in its own directory: `plugins`, `data`, `message-flow.toml`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the gateway has not been waited for")
    }

    /// All that it said.
    pub fn log(&self) -> String {
        self.log.lock().expect("never poisoned").clone()
    }

    /// Waits until a line of the log has this in it, and returns that line: the log is written beside the work
    /// that it tells of.
    pub async fn logged(&self, text: &str) -> String {
        eventually(|| async {
            let log = self.log();
            let line = log.lines().find(|line| line.contains(text)).map(str::to_owned);
            line.ok_or_else(|| format!("no line has {text:?}:\n{log}"))
        })
        .await
    }

    /// A request to its proxy.
    pub fn call(&self, method: &str, target: impl Into<String>) -> Call {
        Call::new(self.proxy, method, target)
    }

    /// A GET to its proxy.
    pub fn get(&self, target: impl Into<String>) -> Call {
        self.call("GET", target)
    }

    /// A request to its API.
    pub fn ask(&self, method: &str, target: impl Into<String>) -> Call {
        Call::new(self.api, method, target)
    }

    /// Registers a service.
    pub async fn put(&self, service: &str, spec: Value) {
        let reply = self.ask("PUT", format!("/v1/services/{service}")).json(&spec).send().await;
        assert!(
            (200..300).contains(&reply.status),
            "PUT {service} {spec}: {} {}",
            reply.status,
            reply.text()
        );
    }

    /// The plugin's entry in `GET /v1/plugins`, once `wanted` likes it.
    pub async fn plugin(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(|| async {
            let plugins = self.ask("GET", "/v1/plugins").send().await.expect(200).json();
            let entries = plugins.as_array().cloned().unwrap_or_default();
            match entries.into_iter().find(|entry| entry["name"] == name && wanted(entry)) {
                Some(entry) => Ok(entry),
                None => Err(format!("plugin {name} is not as wanted: {plugins}\n{}", self.log())),
            }
        })
        .await
    }

    /// Waits until a plugin is active.
    pub async fn active(&self, name: &str) -> Value {
        self.plugin(name, |entry| entry["state"] == "active").await
    }

    /// A sample in `/metrics`: the sum over those whose line starts with `start`.
    pub async fn metric(&self, start: &str) -> f64 {
        let page = self.ask("GET", "/metrics").send().await.expect(200).text();
        let lines = page.lines().filter(|line| line.starts_with(start));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Sends a signal, such as `TERM`.
    pub async fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().await;
        assert!(status.expect("run kill").success(), "kill -{name}");
    }

    /// Its exit status, once it ends within `limit`.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        within(limit, "the gateway ending", self.child.wait()).await.expect("wait for the gateway")
    }

    /// Kills it with SIGKILL, if it still runs, and gives what starts it again in the same directory.
    pub async fn kill(mut self) -> Setup {
        if self.child.id().is_some() {
            self.child.kill().await.expect("kill the gateway");
        }
        Setup { directory: Some(self.directory.clone()), ..Setup::default() }
    }

    /// What starts another process in the same directory while this one runs.
    pub fn beside(&self) -> Setup {
        Setup { directory: Some(self.directory.clone()), ..Setup::default() }
    }

    /// Replaces its configuration file at once, as an atomic rename.
    pub fn reconfigure(&self, toml: impl AsRef<str>) {
        let config = toml.as_ref().replace("{dir}", &self.directory.path().display().to_string());
        let next = self.path("next.toml");
        std::fs::write(&next, config).expect("write the configuration");
        std::fs::rename(next, self.path("message-flow.toml")).expect("replace the configuration");
    }

    /// Puts bytes into the plugins directory under a name, as an atomic rename.
    pub fn drop_plugin(&self, file: &str, bytes: impl AsRef<[u8]>) {
        let next = self.path(".next");
        std::fs::write(&next, bytes).expect("write a plugin");
        std::fs::rename(next, self.path("plugins").join(file)).expect("place a plugin");
    }

    /// Sends a call until it is answered with `status`.
    pub async fn until(&self, call: Call, status: u16) -> Reply {
        eventually(|| async {
            let reply = call.clone().send().await;
            if reply.status == status { Ok(reply) } else { Err(format!("{reply:?}\n{}", self.log())) }
        })
        .await
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the gateway said:\n{}---", self.log());
        }
    }
}

/// Keeps every line, and reports the first that starts with each watched text.
async fn keep(
    output: impl AsyncRead + Unpin,
    log: Arc<Mutex<String>>,
    mut watched: Vec<(&str, oneshot::Sender<SocketAddr>)>,
) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let found = watched.iter().position(|(start, _)| line.starts_with(start));
        if let Some((start, said)) = found.map(|at| watched.swap_remove(at)) {
            let uri = line[start.len()..].split_whitespace().next().unwrap_or_default();
            let address = uri.rsplit('/').next().unwrap_or_default();
            let _ = said.send(address.parse().unwrap_or_else(|_| panic!("no address in {line:?}")));
        }
        let mut log = log.lock().expect("never poisoned");
        log.push_str(&line);
        log.push('\n');
    }
}

/// What was said, once the last of standard error has come in too.
async fn settled(log: &Mutex<String>) -> String {
    let mut said = String::new();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = log.lock().expect("never poisoned").clone();
        if !now.is_empty() && now == said {
            break;
        }
        said = now;
    }
    said
}
