//! Outbound HTTP of plugins: to hosts that the operator granted by name, and never to addresses
//! that only the machine itself should speak to; and marked, so that none of them comes back to its
//! plugin as a message.

use std::{future::Future, net::IpAddr};

use http::uri::{Authority, Scheme};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks, default_send_request};

use crate::plugin::{
    capability::Grant,
    trail::{Mark, Trail},
};

/// Lets requests to granted hosts through.
pub(super) struct Egress {
    grants: Vec<Grant>,
    mark: Mark,
    /// Of the message at hand.
    trail: Trail,
}

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(http::Response<WasiBody>, Io), Error>;

impl Egress {
    pub(super) fn new(grants: Vec<Grant>, mark: Mark) -> Self {
        Self { grants, mark, trail: Trail::default() }
    }

    /// What is sent from now on is about a message with this trail.
    pub(super) fn follow(&mut self, trail: Trail) {
        self.trail = trail;
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
        Box::new(async move {
            let Some(authority) = authority else {
                tracing::warn!(uri = %without_secrets(request.uri()), "a plugin's request goes to a host that is not granted");
                return Err(Error::HttpRequestDenied);
            };
            check_addresses(&authority, port).await?;
            let (response, io) = default_send_request(request, options).await?;
            Ok((response.map(http_body_util::BodyExt::boxed_unsync), Box::new(io) as Io))
        })
    }
}

/// A granted name may resolve to anything; what lies on the link is never meant.
async fn check_addresses(authority: &Authority, port: u16) -> Result<(), Error> {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let resolved = tokio::net::lookup_host((host, authority.port_u16().unwrap_or(port))).await;
    let mut addresses = resolved.map_err(|_| Error::DestinationNotFound)?;
    if addresses.any(|address| is_forbidden(address.ip())) {
        Err(Error::DestinationIpProhibited)
    } else {
        Ok(())
    }
}

fn is_forbidden(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local() || address.is_unspecified() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_unspecified(),
    }
}

fn without_secrets(uri: &http::Uri) -> String {
    let host = uri.host().unwrap_or_default();
    format!("{}://{host}{}", uri.scheme_str().unwrap_or_default(), uri.path())
}
