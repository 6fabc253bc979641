//! One ordinary HTTP request and its reply, over a connection of its own.

use std::net::SocketAddr;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::wait::{PATIENCE, within};

/// A request that is being put together.
#[derive(Clone, Debug)]
pub struct Call {
    to: SocketAddr,
    method: Method,
    target: String,
    headers: Vec<(String, String)>,
    body: Bytes,
    version: Version,
}

#[derive(Clone, Copy, Debug)]
enum Version {
    Http1,
    Http2,
}

/// The whole answer.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// All of its body.
    pub body: Bytes,
    /// What came after the body.
    pub trailers: Option<HeaderMap>,
}

impl Call {
    /// To `target`, a path and query, at an address.
    pub fn new(to: SocketAddr, method: &str, target: impl Into<String>) -> Self {
        let method = method.parse().expect("a test writes a method");
        Self {
            to,
            method,
            target: target.into(),
            headers: vec![],
            body: Bytes::new(),
            version: Version::Http1,
        }
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Says who sends it.
    pub fn client(self, id: &str) -> Self {
        self.header("message-flow-client", id)
    }

    /// With these bytes as its body.
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.body = bytes.into();
        self
    }

    /// With a JSON document as its body.
    pub fn json(self, value: &Value) -> Self {
        self.header("content-type", "application/json").body(value.to_string())
    }

    /// Over HTTP/2 with prior knowledge.
    pub fn h2c(mut self) -> Self {
        self.version = Version::Http2;
        self
    }

    /// Sends it; no answer fails the test.
    pub async fn send(self) -> Reply {
        let what = format!("{} {}", self.method, self.target);
        self.try_send().await.unwrap_or_else(|error| panic!("{what}: {error:#}"))
    }

    /// Sends it and reads the whole answer.
    ///
    /// # Errors
    /// The connection was refused or broke off.
    pub async fn try_send(self) -> anyhow::Result<Reply> {
        let what = format!("{} {}", self.method, self.target);
        within(PATIENCE, what, async { Reply::read(self.open().await?).await }).await
    }

    /// Sends it and reads the head of the answer; the body is left to the caller.
    ///
    /// # Errors
    /// The connection was refused or broke off.
    pub async fn open(self) -> anyhow::Result<Response<Incoming>> {
        let io = TokioIo::new(TcpStream::connect(self.to).await.context("connect")?);
        match self.version {
            Version::Http1 => {
                let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
                tokio::spawn(connection.with_upgrades());
                Ok(sender.send_request(self.request(&self.target)?).await?)
            }
            Version::Http2 => {
                let executor = TokioExecutor::new();
                let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await?;
                tokio::spawn(connection);
                let target = format!("http://{}{}", self.to, self.target);
                Ok(sender.send_request(self.request(&target)?).await?)
            }
        }
    }

    fn request(&self, target: &str) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(self.method.clone()).uri(target);
        if matches!(self.version, Version::Http1) && !self.headers.iter().any(|(name, _)| name == "host") {
            request = request.header("host", self.to.to_string());
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        Ok(request.body(Full::new(self.body.clone()))?)
    }
}

impl Reply {
    /// Reads the rest of an answer.
    ///
    /// # Errors
    /// The body broke off.
    pub async fn read(response: Response<Incoming>) -> anyhow::Result<Self> {
        let (head, body) = response.into_parts();
        let body = body.collect().await.context("body")?;
        let trailers = body.trailers().cloned();
        Ok(Self { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes(), trailers })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{} answered no JSON ({error}): {}", self.status, self.text()))
    }

    /// A header, or an empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Fails the test unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?}\n{}", self.headers, self.text());
        self
    }

    /// Fails the test unless this is a problem document with this status; gives the document.
    #[track_caller]
    pub fn problem(self, status: u16) -> Value {
        let reply = self.expect(status);
        assert_eq!(reply.header("content-type"), "application/problem+json", "{}", reply.text());
        let problem = reply.json();
        assert_eq!(problem["status"], status, "{problem}");
        assert!(problem["title"].is_string(), "{problem}");
        let kind = problem["type"].as_str().and_then(|kind| kind.strip_prefix("urn:message-flow:problem:"));
        assert!(kind.is_some_and(|kind| !kind.is_empty()), "{problem}");
        problem
    }
}
