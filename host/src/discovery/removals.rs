//! Which removal records have served their purpose: those of this router once its connections were told, those of
//! others when their routers have had long enough to come back. Pure.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{
    order::{Order, Wish},
    session::Place,
};
use crate::table::{View, lease::Held};

/// A router that is cut off for longer than this may write again what was removed meanwhile. Each router counts
/// from when it first saw the record.
const KEPT: Duration = Duration::from_secs(3600);
/// When what came to nothing is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The removal records of the view, with the time at which each is to go.
#[derive(Default)]
pub(super) struct Removals(BTreeMap<String, (Held, Instant)>);

impl Removals {
    /// Looks at the records of a view, after the connections of this `incarnation` were told of theirs.
    pub(super) fn look(&mut self, view: &View, incarnation: &str, now: Instant) {
        self.0.retain(|key, (held, _)| view.removed().get(key) == Some(held));
        for (key, held) in view.removed() {
            let due = if held.incarnation == incarnation { now } else { now + KEPT };
            self.0.entry(key.clone()).or_insert_with(|| (held.clone(), due));
        }
    }

    /// When the next is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|(_, due)| *due).min()
    }

    /// What is due now; due again later, unless by then the view says that it was done.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Order> {
        let due = self.0.iter_mut().filter(|(_, (_, due))| *due <= now);
        let orders = due.filter_map(|(key, (held, due))| {
            *due = now + AGAIN;
            let (service, server) = key.split_once('/')?;
            let place = Place { service: service.parse().ok()?, server: server.into() };
            Some(Order { place, wish: Wish::Forget(held.clone()) })
        });
        orders.collect()
    }
}
