//! Clients of servers that are not well for a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tokio::io::AsyncWriteExt;

use super::{Rig, Server, rig::hear};

/// Answers `/check` and everything else with its name and the status that it is told to.
async fn server(name: &'static str, status: &Arc<AtomicU16>) -> Server {
    let status = status.clone();
    Server::following(move |mut stream, requests| {
        let status = status.clone();
        Box::pin(async move {
            while let Some(request) = hear(&mut stream).await {
                requests.lock().push(request);
                let (status, length) = (status.load(SeqCst), name.len());
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{name}");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    break;
                }
            }
        })
    })
    .await
}

/// Where each of these clients is served now.
async fn served(rig: &Rig, clients: usize) -> BTreeMap<usize, String> {
    let mut client = rig.client().await;
    let mut served = BTreeMap::new();
    for number in 0..clients {
        let reply = client.get("/chat/", &format!("message-flow-client: c{number}\r\n")).await;
        served.insert(number, format!("{} {}", reply.status, reply.body));
    }
    served
}

fn of(served: &BTreeMap<usize, String>, answer: &str) -> BTreeSet<usize> {
    served.iter().filter(|(_, given)| *given == answer).map(|(client, _)| *client).collect()
}

#[tokio::test]
async fn clients_of_an_ejected_server_return_to_it() {
    let status = [200, 200, 200].map(|status| Arc::new(AtomicU16::new(status)));
    let (a, b, c) =
        (server("a", &status[0]).await, server("b", &status[1]).await, server("c", &status[2]).await);
    let servers = [a.uri(), b.uri(), c.uri()];
    let rig =
        Rig::start(&format!("[proxy.ejection]\ntime = \"4s\"\n[service.chat]\nservers = {servers:?}\n"))
            .await;
    let before = served(&rig, 40).await;
    let own = of(&before, "200 a");
    assert!(!own.is_empty() && own.len() < 40, "{before:?}");

    // Five answers of one path are enough.
    status[0].store(503, SeqCst);
    let mut client = rig.client().await;
    let one = own.iter().next().unwrap();
    for _ in 0..5 {
        let reply = client.get("/chat/one", &format!("message-flow-client: c{one}\r\n")).await;
        assert_eq!(reply.status, 503);
    }
    status[0].store(200, SeqCst);
    let (ejected, claims) = (Instant::now(), rig.claims());
    let during = [served(&rig, 40).await, served(&rig, 40).await];
    if ejected.elapsed() < Duration::from_secs(4) {
        assert_eq!(during[0], during[1], "a detour is the same each time");
        assert!(of(&during[0], "200 a").is_empty(), "{during:?}");
        let stayed = before.iter().filter(|(client, _)| !own.contains(client));
        assert!(stayed.clone().all(|(client, given)| during[0][client] == *given), "nobody else is moved");
    }
    assert_eq!(rig.claims(), claims, "and nothing is written");
    while served(&rig, 40).await != before {
        assert!(ejected.elapsed() < Duration::from_secs(30), "they never returned");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn clients_of_a_server_that_fails_its_checks_return_to_it() {
    let status = [200, 200].map(|status| Arc::new(AtomicU16::new(status)));
    let (a, b) = (server("a", &status[0]).await, server("b", &status[1]).await);
    let servers = [a.uri(), b.uri()];
    let health = "health = { path = \"/check\", interval = \"1s\", unhealthy_after = 1, healthy_after = 1 }";
    let rig = Rig::start(&format!("[service.chat]\nservers = {servers:?}\n{health}\n")).await;
    let before = served(&rig, 20).await;
    assert!(!of(&before, "200 a").is_empty() && !of(&before, "200 b").is_empty(), "{before:?}");
    let claims = rig.claims();
    // An answer that ejects nobody.
    status[0].store(404, SeqCst);
    let begun = Instant::now();
    while of(&served(&rig, 20).await, "200 b").len() < 20 {
        assert!(begun.elapsed() < Duration::from_secs(30), "it is never found to fail");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    status[0].store(200, SeqCst);
    while served(&rig, 20).await != before {
        assert!(begun.elapsed() < Duration::from_secs(60), "they never returned");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(rig.claims(), claims);
}

#[tokio::test]
async fn the_last_server_that_takes_clients_is_never_ejected() {
    let status = [200, 200].map(|status| Arc::new(AtomicU16::new(status)));
    let (a, b) = (server("a", &status[0]).await, server("b", &status[1]).await);
    let servers = format!("[{{ uri = \"{}\" }}, {{ uri = \"{}\", weight = 0 }}]", a.uri(), b.uri());
    let rig = Rig::start(&format!("[service.chat]\nservers = {servers}\n")).await;
    status[0].store(503, SeqCst);
    for _ in 0..3 {
        assert_eq!(of(&served(&rig, 10).await, "503 a").len(), 10);
    }
    assert_eq!(rig.metric("message_flow_upstream_ejections_total", ""), 0.0);
    status[0].store(200, SeqCst);
    assert_eq!(of(&served(&rig, 10).await, "200 a").len(), 10);
    assert!(b.heard().is_empty());
}
