//! Where messages go, and what is changed about them on their way.

use super::{Rig, Server};

fn chat(server: &Server) -> String {
    format!("[service.chat]\nservers = [\"{}\"]\n", server.uri())
}

#[tokio::test]
async fn the_path_names_the_service() {
    let server = Server::named("a").await;
    let rig = Rig::start(&chat(&server)).await;
    let mut client = rig.client().await;
    let reply = client.get("/chat/hello?x=1", "").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "a"));
    let reply = client.get("/chat", "").await;
    assert_eq!(reply.status, 200);
    let heard = server.heard();
    assert!(heard[0].starts_with("GET /hello?x=1 HTTP/1.1\r\n"), "{heard:?}");
    assert!(heard[1].starts_with("GET / HTTP/1.1\r\n"), "{heard:?}");
    assert_eq!(server.connections.load(std::sync::atomic::Ordering::SeqCst), 1, "the connection is kept");
}

#[tokio::test]
async fn headers_name_the_service() {
    let (one, two) = (Server::named("one").await, Server::named("two").await);
    let text = format!(
        "[service.\"chat@1\"]\nservers = [\"{}\"]\n[service.\"chat@2\"]\nservers = [\"{}\"]\n",
        one.uri(),
        two.uri()
    );
    let rig = Rig::start(&text).await;
    let mut client = rig.client().await;
    let reply = client.get("/any/path", "message-flow-service: chat\r\nmessage-flow-version: 2\r\n").await;
    assert_eq!(reply.body, "two");
    assert!(two.heard()[0].starts_with("GET /any/path "));
    assert_eq!(client.get("/chat@1/", "").await.body, "one");
    assert_eq!(client.get("/chat/", "").await.status, 503, "neither version is live");
}

#[tokio::test]
async fn what_is_not_known_is_a_problem() {
    let rig = Rig::start("[service.empty]\n").await;
    let mut client = rig.client().await;
    for (path, status) in [("/", 404), ("/nobody/", 404), ("/empty/", 503)] {
        let reply = client.get(path, "").await;
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{path}");
        let problem: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(problem["status"], status, "{path}");
    }
}

#[tokio::test]
async fn clients_stay_where_they_are() {
    let (a, b) = (Server::named("a").await, Server::named("b").await);
    let rig = Rig::start(&format!("[service.chat]\nservers = [\"{}\", \"{}\"]\n", a.uri(), b.uri())).await;
    let mut client = rig.client().await;
    let mut seen = std::collections::HashSet::new();
    for id in 0..20 {
        let header = format!("message-flow-client: client-{id}\r\n");
        let first = client.get("/chat/", &header).await.body;
        for _ in 0..5 {
            assert_eq!(client.get("/chat/", &header).await.body, first);
        }
        seen.insert(first);
    }
    assert_eq!(seen.len(), 2, "both servers get clients");
}

#[tokio::test]
async fn routes_take_the_place_of_paths() {
    let (a, b) = (Server::named("a").await, Server::named("b").await);
    let services =
        format!("[service.a]\nservers = [\"{}\"]\n[service.b]\nservers = [\"{}\"]\n", a.uri(), b.uri());
    let routes =
        "[[route]]\nhost = \"a.test\"\nservice = \"a\"\n[[route]]\npath = \"/v1/\"\nservice = \"b\"\n";
    let rig = Rig::start(&format!("{routes}{services}")).await;
    let mut client = rig.client().await;
    client.say("GET /x HTTP/1.1\r\nHost: a.test:80\r\n\r\n").await;
    assert_eq!(client.reply().await.body, "a");
    assert_eq!(client.get("/v1/x", "").await.body, "b");
    assert!(b.heard()[0].starts_with("GET /v1/x "));
    assert_eq!(client.get("/a/", "").await.status, 404);
}

