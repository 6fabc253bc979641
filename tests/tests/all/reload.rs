//! The configuration changes while the gateway runs.

use message_flow_tests::{Gateway, Upstream, eventually};

fn service(upstream: &Upstream) -> String {
    format!("[service.chat]\nservers = [\"{}\"]\n", upstream.uri())
}

async fn answers(gateway: &Gateway, name: &str) {
    eventually(|| async {
        let reply = gateway.get("/chat/").send().await;
        if reply.text() == name { Ok(()) } else { Err(format!("{reply:?}\n{}", gateway.log())) }
    })
    .await;
}

#[tokio::test]
async fn a_changed_file_is_read() {
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    let gateway = Gateway::setup().config(service(&a)).start().await;
    answers(&gateway, "a").await;
    gateway.reconfigure(service(&b));
    answers(&gateway, "b").await;
}

#[tokio::test]
async fn sighup_reads_it_too() {
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    let gateway = Gateway::setup().config(service(&a)).start().await;
    gateway.reconfigure(service(&b));
    gateway.signal("HUP").await;
    answers(&gateway, "b").await;
}

#[tokio::test]
async fn a_wrong_one_leaves_the_right_one() {
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    let gateway = Gateway::setup().config(service(&a)).start().await;
    gateway.reconfigure("[service.chat]\nservers = \"nonsense\"\n");
    gateway.signal("HUP").await;
    eventually(|| async {
        let log = gateway.log();
        if log.contains("message-flow.toml") && log.contains("service.chat.servers") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    answers(&gateway, "a").await;
    gateway.reconfigure(service(&b));
    answers(&gateway, "b").await;
}

#[tokio::test]
async fn a_running_stream_is_not_broken() {
    use http_body_util::BodyExt;

    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    let gateway = Gateway::setup().config(service(&a)).start().await;
    let mut stream = gateway.get("/chat/drip/20").open().await.expect("an answer");
    stream.body_mut().frame().await.expect("a first piece").expect("unbroken");

    gateway.reconfigure(service(&b));
    answers(&gateway, "b").await;

    let rest = stream.into_body().collect().await.expect("unbroken").to_bytes();
    assert!(rest.ends_with(b"19\n"), "{rest:?}");
}

/// Waits until `/ready` says of the configuration what holds this; nothing: until it says nothing.
async fn said(gateway: &Gateway, part: &str) {
    eventually(|| async {
        let ready = gateway.ask("GET", "/ready").send().await.expect(200).json();
        let conditions = ready["conditions"].as_array().expect("a list");
        let of_file = conditions.iter().find(|condition| condition["name"] == "configuration");
        let detail = of_file.and_then(|condition| condition["detail"].as_str()).unwrap_or_default();
        if detail.is_empty() == part.is_empty() && detail.contains(part) {
            Ok(())
        } else {
            Err(ready.to_string())
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_no_configuration_keeps_what_runs_and_is_said() {
    let upstream = Upstream::start("a").await;
    let text = service(&upstream);
    let gateway = Gateway::setup().config(&text).start().await;
    let file = gateway.path("message-flow.toml");
    let cases: [(&[u8], &str, &str); 5] = [
        (b"", "empty", "is empty"),
        (b"\0\0\0\0", "empty", "is empty"),
        (b"[service.chat]\nservers = [\"http://127.0.0.1:1/\xff\"]\n", "not-text", "UTF-8"),
        (&text.as_bytes()[..text.len() - 5], "invalid", "not valid"),
        (b"# everything went\n", "opens", "SIGHUP"),
    ];
    for (bytes, reason, shown) in cases {
        std::fs::write(&file, bytes).expect("write the configuration");
        said(&gateway, shown).await;
        let counted = format!("message_flow_configuration_refused_total{{reason=\"{reason}\"}}");
        assert!(gateway.metric(&counted).await >= 1.0, "{reason}");
        assert_eq!(gateway.metric("message_flow_configuration_current").await, 0.0, "{reason}");
        gateway.logged(&format!("reason=\"{reason}\"")).await;
        answers(&gateway, "a").await;
    }
    std::fs::remove_file(&file).expect("remove the configuration");
    said(&gateway, "not there").await;
    std::fs::create_dir(&file).expect("a directory in its place");
    said(&gateway, "cannot be read").await;
    std::fs::remove_dir(&file).expect("remove the directory");
    answers(&gateway, "a").await;
    gateway.reconfigure(&text);
    said(&gateway, "").await;
    assert_eq!(gateway.metric("message_flow_configuration_current").await, 1.0);
}

#[tokio::test]
async fn a_file_event_opens_nothing_and_sighup_does() {
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    let rule = format!("[[access]]\ntoken_sha256 = \"{}\"\nactions = [\"read\"]\n", "0".repeat(64));
    let gateway = Gateway::setup().config(service(&a) + &rule).start().await;
    gateway.ask("GET", "/v1/services").send().await.problem(401);
    gateway.reconfigure(service(&b));
    said(&gateway, "SIGHUP").await;
    gateway.ask("GET", "/v1/services").send().await.problem(401);
    answers(&gateway, "a").await;
    gateway.signal("HUP").await;
    answers(&gateway, "b").await;
    gateway.until(gateway.ask("GET", "/v1/services"), 200).await;
    said(&gateway, "").await;
    // An empty file says nothing, whoever asks.
    gateway.reconfigure("");
    said(&gateway, "is empty").await;
    gateway.signal("HUP").await;
    eventually(|| async {
        let refused = gateway.metric("message_flow_configuration_refused_total{reason=\"empty\"}").await;
        if refused >= 2.0 { Ok(()) } else { Err(format!("{refused}")) }
    })
    .await;
    answers(&gateway, "b").await;
}

#[tokio::test]
async fn a_check_warns_of_what_is_open() {
    let (status, said) = Gateway::setup().config("[proxy]\nlisten = \"0.0.0.0:0\"\n").run("check").await;
    assert!(status.success(), "{said}");
    for part in
        ["warning: there is no [[access]]", "warning: proxy.tls", "warning: there is no [service.NAME]"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
}
