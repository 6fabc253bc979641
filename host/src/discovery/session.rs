//! The state of one connection, apart from its socket: from what it says and what the index holds
//! follows what is to be done and what it is told. Pure.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    definition::{Definition, Offered},
    fault::{Code, Fault},
    frame::{self, Found, Said},
    index::Looked,
    offer::Offer,
    requirement::{Requirement, Scope},
};
use crate::table::{ServiceId, adapter::Revision, hash};

/// One connection's state.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// None: it has not said who it is.
    service: Option<ServiceId>,
    server: Option<Place>,
    needs: Vec<Need>,
    /// Everything up to here was told.
    seen: Revision,
    /// What it has seen is of another table, which it is told with the first of what is told now.
    foreign: bool,
    /// It has seen more than this router.
    ahead: Option<Moment>,
    /// When it is to be looked again what is to be told.
    again: Option<Instant>,
    asker: u64,
}

/// When something is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Instant,
    /// How often the table said that nothing is newer than the view; none while it says nothing.
    pub(super) confirmed: Option<u64>,
}

/// One who has seen more than this router, because another is ahead of it, is kept waiting for so long while the
/// table is there. Then its revision is one of another table.
const AHEAD: Duration = Duration::from_secs(5);
/// How often it is looked whether this router has caught up.
const LOOK: Duration = Duration::from_millis(100);

/// Where a connection's server stands in the table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) service: ServiceId,
    pub(super) server: Arc<str>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Register(ServiceId, Box<Offered>),
    Remove(Place),
    Drain(Place, Option<Duration>),
    Need(ServiceId),
    Unneed(ServiceId),
}

#[derive(Debug)]
struct Need {
    requirement: Requirement,
    told: Told,
}

/// What a service knows of a requirement.
#[derive(Debug)]
enum Told {
    Nothing,
    /// Whatever it was told over another connection, up to this revision.
    Upto(Revision),
    /// What it was told of this offer still holds, whatever it was.
    Still(Arc<Offer>),
    There {
        server: Arc<str>,
        print: u64,
    },
    Gone,
}

impl Session {
    /// Takes what was said. Of what it cannot take, nothing is done.
    pub(super) fn hear(&mut self, said: Said, limit: usize) -> Result<Vec<Act>, Fault> {
        if self.service.is_none() && !matches!(said, Said::Define(_)) {
            return Err(undefined("say who you are first: {\"name\":…,\"port\":…}"));
        }
        match said {
            Said::Define(definition) => Ok(self.define(*definition)),
            Said::Require(more) => self.require(more, limit),
            Said::Drop(requirements) => Ok(self.drop_needs(&requirements)),
            Said::Deregister => Ok(self.end()),
            Said::Drain(deadline) => {
                let server = self.server.clone();
                let server =
                    server.ok_or_else(|| undefined("there is no server to drain: none is registered"));
                Ok(vec![Act::Drain(server?, deadline)])
            }
        }
    }

    /// The service that it said it is.
    pub(super) fn service(&self) -> Option<&ServiceId> {
        self.service.as_ref()
    }

    /// Where its server is registered.
    pub(super) fn server(&self) -> Option<&Place> {
        self.server.as_ref()
    }

    /// Its server is no longer registered.
    pub(super) fn deregistered(&mut self) {
        self.server = None;
    }

    /// What it needs.
    pub(super) fn needs(&self) -> impl Iterator<Item = &ServiceId> {
        self.needs.iter().map(|need| &need.requirement.service)
    }

    /// Everything ends: what undoes all that it did.
    pub(super) fn end(&mut self) -> Vec<Act> {
        let unneeded = self.needs.drain(..).map(|need| Act::Unneed(need.requirement.service));
        let mut acts: Vec<Act> = unneeded.collect();
        acts.extend(self.server.take().map(Act::Remove));
        self.service = None;
        acts
    }

    fn define(&mut self, definition: Definition) -> Vec<Act> {
        let Definition { service, server, requires, since, anew } = definition;
        let place = server
            .as_ref()
            .map(|server| Place { service: service.clone(), server: server.id.as_str().into() });
        let name = place.as_ref().map_or(service.as_str(), |place| &place.server);
        self.asker = hash::stable(&format!("{service} {name}"));
        let mut acts = Vec::new();
        let before = std::mem::replace(&mut self.server, place);
        acts.extend(server.map(|server| Act::Register(service.clone(), Box::new(server))));
        acts.extend(before.filter(|before| Some(before) != self.server.as_ref()).map(Act::Remove));
        if self.service.replace(service).is_none() {
            self.seen = since.unwrap_or_default();
        }
        let unneeded = self.needs.extract_if(.., |need| !requires.contains(&need.requirement));
        acts.extend(unneeded.map(|need| Act::Unneed(need.requirement.service)));
        acts.extend(self.add(requires, since, &anew));
        acts
    }

