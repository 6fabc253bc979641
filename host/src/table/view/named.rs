//! What an unversioned name means: the one service of that name, or the release's versions in
//! their shares, the same one for a client at every router.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{ReleaseRecord, Service, ServiceId};
use crate::table::hash;

/// Where messages go that name no version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// To this one: it is unversioned, or the only version there is.
    One(ServiceId),
    /// To the live versions, each client to one of them.
    Shared(Vec<Share>),
    /// There are several versions, none of which is live.
    Unreleased(Vec<ServiceId>),
}

/// A live version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its service.
    pub id: ServiceId,
    /// Its part of the clients, relative to the others; above 0.
    pub weight: u32,
    hash: u64,
}

impl Named {
    /// The service for a client; none while none is live.
    pub fn choose(&self, client: &str) -> Option<&ServiceId> {
        match self {
            Self::One(id) => Some(id),
            Self::Shared(shares) => {
                let shares = shares.iter().map(|share| (&share.id, share.hash, share.weight));
                hash::rendezvous(hash::stable(client), shares)
            }
            Self::Unreleased(_) => None,
        }
    }
}

pub(super) fn compile(
    services: &BTreeMap<ServiceId, Arc<Service>>,
    releases: &BTreeMap<Arc<str>, ReleaseRecord>,
) -> HashMap<Arc<str>, Named> {
    let mut by_name = HashMap::<&str, Vec<&ServiceId>>::new();
    services.keys().for_each(|id| by_name.entry(id.name()).or_default().push(id));
    let meaning = |(name, ids): (&str, Vec<&ServiceId>)| (Arc::from(name), named(&ids, releases.get(name)));
    by_name.into_iter().map(meaning).collect()
}

fn named(ids: &[&ServiceId], release: Option<&ReleaseRecord>) -> Named {
    if let Some(unversioned) = ids.iter().find(|id| id.version().is_none()) {
        return Named::One((*unversioned).clone());
    }
    let weights = release.map(|release| &release.weights).filter(|weights| !weights.is_empty());
    match (weights, ids) {
        (None, [only]) => Named::One((*only).clone()),
        (weights, ids) => {
            let weight = |id: &ServiceId| weights?.get(id.version()?).copied().filter(|weight| *weight > 0);
            let share = |id: &&ServiceId| {
                let (id, weight) = ((*id).clone(), weight(id)?);
                Some(Share { hash: hash::stable(id.version()?), id, weight })
            };
            let shares: Vec<_> = ids.iter().filter_map(share).collect();
            match shares.is_empty() {
                true => Named::Unreleased(ids.iter().map(|id| (*id).clone()).collect()),
                false => Named::Shared(shares),
            }
        }
    }
}
