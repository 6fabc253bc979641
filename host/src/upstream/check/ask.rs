//! Asks a server once, at its own address and nowhere else: no redirect is followed, and a path is
//! nothing but a path.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, StatusCode, header, uri::PathAndQuery};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::probe::{Ask, Outcome};
use crate::upstream::{BoxError, Endpoint, dial::dial};

/// What checks ask with, but in tests of when they do.
pub(super) fn over_the_network() -> Arc<Ask> {
    Arc::new(|endpoint, path, limit| {
        async move {
            match ask(&endpoint, path.as_deref(), limit).await {
                Ok(()) => Outcome::Well,
                Err(Unwell::Local) => Outcome::Unknown,
                Err(Unwell::Server(error)) => {
                    tracing::debug!(server = %endpoint.uri, %error, "an active check failed");
                    Outcome::Unwell
                }
            }
        }
        .boxed()
    })
}

/// Why a server is not known to be well.
enum Unwell {
    /// It could not be asked, for reasons of this router's own.
    Local,
    Server(BoxError),
}

impl<E: Into<BoxError>> From<E> for Unwell {
    fn from(error: E) -> Self {
        Self::Server(error.into())
    }
}

async fn ask(endpoint: &Arc<Endpoint>, path: Option<&str>, limit: Duration) -> Result<(), Unwell> {
    let stream = match dial(endpoint, limit).await {
        Ok(stream) => stream,
        Err(error) if error.is_local() => return Err(Unwell::Local),
        Err(error) => return Err(error.into()),
    };
    let Some(path) = path else { return Ok(()) };
    // Records of the table are read leniently, and an absolute target would name another host.
    if !path.starts_with('/') {
        return Err(Unwell::Server(format!("`{path}` is not a path").into()));
    }
    let path: PathAndQuery = format!("{}{path}", endpoint.uri.base()).try_into()?;
    let status = match endpoint.uri.is_h2c() {
        true => ask_http2(stream, endpoint, &path).await?,
        false => ask_http1(stream, endpoint, path).await?,
    };
    let well = status.is_success() || status.is_redirection();
    if well { Ok(()) } else { Err(Unwell::Server(format!("answered {status}").into())) }
}

async fn ask_http1(
    stream: TcpStream,
    endpoint: &Endpoint,
    path: PathAndQuery,
) -> Result<StatusCode, BoxError> {
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    let request = request(path)?.header(header::HOST, endpoint.uri.authority()).body(Empty::<Bytes>::new())?;
    tokio::select! {
        answer = sender.send_request(request) => Ok(answer?.status()),
        ended = driver => Err(closed(ended)),
    }
}

/// With prior knowledge, as messages are sent to such a server.
async fn ask_http2(
    stream: TcpStream,
    endpoint: &Endpoint,
    path: &PathAndQuery,
) -> Result<StatusCode, BoxError> {
    let (mut sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let target = format!("http://{}{path}", endpoint.uri.authority());
    let request = request(target)?.body(Empty::<Bytes>::new())?;
    tokio::select! {
        answer = sender.send_request(request) => Ok(answer?.status()),
        ended = driver => Err(closed(ended)),
    }
}

fn request<T>(target: T) -> Result<http::request::Builder, BoxError>
where
    http::Uri: TryFrom<T>,
    BoxError: From<<http::Uri as TryFrom<T>>::Error>,
{
    let target = http::Uri::try_from(target)?;
    Ok(Request::get(target).header(header::USER_AGENT, "message-flow-health-check"))
}

fn closed(ended: hyper::Result<()>) -> BoxError {
    ended.map_or_else(BoxError::from, |()| "connection closed".into())
}
