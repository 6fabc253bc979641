//! Says where a message would go and why, by the code that routes.
//!
//! Everything is asked as for a real message: table, health, registrar. Nothing is stored.

use std::sync::Arc;

use http::{HeaderMap, Request, request::Parts};

use super::{
    identify::ClientId,
    plan::{Found, Plan, ServicePlan},
    sources::{self, Known, health_elsewhere, missing, on_error},
    version::Unversioned,
};
use crate::{
    resolve::{self, Asked, Health, OnError, Outcome, Sources, Step, Target, TraceLine},
    table::{
        Assignments, Server, ServiceId, TableError,
        adapter::{Assignment, Condition},
        record::ServerUri,
    },
    upstream::Endpoints,
};

/// Where a message would go and why.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// With the version that was chosen.
    pub service: ServiceId,
    /// Whose message.
    pub client: String,
    /// The URI of the server; none if there is none.
    pub server: Option<String>,
    /// The server's id, if it is of the server list.
    pub server_id: Option<String>,
    /// The step that decided; none if none did.
    pub step: Option<Step>,
    /// What each step came to, in order.
    pub trace: Vec<TraceLine>,
    /// What the client would get instead.
    pub refusal: Option<String>,
}

/// Why there is nothing to explain.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unexplained {
    /// The service is not known.
    #[error("service {0} is not known")]
    Unknown(ServiceId),
    /// Several versions, none of which is live.
    #[error("no version of service {0} is live; promote one")]
    Unreleased(ServiceId),
}

/// Explains; see the module. The registrar sees a `GET /` with these headers.
pub async fn explain(
    plan: &Plan,
    assignments: &Assignments,
    endpoints: &Endpoints,
    (service, client): (&ServiceId, &str),
    headers: HeaderMap,
    now: u64,
) -> Result<Explanation, Unexplained> {
    let mut trace = Vec::new();
    let chosen = match plan.find(service.as_str()) {
        Found::Service(found) => {
            if found.service.id != *service {
                let outcome = format!("{}: the only one that is live", found.service.id);
                trace.push(TraceLine { step: Step::Version, outcome });
            }
            found.clone()
        }
        Found::Released(release) => {
            let unversioned = Unversioned { plan, release, assignments, client, headers: &headers, now };
            let found = unversioned.explain(&mut trace).await;
            found.ok_or_else(|| Unexplained::Unreleased(service.clone()))?
        }
        Found::Unreleased => return Err(Unexplained::Unreleased(service.clone())),
        Found::Unknown => return Err(Unexplained::Unknown(service.clone())),
    };
    let service = chosen;
    let client = ClientId::Text(client.into());
    let known = Known { plan: &service, client: &client, assignments, now };
    let mut head = Request::new(()).into_parts().0;
    head.headers = headers;
    let mut dry = Dry { known: &known, endpoints, head: &mut head };
    let outcome = resolve::resolve(known.query(&[]), &mut dry, &mut trace).await;
    Ok(explanation(&service, client.as_str(), outcome, trace))
}

fn explanation(
    plan: &Arc<ServicePlan>,
    client: &str,
    outcome: Outcome,
    trace: Vec<TraceLine>,
) -> Explanation {
    let mut explanation = Explanation {
        service: plan.service.id.clone(),
        client: client.to_owned(),
        server: None,
        server_id: None,
        step: None,
        trace,
        refusal: None,
    };
    match outcome {
        Outcome::To(target, step) => {
            explanation.step = Some(step);
            explanation.server = match target {
                Target::Fixed => plan.service.record.server.as_ref().map(ToString::to_string),
                Target::Listed(place) => {
                    let server = &plan.service.servers[place];
                    explanation.server_id = Some(server.id.to_string());
                    Some(server.record.uri.to_string())
                }
                Target::Elsewhere(uri) => Some(uri.to_string()),
            };
        }
        Outcome::Rejected(rejection) => {
            explanation.step = Some(Step::Registrar);
            explanation.refusal = Some(format!("{}: {}", rejection.status, rejection.reason));
        }
        Outcome::RegistrarFailed(why) => {
            explanation.step = Some(Step::Registrar);
            explanation.refusal = Some(why.to_string());
        }
        Outcome::Nowhere(nowhere) => explanation.refusal = Some(nowhere.to_string()),
    }
    explanation
}

/// Asks like a real message and stores nothing.
struct Dry<'a> {
    known: &'a Known<'a>,
    endpoints: &'a Endpoints,
    head: &'a mut Parts,
}

impl Sources for Dry<'_> {
    fn cached(&mut self) -> Option<u32> {
        // A look at the cache counts as a use and might renew; the table is asked instead.
        None
    }

    fn text(&self, number: u32) -> Option<Arc<str>> {
        self.known.assignments.text(number)
    }

    async fn assigned(&mut self) -> Result<Option<Assignment>, TableError> {
        self.known.assignments.lookup(&self.known.plan.service, self.known.client.as_str()).await
    }

    async fn claim(&mut self, _: &str, _: Condition) -> Result<Option<Assignment>, TableError> {
        Ok(None)
    }

    fn hold(&mut self, _: &str) {}

    fn health(&self, server: &Server) -> Health {
        self.known.plan.health(server)
    }

    fn health_elsewhere(&self, uri: &ServerUri) -> Health {
        health_elsewhere(&self.endpoints.get(uri))
    }

    async fn ask(&mut self) -> Asked {
        let Some(registrar) = &self.known.plan.registrar else { return Asked::Pass };
        let Some(generation) = &registrar.generation else { return missing(registrar) };
        let mut message = sources::message(self.head, self.known, None);
        message.candidates = Some(self.known.plan.clone());
        let answer = generation.resolve(&mut message).await;
        sources::give_back(self.head, message);
        sources::asked(answer)
    }

    fn on_error(&self) -> OnError {
        on_error(self.known.plan)
    }

    fn random(&mut self) -> u64 {
        rand::random()
    }
}
