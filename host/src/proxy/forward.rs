//! Sends a message to its server, or to another where that is safe and the budget allows it.
//!
//! Safe is a message of which no server can have seen anything, one that its server says it has not
//! begun (RFC 9113, section 8.7), one that is idempotent (RFC 9110, section 9.2.2) and has no body,
//! whose pooled connection broke before any answer, and one that asks and changes nothing, whose server
//! does not begin to answer ([`super::stall`]).

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    task::Poll,
};

use http::{Method, Request, Response, StatusCode, Uri, Version, header, uri::Scheme};
use http_body::Body;

use super::{
    Settings,
    exchange::Inbound,
    gather::gather,
    head, identify,
    respond::Refusal,
    route::{self, Choice},
    sources::Known,
    stall::{self, Outcome, Patience},
    upload::{TooLong, TooSlow},
};
use crate::{
    listener::Phase,
    upstream::{
        Break, Endpoint, Outgoing, RequestBody, UpstreamError,
        body::ResponseBody,
        http1::Http1Error,
        http2::{Http2Error, Wishes},
        outgoing::RequestHead,
        pool::{Connections, Sent},
    },
};

/// A message that is ready to be sent.
pub(super) struct Outbound<'a> {
    pub(super) known: &'a Known<'a>,
}

/// A message that was answered, and by whom.
pub(super) struct Forwarded {
    pub(super) response: Response<ResponseBody>,
    pub(super) choice: Choice,
}

/// Why an attempt failed, and the body if the message may be sent again.
struct Failed {
    why: Refusal,
    again: Option<RequestBody>,
    /// It may go to the same server once more, on these: the connection had been open for a while, and
    /// its server may just have closed it, or wants no more on it.
    same: Option<Connections>,
    /// The server took it, and has not begun to answer.
    stalled: bool,
}

impl Failed {
    fn new(why: Refusal, again: Option<RequestBody>, same: Option<Connections>) -> Self {
        Self { why, again, same, stalled: false }
    }

    fn finally(why: Refusal) -> Self {
        Self::new(why, None, None)
    }

    fn stalled() -> Self {
        let why = Refusal::Overdue(Phase::ResponseHead);
        Self { stalled: true, ..Self::new(why, Some(RequestBody::Empty), None) }
    }
}

/// Why a server is waited for no longer.
enum Late {
    /// It has not begun to answer, and another can take the message.
    Stalled,
    /// What was waited for last took too long.
    Overdue,
}