    fn require(&mut self, more: Vec<Requirement>, limit: usize) -> Result<Vec<Act>, Fault> {
        let new = more.iter().filter(|more| !self.needs().any(|known| *known == more.service)).count();
        if self.needs.len() + new > limit {
            let all = self.needs.len() + new;
            let reason =
                format!("{all} requirements, at most {limit} are allowed (`[discovery] requirements`)");
            return Err(Fault::new(Code::Invalid, reason));
        }
        // One whose scope changed is told anew.
        let changed = |need: &Need| {
            more.iter().any(|more| more.service == need.requirement.service && *more != need.requirement)
        };
        self.needs.retain(|need| !changed(need));
        Ok(self.add(more, None, &[]))
    }

    /// Needs these as well, of which everything up to `since` is known but for those that are needed `anew`.
    fn add(
        &mut self,
        requirements: Vec<Requirement>,
        since: Option<Revision>,
        anew: &[ServiceId],
    ) -> Vec<Act> {
        let mut acts = Vec::new();
        for requirement in requirements {
            if self.needs.iter().all(|need| need.requirement.service != requirement.service) {
                acts.push(Act::Need(requirement.service.clone()));
                let since = since.filter(|_| !anew.contains(&requirement.service));
                self.needs.push(Need { requirement, told: since.map_or(Told::Nothing, Told::Upto) });
            }
        }
        acts
    }

    fn drop_needs(&mut self, requirements: &[Requirement]) -> Vec<Act> {
        let dropped = |need: &mut Need| {
            requirements.iter().any(|requirement| requirement.service == need.requirement.service)
        };
        let dropped = self.needs.extract_if(.., dropped);
        dropped.map(|need| Act::Unneed(need.requirement.service)).collect()
    }

    /// When it is to be looked again what is to be told, whether or not something changes.
    pub(super) fn looks_again(&self) -> Option<Instant> {
        self.again
    }

    /// What is to be told; `looked` is about [`Self::needs`]. It comes in the order in which it changed, and
    /// each has the revision up to which then all was told: one who is cut off in between is told the rest.
    pub(super) fn tell(&mut self, looked: &Looked, moment: Moment) -> Vec<String> {
        let ahead = self.is_ahead(looked, moment);
        let changed = |place: &usize| looked.offers[*place].as_ref().map_or(0, |offer| offer.changed);
        let is_due = |(need, offer): (&Need, &Option<Arc<Offer>>)| {
            !(ahead && matches!(need.told, Told::Upto(_))) && need.is_due(offer.as_deref())
        };
        let places = self.needs.iter().zip(&looked.offers).enumerate();
        let mut due: Vec<usize> = places.filter(|(_, need)| is_due(*need)).map(|(place, _)| place).collect();
        due.sort_by_key(changed);
        let waits = |place: &usize| self.needs[*place].waits(looked.offers[*place].as_deref(), looked);
        let all = !ahead && !due.iter().any(waits);
        let mut told = Vec::new();
        for (at, place) in due.iter().enumerate() {
            let revision = match due.get(at + 1).map(changed) {
                _ if !all => self.seen,
                None => looked.horizon.latest,
                Some(_) if self.foreign => 0,
                Some(next) => self.seen.max(looked.horizon.before(next).unwrap_or_default()),
            };
            let offer = looked.offers[*place].as_ref();
            told.extend(self.needs[*place].step(offer, looked, self.asker, revision));
        }
        if all {
            (self.seen, self.foreign) = (looked.horizon.latest, false);
        }
        told
    }

    /// Whether it has seen more than this router, which may have yet to see it; else that is of another table.
    fn is_ahead(&mut self, looked: &Looked, moment: Moment) -> bool {
        self.again = None;
        if self.seen <= looked.horizon.latest {
            self.ahead = None;
            return false;
        }
        let resumes = self.needs.iter().any(|need| matches!(need.told, Told::Upto(_)));
        if resumes && !self.has_waited(moment) {
            self.again = Some(moment.now + LOOK);
            return true;
        }
        (self.seen, self.foreign, self.ahead) = (0, true, None);
        false
    }

