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
