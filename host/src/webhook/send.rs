//! One request to a target, over a connection of its own: notifications are few.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::forbidden::is_forbidden;

/// Why a notification did not arrive.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("no connection to {0}")]
    Connect(String, #[source] io::Error),
    #[error("TLS did not begin")]
    Tls(#[source] io::Error),
    #[error("HTTP failed")]
    Http(#[from] hyper::Error),
    #[error("the target answered {0}")]
    Answer(StatusCode),
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("the request cannot be made")]
    Request(#[from] http::Error),
}

/// What is sent.
pub(super) struct Posted<'a> {
    pub(super) url: &'a Uri,
    pub(super) headers: &'a [(&'static str, String)],
    pub(super) body: String,
}

/// For `https` targets: the roots that Mozilla trusts, and those given.
pub(super) fn tls(roots: &[rustls::pki_types::CertificateDer<'static>]) -> Arc<ClientConfig> {
    let mut store = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let (_, invalid) = store.add_parsable_certificates(roots.iter().cloned());
    if invalid > 0 {
        tracing::warn!(invalid, "certificates of a webhook's `ca` cannot be used");
    }
    Arc::new(ClientConfig::builder().with_root_certificates(store).with_no_client_auth())
}

/// Sends it; any status but 2xx is a failure. Redirects are not followed.
pub(super) async fn post(
    posted: Posted<'_>,
    tls: &Arc<ClientConfig>,
    limit: Duration,
) -> Result<(), SendError> {
    match timeout(limit, post_now(posted, tls)).await {
        Ok(sent) => sent,
        Err(_) => Err(SendError::Late(limit)),
    }
}

async fn post_now(posted: Posted<'_>, tls: &Arc<ClientConfig>) -> Result<(), SendError> {
    let url = posted.url;
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let secure = url.scheme_str() == Some("https");
    let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = connect(&host, port).await;
    let stream = stream.map_err(|error| SendError::Connect(format!("{host}:{port}"), error))?;
    let status = if secure {
        let name = ServerName::try_from(host).map_err(|error| SendError::Tls(io::Error::other(error)))?;
        let stream =
            TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.map_err(SendError::Tls)?;
        exchange(stream, posted).await?
    } else {
        exchange(stream, posted).await?
    };
    if status.is_success() { Ok(()) } else { Err(SendError::Answer(status)) }
}

/// To the first address that answers, of those that a target may have.
async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "no address");
    for address in lookup_host((host, port)).await? {
        if is_forbidden(address.ip()) {
            let why =
                format!("{} is not dialled: it is link-local, multicast or a metadata service", address.ip());
            failed = io::Error::new(io::ErrorKind::PermissionDenied, why);
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    posted: Posted<'_>,
) -> Result<StatusCode, SendError> {
    let Posted { url, headers, body } = posted;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::post(path).header(header::HOST, authority);
    request =
        request.header(header::CONTENT_TYPE, "application/json").header(header::USER_AGENT, "message-flow");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(Full::new(Bytes::from(body)))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with this exchange, whether or not that comes to its end.
    let mut connections = tokio::task::JoinSet::new();
    connections.spawn(connection);
    Ok(sender.send_request(request).await?.status())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn metadata_services_are_no_targets() {
        let tls = tls(&[]);
        for url in [
            "http://169.254.169.254/latest",
            "https://169.254.169.254/",
            "http://[fd00:ec2::254]/",
            "http://[::ffff:169.254.169.254]:80/",
            "http://100.100.100.200/",
            "http://168.63.129.16:32526/",
            // Names may be written as numbers.
            "http://2852039166/",
            "http://0xa9fea9fe/",
        ] {
            let url: Uri = url.parse().unwrap();
            let posted = Posted { url: &url, headers: &[], body: String::new() };
            let error = post(posted, &tls, Duration::from_secs(5)).await.unwrap_err();
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            assert!(cause.contains("is not dialled"), "{url}: {error}: {cause}");
        }
    }
}
