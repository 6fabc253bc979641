//! One HTTP request on a connection of its own.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// After which nothing is waited for any longer.
const DEADLINE: Duration = Duration::from_secs(10);

/// More is not read.
const LIMIT: usize = 1 << 20;

pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn must_be_ok(&self) -> anyhow::Result<()> {
        ensure!((200..300).contains(&self.status), "answered {}: {}", self.status, self.body);
        Ok(())
    }

    pub(super) fn json(&self) -> anyhow::Result<serde_json::Value> {
        self.must_be_ok()?;
        Ok(serde_json::from_str(&self.body)?)
    }
}

pub(super) async fn fetch(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> anyhow::Result<Reply> {
    let exchange = async {
        let mut request = Request::builder().method(method).uri(path).header("host", to.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?;
        let stream = TcpStream::connect(to).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), LIMIT).collect().await;
        let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
        anyhow::Ok(Reply { status, body: String::from_utf8_lossy(&body).into_owned() })
    };
    let exchange = tokio::time::timeout(DEADLINE, exchange).await;
    exchange.context("no answer in time")?.with_context(|| format!("{method} http://{to}{path}"))
}
