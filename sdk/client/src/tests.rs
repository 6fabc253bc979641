//! The client against a router that says what each test wants, over real sockets.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};

use super::*;

struct Router(TcpListener);

struct Accepted(WebSocketStream<TcpStream>);

impl Router {
    async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn uri(&self) -> String {
        format!("ws://{}", self.0.local_addr().unwrap())
    }

    async fn accept(&self) -> Accepted {
        let (stream, _) = self.0.accept().await.unwrap();
        Accepted(accept_async(stream).await.unwrap())
    }
}

impl Accepted {
    async fn next(&mut self) -> Value {
        use futures_util::StreamExt;
        loop {
            if let Message::Text(text) = self.0.next().await.unwrap().unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    async fn say(&mut self, message: Value) {
        use futures_util::SinkExt;
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }
}

fn definition() -> Definition {
    Definition::new("carchase-service").port(9877).requires(["explosion-service"])
}

fn quick() -> Options {
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(20));
    Options { backoff, ..Options::default() }
}

fn expected() -> Value {
    json!({"name": "carchase-service", "port": 9877, "requires": ["explosion-service"]})
}

#[tokio::test]
async fn it_says_who_it_is_and_comes_back_with_what_it_saw_last() {
    let router = Router::start().await;
    let (service, mut events) = connect([router.uri()], definition(), quick()).unwrap();
    let mut first = router.accept().await;
    assert_eq!(first.next().await, expected());
    first.say(json!({"type": "from-the-future"})).await;
    let explosion = json!({"name": "explosion-service", "port": 8003, "host": "10.9.8.10", "zone": "a"});
    first.say(json!({"type": "required-service", "payload": explosion, "revision": 7})).await;
    let Some(Event::Required(there)) = events.next().await else { panic!("not required") };
    assert_eq!((there.host.as_str(), there.port, &there.more["zone"]), ("10.9.8.10", 8003, &json!("a")));
    first.say(json!({"type": "required-service-lost", "payload": {"name": "explosion-service"}})).await;
    assert!(matches!(events.next().await, Some(Event::Lost(gone)) if gone.name == "explosion-service"));
    drop(first);
    service.require("killer-robot").await;
    let mut second = router.accept().await;
    let mut said = second.next().await;
    assert_eq!(said["since"], 7, "{said}");
    if said["requires"] == json!(["explosion-service"]) {
        said = second.next().await;
    }
    assert_eq!(said["requires"], json!(["explosion-service", "killer-robot"]));
    service.release("explosion-service").await;
    assert_eq!(second.next().await["requires"], json!(["killer-robot"]));
}

#[tokio::test]
async fn it_keeps_the_highest_revision_and_says_of_what_it_knows_nothing() {
    let router = Router::start().await;
    let (service, mut events) = connect([router.uri()], definition(), quick()).unwrap();
    let mut first = router.accept().await;
    first.next().await;
    let explosion = json!({"name": "explosion-service", "port": 8003, "host": "10.9.8.10", "revision": 9});
    first.say(json!({"type": "required-service", "payload": explosion})).await;
    first.say(json!({"type": "error", "payload": {"code": "invalid"}, "revision": 7})).await;
    events.next().await;
    events.next().await;
    service.require("killer-robot").await;
    first.next().await;
    drop(first);
    let mut second = router.accept().await;
    let said = second.next().await;
    assert_eq!((&said["since"], &said["anew"]), (&json!(9), &json!(["killer-robot"])));
    let lost = json!({"name": "killer-robot", "revision": 8});
    second.say(json!({"type": "required-service-lost", "payload": lost})).await;
    events.next().await;
    drop(second);
    let said = router.accept().await.next().await;
    assert_eq!((&said["since"], &said["anew"]), (&json!(9), &Value::Null));
}

#[tokio::test]
async fn it_registers_again_when_nobody_meant_it_to_go() {
    let router = Router::start().await;
    let (service, mut events) = connect([router.uri()], definition(), quick()).unwrap();
    let mut accepted = router.accept().await;
    accepted.next().await;
    let gone = |cause: Value| json!({"type": "error", "payload": {"code": "deregistered", "cause": cause}});
    for _ in 0..3 {
        accepted.say(gone(Value::Null)).await;
        assert!(matches!(events.next().await, Some(Event::Refused(refused)) if refused.cause.is_none()));
        assert_eq!(accepted.next().await, expected());
    }
    // What was meant stays so: the next that is heard is what this test makes it say.
    for cause in ["removed", "replaced"] {
        accepted.say(gone(json!(cause))).await;
        assert!(
            matches!(events.next().await, Some(Event::Refused(refused)) if refused.cause.as_deref() == Some(cause))
        );
    }
    tokio::time::sleep(Duration::from_millis(60)).await;
    service.define(definition().version("2")).await;
    assert_eq!(accepted.next().await["version"], "2");
    let drained = tokio::spawn(async move { service.drain().await });
    assert_eq!(accepted.next().await, json!({"type": "drain"}));
    accepted.say(gone(Value::Null)).await;
    assert_eq!(accepted.next().await, json!({"type": "drain"}), "one that leaves does not come back");
    accepted.say(json!({"type": "error", "payload": {"code": "undefined"}})).await;
    drained.await.unwrap();
}

#[tokio::test]
async fn it_goes_to_the_next_router() {
    let gone = Router::start().await.uri();
    let there = Router::start().await;
    let (_service, _events) = connect([gone, there.uri()], definition(), quick()).unwrap();
    assert_eq!(there.accept().await.next().await, expected());
}

#[tokio::test]
async fn it_drains_over_a_lost_connection_too() {
    let router = Router::start().await;
    let (service, _events) = connect([router.uri()], definition(), quick()).unwrap();
    let mut first = router.accept().await;
    first.next().await;
    let drained = tokio::spawn(async move { service.drain().await });
    assert_eq!(first.next().await, json!({"type": "drain"}));
    drop(first);
    let mut second = router.accept().await;
    second.next().await;
    assert_eq!(second.next().await, json!({"type": "drain"}));
    second.say(json!({"type": "drained"})).await;
    drained.await.unwrap();
}

#[tokio::test]
async fn it_is_drained_where_nothing_is_registered() {
    let router = Router::start().await;
    let (service, _events) = connect([router.uri()], definition(), quick()).unwrap();
    let mut accepted = router.accept().await;
    accepted.next().await;
    let drained = tokio::spawn(async move { service.drain().await });
    accepted.next().await;
    let problem = json!({"code": "undefined", "reason": "there is no server to drain"});
    accepted.say(json!({"type": "error", "payload": problem})).await;
    drained.await.unwrap();
}

#[tokio::test]
async fn a_silent_router_is_given_up() {
    let router = Router::start().await;
    let options = Options { silence: Duration::from_millis(50), ..quick() };
    let (_service, _events) = connect([router.uri()], definition(), options).unwrap();
    // It never reads, so that it never answers a ping.
    let _silent = router.accept().await;
    assert_eq!(router.accept().await.next().await, expected());
}

#[tokio::test]
async fn dropping_it_ends_the_connection() {
    let router = Router::start().await;
    let (service, events) = connect([router.uri()], definition(), quick()).unwrap();
    let mut accepted = router.accept().await;
    accepted.next().await;
    drop((service, events));
    use futures_util::StreamExt;
    while let Some(Ok(_)) = accepted.0.next().await {}
    assert!(connect(["router"], definition(), quick()).is_err());
}
