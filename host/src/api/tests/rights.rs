//! What a token's rule limits: names, hosts, and the router itself; and what a reload takes away.

use super::*;

/// A rule for this token.
fn rule(token: &str, more: &str) -> String {
    let hash = crate::auth::TokenHash::of(token);
    format!("[[access]]\nlabel = '{token}'\ntoken_sha256 = '{hash}'\n{more}\n")
}

fn with(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\n")
}

#[tokio::test]
async fn the_router_itself_is_for_its_operators() {
    let rules = rule("some", "actions = ['read', 'register']\nnames = ['chat']")
        + &rule("all", "actions = ['read']")
        + &rule("scraper", "actions = ['inspect']\nnames = ['nothing']");
    let api = start(&rules).await;
    for path in ["/metrics", "/v1/plugins", "/v1/routers"] {
        api.send("GET", path, &with("some"), "").await.problem(403);
        for token in ["all", "scraper"] {
            assert_eq!(api.send("GET", path, &with(token), "").await.status, 200, "{token} {path}");
        }
    }
    api.send("GET", "/v1/services", &with("scraper"), "").await.problem(403);
    api.send("GET", "/v1/services/chat", &with("scraper"), "").await.problem(403);
}

#[tokio::test]
async fn servers_are_registered_where_a_rule_says() {
    let rules = rule("deploy", "actions = ['read', 'register']\nhosts = ['10.0.0.0/8', '*.internal']");
    let api = start(&rules).await;
    let put = async |path: &str, body: Value| api.send("PUT", path, &with("deploy"), &body.to_string()).await;
    let (path, one) = ("/v1/services/chat", "/v1/services/chat/servers/one");
    let good = "http://10.1.2.3:80";
    for refused in ["http://127.0.0.1:80", "http://app.example", "h2c://[::1]:80", "http://167772161:80"] {
        for body in [
            json!({ "server": refused }),
            json!({ "servers": [good, refused] }),
            json!({ "servers": [{ "uri": good, "load_balancer": refused }] }),
            json!({ "load_balancer": refused }),
        ] {
            assert!(put(path, body).await.problem(403).contains("does not allow to register"), "{refused}");
        }
        put(one, json!(refused)).await.problem(403);
        put(one, json!({ "uri": good, "load_balancer": refused, "ttl": "10s" })).await.problem(403);
    }
    assert_eq!(put(path, json!({ "servers": [good, "http://a.b.internal"] })).await.status, 201);
    assert_eq!(put(one, json!({ "uri": good, "ttl": "10s" })).await.status, 201);
    let pin = "/v1/clients/ann/assignments/chat";
    put(pin, json!({ "server": "http://127.0.0.1:80" })).await.problem(403);
    assert_eq!(put(pin, json!({ "server": "http://10.9.9.9:80" })).await.status, 200);
    assert_eq!(put(pin, json!({ "server": good })).await.status, 200);
}

#[tokio::test]
async fn a_watch_ends_with_what_its_token_allows() {
    let names = |names: &str| rule("watcher", &format!("actions = ['read']\nnames = {names}"));
    let services = "[service.mail]\nserver = 'http://a:1'\n";
    let other = rule("root", "actions = ['admin']");
    let first = format!("{}{other}{services}", names("['chat', 'shop']"));
    let api = start(&first).await;
    let mut stream = Stream::open(&api, "/v1/watch", &with("watcher")).await;
    for service in ["hidden", "chat"] {
        let body = json!({ "server": "http://127.0.0.1:1" }).to_string();
        api.send("PUT", &format!("/v1/services/{service}"), &with("root"), &body).await;
    }
    let lines = stream.until("data: ").await;
    assert!(lines.last().is_some_and(|line| line.contains("\"chat\"")), "{lines:?}");
    assert!(!lines.concat().contains("hidden") && !lines.concat().contains("router"), "{lines:?}");

    let reload = |text: &str| {
        let config = Config::parse(text, "a.toml".as_ref(), &Overrides::default()).unwrap();
        api.configs.send_replace(Arc::new(config));
    };
    // Something else is news to nobody.
    reload(&format!("{first}[service.more]\nserver = 'http://a:1'\n"));
    api.send("DELETE", "/v1/services/chat", &with("root"), "").await;
    stream.until("data: ").await;
    reload(&format!("{}{other}", names("['chat']")));
    stream.ended().await;
    let mut stream = Stream::open(&api, "/v1/watch", &with("watcher")).await;
    reload(&other);
    stream.ended().await;
    api.send("GET", "/v1/watch", &with("watcher"), "").await.problem(401);

    let open = start("").await;
    let mut stream = Stream::open(&open, "/v1/watch", "").await;
    let config = Config::parse(&other, "a.toml".as_ref(), &Overrides::default()).unwrap();
    open.configs.send_replace(Arc::new(config));
    stream.ended().await;
}

#[tokio::test]
async fn who_is_one_too_many_is_told_when_to_come_back() {
    let api = start("api.limits.watchers = 1").await;
    let _stream = Stream::open(&api, "/v1/watch", "").await;
    let refused = api.get("/v1/watch").await;
    refused.problem(429);
    assert!(refused.head.contains("retry-after: 5"), "{}", refused.head);
}
