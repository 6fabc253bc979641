//! How the servers of a service are, as this router sees them: what the table says of them, what
//! active checks say, and what failed on the way to them.

use std::sync::Arc;

use super::plan::ServicePlan;
use crate::{
    plugin::candidates::{self, Candidate, Candidates, Load, Pair},
    resolve::Health,
    table::Server,
    upstream::Endpoint,
};

/// What is known of a server besides its record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Active checks of its service say that it is not well.
    pub fails_checks: bool,
    /// Failures of messages in a row keep it from getting any of its service for a while.
    pub ejected: bool,
    /// Messages on their way to it, of any service.
    pub in_flight: u32,
}

impl ServicePlan {
    /// How a server of the list is.
    pub(super) fn health(&self, server: &Server) -> Health {
        self.service.place(server.number).map_or(Health::Left, |place| self.health_at(place))
    }

    /// What is known of a server of the list.
    pub fn seen(&self, server: &str) -> Option<Seen> {
        let place = self.service.servers.iter().position(|known| *known.id == *server)?;
        let in_flight = self.endpoints[place].in_flight();
        Some(Seen { fails_checks: self.fails_checks(place), ejected: self.is_ejected(place), in_flight })
    }

    /// Whether the service can do without this server for a while, were it ejected now.
    pub(super) fn may_eject(&self, place: Option<usize>) -> bool {
        place.is_some_and(|place| self.spares(|other| other == place || self.endpoints[other].is_ejected()))
    }

    fn health_at(&self, place: usize) -> Health {
        let server = &self.service.servers[place];
        let draining = server.record.draining.as_ref();
        if draining.is_some_and(|draining| draining.over) {
            Health::Left
        } else if self.fails_checks(place) {
            Health::Unhealthy
        } else if self.is_ejected(place) {
            Health::Ejected
        } else if draining.is_some() {
            Health::Draining
        } else if server.is_suspect() {
            Health::Suspect
        } else {
            Health::Healthy
        }
    }

    fn fails_checks(&self, place: usize) -> bool {
        self.verdicts.get(place).is_some_and(|verdict| verdict.as_ref().is_some_and(|it| it.is_failing()))
    }

    fn is_ejected(&self, place: usize) -> bool {
        self.endpoints[place].is_ejected() && self.spares(|other| self.endpoints[other].is_ejected())
    }

    /// Whether enough servers are left without the ejected. Those that take no clients anyway do not
    /// count, and the last one that does is never ejected; when too many are, it is more likely that
    /// something else is wrong, and all are used.
    fn spares(&self, is_ejected: impl Fn(usize) -> bool) -> bool {
        let (mut usable, mut ejected) = (0, 0);
        for (place, server) in self.service.servers.iter().enumerate() {
            if server.record.weight > 0 && server.record.draining.is_none() && !self.fails_checks(place) {
                usable += 1;
                ejected += usize::from(is_ejected(place));
            }
        }
        ejected < usable && ejected * 100 <= usable * self.settings.most_ejected as usize
    }

    /// The servers of the list that are wanted and may be chosen.
    fn listed(&self, wanted: impl Fn(&Server) -> bool) -> impl Iterator<Item = (&Server, &Endpoint, Health)> {
        let servers = self.service.servers.iter().enumerate();
        servers.filter(move |(_, server)| wanted(server)).filter_map(|(place, server)| {
            let health = self.health_at(place);
            let chosen = matches!(health, Health::Healthy | Health::Suspect);
            chosen.then_some((&**server, &*self.endpoints[place], health))
        })
    }
}

impl Candidates for ServicePlan {
    fn servers(&self) -> Vec<Candidate> {
        let listed = self.listed(|_| true).map(|(server, endpoint, health)| Candidate {
            id: Arc::clone(&server.id),
            uri: server.record.uri.to_string(),
            weight: server.record.weight,
            healthy: health == Health::Healthy,
            in_flight: endpoint.in_flight(),
            metadata: server.record.metadata.clone().into_iter().collect(),
        });
        listed.collect()
    }

    fn least_loaded(&self, client: &str, having: &[Pair<'_>]) -> Option<Arc<str>> {
        let has = |server: &Server, (key, value): &Pair<'_>| {
            server.record.metadata.get(*key).is_some_and(|its| its == value)
        };
        let wanted = self.listed(|server| having.iter().all(|pair| has(server, pair)));
        let loads = wanted.map(|(server, endpoint, health)| Load {
            id: &server.id,
            hash: server.hash,
            weight: server.record.weight,
            healthy: health == Health::Healthy,
            in_flight: endpoint.in_flight(),
        });
        candidates::least_loaded(client, loads).cloned()
    }
}
