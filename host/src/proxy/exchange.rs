//! The life of one message, in the order in which it happens: admit, find the service, identify the
//! client, route, filter, forward, filter, answer.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode, request::Parts};
use http_body::Body;
use http_body_util::BodyExt;

use super::{
    Plan, Settings, Worker,
    address::{self, Address, Change, Read, target},
    bearer,
    filter::{self, Head, Passing},
    forward::{Forwarded, Outbound},
    gather::gather,
    head::{self, Seen},
    identify::{self, Identity},
    origin,
    plan::{Found, Plugin, ServicePlan},
    reply::{Exchange, Reply},
    respond::Refusal,
    route::{self, Choice},
    sources::Known,
    upgrade,
    upload::{self, Pace, Upload},
    version::Unversioned,
};
use crate::{
    grpc,
    listener::{BoxError, Carrier, Incoming, Phase},
    plugin::{
        body::ask_for_whole,
        message::{ClientId, target as target_of},
    },
    table::{Release, assignments::Wait},
    upstream::RequestBody,
};

/// Answers a request, whatever happens. An error only breaks its connection off.
pub(super) async fn answer(
    worker: Arc<Worker>,
    carrier: Carrier,
    request: Request<Incoming>,
) -> Result<Response<Reply>, BoxError> {
    let (head, body) = request.into_parts();
    let exchange = Exchange::begin(worker, carrier);
    let wait = exchange.worker.assignments.wait();
    let mut message = Inbound { exchange, head, cut: 0, expects_continue: false, wait };
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
    /// The client holds its body back, and so far nobody has asked it for that.
    pub(super) expects_continue: bool,
    /// How long it may wait for the table to say which version is meant.
    wait: Wait,
}

/// For whom a message is and from whom.
struct Addressed {
    plan: Arc<ServicePlan>,
    client: Identity,
}

/// What is meant by a name.
enum Meant {
    Service(Arc<ServicePlan>),
    /// Which version it is cannot be said without asking.
    Released(Arc<Plan>, Arc<Release>, Read),
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
            (Meant::Released(plan, release, read), client) => {
                Box::pin(self.released((plan, release, read), client)).await?
            }
        };
        self.exchange.is_for(plan.clone());
        let answered = self.serve(&seen, &plan, &client, body).await;
        self.exchange.client = Some(client.id);
        answered
    }

    async fn serve(
        &mut self,
        seen: &Seen,
        plan: &Arc<ServicePlan>,
        client: &Identity,
        body: Incoming,
    ) -> Result<Response<Reply>, Refusal> {
        let settings = &plan.settings;
        self.expects_continue =
            seen.expects_continue(&self.head) && !plan.request_filters.iter().any(Plugin::reads_body);
        let (body, upgrade) = self.upgrade(seen, body, settings)?;
        head::strip_request(&mut self.head.headers, seen);
        // What is added here: the map grows once at most.
        self.head.headers.reserve(6);
        origin::add(&mut self.head.headers, seen, &self.exchange.connection, settings);
        head::add_via(&mut self.head, seen, settings);
        client.tell(&mut self.head.headers, seen);
        let client = &client.id;
        let worker = self.worker().clone();
        let (assignments, wait) = (&*worker.assignments, self.wait.clone());
        let known = Known { plan, client, assignments, now: worker.now(), wait: &wait };
        let choice = route::choose(self, &known, &[]).await?;
        let mut body = self.body(body, seen, settings);
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
        let status = response.status();
        let trailers = head::strip_response(response.headers_mut(), status);
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
        Ok(response.map(|reply| reply.announcing(trailers)))
    }

    /// Admits the message, and finds out for which service it is and from which client.
    fn address(&mut self, seen: &Seen) -> Result<(Meant, Identity), Refusal> {
        let plan = self.exchange.worker.plan.load();
        let connection = &self.exchange.connection;
        head::admit(&self.head, seen, &plan.settings)?;
        let inside = seen.shows_pass && head::take_pass(&mut self.head.headers, &plan.settings);
        let read = address::read(&mut self.head, inside)?;
        if self.head.method == Method::OPTIONS && head::goes_no_further(&mut self.head.headers) {
            return Err(Refusal::Options);
        }
        let headers = &self.head.headers;
        let peer = || identify::peer(&plan.settings, headers, connection.peer.ip(), &connection.peer_text);
        let token = bearer::verified(&self.exchange.worker, &plan.settings, headers)?;
        let client = identify::identify(&plan.settings, headers, token.as_deref(), peer).map_err(|_| {
            let why = "the client id is not 1 to 256 visible ASCII characters";
            Refusal::Unacceptable(StatusCode::BAD_REQUEST, why)
        })?;
        let Address { found, change } = address::find(&plan, &self.head, read, seen.names_service)?;
        let meant = match found {
            Found::Service(service) => Meant::Service(service.clone()),
            Found::Released(release) => match self.unversioned(&plan, release, &client.id).at_once() {
                Some(service) if read.may_reach(&service) => Meant::Service(service),
                Some(_) => return Err(address::unknown(&plan, release.choices.id.name())),
                None => Meant::Released(Arc::clone(&plan), Arc::clone(release), read),
            },
            Found::Unreleased | Found::Unknown => return Err(Refusal::NoService),
        };
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
        Unversioned {
            plan,
            release,
            assignments,
            client: client.as_str(),
            headers,
            connection,
            now,
            wait: &self.wait,
        }
    }

    async fn released(
        &self,
        (plan, release, read): (Arc<Plan>, Arc<Release>, Read),
        client: Identity,
    ) -> Result<Addressed, Refusal> {
        let name = release.choices.id.name();
        match self.unversioned(&plan, &release, &client.id).ask().await {
            Some(found) if read.may_reach(&found) => Ok(Addressed { plan: found, client }),
            Some(_) => Err(address::unknown(&plan, name)),
            None => Err(Refusal::Unreleased(name.to_owned())),
        }
    }

    /// The body, and what the client would like to speak instead, if that may pass.
    fn upgrade(
        &self,
        seen: &Seen,
        body: Incoming,
        settings: &Settings,
    ) -> Result<(Incoming, Option<upgrade::Wanted>), Refusal> {
        let Some(protocol) = head::wanted_upgrade(&self.head, seen, settings)? else {
            return Ok((body, None));
        };
        match body {
            Incoming::Upgradable(client) => {
                let multiplexed = self.exchange.connection.multiplexed;
                let wanted = upgrade::Wanted::new(protocol.clone(), &self.head, client, multiplexed);
                Ok((Incoming::Empty, Some(wanted)))
            }
            body if body.is_end_stream() => Ok((body, None)),
            _ => Err(Refusal::Malformed("an upgrade with a body")),
        }
    }

    /// The body as it will go to the server, and the deadline for the first of what follows.
    fn body(&self, body: Incoming, seen: &Seen, settings: &Settings) -> RequestBody {
        if body.is_end_stream() {
            return RequestBody::Empty;
        }
        let (watch, response_timeout) = (self.exchange.watch.clone(), settings.response_timeout);
        let trailers = seen.trailers(&self.head.headers).except(|name| settings.goes_by(name));
        let (allowed, pace) = (settings.max_body, Pace::of(&body));
        let upload = Upload { incoming: body, allowed, trailers, watch, response_timeout, pace };
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

impl Choice {
    /// The server as filters and the log name it.
    pub(super) fn name(&self, plan: &ServicePlan) -> Arc<str> {
        match self.place {
            Some(place) => plan.service.servers[place].id.clone(),
            None => self.endpoint.uri.as_str().into(),
        }
    }
}
