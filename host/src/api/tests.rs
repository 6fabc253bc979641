//! Over a real socket, with the memory adapter as it is embedded.

mod pages;
mod rights;

use std::{net::SocketAddr, time::Duration};

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::*;
use crate::{
    config::{ApiConfig, Config, Overrides},
    drain::{Trigger, drain},
    plugin::{self, table::TablePlugin},
    resolve::{Explanation, Question, Step, TraceLine},
    table,
};

struct Always;

impl Routing for Always {
    fn follows(&self, _: crate::table::adapter::Revision) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn explain(&self, question: Question) -> BoxFuture<'_, Option<Explanation>> {
        let known = question.service.name() == "chat";
        let explanation = Explanation {
            service: question.service,
            client: question.client,
            server: Some("http://127.0.0.1:9001".into()),
            server_id: Some("127.0.0.1:9001".into()),
            step: Some(Step::List),
            status: None,
            reason: None,
            trace: vec![TraceLine { step: Step::List, outcome: "chosen".into() }],
        };
        std::future::ready(known.then_some(explanation)).boxed()
    }

    fn standing(&self, _: &ServiceId, _: &str) -> Standing {
        Standing::default()
    }
}

struct Api {
    address: SocketAddr,
    state: State,
    configs: channel::Sender<Arc<Config>>,
    _trigger: Trigger,
    _dir: tempfile::TempDir,
}

async fn start(config: &str) -> Api {
    let config = Config::parse(config, "a.toml".as_ref(), &Overrides::default())
        .unwrap_or_else(|error| panic!("{error}"));
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::new();
    let options = plugin::Options {
        directory: dir.path().join("plugins"),
        data: dir.path().to_owned(),
        hold: None,
        interval: Duration::from_secs(60),
        settings: std::collections::BTreeMap::new(),
        runtime: tokio::runtime::Handle::current(),
        tasks: crate::supervise::Supervisor::default(),
    };
    let counted = registry.clone();
    let plugins = tokio::task::spawn_blocking(move || Plugins::start(options, &counted).unwrap());
    let plugins = Arc::new(plugins.await.unwrap());
    let mut options = table::Options::new("router-1", "memory");
    options.overlay = config.services.clone();
    let table = Table::start(Arc::new(TablePlugin::new(plugins.clone(), "memory")), options).await;
    let (trigger, holder) = drain();
    let metrics = crate::discovery::Metrics::new(&registry).unwrap();
    let discovery = Discovery::start(Arc::clone(&table), crate::discovery::Options::default(), metrics, None);
    let (watchers, api) = (config.api.limits.watchers, config.api.clone());
    let (configs, receiver) = channel::channel(Arc::new(config));
    let state = State {
        watchers: Arc::new(Semaphore::new(watchers)),
        config: receiver,
        table,
        discovery,
        plugins,
        routing: Arc::new(Always),
        registry,
        leaving: holder.clone(),
        drain: holder,
    };
    let listener =
        Listener::bind(&ApiConfig { listen: "127.0.0.1:0".parse().unwrap(), ..api }, 64, None).await.unwrap();
    let address = listener.address().unwrap();
    tokio::spawn(serve(Arc::new(listener), state.clone()));
    Api { address, state, configs, _trigger: trigger, _dir: dir }
}

struct Answer {
    status: u16,
    head: String,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// A problem document of this status; returns its detail.
    #[track_caller]
    fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        assert_eq!(self.json()["status"], status);
        self.json()["detail"].as_str().unwrap().to_owned()
    }
}

impl Api {
    async fn raw(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_ascii_lowercase(), text: text.to_owned() }
    }

    async fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let (host, length) = (self.address, body.len());
        let close = "Connection: close";
        self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{close}\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        ))
        .await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", "").await
    }

    async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, "Content-Type: application/json\r\n", &body.to_string()).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, "", "").await
    }
}

