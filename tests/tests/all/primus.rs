//! Services that speak Primus, with the real library: the present one, and one whose clients ask by themselves.

use std::{process::Stdio, time::Duration};

use message_flow_tests::{Gateway, Service, eventually, websocket::WebSocket, within};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::client_examples::javascript_packages;

const PATIENCE: Duration = Duration::from_secs(60);

/// Says who it is and what it needs, and prints all that happens.
const CLIENT: &str = "
import Primus from '@library@';
const Socket = Primus.createSocket({ transformer: 'websockets', parser: 'JSON' });
const primus = new Socket(process.argv[2], @options@);
const say = (what, more) => console.log(more === undefined ? what : `${what} ${JSON.stringify(more)}`);
primus.on('open', () => {
  say('open');
  primus.write({ name: 'page', port: 1, requires: ['explosion-service'] });
  primus.id((id) => say('id', id));
});
primus.on('data', (data) => say('data', data));
for (const event of ['offline', 'reconnect', 'reconnected']) primus.on(event, () => say(event));
for (const word of ['ping', 'pong']) primus.on(`incoming::${word}`, () => say(word));
primus.on('error', () => {});
process.stdin.on('end', () => process.exit());
process.stdin.resume();
";

/// A client in Node; killed on drop.
struct Client {
    _child: Child,
    _place: TempDir,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn start(gateway: &Gateway, library: &str, options: &str) -> Self {
        let place = javascript_packages();
        let file = place.path().join("client.mjs");
        let text = CLIENT.replace("@library@", library).replace("@options@", options);
        std::fs::write(&file, text).expect("write a client");
        let mut node = Command::new("node");
        node.arg(file).arg(format!("http://{}", gateway.api())).kill_on_drop(true);
        node.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = node.spawn().expect("node: run .ci/install");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { _child: child, _place: place, lines }
    }

    /// The next line.
    async fn says(&mut self) -> String {
        let line = within(PATIENCE, "a line of the client", self.lines.next_line()).await;
        line.expect("its output").expect("it runs")
    }

    /// The next line that starts so; nothing else may come before but `also`.
    async fn says_next(&mut self, start: &str, also: &[&str]) -> String {
        loop {
            let line = self.says().await;
            if line.starts_with(start) {
                return line;
            }
            assert!(also.iter().any(|also| line.starts_with(also)), "{line:?} before {start:?}");
        }
    }
}

async fn explosion(gateway: &Gateway, port: u16) -> Service {
    Service::connect(gateway.api(), json!({ "name": "explosion-service", "port": port })).await
}

#[tokio::test]
async fn a_client_of_primus_is_a_service() {
    let gateway = Gateway::setup().config("[discovery]\nping = \"500ms\"\ngrace = \"1s\"\n").start().await;
    // It gives up on a server that sends no ping in this time.
    let mut client = Client::start(&gateway, "primus", "{ pingTimeout: 20000 }");
    client.says_next("open", &[]).await;
    client.says_next("id \"router-", &["ping"]).await;
    let explosion = explosion(&gateway, 8003).await;
    let told = client.says_next("data", &["ping"]).await;
    assert!(told.contains("required-service") && told.contains("8003"), "{told}");
    for _ in 0..5 {
        client.says_next("ping", &[]).await;
    }
    explosion.close().await;
    let told = client.says_next("data", &["ping"]).await;
    assert!(told.contains("required-service-lost"), "{told}");
    let shown = gateway.ask("GET", "/v1/services/page").send().await.expect(200).json();
    assert_eq!(shown["servers"][0]["health"], "healthy", "{shown}");

    // The gateway dies and comes back at the same address: so does the client, by itself.
    let address = gateway.api().to_string();
    let gateway = gateway.kill().await.api_at(&address).start().await;
    client.says_next("reconnected", &["ping", "reconnect", "open", "id"]).await;
    let _explosion = self::explosion(&gateway, 8004).await;
    let told = client.says_next("data", &["ping", "open", "id"]).await;
    assert!(told.contains("8004"), "{told}");
}

#[tokio::test]
async fn a_client_that_asks_is_answered_and_not_asked() {
    let gateway = Gateway::setup().config("[discovery]\nping = \"10s\"\ndeadline = \"30s\"\n").start().await;
    // It gives up on a server that answers no ping in this time.
    let mut client = Client::start(&gateway, "primus-6", "{ ping: 200, pong: 20000 }");
    client.says_next("open", &[]).await;
    for _ in 0..5 {
        client.says_next("pong", &["id"]).await;
    }
    let _explosion = explosion(&gateway, 8003).await;
    let told = client.says_next("data", &["pong"]).await;
    assert!(told.contains("8003"), "{told}");
}

/// As seen on the wire.
#[tokio::test]
async fn pings_go_both_ways_and_others_hear_none() {
    let gateway = Gateway::setup().config("[discovery]\nping = \"200ms\"\n").start().await;
    for path in ["/primus", "/primus/?_primuscb=P8fUqRk"] {
        let mut socket = WebSocket::open(gateway.api(), path).await.expect("a handshake");
        let ping = socket.hear().await.expect("a ping");
        let at = ping.strip_prefix("\"primus::ping::").and_then(|rest| rest.strip_suffix('"'));
        let at = at.unwrap_or_else(|| panic!("no ping: {ping}"));
        assert!(at.parse::<u64>().is_ok_and(|at| at > 1_700_000_000_000), "{ping}");
        socket.say(&format!("\"primus::pong::{at}\"")).await;
        socket.say("\"primus::ping::17\"").await;
        loop {
            let heard = socket.hear().await.expect("a pong");
            if heard == "\"primus::pong::17\"" {
                break;
            }
            assert!(heard.starts_with("\"primus::ping::"), "{heard}");
        }
    }
    let mut plain = Service::open(gateway.api()).await;
    plain.say_text("\"primus::ping::18\"").await;
    assert_eq!(plain.hear().await, json!("primus::pong::18"));
    plain.hears_nothing().await;
    eventually(|| async {
        let open = gateway.metric("message_flow_discovery_connections").await;
        if open == 1.0 { Ok(()) } else { Err(open) }
    })
    .await;
}
