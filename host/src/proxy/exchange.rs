//! The life of one message, in the order in which it happens: admit, find the service, identify the
//! client, route, filter, forward, filter, answer.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header, request::Parts, uri::PathAndQuery,
};
use http_body::Body;
use http_body_util::BodyExt;

use super::{
    Plan, Worker, bearer,
    filter::{self, Head, Passing},
    forward::{Forwarded, Outbound},
    gather::gather,
    head::{self, Seen},
    identify,
    plan::{Found, Plugin, ServicePlan},
    reply::{Exchange, Reply},
    respond::Refusal,
    route::{self, Choice},
    routes::{self, Target},
    sources::Known,
    upgrade,
    upload::{self, Pace, Upload},
    version::Unversioned,
};
use crate::{
    grpc,
    listener::{BoxError, Connection, Incoming, Phase, Watch},
    plugin::{
        body::ask_for_whole,
        message::{ClientId, target as target_of},
    },
    table::Release,
    upstream::RequestBody,
};

const SERVICE: HeaderName = HeaderName::from_static("message-flow-service");
const VERSION: HeaderName = HeaderName::from_static("message-flow-version");

/// Answers a request, whatever happens. An error only breaks its connection off.
pub(super) async fn answer(
    worker: Arc<Worker>,
    connection: Arc<Connection>,
    watch: Arc<Watch>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, BoxError> {
    let (head, body) = request.into_parts();
    let mut message = Inbound { exchange: Exchange::begin(worker, connection, watch), head, cut: 0 };
    // A filter may change what the client asked for.
    let is_call = grpc::is_call(&message.head.headers);
    let answered = message.pass(body).await;
    Ok(match answered {
        Ok(response) => message.finish(response.status(), response),
        Err(refusal) => {
            message.refuse(&refusal);
            let response = if is_call { refusal.response_to_call() } else { refusal.response() };
            message.finish(refusal.status(), response)
        }
    })
}

/// A message on its way.
pub(super) struct Inbound {
    pub(super) exchange: Exchange,
    pub(super) head: Parts,
    /// So many bytes of the target's beginning named the service, and are not passed on.
    cut: usize,
}

/// For whom a message is and from whom.
struct Addressed {
    plan: Arc<ServicePlan>,
    client: ClientId,
}

/// What is meant by a name.
enum Meant {
    Service(Arc<ServicePlan>),
    /// Which version it is cannot be said without asking.
    Released(Arc<Plan>, Arc<Release>),
}

impl Inbound {
    pub(super) fn worker(&self) -> &Arc<Worker> {
        &self.exchange.worker
    }

    /// Path and query, as the server gets them.
    pub(super) fn target(&self) -> &str {
        target_of(&self.head.uri, self.cut)
    }

    /// Makes the head say what [`Self::target`] does.
    pub(super) fn cut_target(&mut self) -> Result<(), Refusal> {
        if self.cut > 0 {
            self.head.uri = target(self.target())?;
            self.cut = 0;
        }
        Ok(())
    }

    async fn pass(&mut self, body: Incoming) -> Result<Response<Reply>, Refusal> {
        let seen = Seen::look(&self.head.headers);
        let Addressed { plan, client } = match self.address(&seen)? {
            (Meant::Service(plan), client) => Addressed { plan, client },
            // Boxed, to keep the future of a message that need not ask small.
            (Meant::Released(plan, release), client) => {
                Box::pin(self.released(plan, release, client)).await?
            }
        };
        self.exchange.is_for(plan.clone());
        let answered = self.serve(&seen, &plan, &client, body).await;
        self.exchange.client = Some(client);
        answered
    }

    async fn serve(
        &mut self,
        seen: &Seen,
        plan: &Arc<ServicePlan>,
        client: &ClientId,
        body: Incoming,
    ) -> Result<Response<Reply>, Refusal> {
        let (body, upgrade) = self.upgrade(seen, body)?;
        let settings = &plan.settings;
        head::strip_request(&mut self.head.headers, seen);
        head::add_origin(&mut self.head.headers, seen, &self.exchange.connection, settings);
        let worker = self.worker().clone();
        let known = Known { plan, client, assignments: &worker.assignments, now: worker.now() };
        let choice = route::choose(self, &known, &[]).await?;
        let mut body = self.body(body, settings.max_body, settings.response_timeout);
        if !plan.request_filters.is_empty() {
            let passing =
                Passing { known: &known, connection: &self.exchange.connection, server: choice.name(plan) };
            let head = &mut Head { parts: &mut self.head, cut: &mut self.cut };
            match filter::requests_at_once(&passing, head, &mut body) {
                Some(passed) => passed?,
                // Boxed, to keep the future of a message without filters small.
                None => {
                    // A filter may read the body, which takes as long as its client likes. A small one is here
                    // before a filter is called, and holds none of its instances meanwhile.
                    if plan.request_filters.iter().any(Plugin::reads_body) {
                        body = Box::pin(gather(self, body, settings.body_timeout)).await?;
                    }
                    let head = &mut Head { parts: &mut self.head, cut: &mut self.cut };
                    let exchange = &self.exchange;
                    if !body.is_end_stream() {
                        exchange.watch.arm(Phase::RequestBody, settings.body_timeout);
                    }
                    let passed = Box::pin(filter::requests(&passing, head, &mut body));
                    exchange.in_time(passed).await?;
                    exchange.watch.disarm();
                    if let RequestBody::Stream(stream) = body {
                        let (watch, response_timeout) = (exchange.watch.clone(), settings.response_timeout);
                        body = RequestBody::Stream(
                            upload::Seen { stream, watch, response_timeout }.boxed_unsync(),
                        );
                    }
                }
            }
        }
        if plan.reads_responses {
            ask_for_whole(&mut self.head.headers);
        }
        if let Some(upgrade) = &upgrade {
            upgrade.ask(&mut self.head.headers);
        }
        let outbound = Outbound { known: &known };
        let Forwarded { response, choice } = outbound.forward(self, choice, body).await?;
        if let Some(upgrade) = upgrade {
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return upgrade.begin(self, response, settings.tunnel_timeout);
            }
            if !upgrade.may_be_declined_by(response.status()) {
                let why = "the server did not switch protocols";
                return Err(Refusal::Unacceptable(StatusCode::BAD_GATEWAY, why));
            }
        }
        let mut response = response.map(Reply::server);
        if response.status().is_informational() {
            return Err(Refusal::Unacceptable(
                StatusCode::BAD_GATEWAY,
                "the server switched protocols unasked",
            ));
        }
        head::strip_response(response.headers_mut());
        if !plan.response_filters.is_empty() {
            let passing =
                Passing { known: &known, connection: &self.exchange.connection, server: choice.name(plan) };
            let head = &mut Head { parts: &mut self.head, cut: &mut self.cut };
            let exchange = &self.exchange;
            exchange.watch.arm(Phase::ResponseBody, settings.body_timeout);
            let passed = Box::pin(filter::responses(&passing, head, response, &exchange.watch));
            response = exchange.in_time(passed).await?;
        }
        self.exchange.server = Some(choice.endpoint);
        Ok(response)
    }

    /// Admits the message, and finds out for which service it is and from which client.
    fn address(&mut self, seen: &Seen) -> Result<(Meant, ClientId), Refusal> {
        let plan = self.exchange.worker.plan.load();
        let connection = &self.exchange.connection;
        head::admit(&self.head, seen, &plan.settings)?;
        let headers = &self.head.headers;
        let peer = || identify::peer(&plan.settings, headers, connection.peer.ip(), &connection.peer_text);
        let token = bearer::verified(&self.exchange.worker, &plan.settings, headers)?;
        let client = identify::identify(&plan.settings, headers, token.as_deref(), peer).map_err(|_| {
            let why = "the client id is not 1 to 256 visible ASCII characters";
            Refusal::Unacceptable(StatusCode::BAD_REQUEST, why)
        })?;
        let (found, change) = find(&plan, &self.head, seen)?;
        let meant = match found {
            Found::Service(service) => Meant::Service(service.clone()),
            Found::Released(release) => match self.unversioned(&plan, release, &client).at_once() {
                Some(service) => Meant::Service(service),
                None => Meant::Released(Arc::clone(&plan), Arc::clone(release)),
            },
            Found::Unreleased | Found::Unknown => return Err(Refusal::NoService),
        };
        self.name_host()?;
        match change {
            Change::Nothing => {}
            Change::Cut(bytes) => self.cut = bytes,
            Change::To(target) => self.head.uri = target,
        }
        Ok((meant, client))
    }

    fn unversioned<'a>(
        &'a self,
        plan: &'a Plan,
        release: &'a Release,
        client: &'a ClientId,
    ) -> Unversioned<'a> {
        let worker = self.worker();
        let (assignments, now) = (&*worker.assignments, worker.now());
        let connection = Some(&*self.exchange.connection);
        let headers = &self.head.headers;
        Unversioned { plan, release, assignments, client: client.as_str(), headers, connection, now }
    }

    async fn released(
        &self,
        plan: Arc<Plan>,
        release: Arc<Release>,
        client: ClientId,
    ) -> Result<Addressed, Refusal> {
        let found = self.unversioned(&plan, &release, &client).ask().await;
        let gone = || Refusal::Unreleased(release.choices.id.name().to_owned());
        Ok(Addressed { plan: found.ok_or_else(gone)?, client })
    }

    /// An absolute target names the host, whatever the header says (RFC 9112, section 3.2.2); from
    /// here on the header does, and the target is a path.
    fn name_host(&mut self) -> Result<(), Refusal> {
        let Some(authority) = self.head.uri.authority() else { return Ok(()) };
        let host = HeaderValue::from_str(authority.as_str());
        let host = host.map_err(|_| Refusal::Malformed("the request's target has no valid host"))?;
        self.head.headers.insert(header::HOST, host);
        let path = self.head.uri.path_and_query().cloned();
        self.head.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        Ok(())
    }

    /// What the client would like to speak, and the body.
    fn upgrade(&self, seen: &Seen, body: Incoming) -> Result<(Incoming, Option<upgrade::Wanted>), Refusal> {
        if !head::wants_upgrade(&self.head, seen) {
            return Ok((body, None));
        }
        match body {
            Incoming::Upgradable(client) => {
                let multiplexed = self.exchange.connection.multiplexed;
                let wanted = upgrade::Wanted::by(&self.head, client, multiplexed);
                Ok((Incoming::Empty, wanted))
            }
            body if body.is_end_stream() => Ok((body, None)),
            _ => Err(Refusal::Malformed("an upgrade with a body")),
        }
    }

    /// The body as it will go to the server, and the deadline for the first of what follows.
    fn body(&self, body: Incoming, limit: u64, response_timeout: std::time::Duration) -> RequestBody {
        if body.is_end_stream() {
            return RequestBody::Empty;
        }
        let watch = self.exchange.watch.clone();
        let pace = Pace::of(&body);
        let upload = Upload { incoming: body, allowed: limit, watch, response_timeout, pace };
        RequestBody::Stream(upload.boxed_unsync())
    }

    fn refuse(&self, refusal: &Refusal) {
        self.worker().metrics.reports.refused(&self.exchange, &self.head, refusal);
        if let Refusal::Overdue(phase) = refusal {
            self.worker().metrics.overdue(*phase);
        }
    }

    /// Counts what was answered, which a call of gRPC is told in its own way.
    fn finish(mut self, status: StatusCode, mut response: Response<Reply>) -> Response<Reply> {
        self.exchange.answered(status);
        *response.version_mut() = http::Version::HTTP_11;
        let exchange = self.exchange;
        response.map(|reply| reply.ending(exchange))
    }
}

