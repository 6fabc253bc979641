//! Connections to a server whose name has several addresses, and how long they are used.

use std::{net::IpAddr, sync::atomic::AtomicUsize};

use http::{HeaderMap, Method};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::upstream::outgoing::RequestHead;

/// Answers 204, and counts messages and connections.
#[derive(Default)]
struct Counts {
    messages: AtomicUsize,
    connections: AtomicUsize,
}

async fn listen(address: &str, port: u16) -> (u16, Arc<Counts>) {
    let listener = TcpListener::bind((address, port)).await.unwrap();
    let (port, counts) = (listener.local_addr().unwrap().port(), Arc::<Counts>::default());
    let counted = counts.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.connections.fetch_add(1, Relaxed);
            let counted = counted.clone();
            tokio::spawn(async move {
                let mut read = Vec::new();
                while stream.read_buf(&mut read).await.is_ok_and(|read| read > 0) {
                    if read.ends_with(b"\r\n\r\n") {
                        read.clear();
                        counted.messages.fetch_add(1, Relaxed);
                        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
                    }
                }
            });
        }
    });
    (port, counts)
}

struct Rig {
    pools: Pools,
    endpoint: Arc<Endpoint>,
}

impl Rig {
    fn new(port: u16, options: UpstreamOptions) -> Self {
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let endpoints = Endpoints::new(options, metrics);
        let endpoint = endpoints.get(&format!("http://servers.invalid:{port}").parse().unwrap());
        Self { pools: Pools::new(&endpoints), endpoint }
    }

    fn leads_to(&self, addresses: &[&str]) {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.endpoint.name.as_ref().unwrap().answered(Ok(addresses));
    }

    async fn send(&self, messages: usize) {
        let headers = HeaderMap::new();
        for _ in 0..messages {
            let head = RequestHead {
                method: &Method::GET,
                target: "/",
                headers: &headers,
                expects_continue: false,
                interim: &crate::upstream::interim::Ignored,
            };
            let request = Outgoing::Http1(head, RequestBody::Empty);
            let sent = self.pools.send(&self.endpoint, Connections::Any, request, None).await;
            assert!(matches!(sent, Sent::Answered(response) if response.status() == 204));
        }
    }
}

#[tokio::test]
async fn every_address_of_a_name_gets_its_share_and_one_that_goes_gets_none() {
    let (port, one) = listen("127.0.0.7", 0).await;
    let (_, two) = listen("127.0.0.8", port).await;
    let rig = Rig::new(port, UpstreamOptions::default());
    rig.leads_to(&["127.0.0.7", "127.0.0.8"]);
    rig.send(20).await;
    let messages = || [&one, &two].map(|counts| counts.messages.load(Relaxed));
    let connections = || [&one, &two].map(|counts| counts.connections.load(Relaxed));
    assert_eq!((messages(), connections()), ([10, 10], [1, 1]));
    for _ in 0..3 {
        rig.leads_to(&["127.0.0.8"]);
    }
    rig.send(20).await;
    assert_eq!(messages(), [10, 30]);
    // What does not answer is passed over, and does not keep those that do from being used.
    rig.leads_to(&["127.0.0.8", "127.0.0.9", "127.0.0.10"]);
    rig.send(20).await;
    assert_eq!(messages(), [10, 50]);
}

#[tokio::test]
async fn connections_are_used_until_they_are_old() {
    let (port, one) = listen("127.0.0.7", 0).await;
    let minute = std::time::Duration::from_secs(60);
    let options =
        UpstreamOptions { max_age: minute, idle_timeout: 10 * minute, ..UpstreamOptions::default() };
    let rig = Rig::new(port, options);
    rig.leads_to(&["127.0.0.7"]);
    let connections = || one.connections.load(Relaxed);
    rig.send(3).await;
    rig.pools.tick(53_000);
    rig.send(3).await;
    assert_eq!(connections(), 1);
    rig.pools.tick(60_000);
    rig.send(3).await;
    assert_eq!(connections(), 2);
    rig.pools.tick(60_000 + 53_000);
    rig.send(3).await;
    assert_eq!(connections(), 2);
}
