//! The HTTP registrar against a real HTTP server: also what a plugin's requests may reach.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use message_flow_tests::{Gateway, Upstream};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

/// A server that is asked: counts, keeps the last question, and answers as it is told.
struct Registrar {
    port: u16,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    asked: AtomicUsize,
    question: Mutex<Value>,
    answer: Mutex<(u16, String)>,
    delay: Mutex<Duration>,
}

impl Registrar {
    async fn start(answer: &Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        let registrar = Self { port, shared, tasks };
        registrar.will_answer(200, &answer.to_string());
        registrar
    }

    fn will_answer(&self, status: u16, body: &str) {
        *self.shared.answer.lock().unwrap() = (status, body.to_owned());
    }

    fn will_take(&self, delay: Duration) {
        *self.shared.delay.lock().unwrap() = delay;
    }

    fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::Relaxed)
    }

    fn question(&self) -> Value {
        self.shared.question.lock().unwrap().clone()
    }

    fn stop(&mut self) {
        self.tasks.abort_all();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
        connections.spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    *shared.question.lock().unwrap() = serde_json::from_slice(&body).unwrap_or(Value::Null);
    shared.asked.fetch_add(1, Ordering::Relaxed);
    let delay = *shared.delay.lock().unwrap();
    tokio::time::sleep(delay).await;
    let (status, text) = shared.answer.lock().unwrap().clone();
    Ok(Response::builder().status(status).body(Full::from(text)).unwrap())
}

/// A gateway whose service `chat` asks the registrar for every message.
async fn gateway(registrar: &Registrar, upstream: &Upstream, more: &str) -> Gateway {
    let port = registrar.port;
    let config = format!(
        "[plugin.http]\nconfig = {{ uri = \"http://127.0.0.1:{port}/resolve?key=1\", headers = \"region\", {more} }}\n\
         grant = [\"http:127.0.0.1:{port}\"]\n"
    );
    let gateway = Gateway::setup().config(config).start().await;
    gateway.active("http").await;
    serve(&gateway, upstream).await;
    gateway
}

async fn serve(gateway: &Gateway, upstream: &Upstream) {
    let servers = json!([{ "uri": upstream.uri(), "id": "one", "metadata": { "region": "eu" } }]);
    gateway.put("chat", json!({ "servers": servers, "registrar": "http", "sticky": false })).await;
}

#[tokio::test]
async fn it_asks_and_remembers() {
    let upstream = Upstream::start("a").await;
    let registrar = Registrar::start(&json!({ "server": "one" })).await;
    let gateway = gateway(&registrar, &upstream, "ttl = \"1h\"").await;
    let call = |client: &str| {
        gateway.get("/chat/rooms").header("message-flow-client", client).header("region", "eu")
    };
    for _ in 0..3 {
        assert_eq!(call("ann").send().await.expect(200).text(), "a");
    }
    assert_eq!(registrar.asked(), 1, "the answer is remembered");
    let question = registrar.question();
    assert_eq!(
        (&question["client"], &question["service"], &question["method"]),
        (&json!("ann"), &json!("chat"), &json!("GET"))
    );
    assert_eq!(question["headers"], json!({ "region": "eu" }));
    assert_eq!(question["candidates"][0]["metadata"], json!({ "region": "eu" }));
    assert_eq!(question["candidates"][0]["uri"], upstream.uri());

    registrar.will_answer(200, r#"{"reject": {"status": 451, "reason": "not there"}}"#);
    let reply = call("bob").send().await.expect(451);
    assert!(reply.text().contains("not there"), "{}", reply.text());
    registrar.will_answer(200, r#"{"pass": true}"#);
    assert_eq!(call("cem").send().await.expect(200).text(), "a");
    assert_eq!(registrar.asked(), 3);
}

#[tokio::test]
async fn what_is_slow_wrong_or_down_is_named() {
    let upstream = Upstream::start("a").await;
    let mut registrar = Registrar::start(&json!({ "pass": true })).await;
    let gateway = gateway(&registrar, &upstream, "ttl = \"0s\", timeout = \"300ms\"").await;
    gateway.get("/chat/").send().await.expect(200);
    let fails = async |cause: &str| {
        gateway.get("/chat/").send().await.expect(503);
        let named = |entry: &Value| entry["last_error"].as_str().is_some_and(|error| error.contains(cause));
        let entry = gateway.plugin("http", named).await;
        let error = entry["last_error"].as_str().unwrap().to_owned();
        assert!(error.starts_with("plugin http: resolve: ") && !error.contains("key=1"), "{error}");
    };
    registrar.will_take(Duration::from_secs(30));
    fails("it did not answer within config.timeout").await;
    registrar.will_take(Duration::ZERO);
    for (status, body, cause) in [
        (500, "{}", "it answered with status 500"),
        (200, "what?", "it answered `what?`"),
        (200, r#"{"server": 7}"#, "it answered `{\\\"server\\\": 7}`"),
        (200, &"x".repeat(100_000), "its answer has more than 65536 bytes"),
    ] {
        registrar.will_answer(status, body);
        fails(cause).await;
    }
    registrar.stop();
    fails("the connection was refused").await;
}

#[tokio::test]
async fn an_old_answer_outlasts_the_server_if_so_configured() {
    let upstream = Upstream::start("a").await;
    let mut registrar = Registrar::start(&json!({ "server": "one" })).await;
    let gateway = gateway(&registrar, &upstream, "ttl = \"1ms\", stale = \"1h\"").await;
    gateway.get("/chat/").send().await.expect(200);
    registrar.stop();
    gateway.get("/chat/").send().await.expect(200);
}

#[tokio::test]
async fn what_is_not_granted_is_not_reached() {
    let upstream = Upstream::start("a").await;
    let registrar = Registrar::start(&json!({ "server": "one" })).await;
    let uri = format!("config = {{ uri = \"http://127.0.0.1:{}/\" }}\n", registrar.port);

    let gateway = Gateway::setup().config(format!("[plugin.http]\n{uri}")).start().await;
    let entry = gateway.plugin("http", |entry| entry["error"].is_string()).await;
    assert_eq!(entry["state"], "refused");
    let error = entry["error"].as_str().unwrap();
    assert!(
        error.contains("wasi:http/") && error.contains("`grant = [\"http:HOST\"]` under [plugin.http]"),
        "{error}"
    );

    for grant in ["http:other.internal", "http:127.0.0.1:1"] {
        let gateway =
            Gateway::setup().config(format!("[plugin.http]\n{uri}grant = [\"{grant}\"]\n")).start().await;
        gateway.active("http").await;
        serve(&gateway, &upstream).await;
        gateway.get("/chat/").send().await.expect(503);
        let named = |entry: &Value| {
            entry["last_error"].as_str().is_some_and(|error| error.contains("its host is not granted"))
        };
        gateway.plugin("http", named).await;
    }
    assert_eq!(registrar.asked(), 0);
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_the_key() {
    let config = "[plugin.http]\nconfig = { uri = \"registrar:80\" }\ngrant = [\"http:*\"]\n";
    let gateway = Gateway::setup().config(config).start().await;
    let entry = gateway.plugin("http", |entry| entry["error"].is_string()).await;
    assert!(entry["error"].as_str().unwrap().contains("config.uri: `registrar:80` is not a URI"), "{entry}");
}
