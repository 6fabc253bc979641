//! A proxy with a table in memory, servers that follow a script, and a client that says exactly
//! what it is told to.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use super::config;
use crate::{
    proxy::{Compiler, Metrics, Parts, Planner, Proxy, Settings, listener_options, upstream_options},
    table::{
        self, Adapter, Table,
        adapter::{
            Answer, Assignment, Change, ChangeSet, ClientRecord, Condition, Proposal, Revision, Snapshot,
        },
    },
    upstream::{self, Endpoints},
};

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// A proxy that runs, for one configuration.
pub(in crate::proxy) struct Rig {
    pub(in crate::proxy) proxy: Proxy,
    pub(in crate::proxy) registry: prometheus::Registry,
    planner: Planner,
    pub(in crate::proxy) table: Arc<Table>,
}

impl Rig {
    /// From a configuration whose listener takes any port.
    pub(in crate::proxy) async fn start(text: &str) -> Self {
        let mut config = config(text);
        config.proxy.listen.set_port(0);
        config.proxy.workers = Some(config.proxy.workers.unwrap_or(1));
        let mut options = table::Options::new("test", "memory");
        options.overlay = config.services.clone();
        let table = Table::start(Arc::new(Memory::default()), options).await;
        let registry = prometheus::Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let of_servers = upstream::Metrics::new(&registry).unwrap();
        let endpoints = Endpoints::new(upstream_options(&config.proxy), of_servers);
        let checks = (tokio::runtime::Handle::current(), table.tasks().clone());
        let compiler = Compiler::new(endpoints.clone(), metrics.clone(), checks);
        let settings = Arc::new(Settings::new(&config.proxy, &config.routes, "test"));
        let planner = Planner::new(compiler, settings.clone());
        planner.set(settings, table.view(), &Arc::default());
        let parts = Parts {
            plan: planner.current().clone(),
            assignments: table.assignments().clone(),
            endpoints,
            metrics,
            tasks: crate::supervise::Supervisor::default(),
        };
        let proxy = Proxy::start(listener_options(&config.proxy), Vec::new(), parts).unwrap();
        Self { proxy, registry, planner, table }
    }

    /// Goes by another configuration from now on.
    pub(in crate::proxy) async fn reload(&self, text: &str) {
        let config = config(text);
        let mut views = self.table.subscribe();
        views.mark_unchanged();
        self.table.set_overlay(config.services.clone());
        let _ = timeout(PATIENCE, views.changed()).await;
        let settings = Arc::new(Settings::new(&config.proxy, &config.routes, "test"));
        self.planner.set(settings, self.table.view(), &Arc::default());
    }

    pub(in crate::proxy) fn address(&self) -> SocketAddr {
        self.proxy.address()
    }

    pub(in crate::proxy) async fn client(&self) -> Client {
        Client::connect(self.address()).await
    }

    /// How often an assignment was to be stored.
    pub(in crate::proxy) fn claims(&self) -> u64 {
        self.table.stats().assignment_claims.get()
    }

    /// The sum of a metric over all of its labels that contain this text.
    pub(in crate::proxy) fn metric(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.map(|family| family.get_metric().to_vec()).unwrap_or_default();
        let wanted = metrics
            .iter()
            .filter(|metric| label.is_empty() || metric.get_label().iter().any(|pair| pair.value() == label));
        wanted.map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value()).sum()
    }
}

/// A client that says exactly what it is told to.
pub(in crate::proxy) struct Client {
    pub(in crate::proxy) stream: TcpStream,
    read: Vec<u8>,
}

/// A response as it came.
#[derive(Debug)]
pub(in crate::proxy) struct Reply {
    pub(in crate::proxy) status: u16,
    pub(in crate::proxy) head: String,
    pub(in crate::proxy) body: String,
}

impl Reply {
    pub(in crate::proxy) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut found = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.trim())
    }
}

impl Client {
    pub(in crate::proxy) async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), read: Vec::new() }
    }

    pub(in crate::proxy) async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// A `GET` for the path with these further header lines.
    pub(in crate::proxy) async fn get(&mut self, path: &str, headers: &str) -> Reply {
        self.say(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n")).await;
        self.reply().await
    }

    /// The next response, with a body by its content-length or chunked.
    pub(in crate::proxy) async fn reply(&mut self) -> Reply {
        timeout(PATIENCE, self.hear_reply()).await.expect("a response in time")
    }

    async fn hear_reply(&mut self) -> Reply {
        let head = self.until(b"\r\n\r\n").await.expect("a response's head");
        let head = String::from_utf8(head).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut reply = Reply { status, head, body: String::new() };
        if let Some(length) = reply.header("content-length") {
            let length = length.parse().unwrap();
            reply.body = String::from_utf8(self.exactly(length).await).unwrap();
        } else if reply.header("transfer-encoding").is_some() {
            loop {
                let size = self.until(b"\r\n").await.expect("a chunk's size");
                let size = String::from_utf8(size).unwrap();
                let size = usize::from_str_radix(size.trim(), 16).unwrap();
                if size == 0 {
                    // Trailers and the last line.
                    while self.until(b"\r\n").await.expect("the last chunk").len() > 2 {}
                    break;
                }
                let chunk = self.exactly(size + 2).await;
                reply.body.push_str(std::str::from_utf8(&chunk[..size]).unwrap());
            }
        }
        reply
    }

    async fn until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self.read.windows(mark.len()).position(|window| window == mark);
            if let Some(at) = found {
                return Some(self.read.drain(..at + mark.len()).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    pub(in crate::proxy) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            assert!(self.more().await, "closed after {} of {length} bytes", self.read.len());
        }
        self.read.drain(..length).collect()
    }

    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
        read.expect("bytes in time").is_ok_and(|read| read > 0)
    }

    /// Waits for the other end to close; what came before that.
    pub(in crate::proxy) async fn rest(&mut self) -> String {
        while self.more().await {}
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
    }
}

