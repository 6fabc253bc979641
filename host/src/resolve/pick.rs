//! Step 4: one of the server list.

use std::fmt;

use super::{Health, Query, Sources};
use crate::table::{hash, view::Server};

/// Why no server of a list can be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unavailable {
    /// Servers in the list.
    pub listed: usize,
    /// Of these, unhealthy or ejected.
    pub unhealthy: usize,
    /// Of the others, leaving.
    pub draining: usize,
    /// Of the others, with weight 0.
    pub weightless: usize,
    /// Of the others, already tried for this message.
    pub tried: usize,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.listed == 0 {
            return f.write_str("empty");
        }
        let Self { listed, unhealthy, draining, weightless, tried } = self;
        let leaving = if *draining == 0 { String::new() } else { format!("{draining} leaving, ") };
        write!(
            f,
            "none of {listed} is available ({unhealthy} unhealthy, {leaving}{weightless} of weight 0, {tried} tried already)"
        )
    }
}

/// In proportion to the weights; suspect servers only while no other is healthy.
pub(super) fn at_random<S: Sources>(query: Query<'_>, sources: &mut S) -> Result<usize, Unavailable> {
    let mut count = Unavailable::default();
    let (mut healthy, mut suspect) = (Draw::default(), Draw::default());
    for (place, server) in query.service.servers.iter().enumerate() {
        match count.available(query, sources.health(server), server) {
            Some(Health::Healthy) => healthy.add(place, server.record.weight, sources),
            Some(_) => suspect.add(place, server.record.weight, sources),
            None => {}
        }
    }
    healthy.drawn.or(suspect.drawn).ok_or(count)
}

/// By a hash of the client, of which the service is the salt, in proportion to the weights: what every
/// router chooses that sees the same servers healthy, and over all clients as uniform as chance.
pub(super) fn by_client<S: Sources>(query: Query<'_>, sources: &S) -> Result<usize, Unavailable> {
    let mut count = Unavailable::default();
    let key = hash::affinity(hash::stable(query.client), hash::stable(query.service.id.as_str()));
    let of =
        |wanted: Health, count: &mut Unavailable| {
            let servers =
                query.service.servers.iter().enumerate().filter(|(_, server)| {
                    count.available(query, sources.health(server), server) == Some(wanted)
                });
            let items = servers.map(|(place, server)| (place, server.hash, server.record.weight));
            hash::rendezvous(key, items)
        };
    let healthy = of(Health::Healthy, &mut count);
    healthy.or_else(|| of(Health::Suspect, &mut Unavailable::default())).ok_or(count)
}

impl Unavailable {
    /// The health of a server that can be chosen; counts one that cannot.
    fn available(&mut self, query: Query<'_>, health: Health, server: &Server) -> Option<Health> {
        self.listed += 1;
        if matches!(health, Health::Unhealthy | Health::Ejected) {
            self.unhealthy += 1;
        } else if matches!(health, Health::Draining | Health::Left) {
            self.draining += 1;
        } else if server.record.weight == 0 {
            self.weightless += 1;
        } else if query.avoid.contains(&server.number) {
            self.tried += 1;
        } else {
            return Some(health);
        }
        None
    }
}

/// One of a stream of weighted places, each as likely as its weight says.
#[derive(Default)]
struct Draw {
    total: u64,
    drawn: Option<usize>,
}

impl Draw {
    fn add(&mut self, place: usize, weight: u32, sources: &mut impl Sources) {
        self.total += u64::from(weight);
        if self.drawn.is_none() || below(self.total, sources.random()) < u64::from(weight) {
            self.drawn = Some(place);
        }
    }
}

/// Scales 64 random bits to a number below `limit`.
fn below(limit: u64, random: u64) -> u64 {
    ((u128::from(limit) * u128::from(random)) >> 64) as u64
}
