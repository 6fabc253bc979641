//! A small server that says its name.

use std::{convert::Infallible, net::SocketAddr};

use http_body_util::Full;
use hyper::{Request, Response, body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub(super) struct Server {
    name: &'static str,
    region: &'static str,
    address: SocketAddr,
}

impl Server {
    pub(super) async fn start(name: &'static str, region: &'static str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = service_fn(move |request| answer(name, region, request));
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), answer);
                tokio::spawn(connection);
            }
        });
        Ok(Self { name, region, address })
    }

    /// As it is registered.
    pub(super) fn record(&self) -> Value {
        json!({ "id": self.name, "uri": format!("http://{}", self.address), "metadata": { "region": self.region } })
    }
}

async fn answer<B>(
    name: &str,
    region: &str,
    request: Request<B>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = format!("{name} (in {region}) answers {} {}\n", request.method(), request.uri());
    Ok(Response::new(Full::new(text.into())))
}
