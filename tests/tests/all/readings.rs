//! One message is read in one way, by the router and by the server behind it.

use message_flow_tests::{
    Gateway, Upstream, guests,
    raw::{exchange, statuses},
};
use serde_json::json;

/// A gateway with routes, whose parts come back as they were, and two servers.
struct Two {
    gateway: Gateway,
    admin: Upstream,
    fallback: Upstream,
}

/// `route` is that of the admin service, `more` goes before it.
async fn two(more: &str, route: &str) -> Two {
    let (admin, fallback) = (Upstream::start("admin").await, Upstream::start("fallback").await);
    let services = format!(
        "[service.admin]\nserver = \"{}\"\n[service.fallback]\nserver = \"{}\"\n",
        admin.uri(),
        fallback.uri()
    );
    let routes =
        format!("[[route]]\nservice = \"admin\"\n{route}\n[[route]]\nservice = \"fallback\"\npath = \"/\"\n");
    let gateway = Gateway::setup().config(format!("{more}\n{routes}{services}")).start().await;
    Two { gateway, admin, fallback }
}

impl Two {
    /// The status of a request with this target and host.
    async fn get(&self, target: &str, host: &str) -> u16 {
        let request = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let heard = exchange(self.gateway.proxy(), request).await;
        let statuses = statuses(&heard);
        assert_eq!(statuses.len(), 1, "{target} {host}: {heard}");
        statuses[0]
    }
}

#[tokio::test]
async fn no_way_of_writing_a_path_goes_past_its_route() {
    let two = two("", "path = \"/admin\"").await;
    for target in [
        "/admin",
        "/%61dmin",
        "/%61%64%6d%69%6E/x",
        "//admin",
        "///admin//x",
        "/./admin",
        "/%2e/admin",
        "/x/../admin",
        "/x/%2e%2e/admin",
        "/x/.%2E/admin/",
        "/x//../admin",
        "/x/y/../../admin?q",
        "/admin/../admin/",
        "http://h/%61dmin",
        "http://h//admin",
    ] {
        assert_eq!(two.get(target, "h").await, 200, "{target}");
        let seen = two.admin.last().target;
        assert!(
            ["/admin", "/admin/", "/admin/x", "/admin?q"].contains(&&*seen),
            "{target} was sent as {seen}"
        );
    }
    for target in [
        "/admin%2fx",
        "/admin%2Fx",
        "/admin%5cx",
        "/admin%5Cx",
        "/admin\\x",
        "/admin%00",
        "/x/..%2fadmin",
        "/x/%2e%2e%2fadmin",
        "/x/..%5cadmin",
        "/x\\..\\admin",
        "/..",
        "/../admin",
        "/%2e%2e/admin",
        "/x/../../admin",
        "/.%2e",
        "/%",
        "/%2",
        "/%zz",
        "/%2%65%2%65/admin",
    ] {
        assert_eq!(two.get(target, "h").await, 400, "{target}");
    }
    assert_eq!(two.fallback.seen().len(), 0, "{:?}", two.fallback.seen());

    // What is nobody's business but the server's goes on as it came.
    for target in ["/%252e%252e/admin", "/x/..;/admin", "/x?/../admin%2f//..%5C", "/adminx", "/a%20b/%C3%A9"]
    {
        assert_eq!(two.get(target, "h").await, 200, "{target}");
        assert_eq!(two.fallback.last().target, target);
    }
    // A URI cannot hold it as it is, in a query neither.
    assert_eq!(two.get("/x?..\\", "h").await, 200);
    assert_eq!(two.fallback.last().target, "/x?..%5C");
}

#[tokio::test]
async fn so_it_is_over_http2() {
    let two = two("", "path = \"/admin\"").await;
    for target in ["/%61dmin", "//admin", "/x/../admin", "/x/%2e%2e/admin"] {
        assert_eq!(two.gateway.get(target).h2c().send().await.expect(200).text(), "admin", "{target}");
    }
    for target in ["/admin%2fx", "/x/..%2fadmin", "/../admin"] {
        two.gateway.get(target).h2c().send().await.problem(400);
    }
    assert_eq!(two.fallback.seen().len(), 0);
}