    /// Whether the view would be where it is by now.
    fn has_waited(&mut self, moment: Moment) -> bool {
        // While the table is away this router knows less than the service.
        let Some(confirmed) = moment.confirmed else {
            self.ahead = None;
            return false;
        };
        let began = *self.ahead.get_or_insert(moment);
        // What was said first may have been on its way already.
        let newest = began.confirmed.is_some_and(|before| confirmed >= before + 2);
        newest || moment.now >= began.now + AHEAD
    }
}

fn undefined(reason: &str) -> Fault {
    Fault::new(Code::Undefined, reason)
}

impl Need {
    /// Whether [`Self::step`] would do something besides staying silent.
    fn is_due(&self, offer: Option<&Offer>) -> bool {
        let there = offer.is_some_and(|offer| !offer.servers.is_empty());
        match &self.told {
            Told::Nothing | Told::Gone => there,
            Told::Upto(_) => true,
            Told::Still(known) => !there || !self.holds(known, offer),
            Told::There { server, print } => match offer.filter(|_| there) {
                None => true,
                Some(offer) => self.print(offer, server) != Some(*print),
            },
        }
    }

    /// Whether a loss has to wait: the process has just begun and has not seen the service yet.
    fn waits(&self, offer: Option<&Offer>, looked: &Looked) -> bool {
        matches!(self.told, Told::Upto(since) if !knows(since, offer, looked)) && may_come(offer, looked)
    }

    /// What is told of an offer to one who has this server; none if another is to be told.
    fn print(&self, offer: &Offer, has: &str) -> Option<u64> {
        match self.requirement.scope {
            Scope::All => Some(offer.print),
            Scope::One => {
                offer.servers.iter().find(|server| *server.id == *has).map(|server| print(&server.json))
            }
        }
    }

    /// Whether whatever was told of an offer holds of another.
    fn holds(&self, known: &Offer, now: Option<&Offer>) -> bool {
        let Some(now) = now else { return false };
        known.print == now.print
            || self.requirement.scope == Scope::One && known.servers.iter().all(|server| now.has(server))
    }

    /// What is told of it; nothing if that is known, or may still come.
    fn step(
        &mut self,
        offer: Option<&Arc<Offer>>,
        looked: &Looked,
        asker: u64,
        revision: Revision,
    ) -> Option<String> {
        let there = offer.filter(|offer| !offer.servers.is_empty());
        if let Told::Upto(since) = self.told {
            if knows(since, offer.map(|offer| &**offer), looked) {
                self.told = there.map_or(Told::Gone, |offer| Told::Still(Arc::clone(offer)));
                return None;
            }
            if may_come(offer.map(|offer| &**offer), looked) {
                return None;
            }
        }
        let Some(offer) = there else {
            self.told = Told::Gone;
            return Some(frame::lost(&self.requirement, revision));
        };
        let has = match &self.told {
            Told::There { server, .. } => Some(&**server),
            _ => None,
        };
        let chosen = offer.choose(asker, has)?;
        let all: Vec<&str> = offer.servers.iter().map(|server| &*server.json).collect();
        let all = (self.requirement.scope == Scope::All).then_some(&all[..]);
        let found = Found { requirement: &self.requirement, chosen: &chosen.json, all, revision };
        let text = frame::required(&found);
        let print = if all.is_some() { offer.print } else { print(&chosen.json) };
        self.told = Told::There { server: Arc::clone(&chosen.id), print };
        Some(text)
    }
}

/// Whether the process has not run for long enough to say that a service is gone which it never saw.
fn may_come(offer: Option<&Offer>, looked: &Looked) -> bool {
    let comes = |offer: &Offer| offer.servers.is_empty() && (offer.local || offer.awaited);
    !looked.settled && offer.is_none_or(comes)
}

/// Whether one who was told everything up to a revision knows what there is.
fn knows(since: Revision, offer: Option<&Offer>, looked: &Looked) -> bool {
    if offer.is_some_and(|offer| offer.local) {
        return false;
    }
    looked.horizon.covers(since) && offer.is_none_or(|offer| offer.changed <= since)
}

fn print(json: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    json.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