#[tokio::test]
async fn the_server_learns_where_it_comes_from() {
    let server = Server::named("a").await;
    let rig = Rig::start(&chat(&server)).await;
    let mut client = rig.client().await;
    client.get("/chat/", "X-Forwarded-For: 1.2.3.4\r\nConnection: x-secret\r\nX-Secret: 1\r\n").await;
    let heard = server.heard()[0].to_ascii_lowercase();
    assert!(heard.contains("\r\nx-forwarded-for: 127.0.0.1\r\n"), "{heard}");
    assert!(heard.contains("\r\nx-forwarded-proto: http\r\n"), "{heard}");
    assert!(heard.contains("\r\nx-forwarded-host: test\r\n"), "{heard}");
    assert!(heard.contains("\r\nvia: 1.1 message-flow-test\r\n"), "{heard}");
    assert!(heard.contains("\r\nhost: test\r\n"), "{heard}");
    assert!(!heard.contains("x-secret"), "{heard}");
    let again = client.get("/chat/", "Via: 1.1 message-flow-test\r\n").await;
    assert_eq!(again.status, 508);
}

#[tokio::test]
async fn a_reload_keeps_connections() {
    let (a, b) = (Server::named("a").await, Server::named("b").await);
    let rig = Rig::start(&chat(&a)).await;
    let mut client = rig.client().await;
    assert_eq!(client.get("/chat/", "").await.body, "a");
    rig.reload(&chat(&b)).await;
    assert_eq!(client.get("/chat/", "").await.body, "b");
}

#[tokio::test]
async fn explanations_say_what_would_happen() {
    let server = Server::named("a").await;
    let rig = Rig::start(&chat(&server)).await;
    let question = crate::resolve::Question::new("chat".parse().unwrap(), "c");
    let before = rig.proxy.explain(question.clone()).await.unwrap();
    assert_eq!(before.step, Some(crate::resolve::Step::List));
    assert_eq!(before.server, Some(server.uri()));
    rig.client().await.get("/chat/", "message-flow-client: c\r\n").await;
    let after = rig.proxy.explain(question).await.unwrap();
    assert_eq!(after.step, Some(crate::resolve::Step::Assignment));
}

/// It goes by what this router remembers, as a message does, and neither repairs nor prolongs that.
#[tokio::test]
async fn asking_why_changes_nothing() {
    let (a, b) = (Server::named("a").await, Server::named("b").await);
    let service = format!("[service.chat]\nservers = [\"{}\", \"{}\"]\n", a.uri(), b.uri());
    let rig = Rig::start(&service).await;
    let (assignments, question) =
        (rig.table.assignments(), crate::resolve::Question::new("chat".parse().unwrap(), "c"));
    let explained = rig.proxy.explain(question.clone()).await.unwrap();
    assert_eq!((rig.claims(), assignments.len()), (0, 0));

    let view = rig.table.view();
    let service = view.services().next().unwrap();
    let other = service.servers.iter().find(|server| Some(&*server.id) != explained.server_id.as_deref());
    let other = other.unwrap().id.to_string();
    let (absent, wait) = (crate::table::adapter::Condition::Absent, assignments.wait());
    assignments.claim(service, "c", &other, absent, &wait).await.unwrap();
    let kept = || (0..assignments.parts()).flat_map(|part| assignments.part(part)).collect::<Vec<_>>();
    let asked = || (rig.claims(), rig.table.stats().assignment_lookups.get());
    let before = (kept(), asked());
    let explained = rig.proxy.explain(question.clone()).await.unwrap();
    assert_eq!(explained.step, Some(crate::resolve::Step::Assignment));
    assert_eq!(explained.server_id.as_ref(), Some(&other));
    assert_eq!((kept(), asked()), before);
    let heard = rig.client().await.get("/chat/", "message-flow-client: c\r\n").await.body;
    let named = if a.uri().ends_with(&other) { "a" } else { "b" };
    assert_eq!(heard, named, "a message goes where it was said that it would");
}