impl Outbound<'_> {
    pub(super) async fn forward(
        &self,
        inbound: &mut Inbound,
        mut choice: Choice,
        body: RequestBody,
    ) -> Result<Forwarded, Refusal> {
        let mut stalled = false;
        let sent = self.send(inbound, &mut choice, body, &mut stalled).await;
        if stalled {
            let outcome = if sent.is_ok() { Outcome::Answered } else { Outcome::Failed };
            inbound.worker().metrics.stalled(outcome);
        }
        match sent {
            Ok(response) => Ok(Forwarded { response, choice }),
            Err(why) => {
                inbound.exchange.server = Some(choice.endpoint);
                Err(why)
            }
        }
    }

    async fn send(
        &self,
        inbound: &mut Inbound,
        choice: &mut Choice,
        mut body: RequestBody,
        stalled: &mut bool,
    ) -> Result<Response<ResponseBody>, Refusal> {
        inbound.worker().budget.deposit(self.settings().retry_budget);
        body = gather(inbound, body, self.settings().body_timeout).await?;
        let mut avoid = Vec::new();
        let mut connections = Connections::Any;
        loop {
            let failed = match self.attempt(inbound, choice, &avoid, connections, body).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            *stalled |= failed.stalled;
            let Some(again) = failed.again else { return Err(failed.why) };
            if let (Some(same), Connections::Any) = (failed.same, connections) {
                connections = same;
                body = again;
                continue;
            }
            if avoid.len() >= self.settings().retries as usize {
                return Err(failed.why);
            }
            // A server that is in no list has no other to go to.
            let Some(place) = choice.place else { return Err(failed.why) };
            avoid.push(self.known.plan.service.servers[place].number);
            if !inbound.worker().budget.withdraw() {
                inbound.worker().metrics.retries_denied.inc();
                return Err(failed.why);
            }
            *choice = match route::choose(inbound, self.known, &avoid).await {
                Ok(choice) => choice,
                Err(_) => return Err(failed.why),
            };
            inbound.worker().metrics.retries.inc();
            connections = Connections::Any;
            body = again;
        }
    }

    fn settings(&self) -> &Settings {
        &self.known.plan.settings
    }

    /// To whom the connection that an upload holds is put down.
    fn uploader(&self, inbound: &Inbound) -> IpAddr {
        identify::origin(self.settings(), &inbound.head.headers, &inbound.exchange.connection)
    }

    /// Sends it once, for as long as its phases may take.
    async fn attempt(
        &self,
        inbound: &Inbound,
        choice: &Choice,
        avoid: &[u32],
        connections: Connections,
        body: RequestBody,
    ) -> Result<Response<ResponseBody>, Failed> {
        let endpoint = &choice.endpoint;
        let failed = || endpoint.failed(|| self.known.plan.may_eject(choice.place));
        let bodiless = body.is_end_stream();
        let whole = bodiless || matches!(body, RequestBody::Whole(_));
        let peer = (!whole).then(|| self.uploader(inbound));
        let repeatable = bodiless && is_idempotent(&inbound.head.method);
        let request = outgoing(endpoint, inbound, body).map_err(Failed::finally)?;
        let exchange = &inbound.exchange;
        let mut patience = Patience::of(&inbound.head.method, bodiless, self.settings());
        match whole {
            true => exchange.watch.arm(Phase::ResponseHead, patience.first),
            false => exchange.watch.arm(Phase::RequestBody, self.settings().body_timeout),
        }
        let mut sending = std::pin::pin!(inbound.worker().pools.send(endpoint, connections, request, peer));
        let ended = std::future::poll_fn(|cx| {
            if exchange.is_overdue(cx) {
                match self.overdue(inbound, choice, avoid, &mut patience) {
                    Some(late) => return Poll::Ready(Err(late)),
                    None => inbound.worker().metrics.stalled(Outcome::Kept),
                }
            }
            sending.as_mut().poll(cx).map(Ok)
        });
        let sent = match ended.await {
            Ok(sent) => sent,
            Err(Late::Stalled) => {
                failed();
                inbound.worker().metrics.reports.stalled(exchange, &inbound.head, endpoint.uri.as_str());
                exchange.watch.disarm();
                return Err(Failed::stalled());
            }
            Err(Late::Overdue) => {
                let phase = exchange.watch.phase();
                if phase == Phase::ResponseHead {
                    failed();
                }
                return Err(Failed::finally(Refusal::Overdue(phase)));
            }
        };
        match sent {
            Sent::Answered(response) => {
                match is_unable(response.status()) {
                    true => failed(),
                    false => endpoint.succeeded(),
                }
                Ok(response)
            }
            Sent::Unsent(body, error) => {
                if matches!(error, UpstreamError::Connect { .. }) {
                    failed();
                }
                // What this router lacks it lacks for every server.
                let again = (!error.is_local()).then_some(body);
                Err(Failed::new(Refusal::Upstream(error), again, None))
            }
            Sent::Refused { body, next, error } => {
                Err(Failed::new(Refusal::Upstream(error), body, Some(next)))
            }
            Sent::Broken { body, reused, error } => {
                if let Some(why) = clients_fault(&error) {
                    return Err(Failed::finally(why));
                }
                let lost = is_connection_lost(&error);
                if !reused && lost && !error.is_local() {
                    failed();
                }
                let again = body.or_else(|| (repeatable && lost).then_some(RequestBody::Empty));
                let same = reused.then_some(Connections::New);
                Err(Failed::new(Refusal::Upstream(error), again, same))
            }
        }
    }

    /// What becomes of a message whose server takes too long; none: it is waited for longer.
    fn overdue(
        &self,
        inbound: &Inbound,
        choice: &Choice,
        avoid: &[u32],
        patience: &mut Patience,
    ) -> Option<Late> {
        let watch = &inbound.exchange.watch;
        if watch.phase() != Phase::ResponseHead {
            return Some(Late::Overdue);
        }
        if patience.movable && stall::can_move(self.known.plan, choice, avoid, &inbound.worker().budget) {
            return Some(Late::Stalled);
        }
        match patience.rest.take() {
            Some(rest) => {
                watch.arm(Phase::ResponseHead, rest);
                None
            }
            None => Some(Late::Overdue),
        }
    }
}

