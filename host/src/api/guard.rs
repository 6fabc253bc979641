//! What every request passes before its handler: whose host it names, whose token it carries, how
//! long it may take. Handlers get a [`Caller`] and ask it whether they may.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{FromRequestParts, Request, State as Shared},
    http::{HeaderMap, HeaderValue, Method, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::watch;

use super::{
    State,
    denials::{Denials, Denied},
    problem::{Kind, Problem},
    serve::Asked,
    token::token,
};
use crate::{
    auth::{Action, Identity, Origin, TokenHash},
    authority,
    config::Config,
    fields::elements,
    table::record::ServerUri,
};

/// The other end of the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    identity: Identity,
    token: Option<TokenHash>,
    peer: Option<SocketAddr>,
    request: Arc<str>,
    denials: Arc<Denials>,
}

impl Caller {
    /// Refuses, and logs it, unless the caller may do this with something of this name.
    pub(super) fn must(&self, action: Action, name: Option<&str>) -> Result<(), Problem> {
        if self.may(action, name) {
            return Ok(());
        }
        let object = name.map(|name| format!(" {name}")).unwrap_or_default();
        Err(self.denied(format!("this token does not allow to {action}{object}")))
    }

    /// As [`Self::must`], of the router itself.
    pub(super) fn must_inspect(&self) -> Result<(), Problem> {
        if self.may_inspect() {
            return Ok(());
        }
        let detail = "this token does not allow to inspect the router: that takes the action `inspect`, or `read` \
                      for every name";
        Err(self.denied(detail.to_owned()))
    }

    /// Refuses, and logs it, unless the caller may register a server of this service at this host.
    pub(super) fn must_reach(&self, service: &str, uri: &ServerUri) -> Result<(), Problem> {
        let host = uri.host();
        if self.identity.may_register_at(service, host) {
            return Ok(());
        }
        let detail =
            format!("this token does not allow to register {host} for {service}: see `hosts` of its rule");
        Err(self.denied(detail))
    }

    fn denied(&self, detail: String) -> Problem {
        let (label, peer, request) = (Some(self.identity.label()), self.peer, &*self.request);
        self.denials.deny(Denied { label, peer, request }, Kind::Denied, detail)
    }

    /// The address at the other end.
    pub(super) fn address(&self) -> Result<IpAddr, Problem> {
        let peer = self.peer.ok_or_else(|| Problem::new(Kind::Internal, "a request came from nowhere"))?;
        Ok(peer.ip())
    }

    /// For what lasts longer than the request: who the caller is, under the rules of that time; none once its
    /// token is not known any more. The rules are followed for as long as `following` is polled.
    pub(super) fn follow(
        &self,
        mut config: watch::Receiver<Arc<Config>>,
    ) -> (watch::Receiver<Option<Identity>>, impl Future<Output = Infallible> + use<>) {
        let (sender, identity) = watch::channel(Some(self.identity.clone()));
        let token = self.token;
        let following = async move {
            loop {
                if config.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                let now = config.borrow_and_update().access.identify_hash(token);
                sender.send_if_modified(|known| {
                    let changed = *known != now;
                    *known = now;
                    changed
                });
            }
        };
        (identity, following)
    }

    /// What the log and histories call the caller.
    pub(super) fn label(&self) -> &str {
        self.identity.label()
    }

    pub(super) fn may(&self, action: Action, name: Option<&str>) -> bool {
        self.identity.may(action, name)
    }

    pub(super) fn may_inspect(&self) -> bool {
        self.identity.may_inspect()
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Problem::new(Kind::Internal, "a request passed without its guard"))
    }
}

/// What the guard works with.
pub(super) type Guarded = (State, Arc<Denials>);