#[tokio::test]
async fn encoded_slashes_pass_where_they_are_wanted() {
    let kept = "path = \"/packages\"\nencoded_slashes = \"keep\"";
    let two = two("", kept).await;
    for target in ["/packages/@scope%2Fname", "/packages/a%5Cb", "/packages/%00"] {
        assert_eq!(two.get(target, "h").await, 200, "{target}");
        assert_eq!(two.admin.last().target, target);
    }
    assert_eq!(two.get("/packages/a%2fb\\c", "h").await, 200);
    assert_eq!(two.admin.last().target, "/packages/a%2Fb%5Cc");
    for target in ["/packages/..%2f..%2fetc", "/packages/a%2f..", "/packages\\..\\x", "/other/a%2fb"] {
        assert_eq!(two.get(target, "h").await, 400, "{target}");
    }

    let gateway = Gateway::setup().config("[proxy]\nencoded_slashes = \"keep\"\n").start().await;
    let upstream = Upstream::start("a").await;
    gateway.put("chat@2", json!({ "server": format!("{}/base", upstream.uri()) })).await;
    for (target, sent) in [
        ("/chat@2/a%2fb", "/base/a%2Fb"),
        ("/chat%402/a", "/base/a"),
        ("/%63hat@2/%2e/b/../c", "/base/c"),
        ("/x/../chat//d", "/base/d"),
    ] {
        gateway.get(target).send().await.expect(200);
        assert_eq!(upstream.last().target, sent, "{target}");
    }
    for target in ["/chat/../..", "/chat/..%2f..", "/chat%2fa"] {
        let reply = gateway.get(target).send().await;
        assert!([400, 404].contains(&reply.status), "{target}: {reply:?}");
    }
}

#[tokio::test]
async fn prefixes_are_read_as_paths_are() {
    let two = two("", "path = \"/x/..//%61dmin/@me\"\nstrip = true").await;
    for (target, sent) in
        [("/admin/@me/a", "/a"), ("/admin/%40me?b", "/?b"), ("/admin//%40m%65/.", "/"), ("/admin/@me", "/")]
    {
        assert_eq!(two.get(target, "h").await, 200, "{target}");
        assert_eq!(two.admin.last().target, sent, "{target}");
    }
}

#[tokio::test]
async fn no_way_of_writing_a_host_goes_past_its_route() {
    let two = two("", "host = \"admin.example.test\"").await;
    for host in [
        "admin.example.test",
        "ADMIN.Example.test:80",
        "admin.example.test.",
        "admin.example.test.:8080",
        "admin.example.test:",
    ] {
        assert_eq!(two.get("/", host).await, 200, "{host}");
        assert_eq!(two.get(&format!("http://{host}/"), "other").await, 200, "{host}");
    }
    for host in [
        "admin.example.test:80:80",
        "admin.example.test:http",
        "admin.example.test:-1",
        "admin.example.test:+1",
        "admin.example.test:65536",
        "admin.example.test:99999999999999999999",
        "admin.example.test..",
        "user@admin.example.test",
        "user:80@admin.example.test",
        "%61dmin.example.test",
        "admin.example.test, other",
        "[admin.example.test]",
    ] {
        assert_eq!(two.get("/", host).await, 400, "{host}");
        assert_eq!(
            two.get(&format!("http://{}/", host.replace(", ", ",")), "admin.example.test").await,
            400,
            "{host}"
        );
    }
    assert_eq!(two.get("admin.example.test", "other").await, 400, "only CONNECT has such a target");
    assert_eq!(two.admin.seen().len(), 10);
    assert_eq!(two.fallback.seen().len(), 0, "{:?}", two.fallback.seen());

    // The target goes before the header, and the server is told so.
    assert_eq!(two.get("http://other.test:81/x", "admin.example.test").await, 200);
    assert_eq!(two.fallback.last().header("host"), "other.test:81");
    assert_eq!(two.fallback.last().header("x-forwarded-host"), "other.test:81");

    let reply = two.gateway.get("/").h2c().header("host", "admin.example.test").send().await;
    assert_eq!(reply.status, 400, "`:authority` says another: {reply:?}");
}

#[tokio::test]
async fn addresses_are_hosts_however_they_are_written() {
    let two = two("", "host = \"[2001:DB8:0::0:1]\"").await;
    for host in ["[2001:db8::1]", "[2001:0db8:0:0:0:0:0:1]:80", "[2001:DB8::0.0.0.1]"] {
        assert_eq!(two.get("/", host).await, 200, "{host}");
    }
    assert_eq!(two.admin.seen().len(), 3, "{:?}", two.fallback.seen());
    for host in ["2001:db8::1", "[2001:db8::1", "[2001:db8::1]x", "[2001:db8::1%25eth0]", "[]:80"] {
        assert_eq!(two.get("/", host).await, 400, "{host}");
    }
}