/// A server that says that it cannot serve is no better than one that cannot be reached.
fn is_unable(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// The message as its server needs it.
fn outgoing<'a>(
    endpoint: &Endpoint,
    inbound: &'a Inbound,
    body: RequestBody,
) -> Result<Outgoing<'a>, Refusal> {
    let (head, target) = (&inbound.head, inbound.target());
    if !endpoint.uri.is_h2c() {
        // To the server in general; where it has a base, that is what is meant by it.
        let target = if target == "*" && !endpoint.base.is_empty() { "/" } else { target };
        if !target.starts_with('/') && !endpoint.base.is_empty() {
            return Err(Refusal::Malformed("the request's target is no path"));
        }
        let head = RequestHead {
            method: &head.method,
            target,
            headers: &head.headers,
            expects_continue: inbound.expects_continue,
            interim: &inbound.exchange,
        };
        return Ok(Outgoing::Http1(head, body));
    }
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = head.headers.clone();
    let host = request.headers_mut().remove(header::HOST);
    let host = host.as_ref().and_then(|host| host.to_str().ok()).filter(|host| !host.is_empty());
    let authority = host.unwrap_or(&endpoint.authority);
    let path = match target {
        // Of the server itself, whatever stands before its paths.
        "*" if head.method == Method::OPTIONS => target.to_owned(),
        path => format!("{}{path}", endpoint.base),
    };
    let uri = Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(path);
    *request.uri_mut() = uri.build().map_err(|_| Refusal::Malformed("the request's target is no path"))?;
    let wishes = Wishes { expects_continue: inbound.expects_continue, interim: &inbound.exchange };
    Ok(Outgoing::Http2(request, wishes))
}

fn is_idempotent(method: &Method) -> bool {
    method.is_safe() || matches!(*method, Method::PUT | Method::DELETE)
}

/// Whether it was the connection that broke, rather than one of the streams on it that the server has
/// ended, which is an answer of a kind.
fn is_connection_lost(error: &UpstreamError) -> bool {
    !matches!(error, UpstreamError::Broken { source: Break::Http2(Http2Error::Reset(_)), .. })
}

/// If a connection broke because of what the client sent, the server is not to blame.
fn clients_fault(error: &UpstreamError) -> Option<Refusal> {
    let UpstreamError::Broken { source, .. } = error else { return None };
    let clients = match source {
        Break::Http1(error) => matches!(error, Http1Error::Request(_)),
        Break::Http2(Http2Error::NoTunnels) => {
            let why = "the server takes no tunnels over HTTP/2: it does not announce extended CONNECT";
            return Some(Refusal::Unacceptable(StatusCode::NOT_IMPLEMENTED, why));
        }
        Break::Http2(Http2Error::Unsendable(_)) => {
            let why = "the request cannot be said in HTTP/2, which its server speaks";
            return Some(Refusal::Unacceptable(StatusCode::BAD_REQUEST, why));
        }
        Break::Http2(error) => matches!(error, Http2Error::Request(_)),
    };
    let mut cause = std::error::Error::source(source);
    while let Some(error) = cause {
        if error.is::<TooLong>() {
            return Some(head::too_long());
        }
        if error.is::<TooSlow>() {
            return Some(Refusal::Overdue(Phase::RequestBody));
        }
        cause = error.source();
    }
    clients.then_some(Refusal::BrokenBody)
}

/// Lets retries be a share of the messages, so that they cannot multiply an outage.
///
/// Each message pays in its percentage; a retry costs a hundred. One worker's own, so that plain
/// loads and stores do.
#[derive(Debug)]
pub(super) struct Budget(AtomicU32);

/// What a worker begins with and never exceeds: a hundred retries in a row.
const FULL: u32 = 10_000;
const RETRY: u32 = 100;

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicU32::new(FULL))
    }
}

impl Budget {
    fn deposit(&self, percent: u32) {
        let now = self.0.load(Relaxed);
        if now < FULL {
            self.0.store(FULL.min(now + percent), Relaxed);
        }
    }

    /// Whether a retry can be paid.
    pub(super) fn suffices(&self) -> bool {
        self.0.load(Relaxed) >= RETRY
    }

    fn withdraw(&self) -> bool {
        let rest = self.0.load(Relaxed).checked_sub(RETRY);
        rest.inspect(|rest| self.0.store(*rest, Relaxed)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_a_share() {
        let budget = Budget::default();
        assert_eq!((0..200).filter(|_| budget.withdraw()).count(), 100);
        for _ in 0..100 {
            budget.deposit(20);
        }
        assert_eq!((0..200).filter(|_| budget.withdraw()).count(), 20);
    }

    #[test]
    fn idempotent_methods() {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE] {
            assert!(is_idempotent(&method), "{method}");
        }
        for method in [Method::POST, Method::PATCH] {
            assert!(!is_idempotent(&method), "{method}");
        }
    }
}