#[tokio::test]
async fn services_are_written_read_and_removed() {
    let api = start("").await;
    assert_eq!(api.get("/v1/services").await.json(), json!([]));
    let spec = json!({"servers": ["http://127.0.0.1:9001", {"uri": "http://127.0.0.1:9002", "weight": 3}]});
    let created = api.put("/v1/services/chat", &spec).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let expected = json!({
        "service": "chat", "name": "chat", "source": "table", "sticky": {"ttl": "30m"}, "filters": [],
        "servers": [
            {"id": "127.0.0.1:9001", "uri": "http://127.0.0.1:9001", "weight": 1, "metadata": {}, "health": "healthy", "source": "table"},
            {"id": "127.0.0.1:9002", "uri": "http://127.0.0.1:9002", "weight": 3, "metadata": {}, "health": "healthy", "source": "table"},
        ],
    });
    assert_eq!(created.json(), expected);
    assert_eq!(api.get("/v1/services/chat").await.json(), expected);
    assert_eq!(api.put("/v1/services/chat", &expected).await.status, 200);
    let replaced =
        api.put("/v1/services/chat", &json!({"server": "http://127.0.0.1:9003", "sticky": false})).await;
    assert_eq!((replaced.status, &replaced.json()["servers"]), (200, &json!([])));
    assert_eq!(api.get("/v1/services").await.json().as_array().unwrap().len(), 1);
    assert_eq!(api.delete("/v1/services/chat").await.status, 204);
    api.delete("/v1/services/chat").await.problem(404);
    api.get("/v1/services/chat").await.problem(404);
}

#[tokio::test]
async fn servers_come_and_go_one_by_one() {
    let api = start("").await;
    let put = api.put("/v1/services/chat@2/servers/one", &json!({"uri": "http://127.0.0.1:9001"})).await;
    assert_eq!((put.status, &put.json()["id"]), (201, &json!("one")));
    assert_eq!(api.put("/v1/services/chat@2/servers/one", &json!("http://127.0.0.1:9009")).await.status, 200);
    assert_eq!(api.get("/v1/services/chat%402").await.json()["servers"][0]["uri"], "http://127.0.0.1:9009");
    assert!(api.get("/v1/services/chat").await.problem(404).contains("there is chat@2"));
    api.put("/v1/services/chat@2/servers/one", &json!({"id": "two", "uri": "http://a:1"})).await.problem(422);
    assert_eq!(api.delete("/v1/services/chat@2/servers/one").await.status, 204);
    api.delete("/v1/services/chat@2/servers/one").await.problem(404);
}

#[tokio::test]
async fn wrong_documents_get_every_mistake() {
    let api = start("").await;
    let path = "/v1/services/chat";
    let wrong =
        api.put(path, &json!({"sever": 1, "sticky": {"ttl": "0s"}, "servers": [{"uri": "ftp://a"}]})).await;
    wrong.problem(422);
    let fields: Vec<Value> =
        wrong.json()["errors"].as_array().unwrap().iter().map(|e| e["field"].clone()).collect();
    assert_eq!(fields, ["servers[0].uri", "sever", "sticky.ttl"]);
    let warned = api.put(path, &json!({"registrar": "geo", "filters": ["memory"]})).await;
    assert_eq!(warned.status, 201);
    let warnings = warned.json()["warnings"].to_string();
    assert!(warnings.contains("registrar `geo` is not loaded"), "{warnings}");
    assert!(warnings.contains("plugin `memory` is no filter"), "{warnings}");
    let json = "Content-Type: application/json\r\n";
    api.send("PUT", path, json, "{").await.problem(400);
    api.send("PUT", path, "", "[]").await.problem(422);
    api.send("PUT", path, "Content-Type: application/x-www-form-urlencoded\r\n", "[]").await.problem(422);
    api.send("PUT", path, "Content-Type: text/plain\r\n", "{}").await.problem(415);
    api.send("PUT", path, json, &format!("\"{}\"", "a".repeat(2 << 20))).await.problem(413);
    api.send("POST", path, json, "{}").await.problem(405);
    api.put("/v1/services/a%20b", &json!({})).await.problem(400);
    api.get("/v1/services/%ff").await.problem(400);
    api.get("/v1/nothing").await.problem(404);
    api.get("/v1/watch?after=x").await.problem(400);
}

#[tokio::test]
async fn what_the_configuration_defines_is_shown_and_kept() {
    let api = start("[service.chat]\nservers = ['http://127.0.0.1:9001']").await;
    let shown = api.get("/v1/services/chat").await.json();
    assert_eq!((&shown["source"], &shown["servers"][0]["source"]), (&json!("config"), &json!("config")));
    assert!(api.put("/v1/services/chat", &json!({})).await.problem(409).contains("[service.chat]"));
    api.delete("/v1/services/chat").await.problem(409);
    api.put("/v1/services/chat/servers/a", &json!("http://a:1")).await.problem(409);
    api.delete("/v1/services/chat/servers/127.0.0.1:9001").await.problem(409);
}

