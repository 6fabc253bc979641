//! Routers that share a table, and services that are connected to them, under tokio's paused clock.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{io::DuplexStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

use super::*;
use crate::{
    auth::Access,
    drain::{Trigger, drain},
    table::{
        self, Adapter, Clock, View,
        history::{Op, Update},
        record::RouterRecord,
        testing::{TestTable, delete, put},
    },
};

const MOMENT: Duration = Duration::from_millis(300);
const GRACE: Duration = Duration::from_secs(10);

struct Router {
    discovery: Arc<Discovery>,
    trigger: Trigger,
}

impl Router {
    async fn start(far: &Arc<TestTable>, id: &str) -> Self {
        let mut options = table::Options::new(id, "test");
        options.clock = Clock::tokio(1_700_000_000_000);
        options.record = RouterRecord { incarnation: format!("{id}-1"), ..RouterRecord::default() };
        let table = Table::start(Arc::clone(far) as Arc<dyn Adapter>, options).await;
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let discovery = Discovery::start(table, Options::default(), metrics, None);
        pass(MOMENT).await;
        Self { discovery, trigger: drain().0 }
    }

    async fn connect(&self, definition: Value) -> Client {
        self.connect_over(64 << 10, definition).await
    }

    /// Over a line that holds so many bytes.
    async fn connect_over(&self, bytes: usize, definition: Value) -> Client {
        let (near, far) = tokio::io::duplex(bytes);
        let peer = anyone();
        tokio::spawn(Arc::clone(&self.discovery).serve(far, peer, self.trigger.holder()));
        let mut client = Client(WebSocketStream::from_raw_socket(near, Role::Client, None).await);
        client.say(definition).await;
        pass(MOMENT).await;
        client
    }

    fn view(&self) -> Arc<View> {
        self.discovery.table.view()
    }

    /// The servers of a service, suspects in brackets.
    fn servers(&self, service: &str) -> String {
        let view = self.view();
        let servers = view.service(&service.parse().unwrap()).map_or(&[][..], |service| &service.servers);
        let shown = servers.iter().map(|server| match server.is_suspect() {
            true => format!("[{}]", server.id),
            false => server.id.to_string(),
        });
        shown.collect::<Vec<_>>().join(" ")
    }
}

/// Who may do everything.
fn anyone() -> Peer {
    let identity = Access::default().identify(None);
    Peer {
        address: [10, 0, 0, 9].into(),
        identity: tokio::sync::watch::channel(identity).1,
        dialect: Dialect::Plain,
    }
}

struct Client(WebSocketStream<DuplexStream>);

impl Client {
    async fn say(&mut self, json: Value) {
        self.0.send(Message::text(json.to_string())).await.unwrap();
    }

    /// The types of what comes within a moment; pings are answered meanwhile.
    async fn hears(&mut self) -> Vec<String> {
        let mut heard = Vec::new();
        while let Ok(Some(Ok(message))) = timeout(MOMENT, self.0.next()).await {
            if let Message::Text(text) = message {
                let json: Value = serde_json::from_str(&text).unwrap();
                heard.push(json["type"].as_str().unwrap().to_owned());
            }
        }
        heard
    }

    /// Stays connected, and silent, for a while; what comes is returned.
    async fn stays(&mut self, time: Duration) -> Vec<String> {
        let end = tokio::time::Instant::now() + time;
        let mut heard = Vec::new();
        while tokio::time::Instant::now() < end {
            heard.extend(self.hears().await);
        }
        heard
    }
}

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_is_suspect_for_the_grace_and_then_gone() {
    let router = Router::start(&TestTable::new(), "one").await;
    let mut web = router.connect(json!({ "name": "web", "requires": ["chat"] })).await;
    let chat = router.connect(json!({ "name": "chat", "port": 1 })).await;
    assert_eq!((router.servers("chat").as_str(), web.hears().await.len()), ("10.0.0.9:1", 1));
    drop(chat);
    assert_eq!(web.stays(GRACE - 3 * MOMENT).await, [""; 0]);
    assert_eq!(router.servers("chat"), "[10.0.0.9:1]");
    assert_eq!(web.stays(6 * MOMENT).await, ["required-service-lost"]);
    assert_eq!(router.servers("chat"), "");
}

