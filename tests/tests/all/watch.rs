//! `GET /v1/watch`: every change of the table, resumable by revision.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use message_flow_tests::{Gateway, wait::PATIENCE, within};
use serde_json::{Value, json};

/// A stream of server-sent events.
struct Events {
    body: Incoming,
    text: String,
    /// The latest id: events without one of their own have it too.
    id: u64,
}

#[derive(Debug)]
struct Event {
    id: u64,
    data: Value,
}

impl Events {
    async fn open(gateway: &Gateway, after: Option<u64>) -> Self {
        let mut call = gateway.ask("GET", "/v1/watch").header("accept", "text/event-stream");
        if let Some(after) = after {
            call = call.header("last-event-id", after.to_string());
        }
        let response = call.open().await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), text: String::new(), id: 0 }
    }

    async fn next(&mut self) -> Event {
        within(PATIENCE, "an event", async {
            loop {
                if let Some(at) = self.text.find("\n\n") {
                    let rest = self.text.split_off(at + 2);
                    let text = std::mem::replace(&mut self.text, rest);
                    if let Some(event) = self.parse(&text) {
                        return event;
                    }
                    continue;
                }
                let frame = self.body.frame().await.expect("the stream goes on").expect("unbroken");
                let bytes = frame.into_data().expect("data");
                self.text.push_str(std::str::from_utf8(&bytes).expect("UTF-8"));
            }
        })
        .await
    }

    /// None for a comment.
    fn parse(&mut self, text: &str) -> Option<Event> {
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim_start))
        };
        if let Some(id) = field("id") {
            self.id = id.parse().expect("a revision");
        }
        let data = serde_json::from_str(field("data")?).expect("JSON");
        Some(Event { id: self.id, data })
    }

    /// The next event about this key.
    async fn about(&mut self, kind: &str, key: &str) -> Event {
        loop {
            let event = self.next().await;
            if event.data["kind"] == kind && event.data["key"] == key {
                return event;
            }
        }
    }
}

#[tokio::test]
async fn changes_are_told_and_can_be_resumed() {
    let gateway = Gateway::start().await;
    let mut events = Events::open(&gateway, None).await;
    gateway.put("one", json!({ "servers": ["http://127.0.0.1:9001"] })).await;

    let put = events.about("service", "one").await;
    assert_eq!(put.data["op"], "put");
    assert!(put.data["value"].is_object(), "{put:?}");
    let server = events.about("server", "one/127.0.0.1:9001").await;
    assert_eq!(server.data["value"]["uri"], "http://127.0.0.1:9001");
    drop(events);

    gateway.put("two", json!({ "server": "http://127.0.0.1:9002" })).await;
    gateway.ask("DELETE", "/v1/services/one").send().await;

    let mut resumed = Events::open(&gateway, Some(server.id)).await;
    let two = resumed.about("service", "two").await;
    assert!(two.id > server.id);
    let gone = resumed.about("service", "one").await;
    assert_eq!(gone.data["op"], "delete");
    assert!(gone.id > two.id);
}

#[tokio::test]
async fn a_foreign_revision_is_not_passed_over_in_silence() {
    let gateway = Gateway::start().await;
    gateway.put("one", json!({ "server": "http://127.0.0.1:9001" })).await;
    for revision in ["999999999", "nonsense"] {
        let call = gateway.ask("GET", "/v1/watch").header("last-event-id", revision);
        let response = call.open().await.expect("an answer");
        if response.status() == 200 {
            // Everything anew is as good as a refusal.
            let mut events = Events { body: response.into_body(), text: String::new(), id: 0 };
            events.about("service", "one").await;
        } else {
            assert!([400, 410].contains(&response.status().as_u16()), "{response:?}");
        }
    }
}
