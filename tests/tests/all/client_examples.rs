//! The three services of `examples/discovery`, each in its language, find each other through a real gateway.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use message_flow_tests::{Gateway, eventually, within};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A service that runs; killed on drop.
struct Running {
    name: &'static str,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(name: &'static str, command: &mut Command, gateway: &Gateway) -> Self {
        command.arg(format!("ws://{}", gateway.api())).kill_on_drop(true);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
        let mut child =
            child.unwrap_or_else(|error| panic!("{name} does not start ({error}): run .ci/install"));
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { name, child, lines }
    }

    /// The first line from now on that contains this.
    async fn says(&mut self, wanted: &str) -> String {
        let what = format!("{} saying {wanted:?}", self.name);
        within(PATIENCE, what, async {
            loop {
                let line = self.lines.next_line().await.expect("its output");
                let line = line.unwrap_or_else(|| panic!("{} ended without saying {wanted:?}", self.name));
                if line.contains(wanted) {
                    return line;
                }
            }
        })
        .await
    }

    async fn dies(mut self) {
        self.child.kill().await.expect("kill it");
    }

    /// Is told to end while a message is on its way to it, which is answered; then it ends by itself.
    async fn leaves(mut self, gateway: &Gateway, service: &str, answer: &str) {
        let slow = tokio::spawn(gateway.get(format!("/{service}/slow")).send());
        eventually(|| async {
            let shown = gateway.ask("GET", format!("/v1/services/{service}")).send().await.expect(200).json();
            if shown["servers"][0]["in_flight"] == 1 { Ok(()) } else { Err(shown) }
        })
        .await;
        let pid = self.child.id().expect("it runs").to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status().await;
        assert!(status.expect("run kill").success(), "kill {}", self.name);
        self.says("drained").await;
        assert_eq!(slow.await.expect("no panic").expect(200).text().trim(), answer);
        let ended = within(PATIENCE, format!("{} ending", self.name), self.child.wait()).await;
        assert_eq!(ended.expect("wait for it").code(), Some(0), "{}", self.name);
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is below the top").to_owned()
}

/// Of the client module, as `cargo test --workspace` builds it.
fn carchase() -> PathBuf {
    let tests = std::env::current_exe().expect("this test");
    let built = tests.ancestors().nth(2).expect("target/debug").join("examples/carchase");
    if !built.exists() {
        let mut cargo = std::process::Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--workspace", "--example", "carchase"]).current_dir(repository());
        assert!(cargo.status().expect("run cargo").success(), "the example does not build");
    }
    built
}

/// A directory of its own from which the packages of `target/javascript` are found: from below it only they are.
pub(crate) fn javascript_packages() -> TempDir {
    let place = tempfile::tempdir_in(repository().join("target/javascript"));
    place.expect("target/javascript: run .ci/install")
}

/// With the client module and the examples.
fn javascript() -> TempDir {
    let copy = javascript_packages();
    for place in ["sdk/javascript", "examples/discovery"] {
        let to = copy.path().join(place);
        std::fs::create_dir_all(&to).expect("make a directory");
        for file in std::fs::read_dir(repository().join(place)).expect("read a directory") {
            let file = file.expect("read a directory").path();
            if file.is_file() {
                std::fs::copy(&file, to.join(file.file_name().expect("a file"))).expect("copy a file");
            }
        }
    }
    copy
}

#[tokio::test]
async fn three_services_in_three_languages_find_each_other() {
    let gateway = Gateway::setup().config("[discovery]\ngrace = \"1s\"\ndrain = \"1s\"\n").start().await;
    let mut car = Running::start("carchase", &mut Command::new(carchase()), &gateway);
    let mut python = Command::new(repository().join("target/python/bin/python"));
    python.arg(repository().join("examples/discovery/killer_robot.py"));
    python.env("PYTHONPATH", repository().join("sdk/python/src")).env("PYTHONDONTWRITEBYTECODE", "1");
    let mut robot = Running::start("killer-robot", &mut python, &gateway);
    let copy = javascript();
    let node = || {
        let mut node = Command::new("node");
        node.arg(copy.path().join("examples/discovery/explosion.mjs"));
        node
    };

    let mut explosion = Running::start("explosion", &mut node(), &gateway);
    let announced = explosion.says("announced").await;
    let port = announced.rsplit(' ').next().expect("a port");
    assert!(car.says("explosion-service is at").await.ends_with(&format!(":{port}")));
    robot.says("explosion-service says boom").await;

    explosion.dies().await;
    car.says("explosion-service is gone").await;
    robot.says("explosion-service is gone").await;

    // The gateway dies and comes back at the same address: everybody comes back by itself.
    let address = gateway.api().to_string();
    let gateway = gateway.kill().await.api_at(&address).start().await;
    let explosion = Running::start("explosion", &mut node(), &gateway);
    car.says("explosion-service is at").await;
    robot.says("explosion-service says boom").await;

    // Each leaves without failing a message.
    tokio::join!(
        explosion.leaves(&gateway, "explosion-service", "boom"),
        robot.leaves(&gateway, "killer-robot", "exterminate"),
        car.leaves(&gateway, "carchase-service", "vroom"),
    );
}

/// Of a page: with the platform's own WebSocket, which sets no headers.
const PAGE: &str = "
import { WebSocket } from 'ws';
import { connect } from './sdk/javascript/index.js';
globalThis.WebSocket = WebSocket;
const service = connect(process.argv[2], { name: 'page', port: 1 }, { token: 'reader', WebSocket });
service.on('connected', () => console.log('page: connected'));
service.on('reconnecting', ({ reason }) => console.log(`page: ${reason}`));
";

#[tokio::test]
async fn a_page_connects_with_a_token() {
    const READER: &str = "3d0941964aa3ebdcb00ccef58b1bb399f9f898465e9886d5aec7f31090a0fb30";
    let rule = format!("[[access]]\ntoken_sha256 = \"{READER}\"\nactions = [\"register\"]\n");
    let gateway = Gateway::setup().config(rule).start().await;
    let copy = javascript();
    std::fs::write(copy.path().join("page.mjs"), PAGE).expect("write a page");
    let mut page = Running::start("page", Command::new("node").arg(copy.path().join("page.mjs")), &gateway);
    assert_eq!(page.says("page: ").await, "page: connected");
}