#[tokio::test(start_paused = true)]
async fn silence_is_an_end_and_an_answered_ping_is_none() {
    let router = Router::start(&TestTable::new(), "one").await;
    let mut listens = router.connect(json!({ "name": "listens", "port": 1 })).await;
    let _silent = router.connect(json!({ "name": "silent", "port": 2 })).await;
    listens.stays(Duration::from_secs(16)).await;
    assert_eq!(
        (router.servers("listens"), router.servers("silent")),
        ("10.0.0.9:1".into(), "[10.0.0.9:2]".into())
    );
    assert_eq!(router.discovery.metrics.dead.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_router_held_is_removed_once_by_those_who_live() {
    let far = TestTable::new();
    let (one, two) = (Router::start(&far, "one").await, Router::start(&far, "two").await);
    for port in 1..=3 {
        let record = json!({ "uri": format!("http://h:{port}"),
            "lease": { "router": "dead", "incarnation": "dead-1", "connection": port } });
        far.change(&[put("server", &format!("chat/h:{port}"), &record.to_string())]);
    }
    far.change(&[put("router", "dead", r#"{"uri":"","incarnation":"dead-1"}"#)]);
    pass(MOMENT).await;
    assert_eq!(one.servers("chat"), "h:1 h:2 h:3");
    let mut watch = one.discovery.table.watch(None);
    far.change(&[delete("router", "dead")]);
    pass(MOMENT).await;
    for router in [&one, &two] {
        assert_eq!(router.servers("chat"), "[h:1] [h:2] [h:3]");
    }
    // One of them comes back, at another router.
    let record =
        json!({ "uri": "http://h:2", "lease": { "router": "two", "incarnation": "two-1", "connection": 9 } });
    far.change(&[put("server", "chat/h:2", &record.to_string())]);
    pass(GRACE + 2 * MOMENT).await;
    for router in [&one, &two] {
        assert_eq!(router.servers("chat"), "h:2");
    }
    let mut deleted = Vec::new();
    while let Ok(Some(Update::Changes(group))) = timeout(MOMENT, watch.next()).await {
        let gone = group.events.iter().filter(|event| event.op == Op::Delete && event.kind == "server");
        deleted.extend(gone.map(|event| event.key.clone()));
    }
    deleted.sort();
    assert_eq!(deleted, ["chat/h:1", "chat/h:3"]);
}

#[tokio::test(start_paused = true)]
async fn a_router_that_was_taken_for_dead_writes_again_what_it_holds() {
    let far = TestTable::new();
    let router = Router::start(&far, "one").await;
    let mut chat = router.connect(json!({ "name": "chat", "port": 1 })).await;
    far.change(&[delete("router", "one"), delete("server", "chat/10.0.0.9:1")]);
    let heard = chat.stays(Duration::from_secs(2)).await;
    assert_eq!((router.servers("chat").as_str(), heard), ("10.0.0.9:1", vec![]));
    // What somebody removes while all is well stays removed.
    far.change(&[delete("server", "chat/10.0.0.9:1")]);
    let heard = chat.stays(Duration::from_secs(2)).await;
    assert_eq!((router.servers("chat").as_str(), heard), ("", vec!["error".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_said_and_tried_again() {
    use std::sync::atomic::Ordering::SeqCst;
    let far = TestTable::new();
    let router = Router::start(&far, "one").await;
    far.down.store(true, SeqCst);
    let mut chat = router.connect(json!({ "name": "chat", "port": 1 })).await;
    assert_eq!(chat.stays(Duration::from_secs(1)).await, ["error"]);
    far.down.store(false, SeqCst);
    chat.stays(Duration::from_secs(8)).await;
    assert_eq!(router.servers("chat"), "10.0.0.9:1");
    // An end that could not be written is not forgotten either.
    far.down.store(true, SeqCst);
    drop(chat);
    pass(Duration::from_secs(3)).await;
    far.down.store(false, SeqCst);
    pass(Duration::from_secs(25)).await;
    assert_eq!(router.servers("chat"), "");
}

#[tokio::test(start_paused = true)]
async fn the_same_server_over_another_connection_takes_its_place() {
    let router = Router::start(&TestTable::new(), "one").await;
    let mut first = router.connect(json!({ "name": "chat", "port": 1 })).await;
    let mut second = router.connect(json!({ "name": "chat", "port": 1 })).await;
    assert_eq!(first.hears().await, ["error"]);
    drop(first);
    second.stays(2 * GRACE).await;
    assert_eq!(router.servers("chat"), "10.0.0.9:1");
}

#[tokio::test(start_paused = true)]
async fn heartbeats_keep_a_server_for_their_time() {
    let far = TestTable::new();
    let router = Router::start(&far, "one").await;
    far.change(&[put("server", "chat/a", r#"{"uri":"http://a:1","lease":{"ttl":"5s","renewed":1}}"#)]);
    for _ in 0..4 {
        pass(Duration::from_secs(4)).await;
        router.discovery.renew(&"chat".parse().unwrap(), "a").await.unwrap();
    }
    assert_eq!(router.servers("chat"), "a");
    pass(Duration::from_secs(6)).await;
    assert_eq!(router.servers("chat"), "");
    router.discovery.renew(&"chat".parse().unwrap(), "a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn many_orders_are_few_writes() {
    let router = Router::start(&TestTable::new(), "one").await;
    let mut clients = Vec::new();
    for port in 1..=200 {
        let (near, far) = tokio::io::duplex(4 << 10);
        let peer = anyone();
        tokio::spawn(Arc::clone(&router.discovery).serve(far, peer, router.trigger.holder()));
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let definition = json!({ "name": "chat", "port": port }).to_string();
        client.send(Message::text(definition)).await.unwrap();
        clients.push(client);
    }
    pass(MOMENT).await;
    let view = router.view();
    assert_eq!(view.service(&"chat".parse().unwrap()).unwrap().servers.len(), 200);
    assert!(router.discovery.metrics.writes.get() < 50, "{}", router.discovery.metrics.writes.get());
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_up_nobody_and_is_given_up() {
    let router = Router::start(&TestTable::new(), "one").await;
    let mut web = router.connect(json!({ "name": "web", "requires": ["chat"] })).await;
    let _slow = router.connect_over(256, json!({ "name": "slow", "requires": ["chat"] })).await;
    let mut chat = router.connect(json!({ "name": "chat", "port": 1 })).await;
    for port in 2..=20 {
        chat.say(json!({ "name": "chat", "port": port })).await;
        assert_eq!(web.hears().await.last().map(String::as_str), Some("required-service"), "{port}");
    }
    assert!(router.discovery.metrics.notifications.get() < 40, "what was superseded is not queued");
    web.stays(Duration::from_secs(20)).await;
    assert_eq!(router.discovery.metrics.dead.get(), 2, "the slow one, and the one that answers no ping");
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_is_answered_and_only_then_the_connection_ends() {
    let router = Router::start(&TestTable::new(), "one").await;
    let goodbye = CloseFrame { code: CloseCode::Normal, reason: "that is all".into() };
    for said in [Some(goodbye.clone()), None] {
        let mut chat = router.connect(json!({ "name": "chat", "port": 1 })).await;
        chat.hears().await;
        chat.0.close(said.clone()).await.unwrap();
        let answered = chat.0.next().await;
        assert!(matches!(&answered, Some(Ok(Message::Close(_)))), "{answered:?}");
        let after = chat.0.next().await;
        assert!(matches!(after, None | Some(Err(Error::ConnectionClosed))), "{after:?}");
    }
    // One that goes on talking is cut off a while after it was told to go.
    let mut talks = router.connect(json!({ "name": "web", "requires": ["chat"] })).await;
    talks.hears().await;
    let stopping = router.trigger.finish(Duration::from_secs(60));
    let talking = async {
        loop {
            if talks.0.feed(Message::text("{}")).await.is_err() || talks.0.flush().await.is_err() {
                return;
            }
            pass(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), async { tokio::join!(stopping, talking) }).await.unwrap();
}
