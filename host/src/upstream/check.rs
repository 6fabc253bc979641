//! Active checks: asks a server now and then whether it is well.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, runtime::Handle, task::AbortHandle, time::timeout};

use super::{BoxError, Endpoint, dial::dial};
use crate::table::record::HealthCheck;

/// A check that goes on for as long as this is held.
#[derive(Debug)]
pub struct Check {
    /// Which server.
    pub endpoint: Arc<Endpoint>,
    /// How.
    pub health: HealthCheck,
    task: AbortHandle,
}

impl Check {
    /// Begins to check a server, on this runtime.
    pub fn begin(
        runtime: &Handle,
        endpoint: Arc<Endpoint>,
        health: HealthCheck,
        outcomes: prometheus::IntCounterVec,
    ) -> Self {
        let task = runtime.spawn(run(endpoint.clone(), health.clone(), outcomes)).abort_handle();
        Self { endpoint, health, task }
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.task.abort();
        // Nobody says any more that it is unwell.
        self.endpoint.checked(true);
    }
}

async fn run(endpoint: Arc<Endpoint>, health: HealthCheck, outcomes: prometheus::IntCounterVec) {
    let mut row = Row::default();
    let every = health.interval.0.max(Duration::from_millis(10));
    loop {
        let checked = timeout(health.timeout.0, check(&endpoint, &health)).await;
        let well = matches!(checked, Ok(Ok(())));
        outcomes.with_label_values(&[if well { "success" } else { "failure" }]).inc();
        if let Some(healthy) = row.add(well, &health) {
            endpoint.checked(healthy);
        }
        tokio::time::sleep(every).await;
    }
}

/// Outcomes of the same kind in a row.
#[derive(Default)]
struct Row {
    well: bool,
    length: u32,
    unhealthy: bool,
}

impl Row {
    /// What is now thought of the server, if that changes.
    fn add(&mut self, well: bool, health: &HealthCheck) -> Option<bool> {
        self.length = if self.well == well { self.length.saturating_add(1) } else { 1 };
        self.well = well;
        let needed = if well { health.healthy_after } else { health.unhealthy_after };
        if self.unhealthy != well || self.length < needed.max(1) {
            return None;
        }
        self.unhealthy = !well;
        Some(well)
    }
}

async fn check(endpoint: &Endpoint, health: &HealthCheck) -> Result<(), BoxError> {
    let stream = dial(endpoint, health.timeout.0).await?;
    let Some(path) = &health.path else { return Ok(()) };
    let path = format!("{}{path}", endpoint.uri.base());
    let asked = match endpoint.uri.is_h2c() {
        true => ask_http2(stream, endpoint, &path).await,
        false => ask_http1(stream, endpoint, path).await,
    };
    let status = asked?;
    let well = status.is_success() || status.is_redirection();
    if well { Ok(()) } else { Err(format!("answered {status}").into()) }
}

async fn ask_http1(stream: TcpStream, endpoint: &Endpoint, path: String) -> Result<StatusCode, BoxError> {
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    let request = request(path)?.header(header::HOST, endpoint.uri.authority()).body(Empty::<Bytes>::new())?;
    tokio::select! {
        answer = sender.send_request(request) => Ok(answer?.status()),
        ended = driver => Err(closed(ended)),
    }
}

/// With prior knowledge, as messages are sent to such a server.
async fn ask_http2(stream: TcpStream, endpoint: &Endpoint, path: &str) -> Result<StatusCode, BoxError> {
    let (mut sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let target = format!("http://{}{path}", endpoint.uri.authority());
    let request = request(target)?.body(Empty::<Bytes>::new())?;
    tokio::select! {
        answer = sender.send_request(request) => Ok(answer?.status()),
        ended = driver => Err(closed(ended)),
    }
}

fn request(target: String) -> Result<http::request::Builder, BoxError> {
    let target = http::Uri::try_from(target)?;
    Ok(Request::get(target).header(header::USER_AGENT, "message-flow-health-check"))
}

fn closed(ended: hyper::Result<()>) -> BoxError {
    ended.map_or_else(BoxError::from, |()| "connection closed".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_a_row_to_change_a_mind() {
        let health: HealthCheck = serde_json::from_str(r#"{"unhealthy_after":3,"healthy_after":2}"#).unwrap();
        let mut row = Row::default();
        let outcomes = [false, false, true, false, false, false, false, true, true, true];
        let minds = outcomes.map(|well| row.add(well, &health));
        let expect = [None, None, None, None, None, Some(false), None, None, Some(true), None];
        assert_eq!(minds, expect);
    }
}
