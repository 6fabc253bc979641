//! What an unversioned name means: the one service of that name, or the release's versions in
//! their shares, the same one for a client at every router.

use std::{fmt, str::FromStr, sync::Arc};

use http::{HeaderMap, HeaderName};

use super::{Origin, ReleaseRecord, Service, ServiceId, draft::new_service};
use crate::table::{
    Numbers,
    catalog::Catalog,
    hash,
    record::{Canary, ServiceRecord, Sticky},
};

/// Where messages go that name no version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// To this one, whoever sends them.
    One(ServiceId),
    /// To one of several versions, as the release says.
    Released(Arc<Release>),
    /// There are several versions, none of which is live.
    Unreleased(Vec<ServiceId>),
}

/// A release, as messages are routed by it: only versions that are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Counts the changes.
    pub number: u64,
    /// What is live; never empty.
    pub shares: Vec<Share>,
    /// Messages with this header go to this service.
    pub canary: Option<(HeaderName, Option<String>, ServiceId)>,
    /// Where clients stay that have an assignment there, the latest first.
    pub stay: Vec<ServiceId>,
    /// Until then, in Unix milliseconds.
    pub stay_until: Option<u64>,
    /// What clients were given before this change no longer holds.
    pub moved: u64,
    /// Some clients may be pinned to a version.
    pub pins: bool,
    /// Stands for the name where it is remembered which version a client was given.
    pub choices: Service,
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

/// The version that a client was given, as the table remembers it: `2#7`, in the seventh change of
/// the release; or pinned, `2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Empty for the service without a version.
    pub version: String,
    /// None: pinned.
    pub number: Option<u64>,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            Some(number) => write!(f, "{}#{number}", self.version),
            None => f.write_str(&self.version),
        }
    }
}

impl FromStr for Choice {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (version, number) = match text.split_once('#') {
            Some((version, number)) => (version, Some(number.parse()?)),
            None => (text, None),
        };
        Ok(Self { version: version.to_owned(), number })
    }
}

impl Named {
    /// The service for a client of which nothing is remembered; none while none is live.
    pub fn choose(&self, client: &str) -> Option<&ServiceId> {
        match self {
            Self::One(id) => Some(id),
            Self::Released(release) => Some(&release.share(client).id),
            Self::Unreleased(_) => None,
        }
    }

    /// What has to be asked for each client.
    pub fn release(&self) -> Option<&Release> {
        match self {
            Self::Released(release) => Some(release),
            Self::One(_) | Self::Unreleased(_) => None,
        }
    }
}

impl Release {
    /// The version of whose clients this one is a part.
    pub fn share(&self, client: &str) -> &Share {
        let shares = self.shares.iter().map(|share| (share, share.hash, share.weight));
        let chosen = hash::rendezvous(hash::stable(client), shares);
        chosen.expect("a release has a share, and each has a weight above 0")
    }

    /// Where a message with these headers goes as a canary.
    pub fn canary(&self, headers: &HeaderMap) -> Option<&ServiceId> {
        let (name, value, id) = self.canary.as_ref()?;
        let mut found = headers.get_all(name).iter();
        let matches = match value {
            Some(value) => found.any(|found| found.as_bytes() == value.as_bytes()),
            None => found.next().is_some(),
        };
        matches.then_some(id)
    }

    /// Whether clients are let stay at versions that their share does not say.
    pub fn lets_stay(&self, now: u64) -> bool {
        !self.stay.is_empty() && self.stay_until.is_none_or(|until| until > now)
    }

    /// Whether it matters what is remembered of a client.
    pub fn remembers(&self, now: u64) -> bool {
        self.pins || self.lets_stay(now)
    }

    /// Whether a version is live.
    pub fn is_live(&self, id: &ServiceId) -> bool {
        self.shares.iter().any(|share| share.id == *id)
    }

    /// Whether it says the same to every client.
    fn only(&self) -> Option<&ServiceId> {
        let plain = self.stay.is_empty() && self.canary.is_none() && !self.pins;
        match &self.shares[..] {
            [only] if plain => Some(&only.id),
            _ => None,
        }
    }
}

type Services = Catalog<ServiceId, Arc<Service>>;

/// What a name means, if there is a service of that name.
pub(super) fn meaning(
    name: &str,
    services: &Services,
    record: Option<&ReleaseRecord>,
    numbers: &Numbers,
) -> Option<Named> {
    let ids = versions(name, services);
    let release = record.and_then(|record| release(name, record, services, numbers));
    (!ids.is_empty()).then(|| named(&ids, release, record))
}

/// The service of this name without a version, and those with one: the latter stand in a row.
fn versions<'a>(name: &str, services: &'a Services) -> Vec<&'a ServiceId> {
    let prefix = format!("{name}@");
    let unversioned = services.after(|id| id.as_str() < name).map(|(id, _)| id).next();
    let unversioned = unversioned.filter(|id| id.as_str() == name);
    let versioned = services.after(|id| *id.as_str() < *prefix).map(|(id, _)| id);
    unversioned.into_iter().chain(versioned.take_while(|id| id.as_str().starts_with(&prefix))).collect()
}

/// A release decides as soon as one of its versions is there, over a service without a version too.
fn named(ids: &[&ServiceId], release: Option<Release>, record: Option<&ReleaseRecord>) -> Named {
    if let Some(release) = release {
        return match release.only() {
            Some(only) => Named::One(only.clone()),
            None => Named::Released(Arc::new(release)),
        };
    }
    if let Some(unversioned) = ids.iter().find(|id| id.version().is_none()) {
        return Named::One((*unversioned).clone());
    }
    let silent = record.is_none_or(|record| record.weights.is_empty());
    match ids {
        [only] if silent => Named::One((*only).clone()),
        ids => Named::Unreleased(ids.iter().map(|id| (*id).clone()).collect()),
    }
}

/// None if no live version is there.
fn release(name: &str, record: &ReleaseRecord, services: &Services, numbers: &Numbers) -> Option<Release> {
    let there =
        |version: &String| ServiceId::versioned(name, version).ok().filter(|id| services.get(id).is_some());
    let share = |(version, weight): (&String, &u32)| {
        let id = there(version).filter(|_| *weight > 0)?;
        Some(Share { hash: hash::stable(version), id, weight: *weight })
    };
    let shares: Vec<_> = record.weights.iter().filter_map(share).collect();
    let stay: Vec<_> = record.stay.iter().filter_map(there).collect();
    let sticky = shares.iter().map(|share| &share.id).chain(&stay);
    let sticky = sticky.filter_map(|id| Some(services.get(id)?.record.sticky));
    let sticky = sticky.max_by_key(|sticky| match sticky {
        Sticky::For(ttl) => Some(*ttl),
        Sticky::Off => None,
    })?;
    if shares.is_empty() {
        return None;
    }
    let of_choices = ServiceRecord { sticky, ..ServiceRecord::default() };
    Some(Release {
        number: record.number,
        shares,
        canary: record.canary.as_ref().and_then(|canary| matched(canary, there)),
        stay,
        stay_until: record.stay_until,
        moved: record.moved,
        pins: record.pins,
        choices: new_service(&ServiceId::choices(name), of_choices, Origin::Table, numbers),
    })
}

fn matched(
    canary: &Canary,
    there: impl Fn(&String) -> Option<ServiceId>,
) -> Option<(HeaderName, Option<String>, ServiceId)> {
    let name = canary.header.name.parse().ok()?;
    Some((name, canary.header.value.clone(), there(&canary.version)?))
}
