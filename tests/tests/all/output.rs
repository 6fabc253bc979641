//! What the process says to people is not what it lives on: whatever becomes of its standard error and
//! output, messages, reloads and plugins go on.

use std::{
    fs::File,
    io::{PipeReader, Write, pipe},
    process::Stdio,
    time::Duration,
};

use message_flow_tests::{Call, Gateway, Upstream, eventually, gateway::binary, guests};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CHATTY: &str = "[log]\nfilter = \"debug\"\n";

/// Everything that a gateway does while nobody hears it.
async fn goes_on(mut gateway: Gateway, loses: bool) {
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    gateway.put("chat", json!({ "server": a.uri() })).await;
    for _ in 0..300 {
        gateway.get("/chat/").send().await.expect(200);
    }
    gateway.get("/nobody/").send().await.expect(404);

    gateway.reconfigure(format!("{CHATTY}[service.mail]\nserver = \"{}\"\n", b.uri()));
    gateway.until(gateway.get("/mail/"), 200).await;
    gateway.drop_plugin("gate.wasm", guests::bytes("gate"));
    gateway.active("gate").await;

    if loses {
        eventually(|| async {
            let dropped = gateway.metric("message_flow_log_lines_dropped_total").await;
            if dropped > 0.0 { Ok(()) } else { Err("no line was dropped".to_owned()) }
        })
        .await;
        let ready = gateway.ask("GET", "/ready").send().await.expect(200).json();
        let names: Vec<_> = ready["conditions"].as_array().expect("a list").iter().collect();
        assert!(names.iter().any(|condition| condition["name"] == "log"), "{ready}");
    }
    assert_eq!(gateway.metric("message_flow_task_ends_total").await, 0.0);
    gateway.signal("TERM").await;
    assert!(gateway.ended(Duration::from_secs(60)).await.success());
}

#[tokio::test]
async fn a_full_disk_below_the_log_stops_nothing() {
    let full = File::options().write(true).open("/dev/full").expect("a Linux");
    goes_on(Gateway::setup().config(CHATTY).stderr(full).start().await, true).await;
}

#[tokio::test]
async fn a_reader_of_the_log_that_is_gone_stops_nothing() {
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    goes_on(Gateway::setup().config(CHATTY).stderr(writer).start().await, true).await;
}

#[tokio::test]
async fn a_reader_of_the_log_that_does_not_read_stops_nothing() {
    let (reader, writer) = full_pipe();
    goes_on(Gateway::setup().config(CHATTY).stderr(writer).start().await, false).await;
    drop(reader);
}

/// A pipe that takes nothing more, and its reader, which reads nothing.
fn full_pipe() -> (PipeReader, Stdio) {
    let (reader, writer) = pipe().expect("a pipe");
    let mut filling = writer.try_clone().expect("a descriptor");
    std::thread::spawn(move || filling.write_all(&vec![b'x'; 16 << 20]));
    (reader, writer.into())
}

#[tokio::test]
async fn nobody_has_to_hear_where_it_listens() {
    let (reader, full) = full_pipe();
    let no_room = File::options().write(true).open("/dev/full").expect("a Linux");
    for stdout in [full, no_room.into()] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let api = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
        let mut command = tokio::process::Command::new(binary());
        command.current_dir(directory.path()).arg("--api").arg(api.to_string());
        command.args(["--proxy", "127.0.0.1:0", "--data", "data"]).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null());
        let mut child = command.spawn().expect("start the gateway");
        eventually(|| async {
            match Call::new(api, "GET", "/ready").try_send().await {
                Ok(reply) if reply.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        child.kill().await.expect("kill the gateway");
    }
    drop(reader);
}

#[tokio::test]
async fn a_command_says_what_is_wrong_to_whoever_listens_and_ends_as_it_should() {
    let full = File::options().write(true).open("/dev/full").expect("a Linux");
    let mut command = tokio::process::Command::new(binary());
    command.args(["check", "--config", "/does/not/exist.toml"]).stdout(Stdio::null()).stderr(full);
    let status = command.status().await.expect("run the gateway");
    assert_eq!(status.code(), Some(64));
}

/// The address of a server that ends each connection in the middle of a body.
async fn half_a_body() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn what_fails_leaves_one_line_with_its_cause_and_a_flood_few() {
    let half = half_a_body().await;
    let gateway = Gateway::start().await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    gateway.put("down", json!({ "server": format!("http://{dead}") })).await;
    gateway.put("chat", json!({ "server": half })).await;

    gateway.get("/down/path?secret=x").client("ann").send().await.problem(502);
    assert!(gateway.get("/chat/").client("ben").try_send().await.is_err());
    let lines = eventually(|| async {
        let log = gateway.log();
        let line = |part: &str| log.lines().find(|line| line.contains(part)).map(str::to_owned);
        match (line("server-unreachable"), line("response-broke-off")) {
            (Some(refused), Some(broken)) => Ok([refused, broken]),
            _ => Err(log),
        }
    })
    .await;
    let dead = format!("http://{dead}");
    for part in ["WARN", "down", "ann", &dead, "127.0.0.1:", "GET", "/path", "refused"] {
        assert!(lines[0].contains(part), "{part} is not in {}", lines[0]);
    }
    for part in ["WARN", "chat", "ben", &half] {
        assert!(lines[1].contains(part), "{part} is not in {}", lines[1]);
    }
    assert!(!gateway.log().contains("secret"), "{}", gateway.log());

    for _ in 0..200 {
        gateway.get("/nobody/").send().await.problem(404);
    }
    let said = gateway.log().lines().filter(|line| line.contains("unknown-service")).count();
    assert!((1..=150).contains(&said), "{said} lines for 200 messages");
    assert_eq!(gateway.metric("message_flow_refusals_total{cause=\"unknown-service\"}").await, 200.0);
}
