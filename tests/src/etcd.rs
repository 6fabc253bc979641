//! A real etcd in a directory of its own, alone or in a cluster, that can be stopped and started again.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use crate::wait::{PATIENCE, eventually, within};

/// A running (or stopped) etcd; killed on drop.
pub struct Etcd {
    child: Option<Child>,
    directory: TempDir,
    name: String,
    client: u16,
    peer: u16,
    /// Every member, itself included, as `NAME=PEER`.
    members: String,
    further: Vec<String>,
}

impl Etcd {
    /// Starts one, empty.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one with further arguments.
    pub async fn start_with(arguments: &[&str]) -> Self {
        let mut etcd = Self::stopped(arguments);
        etcd.up().await;
        etcd
    }

    /// Starts a cluster of so many, empty. Unlike one alone, these wait for the disk.
    pub async fn cluster(count: usize) -> Vec<Self> {
        let mut cluster: Vec<Self> = (0..count).map(|at| Self::new(&format!("member-{at}"), &[])).collect();
        let members: Vec<String> = cluster.iter().map(|etcd| etcd.members.clone()).collect();
        for etcd in &mut cluster {
            etcd.members = members.join(",");
            etcd.spawn();
        }
        for etcd in &cluster {
            etcd.healthy().await;
        }
        cluster
    }

    /// One that has yet to be started; its address is fixed already.
    pub fn stopped(arguments: &[&str]) -> Self {
        Self::new("one", &[&["--unsafe-no-fsync"], arguments].concat())
    }

    fn new(name: &str, arguments: &[&str]) -> Self {
        let further = arguments.iter().map(ToString::to_string).collect();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (client, peer) = (free_port(), free_port());
        let members = format!("{name}=http://127.0.0.1:{peer}");
        Self { child: None, directory, name: name.to_owned(), client, peer, members, further }
    }

    /// Its client endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client)
    }

    /// Starts it again with the data that it had.
    pub async fn up(&mut self) {
        self.spawn();
        self.healthy().await;
    }

    fn spawn(&mut self) {
        let peer = format!("http://127.0.0.1:{}", self.peer);
        let mut command = Command::new("etcd");
        command.args(["--name", &self.name, "--log-level", "error", "--logger", "zap"]);
        command.arg("--data-dir").arg(self.directory.path().join("etcd"));
        command.args(["--listen-client-urls", &self.endpoint(), "--advertise-client-urls", &self.endpoint()]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &self.members]).args(&self.further);
        command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("start etcd: install etcd-server (.ci/install does)"));
    }

    async fn healthy(&self) {
        eventually(|| async {
            TcpStream::connect(("127.0.0.1", self.client)).await?;
            let health = self.ctl(&["endpoint", "health"]).await;
            if health.0 { Ok(()) } else { Err(std::io::Error::other(health.1)) }
        })
        .await;
    }

    /// Kills it; what it stored stays.
    pub async fn down(&mut self) {
        let mut child = self.child.take().expect("etcd is running");
        within(PATIENCE, "etcd ending", child.kill()).await.expect("kill etcd");
    }

    /// Saves what it holds.
    pub async fn save(&self) -> PathBuf {
        let file = self.directory.path().join("snapshot.db");
        self.must(&["snapshot", "save", &file.display().to_string()]).await;
        file
    }

    /// Starts it, after it went down, with what was saved in place of its data.
    pub async fn restore(&mut self, saved: &Path) {
        let data = self.directory.path().join("etcd");
        std::fs::remove_dir_all(&data).expect("etcd is down");
        let peer = format!("http://127.0.0.1:{}", self.peer);
        let (saved, data) = (saved.display().to_string(), data.display().to_string());
        let from = ["snapshot", "restore", &saved, "--name", &self.name, "--data-dir", &data];
        let into = ["--initial-cluster", &self.members, "--initial-advertise-peer-urls", &peer];
        self.must(&[&from[..], &into].concat()).await;
        self.up().await;
    }

    /// Its latest revision.
    pub async fn revision(&self) -> u64 {
        let status = self.must(&["endpoint", "status", "-w", "json"]).await;
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        status[0]["Status"]["header"]["revision"].as_u64().expect("a revision")
    }

    /// Runs `etcdctl`; whether it succeeded and what it said.
    pub async fn ctl(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(self.endpoint());
        command.args(["--dial-timeout", "2s", "--command-timeout", "5s"]).args(arguments);
        let output = within(Duration::from_secs(10), "etcdctl", command.kill_on_drop(true).output()).await;
        let output = output.expect("run etcdctl: install etcd-client (.ci/install does)");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Runs `etcdctl`; failing fails the test.
    pub async fn must(&self, arguments: &[&str]) -> String {
        let (succeeded, said) = self.ctl(arguments).await;
        assert!(succeeded, "etcdctl {arguments:?}: {said}");
        said
    }
}

/// A port that was free a moment ago: etcd cannot be asked which one it took.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound socket").port()
}