#[tokio::test]
async fn servers_believe_only_the_router() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "server": upstream.uri() })).await;
    let forged = [
        ("message-flow-verified", "true"),
        ("message_flow_verified", "true"),
        ("message_flow_client", "root"),
        ("message-flow_client", "root"),
        ("message-flow-plugin", "guess"),
        ("x_forwarded_for", "6.6.6.6"),
        ("x-forwarded_for", "6.6.6.6"),
        ("x-forwarded-server", "evil"),
        ("x-forwarded", "for=6.6.6.6"),
        ("x-real_ip", "6.6.6.6"),
        ("x-real-ip", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("proxy", "http://evil"),
        ("x-original-url", "/admin"),
        ("x-rewrite-url", "/admin"),
        ("true-client-ip", "6.6.6.6"),
        ("cf-connecting-ip", "6.6.6.6"),
    ];
    for h2c in [false, true] {
        let mut call = gateway.get("/chat/").client("ann").header("x-http-method-override", "PUT");
        for (name, value) in forged {
            call = call.header(name, value);
        }
        if h2c { call.h2c() } else { call }.send().await.expect(200);
        let seen = upstream.last();
        assert_eq!(seen.header("message-flow-client"), "ann");
        assert_eq!(seen.header("x-http-method-override"), "PUT");
        for (name, _) in forged {
            assert_eq!(seen.header(name), "", "{name}: {seen:?}");
        }
        assert_eq!(seen.headers.get_all("message-flow-client").iter().count(), 1);
    }
    gateway.get("/chat/").send().await.expect(200);
    assert_eq!(upstream.last().header("message-flow-client"), "127.0.0.1");
    let named = "connection: message-flow-client, x-forwarded-for\r\nmessage-flow-client: ann\r\nmessage-flow-client: bob\r\n";
    let heard = exchange(gateway.proxy(), format!("GET /chat/ HTTP/1.1\r\nhost: a\r\n{named}\r\n")).await;
    assert_eq!(statuses(&heard), [200], "{heard}");
    let told: Vec<_> = upstream.last().headers.get_all("message-flow-client").iter().cloned().collect();
    assert_eq!(told, ["ann"]);
}

#[tokio::test]
async fn trusted_proxies_say_on_whose_behalf() {
    let upstream = Upstream::start("a").await;
    let config = "[proxy]\ntrusted = [\"127.0.0.0/8\"]\nclient_id = [\"peer\"]\n";
    let gateway = Gateway::setup().config(config).start().await;
    gateway.put("chat", json!({ "server": upstream.uri() })).await;
    for (lines, expect) in [
        ("", "127.0.0.1"),
        ("x-forwarded-for: 203.0.113.9\r\n", "203.0.113.9"),
        ("x-forwarded-for: 6.6.6.6, 203.0.113.9:4711,\r\n", "203.0.113.9"),
        ("x-forwarded-for: 6.6.6.6\r\nx-forwarded-for: \u{fe}, [2001:db8::1]:80\r\n", "2001:db8::1"),
        ("x-forwarded-for: 6.6.6.6, garbage\r\n", "unknown"),
        ("x_forwarded_for: 6.6.6.6\r\nx-forwarded-for: 203.0.113.9, 127.0.0.2\r\n", "203.0.113.9"),
    ] {
        let request = format!("GET /chat/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{lines}\r\n");
        let heard = exchange(gateway.proxy(), request).await;
        assert_eq!(statuses(&heard), [200], "{lines}: {heard}");
        assert_eq!(upstream.last().header("message-flow-client"), expect, "{lines}");
    }
}

#[tokio::test]
async fn options_and_steps_are_as_the_rfc_has_them() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "server": upstream.uri() })).await;
    let send = async |head: &str| {
        exchange(gateway.proxy(), format!("{head}\r\nhost: a\r\nconnection: close\r\n\r\n")).await
    };

    let heard = send("OPTIONS * HTTP/1.1").await;
    assert!(statuses(&heard) == [204] && heard.contains("allow: GET, HEAD"), "{heard}");
    let heard = send("OPTIONS /chat/ HTTP/1.1\r\nmax-forwards: 0").await;
    assert!(statuses(&heard) == [204] && heard.contains("allow: GET, HEAD"), "{heard}");
    assert_eq!(upstream.seen().len(), 0);
    assert_eq!(statuses(&send("OPTIONS /chat/ HTTP/1.1\r\nmax-forwards: 7").await), [200]);
    assert_eq!(upstream.last().header("max-forwards"), "6");
    assert_eq!(statuses(&send("GET /chat/ HTTP/1.1\r\nmax-forwards: 0").await), [200]);
    assert_eq!(statuses(&send("OPTIONS * HTTP/1.1\r\nmessage-flow-service: chat").await), [200]);
    assert_eq!(upstream.last().target, "*");
    assert_eq!(statuses(&send("OPTIONS http://a HTTP/1.1\r\nmessage-flow-service: chat").await), [200]);
    assert_eq!(upstream.last().target, "*", "an absolute target without a path is of the whole server");
    assert_eq!(statuses(&send("GET * HTTP/1.1\r\nmessage-flow-service: chat").await), [400]);
    for method in ["TRACE", "CONNECT"] {
        let heard = send(&format!("{method} /chat/ HTTP/1.1")).await;
        assert!(statuses(&heard) == [405] && heard.contains("\r\nallow: GET, "), "{heard}");
    }

    for (version, expect) in [("1.0", "1.0 message-flow-"), ("1.1", "1.1 message-flow-")] {
        assert_eq!(statuses(&send(&format!("GET /chat/ HTTP/{version}")).await), [200]);
        assert!(upstream.last().header("via").starts_with(expect), "{:?}", upstream.last());
    }
    gateway.get("/chat/").h2c().send().await.expect(200);
    assert!(upstream.last().header("via").starts_with("2 message-flow-"), "{:?}", upstream.last());
}

