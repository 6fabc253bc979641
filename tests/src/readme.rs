//! Follows a README as its reader would: every `sh` block is run by a shell, in order, and what it
//! prints is compared with the `text` block after it.
//!
//! A reader has the ports that the README names; here they are others, in commands, configuration
//! and expected output alike. A block that starts the gateway is replaced by the harness's own
//! start, with the same configuration and plugins.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
};

use tempfile::TempDir;
use tokio::{net::TcpStream, process::Command};

use crate::{Gateway, eventually, within};

/// Building a plugin for the first time takes most of it.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(600);
/// Ports of servers that READMEs start.
const SERVERS: [&str; 2] = ["9001", "9002"];

/// Runs the README of an example.
pub async fn follow(example: &str) {
    follow_file(&format!("examples/{example}/README.md")).await;
}

/// Runs a README, named by its path in the repository.
pub async fn follow_file(path: &str) {
    let text = fs::read_to_string(repository().join(path));
    let mut reader = Reader::new();
    let blocks = blocks(&text.expect("there is such a README"));
    for (at, block) in blocks.iter().enumerate().filter(|(_, block)| block.language == "sh") {
        if block.text.contains("cargo run") {
            reader.start(&block.text).await;
            continue;
        }
        // Headers end in CR LF; a terminal shows no difference.
        let printed = reader.run(&block.text).await.replace('\r', "");
        if let Some(expected) = blocks.get(at + 1).filter(|next| next.language == "text") {
            assert_eq!(printed.trim(), reader.here(&expected.text).trim(), "{path}: after\n{}", block.text);
        }
    }
}

/// A fenced block: what it is written in, and its text.
pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) text: String,
}

/// The fenced blocks of a text, in order.
pub(crate) fn blocks(text: &str) -> Vec<Block> {
    let fenced = text.split("\n```").skip(1).step_by(2);
    let split = fenced.map(|block| block.split_once('\n').unwrap_or((block, "")));
    split.map(|(language, text)| Block { language: language.trim().into(), text: text.into() }).collect()
}

struct Reader {
    directory: TempDir,
    ports: Vec<(&'static str, String)>,
    gateway: Option<Gateway>,
    shells: Vec<u32>,
}

impl Reader {
    /// With a directory that looks like the repository's as far as READMEs go.
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let built = repository().join("target/examples");
        fs::create_dir_all(&built).expect("make the target directory");
        let link =
            |target: &Path, name: &str| std::os::unix::fs::symlink(target, directory.path().join(name));
        link(&built, "target").expect("link the target directory");
        link(&repository().join("examples"), "examples").expect("link the examples");
        let ports = SERVERS.map(|port| (port, free_port().to_string())).into();
        Self { directory, ports, gateway: None, shells: vec![] }
    }

    /// As it reads with the ports of this run.
    fn here(&self, text: &str) -> String {
        self.ports.iter().fold(text.to_owned(), |text, (port, here)| text.replace(port, here))
    }

    async fn start(&mut self, command: &str) {
        self.gateway = None;
        let config = command.split_whitespace().skip_while(|word| *word != "--config").nth(1);
        let config = config.map_or(String::new(), |file| {
            fs::read_to_string(repository().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
        });
        let mut setup = Gateway::setup().config(self.here(&config));
        for file in fs::read_dir(self.directory.path().join("plugins")).into_iter().flatten() {
            let file = file.expect("read the plugins directory").path();
            let name = file.file_stem().expect("a file").to_string_lossy().into_owned();
            setup = setup.plugin(&name, file);
        }
        let gateway = setup.start().await;
        self.share_plugins(&gateway);
        self.ports.retain(|(port, _)| SERVERS.contains(port));
        self.ports.push(("8080", gateway.proxy().port().to_string()));
        self.ports.push(("8081", gateway.api().port().to_string()));
        self.gateway = Some(gateway);
    }

    /// Makes the reader's plugins directory the gateway's, so that what is dropped there later is loaded.
    fn share_plugins(&self, gateway: &Gateway) {
        let here = self.directory.path().join("plugins");
        let _ = fs::remove_dir_all(&here).or_else(|_| fs::remove_file(&here));
        std::os::unix::fs::symlink(gateway.path("plugins"), here).expect("link the plugins directory");
    }

    /// Runs a block; what it prints. What it leaves running ends with the reader.
    async fn run(&mut self, script: &str) -> String {
        let script = self.here(script);
        let printed = self.directory.path().join("printed");
        let output = fs::File::create(&printed).expect("make a file");
        let cargo =
            "cargo() { (cd \"$REPOSITORY\" && CARGO_TARGET_DIR=target/examples command cargo \"$@\"); }";
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", &format!("{cargo}\n{script}")]).process_group(0);
        shell.current_dir(self.directory.path()).env("REPOSITORY", repository());
        for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "CARGO_BUILD_TARGET"] {
            shell.env_remove(name);
        }
        shell.stdin(Stdio::null()).stdout(output).stderr(Stdio::null());
        let mut shell = shell.spawn().expect("start bash");
        self.shells.extend(shell.id());
        let status = within(PATIENCE, &script, shell.wait()).await.expect("wait for bash");
        let said = || self.gateway.as_ref().map(Gateway::log).unwrap_or_default();
        let printed = fs::read_to_string(printed).expect("read what was printed");
        assert!(status.success(), "{status}:\n{script}\n--- printed:\n{printed}--- gateway:\n{}", said());
        self.await_servers(&script).await;
        printed
    }

    async fn await_servers(&self, script: &str) {
        for (_, port) in self.ports.iter().filter(|(_, port)| script.contains(&format!("http.server {port}")))
        {
            eventually(|| TcpStream::connect(format!("127.0.0.1:{port}"))).await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        for shell in &self.shells {
            let mut kill = std::process::Command::new("kill");
            let _ = kill.args(["-KILL", "--", &format!("-{shell}")]).stderr(Stdio::null()).status();
        }
    }
}

/// The top of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a folder of the repository")
        .to_owned()
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound socket").port()
}
