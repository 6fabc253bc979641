//! What web pages may do, and what requests of no particular shape are answered.

use super::*;

fn origin(origin: &str, more: &str) -> String {
    format!("Origin: {origin}\r\n{more}")
}

const JSON: &str = "Content-Type: application/json\r\n";

#[tokio::test]
async fn a_page_is_obeyed_if_all_of_its_origin_is_ours() {
    for config in ["", "api.open = true"] {
        let api = start(&format!("{config}\napi.origins = ['http://localhost:3000']")).await;
        let own = format!("http://{}", api.address);
        let port = api.address.port();
        let put = async |from: &str| api.send("PUT", "/v1/services/chat", &origin(from, JSON), "{}").await;
        assert_eq!(put(&own).await.status, 201, "{config}");
        assert_eq!(put("http://localhost:3000").await.status, 200, "one that the configuration names");
        for foreign in [
            format!("https://127.0.0.1:{port}"),
            format!("http://localhost:{port}"),
            "http://127.0.0.1:8080".to_owned(),
            "http://127.0.0.1".to_owned(),
            "https://localhost:3000".to_owned(),
            "http://localhost:3001".to_owned(),
            "https://evil.example".to_owned(),
            "null".to_owned(),
            String::new(),
        ] {
            assert!(put(&foreign).await.problem(403).contains("another origin"), "{foreign}");
            let connect = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
            for path in ["/v1/connect", "/", "/primus"] {
                api.send("GET", path, &origin(&foreign, connect), "").await.problem(403);
            }
            let read = api.send("GET", "/v1/services", &origin(&foreign, ""), "").await;
            assert_eq!(read.status, 200, "the browser keeps it from the page");
            assert!(!read.head.contains("access-control"), "{}", read.head);
        }
    }
}

#[tokio::test]
async fn a_page_writes_what_its_browser_asks_about() {
    let api = start("").await;
    let own = format!("http://{}", api.address);
    api.put("/v1/services/chat@1", &json!({})).await;
    let path = "/v1/services/chat/promote";
    for simple in [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: multipart/form-data; boundary=x\r\n",
        "Content-Type: Text/Plain; charset=utf-8\r\n",
    ] {
        for method in ["POST", "PUT"] {
            let path = if method == "POST" { path } else { "/v1/services/mail" };
            api.send(method, path, &origin(&own, simple), r#"{"version":"1"}"#).await.problem(415);
        }
        // These need no body, and a form can be empty.
        for path in
            ["/v1/services/chat/rollback", "/v1/plugins/memory/promote", "/v1/services/a/servers/b/drain"]
        {
            api.send("POST", path, &origin(&own, simple), "").await.problem(415);
        }
    }
    let promoted = api.send("POST", path, &origin(&own, JSON), r#"{"version":"1"}"#).await;
    assert_eq!(promoted.status, 200, "{}", promoted.text);
    assert_eq!(api.send("DELETE", "/v1/services/chat@1", &origin(&own, ""), "").await.status, 204);
    // Who is no page writes as curl does.
    let curl = "Content-Type: application/x-www-form-urlencoded\r\n";
    assert_eq!(api.send("PUT", "/v1/services/mail", curl, "{}").await.status, 201);
}

#[tokio::test]
async fn with_access_rules_the_token_says_who_asks() {
    let api = start(READER).await;
    let with = |more: &str| origin("https://evil.example", more);
    api.send("POST", "/v1/services/chat/promote", &with(""), "{}").await.problem(401);
    let token = format!("Authorization: Bearer reader\r\n{JSON}");
    api.send("POST", "/v1/services/chat/promote", &with(&token), "{}").await.problem(403);
    api.send("POST", "/v1/services/chat/promote", &with("Authorization: Bearer reader\r\n"), "{}")
        .await
        .problem(415);
}

#[tokio::test]
async fn every_answer_says_what_is_possible() {
    let api = start("").await;
    api.put("/v1/services/chat", &json!({})).await;
    for (path, allowed) in [
        ("/v1/services", "get,head"),
        ("/v1/services/chat", "get,head,put,delete"),
        ("/v1/services/chat/servers/a", "get,head,put,delete"),
        ("/v1/services/chat/promote", "post"),
        ("/v1/watch", "get,head"),
        ("/v1/openapi.json", "get,head"),
        ("/live", "get,head"),
        ("/primus", "get,head"),
    ] {
        let refused = api.send("PATCH", path, "", "").await;
        refused.problem(405);
        let asked = api.send("OPTIONS", path, "", "").await;
        assert_eq!((asked.status, asked.text.as_str()), (204, ""), "{path}");
        for answer in [refused, asked] {
            let line = answer.head.lines().find_map(|line| line.strip_prefix("allow: ")).unwrap_or_default();
            let mut methods: Vec<_> = line.split(',').map(str::trim).collect();
            let mut expected: Vec<_> = allowed.split(',').collect();
            methods.sort_unstable();
            expected.sort_unstable();
            assert_eq!(methods, expected, "{path}");
        }
    }
    let head = api.send("HEAD", "/v1/services/chat", "", "").await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    assert_eq!(api.send("OPTIONS", "*", "", "").await.status, 204);
    assert!(api.get("/v1/services/chat/").await.problem(404).contains("try /v1/services/chat"));
    for path in ["/v1/services/", "//v1/services", "/v2", "/v1/plugins/%ff/promote", "/v1/clients/"] {
        let answer = api.send("POST", path, "", "").await;
        answer.problem(answer.status);
        assert!([400, 404].contains(&answer.status), "{path}");
    }
    assert_eq!(api.get("/v1/services/%63hat").await.status, 200);
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_not_read() {
    let api = start("").await;
    let twice = r#"{"servers":["http://127.0.0.1:1"],"servers":["http://127.0.0.1:2"]}"#;
    let refused = api.send("PUT", "/v1/services/chat", JSON, twice).await.problem(400);
    assert!(refused.contains("`servers` is written twice"), "{refused}");
    for path in [
        "/v1/explain?service=chat&client=a&client=b",
        "/v1/explain?service=chat&client=",
        "/v1/explain?service=chat&client=%00",
        "/v1/watch?after=1&after=2",
        "/v1/watch?afer=1",
        "/v1/clients/%C3%A9",
    ] {
        api.get(path).await.problem(400);
    }
    api.send("POST", "/v1/services/chat/servers/a/drain?wiat=1s", "", "").await.problem(400);
}

#[tokio::test]
async fn what_was_sent_comes_back_in_small_pieces() {
    let api = start("").await;
    let long = "x".repeat(100_000);
    let many: serde_json::Map<String, Value> = (0..5000).map(|at| (format!("key-{at}"), json!(1))).collect();
    for body in [
        json!({ long.clone(): 1 }),
        json!({ "server": long }),
        json!({ "sticky": { "ttl": long } }),
        many.into(),
    ] {
        let answer = api.put("/v1/services/chat", &body).await;
        answer.problem(422);
        assert!(answer.text.len() < 128 << 10, "{} bytes", answer.text.len());
    }
}
