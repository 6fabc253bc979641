//! One process takes the place of another, and nobody notices.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::{UnixDatagram, UnixStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use message_flow_tests::{Call, Gateway, Upstream, eventually, raw::Raw};
use serde_json::json;
use tokio::task::JoinHandle;

const DURABLE: &str = "[plugin.memory]\nstate = \"durable\"\n";
const PATIENCE: Duration = Duration::from_secs(60);

/// Clients that ask without a pause; any answer but 200, and any connection that is refused or breaks,
/// fails the test.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Vec<Arc<AtomicUsize>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(proxy: SocketAddr) -> Self {
        let mut load = Self { stop: Arc::default(), answered: Vec::new(), clients: Vec::new() };
        for number in 0..6 {
            let (stop, answered) = (load.stop.clone(), Arc::<AtomicUsize>::default());
            load.answered.push(answered.clone());
            load.clients.push(match number % 3 {
                0 => tokio::spawn(keep_alive(proxy, stop, answered, Duration::ZERO)),
                1 => tokio::spawn(keep_alive(proxy, stop, answered, Duration::from_millis(100))),
                _ => tokio::spawn(connect_anew(proxy, stop, answered)),
            });
        }
        load
    }

    /// Waits until each client got so many answers more.
    async fn goes_on(&self, more: usize) {
        let before: Vec<_> = self.answered.iter().map(|answered| answered.load(SeqCst)).collect();
        eventually(|| async {
            let now: Vec<_> = self.answered.iter().map(|answered| answered.load(SeqCst)).collect();
            let on = before.iter().zip(&now).all(|(before, now)| now - before >= more);
            let ended = self.clients.iter().any(JoinHandle::is_finished);
            if on || ended { Ok(()) } else { Err(format!("{before:?} {now:?}")) }
        })
        .await;
    }

    async fn end(self) {
        self.stop.store(true, SeqCst);
        for client in self.clients {
            client.await.expect("no request failed");
        }
    }
}

async fn keep_alive(proxy: SocketAddr, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>, pause: Duration) {
    while !stop.load(SeqCst) {
        let mut client = Raw::connect(proxy).await;
        loop {
            client.say("GET /chat/ HTTP/1.1\r\nhost: t\r\n\r\n").await;
            let head = client.hear("\r\n\r\n").await;
            client.hear("a").await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            answered.fetch_add(1, SeqCst);
            if head.contains("connection: close") || stop.load(SeqCst) {
                break;
            }
            tokio::time::sleep(pause).await;
        }
    }
}

async fn connect_anew(proxy: SocketAddr, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) {
    while !stop.load(SeqCst) {
        Call::new(proxy, "GET", "/chat/").try_send().await.expect("an answer").expect(200);
        answered.fetch_add(1, SeqCst);
    }
}

#[tokio::test]
async fn no_request_fails_while_a_process_takes_over() {
    let upstream = Upstream::start("a").await;
    let mut gateway = Gateway::setup().config(DURABLE).start().await;
    gateway.put("chat", json!({ "servers": [upstream.uri()] })).await;
    let load = Load::start(gateway.proxy());
    load.goes_on(5).await;
    for at in 0..2 {
        let next = gateway.beside().argument("--takeover").start().await;
        assert_eq!((next.proxy(), next.api()), (gateway.proxy(), gateway.api()));
        let status = gateway.ended(PATIENCE).await;
        assert_eq!(status.code(), Some(0), "{}", gateway.log());
        load.goes_on(5).await;
        // What was registered is there, and it is the new process that says so.
        next.ask("GET", "/v1/services/chat").send().await.expect(200);
        next.put(&format!("more-{at}"), json!({ "servers": [upstream.uri()] })).await;
        gateway = next;
    }
    load.end().await;
    gateway.get("/more-0/").send().await.expect(200);
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
}

#[tokio::test]
async fn nobody_takes_over_by_accident() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [upstream.uri()] })).await;
    let said = gateway.beside().try_start().await.err().expect("it does not start");
    assert!(said.contains("in use by another process") && said.contains("--takeover"), "{said}");
    // Nor one that would not start.
    let broken = gateway.beside().config("[service.chat]\nservers = 1\n").argument("--takeover");
    broken.try_start().await.err().expect("it does not start");
    gateway.get("/chat/").send().await.expect(200);
    gateway.put("more", json!({ "servers": [upstream.uri()] })).await;
    // Where nobody runs there is nothing to take over.
    let alone = Gateway::setup().argument("--takeover").start().await;
    alone.logged("no gateway runs").await;
}

#[tokio::test]
async fn a_process_that_fails_while_it_takes_over_changes_nothing() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::setup().config(DURABLE).start().await;
    gateway.put("chat", json!({ "servers": [upstream.uri()] })).await;
    let load = Load::start(gateway.proxy());
    load.goes_on(5).await;
    let path = gateway.path("data/takeover");
    let asked = tokio::task::spawn_blocking(move || {
        let mut stream = UnixStream::connect(path).expect("the gateway listens there");
        stream.write_all(b"message-flow takeover 1\nlet go\n").expect("ask");
        let (mut heard, mut piece) = (Vec::new(), [0; 1024]);
        while !heard.ends_with(b"it is yours\n") {
            let read = stream.read(&mut piece).expect("an answer");
            assert!(read > 0, "{:?}", String::from_utf8_lossy(&heard));
            heard.extend_from_slice(&piece[..read]);
        }
    });
    asked.await.expect("it is handed over");
    // The one that asked is gone: the gateway is what it was, its API too.
    gateway.logged("going on with a new start").await;
    gateway.until(gateway.ask("GET", "/ready"), 200).await;
    load.goes_on(5).await;
    gateway.put("more", json!({ "servers": [upstream.uri()] })).await;
    gateway.get("/more/").send().await.expect(200);
    load.end().await;
}

/// A process that nobody waits for.
struct Left(String);

impl Drop for Left {
    fn drop(&mut self) {
        let _ = std::process::Command::new("kill").arg("-KILL").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_replaces_the_process_and_tells_who_watches_it() {
    let upstream = Upstream::start("a").await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let watched = directory.path().join("notify");
    let manager = UnixDatagram::bind(&watched).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let hear = || {
        let mut heard = [0; 256];
        let length = manager.recv(&mut heard).expect("a notice");
        String::from_utf8_lossy(&heard[..length]).into_owned()
    };
    let setup = Gateway::setup().config(DURABLE).environment("NOTIFY_SOCKET", watched.display().to_string());
    let mut gateway = setup.start().await;
    assert_eq!(tokio::task::block_in_place(hear), format!("READY=1\nMAINPID={}\n", gateway.pid()));
    gateway.put("chat", json!({ "servers": [upstream.uri()] })).await;
    let load = Load::start(gateway.proxy());
    gateway.signal("USR2").await;
    let line = gateway.logged("a process was started to take over").await;
    let pid = line.rsplit("pid=").next().unwrap_or_default().trim().to_owned();
    let _left = Left(pid.clone());
    assert_eq!(gateway.ended(PATIENCE).await.code(), Some(0), "{}", gateway.log());
    let told = tokio::task::block_in_place(hear);
    assert_eq!(told, format!("READY=1\nMAINPID={pid}\n"));
    load.goes_on(5).await;
    load.end().await;
}