#[tokio::test]
async fn clients_are_pinned_and_forgotten() {
    let api = start("[service.chat]\nservers = ['http://127.0.0.1:9001']").await;
    let path = "/v1/clients/ann%2Flee/assignments/chat";
    let pinned = api.put(path, &json!({"server": "http://127.0.0.1:9001"})).await;
    assert_eq!(pinned.status, 200, "{}", pinned.text);
    let client = api.get("/v1/clients/ann%2Flee").await.json();
    assert_eq!(
        client,
        json!({"client": "ann/lee", "router": "router-1", "assignments": {
            "chat": {"server": "127.0.0.1:9001", "expires": null, "pinned": true, "router": "router-1"}
        }})
    );
    assert!(
        api.put(path, &json!({"server": "nowhere"}))
            .await
            .problem(422)
            .contains("its servers: 127.0.0.1:9001")
    );
    api.put(path, &json!({"sever": "x"})).await.problem(422);
    api.put("/v1/clients/ann/assignments/mail", &json!({"server": "x"})).await.problem(404);
    assert_eq!(api.delete(path).await.status, 204);
    assert_eq!(api.get("/v1/clients/ann%2Flee").await.json()["assignments"], json!({}));
}

#[tokio::test]
async fn health_metrics_plugins_and_explanations() {
    let api = start("").await;
    assert_eq!(api.get("/live").await.json(), json!({"status": "live"}));
    let ready = api.get("/ready").await.json();
    assert_eq!((&ready["status"], &ready["table"]["state"]), (&json!("ready"), &json!("current")));
    let metrics = api.get("/metrics").await.text;
    for line in ["message_flow_plugin_refusals_total 0", "message_flow_plugin_rollbacks_total 0"] {
        assert!(metrics.lines().any(|found| found == line), "{line}");
    }
    let plugins = api.get("/v1/plugins").await.json();
    let memory = plugins.as_array().unwrap().iter().find(|plugin| plugin["name"] == "memory").unwrap();
    assert_eq!((&memory["state"], &memory["kinds"]), (&json!("active"), &json!(["routing-table"])));
    let explained = api.get("/v1/explain?service=chat&client=ann").await.json();
    assert_eq!((&explained["step"], &explained["server"]), (&json!("list"), &json!("http://127.0.0.1:9001")));
    api.get("/v1/explain?service=mail&client=ann").await.problem(404);
    api.get("/v1/explain?service=mail").await.problem(400);
    assert_eq!(api.get("/v1/routers").await.status, 200);
    api.put("/v1/services/chat@2", &json!({})).await;
    assert_eq!(
        api.get("/v1/services/chat/releases").await.json(),
        json!({"name": "chat", "versions": ["2"], "weights": null, "number": 0, "history": []})
    );
}

#[tokio::test]
async fn the_document_names_every_path() {
    let api = start("").await;
    let document = api.get("/v1/openapi.json").await.json();
    for path in
        ["/v1/services", "/v1/services/{service}", "/v1/clients/{id}", "/v1/explain", "/v1/watch", "/ready"]
    {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    let missing = &document["paths"]["/v1/services/{service}"]["get"]["responses"]["404"]["content"];
    assert!(missing["application/problem+json"].is_object(), "{missing}");
    let references = document.to_string();
    for part in references.split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name} is referred to and missing");
    }
}

const READER: &str = "[[access]]\nlabel = 'reader'\ntoken_sha256 = '3d0941964aa3ebdcb00ccef58b1bb399f9f898465e9886d5aec7f31090a0fb30'\nactions = ['read']\nnames = ['chat']\n";

