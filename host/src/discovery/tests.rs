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
    far.change(&[put("router", "three", r#"{"uri":"","incarnation":"three-1"}"#)]);
    let record = json!({ "uri": "http://h:2",
        "lease": { "router": "three", "incarnation": "three-1", "connection": 9 } });
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

/// How a router comes to know of what happened while others took it for dead.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    /// It is not cut off at all, and sees each change by itself.
    OneByOne,
    /// All of it when it is back.
    Together,
    /// When it is back nobody remembers what happened, only what there is.
    Anew,
}

/// In whatever order its own record goes and comes back and others remove what it held: whoever is connected
/// is there, and hears nothing of it.
#[tokio::test(start_paused = true)]
async fn whatever_order_it_learns_of_its_death_in_it_writes_again_what_it_holds() {
    const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for order in ORDERS {
        for seen in [Seen::OneByOne, Seen::Together, Seen::Anew] {
            // Of four connected servers one goes, or all, which is a mass loss; with a mark nobody doubts it.
            for (gone, marked) in [(1, false), (4, false), (4, true)] {
                taken_for_dead(order, seen, gone, marked).await;
            }
        }
    }
}

async fn taken_for_dead(order: [usize; 3], seen: Seen, gone: usize, marked: bool) {
    let what = format!("{order:?}, {seen:?}, {gone} gone, marked: {marked}");
    let far = TestTable::new();
    let router = Router::start(&far, "one").await;
    let mut chats = Vec::new();
    for port in 1..=4 {
        chats.push(router.connect(json!({ "name": "chat", "port": port })).await);
    }
    let keys: Vec<String> = (1..=gone).map(|port| format!("chat/10.0.0.9:{port}")).collect();
    let mut deletions: Vec<_> = keys.iter().map(|key| delete("server", key)).collect();
    let named: Vec<_> = keys.iter().map(|key| format!("server/{key}")).collect();
    let mark = json!({ "at": 1, "deleted": named }).to_string();
    deletions.extend(marked.then(|| put("explicit", "two", &mark)));
    let back = put("router", "one", r#"{"uri":"","incarnation":"one-1"}"#);
    let happens = [vec![delete("router", "one")], deletions, vec![back]];
    far.down.store(seen != Seen::OneByOne, std::sync::atomic::Ordering::SeqCst);
    pass(MOMENT).await;
    for event in order {
        far.change(&happens[event]);
        if seen == Seen::OneByOne {
            pass(MOMENT / 3).await;
        }
    }
    if seen == Seen::Anew {
        far.compact();
    }
    far.down.store(false, std::sync::atomic::Ordering::SeqCst);
    for _ in 0..6 {
        for chat in &mut chats {
            let heard = chat.stays(GRACE / 20).await;
            assert_eq!(heard, [""; 0], "{what}");
        }
    }
    let all = "10.0.0.9:1 10.0.0.9:2 10.0.0.9:3 10.0.0.9:4";
    assert_eq!(
        (router.servers("chat").as_str(), router.discovery.table.view().routers().len()),
        (all, 1),
        "{what}"
    );
    assert!(keys.iter().all(|key| far.has("server", key)), "{what}");
}

/// What somebody removes stays removed, and the connection is told, in whatever way its router learns of it.
#[tokio::test(start_paused = true)]
async fn what_somebody_removes_stays_removed() {
    for seen in [Seen::OneByOne, Seen::Together, Seen::Anew] {
        for mentioned in ["both", "deletion first", "record alone"] {
            let far = TestTable::new();
            let router = Router::start(&far, "one").await;
            let mut chat = router.connect(json!({ "name": "chat", "port": 1 })).await;
            let view = router.view();
            let removal = crate::table::removal::meant(&view, vec![delete("server", "chat/10.0.0.9:1")]);
            assert_eq!(removal.len(), 2);
            far.down.store(seen != Seen::OneByOne, std::sync::atomic::Ordering::SeqCst);
            pass(MOMENT).await;
            match mentioned {
                "both" => drop(far.change(&removal)),
                "deletion first" => drop(far.change(&[removal[1].clone(), removal[0].clone()])),
                _ => drop(far.change(&removal[..1])),
            }
            if seen == Seen::Anew {
                far.change(&[delete("router", "one")]);
                far.compact();
            }
            far.down.store(false, std::sync::atomic::Ordering::SeqCst);
            let heard = chat.stays(GRACE).await;
            assert_eq!(heard, ["error"], "{seen:?}, {mentioned}");
            assert_eq!(router.servers("chat"), "", "{seen:?}, {mentioned}");
            assert!(
                !far.has("removed", "chat/10.0.0.9:1"),
                "{seen:?}, {mentioned}: it has served its purpose"
            );
            // Until it says again who it is.
            chat.say(json!({ "name": "chat", "port": 1 })).await;
            assert_eq!(chat.stays(GRACE).await, [""; 0]);
            assert_eq!(router.servers("chat"), "10.0.0.9:1", "{seen:?}, {mentioned}");
        }
    }
}

/// A removal that was meant for a router that is gone is remembered for an hour, and no longer.
#[tokio::test(start_paused = true)]
async fn a_removal_record_of_a_router_that_does_not_come_back_goes() {
    let far = TestTable::new();
    let _router = Router::start(&far, "one").await;
    far.change(&[put("removed", "chat/a", r#"{"router":"dead","incarnation":"dead-1","connection":1}"#)]);
    pass(Duration::from_secs(3000)).await;
    assert!(far.has("removed", "chat/a"));
    pass(Duration::from_secs(700)).await;
    assert!(!far.has("removed", "chat/a"));
}

/// A write that was given up and was carried out all the same leaves nothing behind.
#[tokio::test(start_paused = true)]
async fn what_no_connection_holds_does_not_stay() {
    let far = TestTable::new();
    let router = Router::start(&far, "one").await;
    let late = json!({ "uri": "http://h:2", "lease": { "router": "one", "incarnation": "one-1", "connection": 77 } });
    far.change(&[put("server", "chat/h:2", &late.to_string())]);
    pass(2 * MOMENT).await;
    assert_eq!(router.servers("chat"), "");
    // Nor does it take the place of a later connection.
    let mut chat = router.connect(json!({ "name": "chat", "port": 1 })).await;
    far.change(&[put("server", "chat/10.0.0.9:1", &late.to_string())]);
    assert_eq!(chat.stays(2 * GRACE).await, [""; 0]);
    let view = router.view();
    let server = view.service(&"chat".parse().unwrap()).unwrap().server("10.0.0.9:1").unwrap().clone();
    assert_eq!(server.record.uri.as_str(), "http://10.0.0.9:1");
}

/// Another process has this router's id: it goes by another, and nothing that is connected to it is lost.
#[tokio::test(start_paused = true)]
async fn a_router_whose_id_is_taken_goes_by_another() {
    let far = TestTable::new();
    let router = Router::start(&far, "one").await;
    let mut chat = router.connect(json!({ "name": "chat", "port": 1 })).await;
    far.change(&[put("router", "one", r#"{"uri":"http://clone","incarnation":"clone-1"}"#)]);
    assert_eq!(chat.stays(2 * GRACE).await, [""; 0]);
    let view = router.view();
    let ids: Vec<_> = view.routers().keys().map(|id| &**id).collect();
    assert_eq!((ids, router.servers("chat").as_str()), (vec!["one", "one-one-1"], "10.0.0.9:1"));
    assert_eq!(view.routers()["one-one-1"].instead_of.as_deref(), Some("one"));
    let conditions = router.discovery.table.tasks().conditions().clone();
    let raised = conditions.raised();
    assert!(raised[0].detail.contains("in use by the router at http://clone"), "{raised:?}");
    // What comes now has the new id, and what ends, ends.
    let more = router.connect(json!({ "name": "chat", "port": 2 })).await;
    assert_eq!(router.servers("chat"), "10.0.0.9:1 10.0.0.9:2");
    drop((chat, more));
    pass(GRACE + 2 * MOMENT).await;
    assert_eq!(router.servers("chat"), "");
    far.change(&[delete("router", "one")]);
    pass(MOMENT).await;
    assert_eq!(conditions.raised(), [], "the other is gone");
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