/// What becomes of a message's target.
enum Change {
    Nothing,
    /// It loses so many bytes at its beginning; what is left begins with `/`.
    Cut(usize),
    To(Uri),
}

impl Change {
    /// To the last part of a path and query.
    fn to_rest(path_and_query: &str, rest: &str) -> Result<Self, Refusal> {
        match rest.starts_with('/') {
            true => Ok(Self::Cut(path_and_query.len() - rest.len())),
            false => target(rest).map(Self::To),
        }
    }
}

/// The service of a message, and what becomes of its target.
fn find<'p>(plan: &'p Plan, head: &Parts, seen: &Seen) -> Result<(Found<'p>, Change), Refusal> {
    if !plan.routes.is_empty() {
        return find_by_route(plan, head);
    }
    if seen.names_service
        && let Some(name) = head.headers.get(SERVICE)
    {
        let named = named_by_headers(name, head.headers.get(VERSION))?;
        return Ok((known(plan, &named)?, Change::Nothing));
    }
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let (segment, rest) = first_segment(path).ok_or(Refusal::NoService)?;
    Ok((known(plan, segment)?, Change::to_rest(path, rest)?))
}

fn find_by_route<'p>(plan: &'p Plan, head: &Parts) -> Result<(Found<'p>, Change), Refusal> {
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    let authority = authority.unwrap_or_else(|| super::sources::authority(head));
    let target_of = Target {
        host: host_of(authority),
        path: head.uri.path(),
        method: &head.method,
        headers: &head.headers,
    };
    let route = plan.routes.find(&target_of).ok_or(Refusal::NoRoute)?;
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let stripped = match &route.path {
        Some(prefix) if route.strip => Change::To(target(&routes::strip(path, prefix))?),
        _ => Change::Nothing,
    };
    Ok((known(plan, route.service.as_str())?, stripped))
}

fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn named_by_headers<'a>(
    name: &'a HeaderValue,
    version: Option<&HeaderValue>,
) -> Result<Cow<'a, str>, Refusal> {
    let text = |value: &'a HeaderValue| value.to_str().map_err(|_| Refusal::NoService);
    let name = text(name)?;
    Ok(match version {
        Some(version) => format!("{name}@{}", version.to_str().map_err(|_| Refusal::NoService)?).into(),
        None => name.into(),
    })
}

fn known<'p>(plan: &'p Plan, text: &str) -> Result<Found<'p>, Refusal> {
    match plan.find(text) {
        Found::Unreleased => Err(Refusal::Unreleased(text.to_owned())),
        Found::Unknown => Err(Refusal::UnknownService(text.chars().take(200).collect())),
        found => Ok(found),
    }
}

/// `/chat/a?b` is `chat` and `/a?b`; `/chat?b` is `chat` and `?b`.
fn first_segment(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix('/')?;
    let end = memchr::memchr2(b'/', b'?', path.as_bytes()).unwrap_or(path.len());
    (end > 0).then(|| path.split_at(end))
}

/// A target that starts with `/`, out of the rest of one.
fn target(rest: &str) -> Result<Uri, Refusal> {
    let invalid = |_| Refusal::Malformed("the request's target is no path");
    let path = match rest {
        "" | "/" => PathAndQuery::from_static("/"),
        rest if rest.starts_with('/') => {
            PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(rest.as_bytes())).map_err(invalid)?
        }
        query => PathAndQuery::from_maybe_shared(Bytes::from(format!("/{query}"))).map_err(invalid)?,
    };
    Ok(Uri::from(path))
}

impl Choice {
    /// The server as filters and the log name it.
    pub(super) fn name(&self, plan: &ServicePlan) -> Arc<str> {
        match self.place {
            Some(place) => plan.service.servers[place].id.clone(),
            None => self.endpoint.uri.as_str().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_segments() {
        for (path, expect) in [
            ("/chat/a?b", Some(("chat", "/a?b"))),
            ("/chat", Some(("chat", ""))),
            ("/chat@2/", Some(("chat@2", "/"))),
            ("/chat?b=/c", Some(("chat", "?b=/c"))),
            ("/", None),
            ("//chat", None),
            ("*", None),
        ] {
            assert_eq!(first_segment(path), expect, "{path}");
        }
    }

    #[test]
    fn targets() {
        for (rest, expect) in [("", "/"), ("/", "/"), ("/a?b", "/a?b"), ("?b", "/?b"), ("//a", "//a")] {
            assert_eq!(target(rest).unwrap().to_string(), expect);
        }
    }

    #[test]
    fn hosts_without_ports() {
        for (authority, expect) in [("a", "a"), ("a:80", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]")] {
            assert_eq!(host_of(authority), expect, "{authority}");
        }
    }
}
