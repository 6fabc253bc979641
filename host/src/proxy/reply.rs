//! The body of what the client gets, and the end of its message.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::{Worker, head, plan::ServicePlan, respond::Refusal};
use crate::{
    fields::Trailers,
    listener::{BoxError, Carrier, Connection, Interim, Phase, Watch},
    plugin::message::{BodyStream, ClientId},
    upstream::{Endpoint, OnInterim, body::ResponseBody},
};

/// A body on its way to the client.
pub struct Reply {
    kind: Kind,
    /// What may follow it.
    trailers: Trailers,
    /// Dropped with the body: the message has ended then.
    exchange: Option<Exchange>,
}

enum Kind {
    /// Of the router's own making.
    Own(Option<Bytes>),
    /// As the server sends it.
    Server(ResponseBody),
    /// As a filter left it.
    Filtered(BodyStream),
}

impl Reply {
    pub(crate) fn own(bytes: Bytes) -> Self {
        Self::of(Kind::Own(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    pub(crate) fn server(body: ResponseBody) -> Self {
        Self::of(Kind::Server(body))
    }

    pub(crate) fn filtered(body: BodyStream) -> Self {
        Self::of(Kind::Filtered(body))
    }

    fn of(kind: Kind) -> Self {
        Self { kind, trailers: Trailers::default(), exchange: None }
    }

    /// With what its head announced to follow it.
    pub(super) fn announcing(mut self, trailers: Trailers) -> Self {
        self.trailers = trailers;
        self
    }

    /// Ends this exchange with the body.
    pub(crate) fn ending(mut self, exchange: Exchange) -> Self {
        self.exchange = Some(exchange);
        self
    }

    fn poll_kind(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.kind {
            Kind::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Server(body) => Pin::new(body).poll_frame(cx),
            Kind::Filtered(body) => Pin::new(body).poll_frame(cx),
        }
    }
}

/// The response's body stood still for too long.
#[derive(Debug, thiserror::Error)]
#[error("the response's body stood still for too long")]
struct Stalled;

impl Body for Reply {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Some(exchange) = &this.exchange
            && exchange.is_overdue(cx)
        {
            exchange.worker.metrics.overdue(Phase::ResponseBody);
            exchange.worker.metrics.reports.broke_off(exchange, &Stalled);
            return Poll::Ready(Some(Err(Stalled.into())));
        }
        let frame = ready!(this.poll_kind(cx));
        if let Some(exchange) = &this.exchange {
            exchange.watch.touch();
            if let Some(Err(error)) = &frame {
                exchange.worker.metrics.reports.broke_off(exchange, &**error);
            }
        }
        match frame {
            Some(Ok(frame)) if frame.is_trailers() => {
                let mut trailers = frame.into_trailers().unwrap_or_default();
                this.trailers.admit_response(&mut trailers);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Own(bytes) => bytes.is_none(),
            Kind::Server(body) => body.is_end_stream(),
            Kind::Filtered(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Server(body) => body.size_hint(),
            Kind::Filtered(body) => body.size_hint(),
        }
    }
}

/// One message, from the head of its request until this is dropped.
pub(crate) struct Exchange {
    pub(super) worker: Arc<Worker>,
    /// On which it came.
    pub(super) connection: Arc<Connection>,
    /// Its deadlines: the connection's own, unless that carries several messages.
    pub(super) watch: Arc<Watch>,
    /// Where what comes before its response goes.
    interim: Interim,
    started: Instant,
    status: StatusCode,
    /// None until it is known.
    pub(super) service: Option<Arc<ServicePlan>>,
    /// Who sent it, once that is of interest: at the end of the request.
    pub(super) client: Option<ClientId>,
    /// The server that answered, or failed to.
    pub(super) server: Option<Arc<Endpoint>>,
}

/// For the body of an answer to a message whose service is not known.
const UNKNOWN_BODY: Duration = Duration::from_secs(60);

impl Exchange {
    /// A message whose service is not known yet.
    pub(super) fn begin(worker: Arc<Worker>, carrier: Carrier) -> Self {
        let Carrier { connection, watch, interim } = carrier;
        watch.disarm();
        let (started, status) = (Instant::now(), StatusCode::OK);
        let (service, client, server) = (None, None, None);
        Self { worker, connection, watch, interim, started, status, service, client, server }
    }

    /// It is for this service.
    pub(super) fn is_for(&mut self, service: Arc<ServicePlan>) {
        service.metrics.begin();
        self.service = Some(service);
    }

    /// It will be answered with this; now the body is waited for.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = status;
        let span = self.service.as_ref().map_or(UNKNOWN_BODY, |service| service.settings.body_timeout);
        self.watch.arm(Phase::ResponseBody, span);
    }

    /// Whether what is waited for takes too long; the task is woken when it does.
    pub(super) fn is_overdue(&self, cx: &Context<'_>) -> bool {
        if self.connection.multiplexed {
            self.watch.register(cx.waker());
        }
        self.watch.overdue().is_some()
    }

    /// What comes of something that waits for a body, unless that takes too long.
    pub(super) async fn in_time<T>(
        &self,
        passing: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let mut passing = std::pin::pin!(passing);
        std::future::poll_fn(|cx| {
            let body = [Phase::RequestBody, Phase::ResponseBody];
            match self.is_overdue(cx).then(|| self.watch.phase()).filter(|phase| body.contains(phase)) {
                Some(phase) => Poll::Ready(Err(Refusal::Overdue(phase))),
                None => passing.as_mut().poll(cx),
            }
        })
        .await
    }

    fn count(&self, seconds: f64) {
        match &self.service {
            Some(service) => service.metrics.end(self.status, seconds),
            None => {
                let plan = self.worker.plan.load();
                plan.unknown.begin();
                plan.unknown.end(self.status, seconds);
            }
        }
    }
}

impl OnInterim for Exchange {
    fn on_interim(&self, status: StatusCode, mut headers: HeaderMap) {
        head::strip_response(&mut headers, status);
        self.interim.inform(&self.connection, status, headers);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let seconds = self.started.elapsed().as_secs_f64();
        self.count(seconds);
        if !self.connection.multiplexed {
            self.watch.arm(Phase::KeepAlive, self.connection.keep_alive);
        }
        tracing::debug!(
            peer = %self.connection.peer,
            service = self.service.as_ref().map(|service| service.service.id.as_str()),
            status = self.status.as_u16(),
            seconds,
            "message ended"
        );
    }
}
