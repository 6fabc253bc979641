//! The state of one connection, apart from its socket: from what it says and what the index holds
//! follows what is to be done and what it is told. Pure.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

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
    asker: u64,
}

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
    /// What it was told then still holds, whatever it was; the print of the offer.
    Still(u64),
    There {
        server: Arc<str>,
        print: u64,
    },
    Gone,
}

/// What follows for one requirement.
enum Step {
    Silent,
    Tell(String),
    /// It may still come back; not to be told yet.
    Wait,
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
        let Definition { service, server, requires, since } = definition;
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
        acts.extend(self.add(requires, since));
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
        Ok(self.add(more, None))
    }

    /// Needs these as well, of which everything up to `since` is known.
    fn add(&mut self, requirements: Vec<Requirement>, since: Option<Revision>) -> Vec<Act> {
        let mut acts = Vec::new();
        for requirement in requirements {
            if self.needs.iter().all(|need| need.requirement.service != requirement.service) {
                acts.push(Act::Need(requirement.service.clone()));
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

    /// What is to be told, in this order; `looked` is about [`Self::needs`]. Only the last of it
    /// has the revision up to which then all was told: one who is cut off before it is told again.
    pub(super) fn tell(&mut self, looked: &Looked) -> Vec<String> {
        let (mut due, mut all) = (Vec::new(), true);
        for (place, offer) in looked.offers.iter().enumerate() {
            let need = &self.needs[place];
            if need.is_due(offer.as_deref()) {
                due.push(place);
            }
        }
        let last = due.last().copied();
        let waits =
            due.iter().any(|place| self.needs[*place].waits(looked.offers[*place].as_deref(), looked));
        let mut told = Vec::new();
        for place in due {
            let revision = if Some(place) == last && !waits { looked.horizon.latest } else { self.seen };
            let (asker, offer) = (self.asker, looked.offers[place].as_deref());
            match self.needs[place].step(offer, looked, asker, revision) {
                Step::Tell(text) => told.push(text),
                Step::Wait => all = false,
                Step::Silent => {}
            }
        }
        if all {
            self.seen = looked.horizon.latest;
        }
        told
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
            Told::Still(print) => offer.is_none_or(|offer| offer.print != *print),
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

    fn step(&mut self, offer: Option<&Offer>, looked: &Looked, asker: u64, revision: Revision) -> Step {
        let there = offer.filter(|offer| !offer.servers.is_empty());
        if let Told::Upto(since) = self.told {
            if knows(since, offer, looked) {
                self.told = there.map_or(Told::Gone, |offer| Told::Still(offer.print));
                return Step::Silent;
            }
            if may_come(offer, looked) {
                return Step::Wait;
            }
        }
        let Some(offer) = there else {
            self.told = Told::Gone;
            return Step::Tell(frame::lost(&self.requirement, revision));
        };
        let has = match &self.told {
            Told::There { server, .. } => Some(&**server),
            _ => None,
        };
        let Some(chosen) = offer.choose(asker, has) else { return Step::Silent };
        let all: Vec<&str> = offer.servers.iter().map(|server| &*server.json).collect();
        let all = (self.requirement.scope == Scope::All).then_some(&all[..]);
        let found = Found { requirement: &self.requirement, chosen: &chosen.json, all, revision };
        let text = frame::required(&found);
        let print = if all.is_some() { offer.print } else { print(&chosen.json) };
        self.told = Told::There { server: Arc::clone(&chosen.id), print };
        Step::Tell(text)
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
