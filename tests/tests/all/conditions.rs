//! Conditional requests on services, servers and releases.

use message_flow_tests::{Gateway, Upstream, call::Reply};
use serde_json::{Value, json};

const CHAT: &str = "/v1/services/chat";
const ONE: &str = "/v1/services/chat/servers/one";

async fn get(gateway: &Gateway, path: &str, condition: (&str, &str)) -> Reply {
    gateway.ask("GET", path).header(condition.0, condition.1).send().await
}

async fn put(gateway: &Gateway, path: &str, body: Value, condition: (&str, &str)) -> Reply {
    gateway.ask("PUT", path).header(condition.0, condition.1).json(&body).send().await
}

async fn delete(gateway: &Gateway, path: &str, condition: (&str, &str)) -> Reply {
    gateway.ask("DELETE", path).header(condition.0, condition.1).send().await
}

async fn tag(gateway: &Gateway, path: &str) -> String {
    gateway.ask("GET", path).send().await.expect(200).header("etag").to_owned()
}

#[tokio::test]
async fn the_second_of_two_writers_is_told() {
    let gateway = Gateway::start().await;
    for (path, first, second) in [
        (
            CHAT,
            json!({ "servers": ["http://127.0.0.1:9001"] }),
            json!({ "servers": ["http://127.0.0.1:9002"] }),
        ),
        (ONE, json!("http://127.0.0.1:9001"), json!("http://127.0.0.1:9002")),
    ] {
        put(&gateway, path, first.clone(), ("if-match", "*")).await.problem(412);
        let made = put(&gateway, path, first.clone(), ("if-none-match", "*")).await.expect(201);
        let seen = made.header("etag").to_owned();
        assert!(seen.starts_with('"') && seen.ends_with('"'), "a strong tag: {seen}");
        assert_eq!(tag(&gateway, path).await, seen, "what was answered is what is there");
        put(&gateway, path, second.clone(), ("if-none-match", "*")).await.problem(412);

        let list = format!("\"nothing\", {seen}");
        let next = put(&gateway, path, second.clone(), ("if-match", &list)).await.expect(200);
        assert_ne!(next.header("etag"), seen);
        let refused = put(&gateway, path, first.clone(), ("if-match", &seen)).await;
        assert_eq!(refused.header("etag"), next.header("etag"), "it says where it is");
        refused.problem(412);
        let weak = format!("W/{}", next.header("etag"));
        put(&gateway, path, first.clone(), ("if-match", &weak)).await.problem(412);
        put(&gateway, path, first.clone(), ("if-match", "\"a")).await.problem(400);
        // What is wrong with the document does not matter before.
        put(&gateway, path, json!({ "uri": 7, "server": 7 }), ("if-match", &seen)).await.problem(412);
        assert_eq!(tag(&gateway, path).await, next.header("etag"), "nothing was written");

        delete(&gateway, path, ("if-match", &seen)).await.problem(412);
        delete(&gateway, path, ("if-none-match", "*")).await.problem(412);
        delete(&gateway, path, ("if-match", next.header("etag"))).await.expect(204);
        // Without the condition this is 404, which goes before.
        delete(&gateway, path, ("if-match", "*")).await.problem(404);
        gateway.ask("DELETE", CHAT).send().await;
    }
}

#[tokio::test]
async fn readers_are_told_what_they_have() {
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [{ "uri": "http://127.0.0.1:9001", "id": "one" }] })).await;
    for path in [CHAT, ONE, "/v1/services", "/v1/services/chat/releases"] {
        let seen = tag(&gateway, path).await;
        for same in [&*seen, "*", &format!("W/{seen}"), &format!("\"x\",{seen}")] {
            let answer = get(&gateway, path, ("if-none-match", same)).await.expect(304);
            assert_eq!((answer.header("etag"), answer.text()), (&*seen, String::new()), "{path}");
        }
        let head = gateway.ask("HEAD", path).header("if-none-match", seen.clone()).send().await;
        assert_eq!(head.status, 304, "{path}");
        get(&gateway, path, ("if-none-match", "\"x\"")).await.expect(200);
        get(&gateway, path, ("if-match", &seen)).await.expect(200);
        get(&gateway, path, ("if-match", "\"x\"")).await.problem(412);
    }
    get(&gateway, "/v1/services/nobody", ("if-match", "*")).await.problem(404);
}

/// What servers are doing is shown, and no write depends on it.
#[tokio::test]
async fn health_is_news_to_readers_and_none_to_writers() {
    let gateway = Gateway::setup().config("[proxy.ejection]\ntime = \"10m\"\n").start().await;
    let upstream = Upstream::start("a").await;
    let servers = json!({ "servers": [upstream.uri(), "http://127.0.0.1:1"] });
    gateway.put("chat", servers.clone()).await;
    let seen = tag(&gateway, CHAT).await;
    let mut now = seen.clone();
    // The one that refuses connections is ejected sooner or later, which is shown.
    for client in 0..500 {
        gateway.get("/chat/").client(&format!("c{client}")).send().await;
        now = tag(&gateway, CHAT).await;
        if now != seen {
            break;
        }
    }
    assert_ne!(now, seen, "an ejected server is shown");
    get(&gateway, CHAT, ("if-none-match", &seen)).await.expect(200);
    put(&gateway, CHAT, servers, ("if-match", &seen)).await.expect(200);
}

#[tokio::test]
async fn a_new_version_is_news_of_a_release() {
    const RELEASES: &str = "/v1/services/chat/releases";
    let gateway = Gateway::start().await;
    let promote = async |version: &str, condition: &str| {
        let call = gateway.ask("POST", "/v1/services/chat/promote").json(&json!({ "version": version }));
        call.header("if-match", condition).send().await
    };
    gateway.put("chat@1", json!({ "servers": ["http://127.0.0.1:9001"] })).await;
    promote("1", "*").await.expect(200);
    let seen = tag(&gateway, RELEASES).await;
    gateway.put("chat@2", json!({ "servers": ["http://127.0.0.1:9002"] })).await;
    get(&gateway, RELEASES, ("if-none-match", &seen)).await.expect(200);
    // What was decided is as it was: a version that is only there is no change of the release.
    let number = promote("2", &seen).await.expect(200).json()["number"].as_u64().expect("a number");
    promote("1", &seen).await.problem(412);
    // The number alone is a tag as well, as people type it.
    promote("1", &format!("\"x\", \"{number}\"")).await.expect(200);
    promote("2", &(number + 1).to_string()).await.expect(200);
    promote("1", &format!("W/\"{}\"", number + 2)).await.problem(412);
    promote("1", "\"x").await.problem(400);
}
