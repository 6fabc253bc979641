//! Outbound HTTP of plugins: to hosts that the operator granted by name, and never to addresses
//! that only the machine itself should speak to; and marked, so that none of them comes back to its
//! plugin as a message.

use std::{
    future::Future,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::uri::{Authority, Scheme};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks, default_send_request};

use crate::{
    forbidden::is_forbidden,
    plugin::{
        capability::Grant,
        trail::{Mark, Trail},
    },
    text::shown,
};

/// Between two lines in the log about requests of one instance that went nowhere.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// Lets requests to granted hosts through.
pub(super) struct Egress {
    grants: Vec<Grant>,
    mark: Mark,
    /// Of the message at hand.
    trail: Trail,
    plugin: Arc<str>,
    /// When a request was last logged that went nowhere.
    logged: Option<Instant>,
}

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(http::Response<WasiBody>, Io), Error>;

impl Egress {
    pub(super) fn new(grants: Vec<Grant>, mark: Mark, plugin: Arc<str>) -> Self {
        Self { grants, mark, trail: Trail::default(), plugin, logged: None }
    }

    /// What is sent from now on is about a message with this trail.
    pub(super) fn follow(&mut self, trail: Trail) {
        self.trail = trail;
    }

    /// A guest may ask any number of times.
    fn log_denied(&mut self, uri: &http::Uri) {
        if self.logged.is_none_or(|logged| logged.elapsed() > LOG_EVERY) {
            self.logged = Some(Instant::now());
            let (plugin, uri) = (&*self.plugin, without_secrets(uri));
            tracing::warn!(plugin, uri = %shown(&uri), "a plugin's request goes to a host that is not granted");
        }
    }

    fn allows(&self, authority: &Authority, port: u16) -> bool {
        self.grants.iter().any(|grant| grant.allows_http(authority, port))
    }
}

impl WasiHttpHooks for Egress {
    fn send_request(
        &mut self,
        mut request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _sent: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        self.mark.put_on(request.headers_mut(), &self.trail);
        let port = if request.uri().scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let authority = request.uri().authority().filter(|authority| self.allows(authority, port)).cloned();
        if authority.is_none() {
            self.log_denied(request.uri());
        }
        let mark = self.mark.clone();
        Box::new(async move {
            let Some(authority) = authority else { return Err(Error::HttpRequestDenied) };
            let addresses = resolve(&authority, port).await?;
            if request.uri().scheme() == Some(&Scheme::HTTPS) {
                mark.show_pass(request.headers_mut(), &addresses);
            } else {
                let address = reachable(addresses).await?;
                mark.show_pass(request.headers_mut(), &[address]);
                pin(&mut request, address);
            }
            let (response, io) = default_send_request(request, options).await?;
            Ok((response.map(http_body_util::BodyExt::boxed_unsync), Box::new(io) as Io))
        })
    }
}

/// Where a granted name leads; it may resolve to anything, but some of that is never meant.
async fn resolve(authority: &Authority, port: u16) -> Result<Vec<SocketAddr>, Error> {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let resolved = tokio::net::lookup_host((host, authority.port_u16().unwrap_or(port))).await;
    let addresses: Vec<_> = resolved.map_err(|_| Error::DestinationNotFound)?.collect();
    match addresses.iter().any(|address| is_forbidden(address.ip())) {
        true => Err(Error::DestinationIpProhibited),
        false => Ok(addresses),
    }
}

/// The first that answers; one alone is not tried.
async fn reachable(addresses: Vec<SocketAddr>) -> Result<SocketAddr, Error> {
    let mut last = None;
    for address in &addresses {
        if addresses.len() == 1 || tokio::net::TcpStream::connect(address).await.is_ok() {
            return Ok(*address);
        }
        last = Some(*address);
    }
    last.ok_or(Error::DestinationNotFound)
}

/// Sends a request to an address that was looked at: the name might resolve to another the next time.
/// Only without TLS, which is for the name, as the certificate is that an impostor would need.
fn pin(request: &mut http::Request<WasiBody>, address: SocketAddr) {
    let mut parts = request.uri().clone().into_parts();
    parts.authority = address.to_string().parse().ok();
    if let Ok(uri) = http::Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

fn without_secrets(uri: &http::Uri) -> String {
    let host = uri.host().unwrap_or_default();
    format!("{}://{host}{}", uri.scheme_str().unwrap_or_default(), uri.path())
}