pub(super) async fn guard(
    Shared((state, denials)): Shared<Guarded>,
    mut request: Request,
    next: Next,
) -> Response {
    let config = state.config.borrow().clone();
    let caller = match admit(&config, &request, denials) {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    if let Err(problem) = spare(&caller, &request) {
        return problem.into_response();
    }
    let waits = request.method() == Method::POST && request.uri().path().ends_with("/drain");
    request.extensions_mut().insert(caller);
    if waits {
        // It says itself how long that may take.
        return next.run(request).await;
    }
    match tokio::time::timeout(config.api.timeouts.request, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(Kind::Timeout, "no answer in time").into_response(),
    }
}

fn admit(config: &Config, request: &Request, denials: Arc<Denials>) -> Result<Caller, Problem> {
    let headers = request.headers();
    if came_by_a_router(headers) {
        return Err(Problem::new(
            Kind::Loop,
            "this came through the proxy of a router, through which no API is reached",
        ));
    }
    if host(request).is_some_and(|host| !host.is_empty() && authority::read(host).is_none()) {
        return Err(Problem::new(Kind::Malformed, "the host is none, or has a port that is none"));
    }
    let anyone = config.access.is_open();
    if anyone && !config.api.open && !is_ours(host(request), config.api.listen.ip()) {
        return Err(Problem::new(
            Kind::HostRefused,
            "without access rules the API answers only to localhost and to loopback addresses, \
             because any web page could otherwise reach it under a name of its own",
        ));
    }
    if let Some(origin) = headers.get(header::ORIGIN).filter(|_| is_more_than_a_read(request)) {
        // With access rules nothing that a browser sends by itself says who asks.
        if anyone && !is_obeyed(config, request, origin) {
            return Err(Problem::new(
                Kind::HostRefused,
                "without access rules the API obeys no page of another origin, because browsers let any page \
                 post to this machine and open a WebSocket to it; `[api] origins` names those that it obeys",
            ));
        }
    }
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let path = request.uri().path();
    let asked: Arc<str> = format!("{} {path}", request.method()).into();
    let public = matches!(path, "/live" | "/ready" | "/v1/openapi.json");
    let token = token(headers).map(|token| TokenHash::of(&token));
    let identity = config.access.identify_hash(token).or_else(|| public.then(Identity::nobody));
    let Some(identity) = identity else {
        let given = if token.is_some() { "an unknown token" } else { "no token" };
        let detail = format!("{given}: send `Authorization: Bearer TOKEN`");
        let denied = Denied { label: None, peer, request: &asked };
        return Err(denials.deny(denied, Kind::Unauthenticated, detail));
    };
    must_be_asked_first(request)?;
    Ok(Caller { identity, token, peer, request: asked, denials })
}

/// A connection over the bound is for health checks and operators.
fn spare(caller: &Caller, request: &Request) -> Result<(), Problem> {
    let spare = request.extensions().get::<Asked>().is_some();
    let checks = matches!(request.uri().path(), "/live" | "/ready");
    if spare && !checks && !caller.may(Action::Admin, None) {
        let why = "the API has all the connections that it may have (`[api.limits] connections`); try again";
        return Err(Problem::new(Kind::TooMany, why));
    }
    Ok(())
}

/// Whether a router says in `via` that it sent this on, as it does of every message. So an API that was
/// registered as a server, under whatever name and behind whatever else, is not one.
fn came_by_a_router(headers: &HeaderMap) -> bool {
    let is_router = |element: &[u8]| {
        let mut words = element.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        words.nth(1).is_some_and(|by| by.starts_with(b"message-flow-"))
    };
    headers.contains_key(header::VIA) && elements(headers, &header::VIA).any(is_router)
}

fn host(request: &Request) -> Option<&str> {
    match request.headers().get(header::HOST) {
        // One that is no text is not as if there were none: it means nobody here.
        Some(host) => host.to_str().ok(),
        None => request.uri().authority().map(|authority| authority.as_str()),
    }
}

/// Whether it may change something or opens a WebSocket: what a browser lets a page do to another origin without
/// asking here first. What a page merely reads the browser keeps from it.
fn is_more_than_a_read(request: &Request) -> bool {
    !request.method().is_safe() || request.headers().contains_key(header::UPGRADE)
}

/// Whether a page of this origin may do more than read: one that came from here, under the same name and port, or
/// one that the configuration names.
fn is_obeyed(config: &Config, request: &Request, origin: &HeaderValue) -> bool {
    let Some(origin) = origin.to_str().ok().and_then(|origin| origin.parse::<Origin>().ok()) else {
        return false;
    };
    let own = host(request).and_then(|host| Origin::served(config.api.tls.is_some(), host));
    own.as_ref() == Some(&origin) || config.api.origins.contains(&origin)
}

/// A page's POST has to be one for which its browser asks here first, and is told no: one with a type that forms do
/// not have. Of any other method the browser asks anyway.
fn must_be_asked_first(request: &Request) -> Result<(), Problem> {
    if !request.headers().contains_key(header::ORIGIN) {
        return Ok(());
    }
    let simple = ["text/plain", "multipart/form-data", "application/x-www-form-urlencoded"];
    let written = request.headers().get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let essence = written.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    let is_simple = essence.is_empty() || simple.iter().any(|simple| essence.eq_ignore_ascii_case(simple));
    let has_body = !http_body::Body::is_end_stream(request.body());
    let writes = request.method() == Method::POST || (!request.method().is_safe() && has_body);
    if writes && is_simple {
        let detail = "a request with an `Origin` writes with `Content-Type: application/json` only";
        return Err(Problem::new(Kind::NotJson, detail));
    }
    Ok(())
}

/// Whether a `Host` means this machine. A page of another origin whose name was made to resolve to
/// a loopback address sends its own name here.
fn is_ours(host: Option<&str>, listen: IpAddr) -> bool {
    let Some(authority) = host.and_then(authority::read) else { return false };
    let name = authority::canonical(authority.host);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let local = name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost");
    let address = name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback() || ip == listen);
    local || address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_meant() {
        let listen = "127.0.0.1".parse().unwrap();
        for (host, expect) in [
            ("127.0.0.1:8081", true),
            ("127.0.0.1", true),
            ("localhost:8081", true),
            ("LOCALHOST", true),
            ("flow.localhost:1", true),
            ("[::1]:8081", true),
            ("[0:0::1]:8081", true),
            ("localhost.:8081", true),
            ("u@localhost", false),
            ("localhost:99999", false),
            ("evil.example:8081", false),
            ("localhost.evil.example", false),
            ("10.0.0.1", false),
            ("a b", false),
            ("", false),
        ] {
            assert_eq!(is_ours(Some(host), listen), expect, "{host}");
        }
        assert!(!is_ours(None, listen));
    }

    #[test]
    fn what_a_router_sent_on_is_known() {
        for (lines, expect) in [
            (&["1.1 message-flow-a"][..], true),
            (&["1.1 nginx, 2  message-flow-a"], true),
            (&["1.0 fred", "HTTP/1.1 message-flow-a (x)"], true),
            (&["1.1 nginx"], false),
            (&["1.1 message-flow.plugin-0"], false),
            (&["message-flow-a"], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::VIA, line.parse().unwrap());
            }
            assert_eq!(came_by_a_router(&headers), expect, "{lines:?}");
        }
    }
}
