//! Says where a message would go and why, by the code that routes.
//!
//! Everything is asked as for a real message, in the same order: what this router remembers, the table,
//! health, the registrar. Nothing is stored, remembered or prolonged by asking.

use std::sync::Arc;

use http::{Request, StatusCode, request::Parts};

use super::{
    address,
    head::Seen,
    identify::Identity,
    plan::{Found, Plan, ServicePlan},
    respond::Refusal,
    sources::{self, Known, on_error},
    version::Unversioned,
};
use crate::{
    plugin::message::ClientId,
    resolve::{
        self, Asked, Cached, Explanation, Health, OnError, Outcome, Question, Sources, Step, Target,
        TraceLine,
    },
    table::{
        Assignments, Server, ServiceId, TableError,
        adapter::{Assignment, Condition},
    },
};

/// Why there is nothing to explain.
#[derive(Debug, thiserror::Error)]
pub enum Unexplained {
    /// There can be no such message.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The service is not known.
    #[error("service {0} is not known")]
    Unknown(ServiceId),
    /// Several versions, none of which is live.
    #[error("no version of service {0} is live; promote one")]
    Unreleased(ServiceId),
}

/// Explains; see the module.
pub async fn explain(
    plan: &Plan,
    assignments: &Assignments,
    question: Question,
    now: u64,
) -> Result<Explanation, Unexplained> {
    let (mut trace, wait) = (Vec::new(), assignments.wait());
    let Question { service: asked, client, method, path, headers } = question;
    let service = match plan.find(asked.as_str()) {
        Found::Service(found) => {
            if found.service.id != asked {
                let outcome = format!("{}: the only one that is live", found.service.id);
                trace.push(TraceLine { step: Step::Version, outcome });
            }
            found.clone()
        }
        Found::Released(release) => {
            let unversioned = Unversioned {
                plan,
                release,
                assignments,
                client: &client,
                headers: &headers,
                connection: None,
                now,
                wait: &wait,
            };
            unversioned.explain(&mut trace).await.ok_or(Unexplained::Unreleased(asked))?
        }
        Found::Unreleased => return Err(Unexplained::Unreleased(asked)),
        Found::Unknown => return Err(Unexplained::Unknown(asked)),
    };
    let client = ClientId::Text(client.into());
    let known = Known { plan: &service, client: &client, assignments, now, wait: &wait };
    let mut head = Request::new(()).into_parts().0;
    head.method = method;
    head.uri = path.into();
    head.headers = headers;
    // Whoever may ask here may know of services that are not public.
    address::read(&mut head, true)?;
    let seen = Seen::look(&head.headers);
    Identity::unverified(client.clone()).tell(&mut head.headers, &seen);
    let mut dry = Dry { known: &known, head: &mut head };
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
        status: None,
        reason: None,
        trace,
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
            explanation.status = Some(rejection.status);
            explanation.reason = Some(rejection.reason);
        }
        Outcome::RegistrarFailed(why) => {
            explanation.step = Some(Step::Registrar);
            explanation.status = Some(StatusCode::SERVICE_UNAVAILABLE);
            explanation.reason = Some(why.to_string());
        }
        Outcome::Nowhere(nowhere) => {
            explanation.status = Some(StatusCode::SERVICE_UNAVAILABLE);
            explanation.reason = Some(nowhere.to_string());
        }
    }
    explanation
}

/// Asks like a real message and stores nothing.
struct Dry<'a> {
    known: &'a Known<'a>,
    head: &'a mut Parts,
}

impl Sources for Dry<'_> {
    fn cached(&mut self) -> Option<Cached> {
        let Known { plan, client, assignments, now, .. } = self.known;
        let found = assignments.peek(&plan.service, client.as_str(), *now)?;
        Some(Cached { server: found.server, pinned: found.pinned, due: found.due })
    }

    fn prolong(&mut self) {}

    fn detour(&mut self) -> Option<u32> {
        self.known.detour()
    }

    fn remember_detour(&mut self, _: &str) {}

    fn text(&self, number: u32) -> Option<Arc<str>> {
        self.known.assignments.text(number)
    }

    async fn assigned(&mut self) -> Result<Option<Assignment>, TableError> {
        let Known { plan, client, assignments, wait, .. } = self.known;
        assignments.look(&plan.service, client.as_str(), wait).await
    }

    async fn claim(&mut self, _: &str, _: Condition) -> Result<Option<Assignment>, TableError> {
        Ok(None)
    }

    fn held(&mut self) -> Option<u32> {
        self.known.held()
    }

    fn hold(&mut self, _: &str, _: &TableError) {}

    fn is_news(&self, assignment: &Assignment) -> bool {
        self.known.is_news(assignment)
    }

    fn health(&self, server: &Server) -> Health {
        self.known.plan.health(server)
    }

    async fn ask(&mut self) -> Asked {
        sources::ask(self.known, self.head, None).await
    }

    fn on_error(&self) -> OnError {
        on_error(self.known.plan)
    }

    fn random(&mut self) -> u64 {
        rand::random()
    }
}
