//! Applies the routing rule to a message and turns its answer into an endpoint.

use std::sync::Arc;

use futures_util::FutureExt;

use super::{
    exchange::Inbound,
    plan::ServicePlan,
    respond::Refusal,
    sources::{Asking, AtOnce, Known},
};
use crate::{
    resolve::{self, Outcome, Target, Untraced},
    upstream::{Endpoint, Endpoints},
};

/// Where a message goes.
pub(super) struct Choice {
    pub(super) endpoint: Arc<Endpoint>,
    /// In the server list, if it is from there.
    pub(super) place: Option<usize>,
}

/// Chooses a server that is not among those to avoid. A client that is known costs no wait.
pub(super) async fn choose(
    inbound: &mut Inbound,
    known: &Known<'_>,
    avoid: &[u32],
) -> Result<Choice, Refusal> {
    let outcome = match at_once(known, avoid) {
        Some(outcome) => outcome,
        None => Box::pin(ask(inbound, known, avoid)).await?,
    };
    chosen(outcome, known, &inbound.worker().endpoints)
}

/// Not part of the future of [`choose`], to keep that small.
fn at_once(known: &Known<'_>, avoid: &[u32]) -> Option<Outcome> {
    resolve::resolve(known.query(avoid), &mut AtOnce(known), &mut Untraced).now_or_never()
}

async fn ask(inbound: &mut Inbound, known: &Known<'_>, avoid: &[u32]) -> Result<Outcome, Refusal> {
    inbound.cut_target()?;
    let exchange = &inbound.exchange;
    let mut asking = Asking { known, connection: &exchange.connection, head: &mut inbound.head };
    Ok(resolve::resolve(known.query(avoid), &mut asking, &mut Untraced).await)
}

fn registrar_failed(plan: &ServicePlan, why: Arc<str>) -> Refusal {
    let registrar = plan.registrar.as_ref().expect("the rule asks a registrar only where there is one");
    let name = registrar.name.to_string();
    match registrar.generation {
        Some(_) => Refusal::PluginFailed(name, why),
        None => Refusal::PluginMissing(name),
    }
}

fn chosen(outcome: Outcome, known: &Known<'_>, endpoints: &Endpoints) -> Result<Choice, Refusal> {
    let plan = known.plan;
    match outcome {
        Outcome::To(Target::Fixed, _) => {
            let endpoint = plan.fixed.clone().expect("the rule chose the `server`, so it is set");
            Ok(Choice { endpoint, place: None })
        }
        Outcome::To(Target::Listed(place), _) => {
            Ok(Choice { endpoint: plan.endpoints[place].clone(), place: Some(place) })
        }
        Outcome::To(Target::Elsewhere(uri), _) => Ok(Choice { endpoint: endpoints.get(&uri), place: None }),
        Outcome::Rejected(rejection) => Err(Refusal::Rejected(rejection.status, rejection.reason)),
        Outcome::RegistrarFailed(why) => Err(registrar_failed(plan, why)),
        Outcome::Nowhere(nowhere) => Err(Refusal::Nowhere(Box::new(nowhere))),
    }
}
