//! What can be set about messages, as the proxy needs it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Version};

use crate::{
    config::{Cidr, ClientIdSource, EncodedSlashes, ProxyConfig, RouteConfig},
    listener::{ListenerOptions, TlsFiles},
    token::Verifier,
    upstream::UpstreamOptions,
};

/// Before the id of a router, in what it calls itself.
const VIA_PREFIX: &str = "message-flow-";

/// Everything that may change while the proxy runs; part of the [`Plan`](super::Plan).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where a client's id is looked for, in this order.
    pub client_id: Vec<ClientIdSource>,
    /// Which tokens are believed; none: they are not looked at.
    pub token: Option<Arc<Verifier>>,
    /// Filters of every service, before its own.
    pub filters: Vec<String>,
    /// Peers that may say on whose behalf they send.
    pub trusted: Vec<Cidr>,
    /// Empty: the path or headers name the service.
    pub routes: Vec<RouteConfig>,
    /// Where no route says so.
    pub encoded_slashes: EncodedSlashes,
    /// What a connection may become, in lower case.
    pub upgrades: Vec<Box<str>>,
    /// Bytes of a request's body.
    pub max_body: u64,
    /// Headers of a request.
    pub max_headers: usize,
    /// Bytes of a request's target.
    pub max_uri: usize,
    /// Between two pieces of a body.
    pub body_timeout: Duration,
    /// From the end of a request to the head of its response.
    pub response_timeout: Duration,
    /// Silence of a tunnel.
    pub tunnel_timeout: Duration,
    /// Further servers that a message may try.
    pub retries: u32,
    /// After which a request that is safe goes to another server if its own has not begun to answer; none:
    /// after the response timeout.
    pub retry_timeout: Option<Duration>,
    /// Percent of the messages that may be retries.
    pub retry_budget: u32,
    /// Percent of a service's servers that may be ejected at once.
    pub most_ejected: u32,
    /// What this router calls itself in `via`.
    pub via: Via,
    /// What plugins of this router show when they send messages through it.
    pub pass: Option<HeaderValue>,
}

impl Settings {
    /// From the configuration. `router` is this router's id: unique, so that a message that comes
    /// by a second time is known to go in circles.
    pub fn new(proxy: &ProxyConfig, routes: &[RouteConfig], router: &str) -> Self {
        Self {
            client_id: proxy.client_id.clone(),
            token: None,
            filters: proxy.filters.clone(),
            trusted: proxy.trusted.clone(),
            routes: routes.to_vec(),
            encoded_slashes: proxy.encoded_slashes,
            upgrades: proxy.upgrades.clone(),
            max_body: proxy.limits.body.unwrap_or(u64::MAX),
            max_headers: proxy.limits.headers,
            max_uri: 16 << 10,
            body_timeout: proxy.timeouts.body,
            response_timeout: proxy.timeouts.response,
            tunnel_timeout: proxy.timeouts.tunnel,
            retries: proxy.retry.attempts,
            retry_timeout: proxy.retry.timeout,
            retry_budget: proxy.retry.budget,
            most_ejected: proxy.ejection.most,
            via: Via::new(router),
            pass: None,
        }
    }

    /// With what verifies the tokens of clients.
    pub fn with_tokens(self, token: Option<Arc<Verifier>>) -> Self {
        Self { token, ..self }
    }

    /// With what plugins show when they send messages through this router.
    pub fn with_pass(self, pass: HeaderValue) -> Self {
        Self { pass: Some(pass), ..self }
    }

    /// Whether a header decides where a message goes or whose it is.
    pub fn goes_by(&self, name: &HeaderName) -> bool {
        let identifies =
            |source: &ClientIdSource| matches!(source, ClientIdSource::Header(header) if header == name);
        let routes = |route: &RouteConfig| route.headers.iter().any(|(header, _)| header == name);
        self.client_id.iter().any(identifies) || self.routes.iter().any(routes)
    }

    /// Whether this peer may say on whose behalf it sends.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(peer))
    }
}

/// What a router says of itself in `via`, by the version of HTTP in which it received a message (RFC
/// 9110, section 7.6.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    http10: HeaderValue,
    http11: HeaderValue,
    http2: HeaderValue,
}

impl Via {
    fn new(router: &str) -> Self {
        // A pseudonym is a token.
        let token: String =
            router.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
        let value = |version: &str| {
            let text = format!("{version} {VIA_PREFIX}{token}");
            HeaderValue::from_maybe_shared(text).expect("a token is a header value")
        };
        Self { http10: value("1.0"), http11: value("1.1"), http2: value("2") }
    }

    pub(super) fn received(&self, version: Version) -> &HeaderValue {
        match version {
            Version::HTTP_10 => &self.http10,
            Version::HTTP_11 => &self.http11,
            _ => &self.http2,
        }
    }

    /// The router alone.
    pub(super) fn pseudonym(&self) -> &[u8] {
        &self.http2.as_bytes()[b"2 ".len()..]
    }
}

/// The listener's part of the configuration.
pub fn listener_options(proxy: &ProxyConfig) -> ListenerOptions {
    ListenerOptions {
        listen: proxy.listen,
        workers: proxy.workers.unwrap_or(0),
        tls: proxy.tls.as_ref().map(|tls| TlsFiles { cert: tls.cert.clone(), key: tls.key.clone() }),
        max_connections: proxy.limits.connections,
        max_connections_per_peer: proxy.limits.connections_per_peer.unwrap_or(0),
        max_head: proxy.limits.head,
        max_unread: proxy.limits.unread,
        unread_timeout: proxy.timeouts.unread,
        max_streams: proxy.limits.streams,
        first_byte_timeout: proxy.timeouts.first_byte,
        handshake_timeout: proxy.timeouts.handshake,
        head_timeout: proxy.timeouts.head,
        keep_alive_timeout: proxy.timeouts.keep_alive,
        drain_idle: proxy.timeouts.drain_idle,
        tick: tick(proxy),
        ..ListenerOptions::default()
    }
}

/// Deadlines are looked at eight times in the shortest of them, within 5 to 250 ms.
fn tick(proxy: &ProxyConfig) -> Duration {
    let times = &proxy.timeouts;
    let all = [times.first_byte, times.head, times.keep_alive, times.body, times.response, times.drain_idle];
    let shortest = all.into_iter().chain(proxy.retry.timeout).filter(|time| !time.is_zero()).min();
    let tick = shortest.map_or(Duration::MAX, |shortest| shortest / 8);
    tick.clamp(Duration::from_millis(5), Duration::from_millis(250))
}

/// The servers' part of the configuration.
pub fn upstream_options(proxy: &ProxyConfig) -> UpstreamOptions {
    UpstreamOptions {
        max_connections: proxy.limits.upstream_connections,
        max_idle: proxy.limits.upstream_idle,
        max_queue: proxy.limits.upstream_waiting,
        queue_timeout: proxy.timeouts.wait,
        connect_timeout: proxy.timeouts.connect,
        idle_timeout: proxy.timeouts.upstream_idle,
        max_age: proxy.timeouts.upstream_age,
        eject_after: proxy.ejection.failures,
        eject_for: proxy.ejection.time,
        ..UpstreamOptions::default()
    }
}