#[tokio::test]
async fn tokens_decide_who_may_do_what() {
    assert_eq!(
        crate::auth::TokenHash::of("reader").to_string(),
        "3d0941964aa3ebdcb00ccef58b1bb399f9f898465e9886d5aec7f31090a0fb30"
    );
    let services = "[service.chat]\nserver = 'http://a:1'\n[service.mail]\nserver = 'http://a:1'\n";
    let api = start(&format!("{READER}{services}")).await;
    let with = "Authorization: Bearer reader\r\nContent-Type: application/json\r\n";
    let refused = api.get("/v1/services").await;
    refused.problem(401);
    assert!(refused.head.contains("www-authenticate: bearer"), "{}", refused.head);
    api.send("GET", "/v1/services", "Authorization: Bearer other\r\n", "").await.problem(401);
    let listed = api.send("GET", "/v1/services", with, "").await.json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(api.send("GET", "/v1/services/chat", with, "").await.status, 200);
    api.send("GET", "/v1/services/mail", with, "").await.problem(403);
    api.send("PUT", "/v1/services/chat", with, "{}").await.problem(403);
    for path in ["/live", "/ready", "/v1/openapi.json"] {
        assert_eq!(api.get(path).await.status, 200, "{path}");
    }
    api.get("/metrics").await.problem(401);
    let document = api.get("/v1/openapi.json").await.json();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys().filter(|_| path.starts_with("/v1/")) {
            let path = path.replace("{service}", "mail").replace("{id}", "x");
            let method = method.to_ascii_uppercase();
            api.send(&method, &path, "Content-Type: application/json\r\n", "{}").await.problem(401);
            if method != "GET" {
                api.send(&method, &path, with, "{}").await.problem(403);
            }
        }
    }
}

#[tokio::test]
async fn pages_of_other_names_are_kept_out() {
    let api = start("").await;
    let ask = |host: &str| format!("GET /v1/services HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    api.raw(&ask("evil.example")).await.problem(403);
    assert_eq!(api.raw(&ask("localhost:1")).await.status, 200);
    let api = start("api.open = true").await;
    assert_eq!(api.raw(&ask("flow.example")).await.status, 200);
}

struct Stream(BufReader<TcpStream>);

impl Stream {
    async fn open(api: &Api, path: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(api.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Self(BufReader::new(stream));
        stream.until(": watching").await;
        stream
    }

    /// Waits for its end, whatever still comes: the last chunk has no bytes.
    async fn ended(&mut self) {
        self.until("0").await;
    }

    /// The lines up to the first that starts so, without those of the chunks.
    async fn until(&mut self, start: &str) -> Vec<String> {
        use tokio::io::AsyncBufReadExt;
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let read = tokio::time::timeout(Duration::from_secs(10), self.0.read_line(&mut line));
            assert_ne!(
                read.await.unwrap_or_else(|_| panic!("no {start} in {lines:?}")).unwrap(),
                0,
                "{lines:?}"
            );
            lines.push(line.trim_end().to_owned());
            if line.starts_with(start) {
                return lines;
            }
        }
    }
}

#[tokio::test]
async fn a_watch_goes_on_where_it_ended() {
    let api = start("api.limits.watchers = 1").await;
    let mut stream = Stream::open(&api, "/v1/watch", "").await;
    api.get("/v1/watch").await.problem(429);
    api.put("/v1/services/chat", &json!({"servers": ["http://127.0.0.1:9001"]})).await;
    let before = stream.until("id: ").await;
    let lines = [before, stream.until("id: ").await].concat();
    let events: Vec<Value> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert_eq!(events[0]["kind"], "service");
    assert_eq!((&events[1]["op"], &events[1]["key"]), (&json!("put"), &json!("chat/127.0.0.1:9001")));
    let id: u64 = lines.last().unwrap()["id: ".len()..].parse().unwrap();
    assert_eq!(id, api.state.table.view().revision);
    drop(stream);
    api.delete("/v1/services/chat").await;
    while api.state.watchers.available_permits() == 0 {
        tokio::task::yield_now().await;
    }
    let mut stream = Stream::open(&api, "/v1/watch", &format!("Last-Event-ID: {id}\r\n")).await;
    let lines = stream.until("id: ").await;
    assert!(lines.iter().any(|line| line.contains("\"op\":\"delete\"")), "{lines:?}");
}

#[tokio::test]
async fn a_watch_from_nowhere_gets_everything_anew() {
    let api = start("").await;
    api.put("/v1/services/chat", &json!({"servers": ["http://127.0.0.1:9001"]})).await;
    let mut stream = Stream::open(&api, "/v1/watch?after=999999999", "").await;
    let lines = stream.until(&format!("id: {}", api.state.table.view().revision)).await;
    assert!(lines.contains(&"event: resync".to_owned()), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("chat/127.0.0.1:9001")), "{lines:?}");
}

#[tokio::test]
async fn slow_heads_are_cut_off() {
    let api = start("api.timeouts.head = '100ms'").await;
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    stream.write_all(b"GET /live HTTP/1.1\r\nHost: loc").await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the connection was not closed");
}
