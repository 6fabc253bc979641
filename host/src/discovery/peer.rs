//! Who is at the other end of a connection, and what it may say.

use std::net::IpAddr;

use tokio::sync::watch;

use super::{
    Dialect,
    fault::{Code, Fault},
    frame::Said,
    session::Place,
};
use crate::{
    auth::{Action, Identity},
    table::{
        View,
        record::{ServerUri, ServiceId},
        view::Origin,
    },
};

/// Who is at the other end.
#[derive(Debug)]
pub struct Peer {
    /// Its address, which its server has unless it says another.
    pub address: IpAddr,
    /// What it may do, and a notice of each change of that; none: its token is not known any more.
    pub identity: watch::Receiver<Option<Identity>>,
    /// How it says that it lives.
    pub dialect: Dialect,
}

impl Peer {
    /// Refuses what the token or the configuration does not allow.
    pub(super) fn allows(&self, said: &Said, view: &View) -> Result<(), Fault> {
        let requires = match said {
            Said::Define(definition) => {
                self.must_register(&definition.service, view)?;
                let mut uris = definition.server.iter().flat_map(|server| server.record.uris());
                uris.try_for_each(|uri| self.must_reach(&definition.service, uri))?;
                &definition.requires
            }
            Said::Require(requires) => requires,
            _ => return Ok(()),
        };
        match requires.iter().find(|requirement| !self.may_need(&requirement.service)) {
            Some(denied) => {
                let reason = format!("this token does not allow to read {}", denied.service);
                Err(Fault::new(Code::Denied, reason))
            }
            None => Ok(()),
        }
    }

    /// What of this is not allowed any more, now that the access rules have changed.
    pub(super) fn denied_now<'a>(
        &mut self,
        server: Option<&Place>,
        reaches: &[ServerUri],
        mut needs: impl Iterator<Item = &'a ServiceId>,
    ) -> Option<String> {
        if self.identity.borrow_and_update().is_none() {
            return Some("the token is not valid any more".to_owned());
        }
        let registered = server.map(|place| &place.service);
        let denied = registered.filter(|service| {
            let reaches_all = reaches.iter().all(|uri| self.may_register_at(service, uri));
            !self.may(Action::Register, service) || !reaches_all
        });
        let denied = denied.or_else(|| needs.find(|service| !self.may_need(service)));
        denied.map(|service| format!("the token does not allow {service} any more"))
    }

    /// Whether it may do this to a service.
    pub(super) fn may(&self, action: Action, service: &ServiceId) -> bool {
        self.identity.borrow().as_ref().is_some_and(|identity| identity.may(action, Some(service.as_str())))
    }

    fn may_register_at(&self, service: &ServiceId, uri: &ServerUri) -> bool {
        let identity = self.identity.borrow();
        identity.as_ref().is_some_and(|identity| identity.may_register_at(service.as_str(), uri.host()))
    }

    fn may_need(&self, service: &ServiceId) -> bool {
        self.may(Action::Read, service) || self.may(Action::Register, service)
    }

    fn must_register(&self, service: &ServiceId, view: &View) -> Result<(), Fault> {
        if !self.may(Action::Register, service) {
            let identity = self.identity.borrow();
            let (label, peer) = (identity.as_ref().map(Identity::label), self.address);
            tracing::warn!(label, %peer, %service, "denied: the token does not allow to register this service");
            return Err(Fault::new(Code::Denied, format!("this token does not allow to register {service}")));
        }
        match view.service(service) {
            Some(known) if known.origin == Origin::Configuration => {
                let reason = format!(
                    "service {service} is defined by the configuration: change [service.{service}] there"
                );
                Err(Fault::new(Code::Configured, reason))
            }
            _ => Ok(()),
        }
    }

    fn must_reach(&self, service: &ServiceId, uri: &ServerUri) -> Result<(), Fault> {
        if self.may_register_at(service, uri) {
            return Ok(());
        }
        let (peer, host) = (self.address, uri.host());
        tracing::warn!(%peer, %service, host, "denied: the token does not allow to register this host");
        let reason = format!("this token does not allow to register {host} for {service}");
        Err(Fault::new(Code::Denied, reason))
    }
}
