//! Whom a registrar may choose among, and which of them has the least to do.
//!
//! The choice that nearly every registrar makes is made here, beside the servers: what each of them
//! does is read where it is counted, and only an id crosses into the guest.

use std::{cmp::Ordering, sync::Arc};

use crate::table::hash;

/// Whom a registrar may choose among; evaluated only if it asks.
pub trait Candidates: Send + Sync {
    /// The service's server list without unhealthy servers, in the order of their ids.
    fn servers(&self) -> Vec<Candidate>;

    /// The id of the one with the least to do, of those that have all of these pairs in their
    /// metadata.
    fn least_loaded(&self, client: &str, having: &[Pair<'_>]) -> Option<Arc<str>>;
}

/// A key of a server's metadata, and the value that is asked for.
pub type Pair<'a> = (&'a str, &'a str);

/// A server, as a registrar sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Unique within its service.
    pub id: Arc<str>,
    /// Without a trailing slash.
    pub uri: String,
    /// Its share of unassigned clients.
    pub weight: u32,
    /// False while it is suspect.
    pub healthy: bool,
    /// Messages sent to it by this router and not yet answered.
    pub in_flight: u32,
    /// What it was registered with.
    pub metadata: Vec<(String, String)>,
}

/// Candidates as they were at one moment.
pub struct Listed(pub Vec<Candidate>);

impl Candidates for Listed {
    fn servers(&self) -> Vec<Candidate> {
        self.0.clone()
    }

    fn least_loaded(&self, client: &str, having: &[Pair<'_>]) -> Option<Arc<str>> {
        let has = |server: &Candidate, (key, value): &Pair<'_>| {
            server.metadata.iter().any(|(its, is)| its == key && is == value)
        };
        let wanted = self.0.iter().filter(|server| having.iter().all(|pair| has(server, pair)));
        least_loaded(client, wanted.map(Load::of)).cloned()
    }
}

/// What a server has to do, and what it can.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// Its id.
    pub id: &'a Arc<str>,
    /// The [`hash::stable`] of its id.
    pub hash: u64,
    /// Its share.
    pub weight: u32,
    /// Whether it is preferred to those that are not.
    pub healthy: bool,
    /// Messages sent to it and not yet answered.
    pub in_flight: u32,
}

impl<'a> Load<'a> {
    fn of(server: &'a Candidate) -> Self {
        let Candidate { id, weight, healthy, in_flight, .. } = server;
        Self { id, hash: hash::stable(id), weight: *weight, healthy: *healthy, in_flight: *in_flight }
    }

    /// Healthy ones first, then by messages under way for each unit of weight.
    fn order(&self, other: &Self) -> Ordering {
        let load = |of: &Self, weight: u32| u64::from(of.in_flight) * u64::from(weight);
        other.healthy.cmp(&self.healthy).then(load(self, other.weight).cmp(&load(other, self.weight)))
    }
}

/// The rule of `candidates.least-loaded` in `wit/candidates.wit`.
pub fn least_loaded<'a>(client: &str, servers: impl Iterator<Item = Load<'a>>) -> Option<&'a Arc<str>> {
    // Only equals need it.
    let mut hashed = None;
    let mut favour =
        |server: &Load<'_>| hash::affinity(*hashed.get_or_insert_with(|| hash::stable(client)), server.hash);
    let better = |one: Load<'a>, other: Load<'a>| match one.order(&other) {
        Ordering::Less => one,
        Ordering::Greater => other,
        Ordering::Equal if favour(&other) > favour(&one) => other,
        Ordering::Equal => one,
    };
    servers.filter(|server| server.weight > 0).reduce(better).map(|server| server.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(id: &str, region: &str, in_flight: u32) -> Candidate {
        let metadata = vec![("region".to_owned(), region.to_owned())];
        let uri = format!("http://{id}:80");
        Candidate { id: id.into(), uri, weight: 1, healthy: true, in_flight, metadata }
    }

    fn of(region: &str) -> [Pair<'_>; 1] {
        [("region", region)]
    }

    #[test]
    fn of_those_that_are_asked_for_the_one_with_the_least_to_do() {
        let all = Listed(vec![server("eu-1", "eu", 3), server("eu-2", "eu", 2), server("us-1", "us", 1)]);
        let both = [&of("eu")[..], &[("disk", "fast")]].concat();
        for (having, id) in [(&of("eu")[..], "eu-2"), (&of("us"), "us-1"), (&[], "us-1")] {
            assert_eq!(all.least_loaded("ann", having).as_deref(), Some(id));
        }
        for having in [&of("moon")[..], &both] {
            assert_eq!(all.least_loaded("ann", having), None);
        }
    }

    #[test]
    fn load_is_measured_by_weight_and_health_comes_first() {
        let mut all = [server("a", "eu", 3), server("b", "eu", 2)];
        let chosen = |all: &[Candidate]| Listed(all.to_vec()).least_loaded("ann", &[]);
        all[0].weight = 3;
        assert_eq!(chosen(&all).as_deref(), Some("a"));
        all[0].healthy = false;
        assert_eq!(chosen(&all).as_deref(), Some("b"));
        all[1].weight = 0;
        assert_eq!(chosen(&all).as_deref(), Some("a"));
        all[0].weight = 0;
        assert_eq!(chosen(&all), None);
    }

    #[test]
    fn equals_share_the_clients_whatever_their_order() {
        let mut all = vec![server("a", "eu", 0), server("b", "eu", 0), server("c", "eu", 0)];
        let chosen = |all: &[Candidate], client: usize| {
            Listed(all.to_vec()).least_loaded(&format!("client-{client}"), &[]).expect("there are three")
        };
        let first: Vec<_> = (0..3000).map(|client| chosen(&all, client)).collect();
        for id in ["a", "b", "c"] {
            let share = first.iter().filter(|chosen| ***chosen == *id).count();
            assert!((900..1100).contains(&share), "{id}: {share}");
        }
        all.reverse();
        assert!(first.iter().enumerate().all(|(client, id)| chosen(&all, client) == *id));
    }
}