#[tokio::test]
async fn the_api_is_not_reached_through_the_proxy() {
    for listen in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
        let gateway = Gateway::setup().config("[api]\nopen = true\n").api_at(listen).start().await;
        let (port, api) = (gateway.api().port(), gateway.api());
        let reach = match api.ip().is_unspecified() {
            true => format!("127.0.0.1:{port}"),
            false => api.to_string(),
        };
        let ask = async |method: &str, path: &str, body: &serde_json::Value| {
            message_flow_tests::Call::new(reach.parse().unwrap(), method, path).json(body).send().await
        };
        for (at, host) in ["127.0.0.1", "127.0.0.2", "[::1]", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]"]
            .iter()
            .enumerate()
        {
            for scheme in ["http", "h2c"] {
                let service = format!("{scheme}{at}");
                let spec = json!({ "server": format!("{scheme}://{host}:{port}") });
                let put = ask("PUT", &format!("/v1/services/{service}"), &spec).await;
                assert!((200..300).contains(&put.status), "{put:?}");
                let reply = gateway.get(format!("/{service}/v1/services")).send().await;
                assert!([502, 508].contains(&reply.status), "{listen} {host}: {reply:?}");
            }
        }
        // Under an address by which nobody knows it, such as that of a container's host.
        let relay = message_flow_tests::Relay::to(reach.clone()).await;
        ask("PUT", "/v1/services/relayed", &json!({ "server": relay.uri() })).await;
        gateway.get("/relayed/v1/services").send().await.problem(508);
        assert_eq!(ask("GET", "/v1/services", &json!({})).await.status, 200);
    }
}

#[tokio::test]
async fn what_is_not_public_is_there_for_plugins_alone() {
    let (open, hidden) = (Upstream::start("open").await, Upstream::start("hidden").await);
    let gateway = Gateway::setup().plugin("caller", guests::wasm("caller")).start().await;
    let proxy = gateway.proxy();
    let config = |routes: &str| {
        format!(
            "[plugin.caller]\ndeadline = \"5s\"\ngrant = [\"http:{proxy}\"]\n\
             config = {{ to = \"{proxy}\", path = \"/hidden/asked\" }}\n{routes}"
        )
    };
    gateway.reconfigure(config(""));
    gateway.active("caller").await;
    gateway.put("open", json!({ "server": open.uri(), "filters": ["caller"] })).await;
    for service in ["hidden", "versioned@1"] {
        gateway.put(service, json!({ "servers": [hidden.uri()], "public": false })).await;
        let shown = gateway.ask("GET", format!("/v1/services/{service}")).send().await.expect(200).json();
        assert_eq!(shown["public"], false, "{shown}");
    }

    let unknown = gateway.get("/nobody/").send().await.problem(404);
    for target in ["/hidden/", "/hidden", "/%68idden/x", "/versioned@1/", "/versioned/", "/versioned%401/"] {
        for h2c in [false, true] {
            let call = gateway.get(target).header("message-flow-plugin", "guess");
            let problem = if h2c { call.h2c() } else { call }.send().await.problem(404);
            assert_eq!(problem["type"], unknown["type"], "{problem}");
        }
    }
    gateway.get("/").header("message-flow-service", "hidden").send().await.problem(404);
    assert_eq!(hidden.seen().len(), 0);
    let explained = gateway.ask("GET", "/v1/explain?service=hidden&client=a").send().await.expect(200).json();
    assert_eq!(explained["step"], "list", "{explained}");

    gateway.get("/open/").send().await.expect(200);
    assert_eq!(open.last().header("called"), "200");
    let asked = hidden.last();
    assert_eq!((&*asked.target, asked.header("message-flow-plugin")), ("/asked", ""), "{asked:?}");

    // A route names it for plugins alone as well.
    gateway.reconfigure(config(
        "[[route]]\npath = \"/hidden\"\nservice = \"hidden\"\n[[route]]\npath = \"/o\"\nservice = \"open\"\n",
    ));
    gateway.until(gateway.get("/o"), 200).await;
    gateway.get("/hidden/asked").send().await.problem(404);
    assert_eq!((hidden.last().target.as_str(), open.last().header("called")), ("/hidden/asked", "200"));

    gateway.put("hidden", json!({ "servers": [hidden.uri()] })).await;
    gateway.get("/hidden/asked").send().await.expect(200);
}