/// A server that answers every request by a script.
pub(in crate::proxy) struct Server {
    pub(in crate::proxy) address: SocketAddr,
    /// Heads of the requests that came, with what came of their bodies in the same read.
    pub(in crate::proxy) requests: Arc<Mutex<Vec<String>>>,
    pub(in crate::proxy) connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

type Script = dyn Fn(TcpStream, Arc<Mutex<Vec<String>>>) -> BoxFuture<'static, ()> + Send + Sync;

impl Server {
    /// Answers each request with the same bytes, on connections that are kept.
    pub(in crate::proxy) async fn answering(response: &str) -> Self {
        let response = response.to_owned();
        Self::following(move |stream, requests| answer(stream, requests, response.clone()).boxed()).await
    }

    /// Answers with its name.
    pub(in crate::proxy) async fn named(name: &str) -> Self {
        let length = name.len();
        Self::answering(&format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}")).await
    }

    /// Does with each connection what the script says.
    pub(in crate::proxy) async fn following(
        script: impl Fn(TcpStream, Arc<Mutex<Vec<String>>>) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let connections = Arc::new(AtomicUsize::new(0));
        let script: Arc<Script> = Arc::new(script);
        let (heard, counted) = (requests.clone(), connections.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(script(stream, heard.clone()));
            }
        });
        Self { address, requests, connections, task }
    }

    pub(in crate::proxy) fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(in crate::proxy) fn heard(&self) -> Vec<String> {
        self.requests.lock().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, requests: Arc<Mutex<Vec<String>>>, response: String) {
    while let Some(request) = hear(&mut stream).await {
        requests.lock().push(request);
        if stream.write_all(response.as_bytes()).await.is_err() {
            break;
        }
    }
}

/// The head of the next request, with whatever came of its body in the same read.
pub(in crate::proxy) async fn hear_head(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    while !read.windows(4).any(|window| window == b"\r\n\r\n") {
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
    Some(String::from_utf8_lossy(&read).into_owned())
}

/// The next request with its body; none once the connection is closed.
pub(in crate::proxy) async fn hear(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    loop {
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&read);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let whole = match length {
            Some(length) => body.len() >= length,
            None if lower.contains("transfer-encoding: chunked") => {
                let trailed = body.contains("\r\n0\r\n") && body.ends_with("\r\n\r\n");
                trailed || body.ends_with("0\r\n\r\n")
            }
            None => true,
        };
        if whole {
            return Some(text.into_owned());
        }
    }
}

/// A routing table that only has assignments.
#[derive(Default)]
struct Memory {
    assignments: Mutex<HashMap<(String, String), Assignment>>,
}

impl Adapter for Memory {
    fn snapshot(&self) -> Answer<'_, Snapshot> {
        async { Ok(Snapshot { entries: Vec::new(), revision: 1 }) }.boxed()
    }

    fn changes(&self, _: Revision) -> Answer<'_, ChangeSet> {
        std::future::pending().boxed()
    }

    fn stirred(&self) -> BoxFuture<'_, ()> {
        std::future::pending().boxed()
    }

    fn write(&self, _: Vec<Change>, _: Option<Revision>) -> Answer<'_, Revision> {
        async { Ok(1) }.boxed()
    }

    fn assigned(&self, client: String, service: String) -> Answer<'_, Option<Assignment>> {
        let found = self.assignments.lock().get(&(client, service)).cloned();
        async { Ok(found) }.boxed()
    }

    fn assign(&self, proposal: Proposal, condition: Condition) -> Answer<'_, Option<Assignment>> {
        let mut assignments = self.assignments.lock();
        let key = (proposal.client, proposal.service);
        let there = assignments.get(&key).cloned();
        let stamp = there.as_ref().map_or(0, |there| there.stamp);
        let holds = match condition {
            Condition::Absent => there.is_none(),
            Condition::Unchanged(stamp) => there.as_ref().is_some_and(|there| there.stamp == stamp),
            Condition::Always => true,
        };
        if holds {
            let (server, expires, router) = (proposal.server, proposal.expires, proposal.router);
            assignments.insert(key.clone(), Assignment { server, expires, router, stamp: stamp + 1 });
        }
        let stored = assignments.get(&key).cloned();
        async { Ok(stored) }.boxed()
    }

    fn forget(&self, client: String, service: String) -> Answer<'_, ()> {
        self.assignments.lock().remove(&(client, service));
        async { Ok(()) }.boxed()
    }

    fn client(&self, _: String) -> Answer<'_, ClientRecord> {
        async { Ok(ClientRecord::default()) }.boxed()
    }

    fn locate(&self, _: String, _: Option<String>) -> Answer<'_, ()> {
        async { Ok(()) }.boxed()
    }

    fn sweep(&self, _: u64, _: u32) -> Answer<'_, u32> {
        async { Ok(0) }.boxed()
    }
}
