//! What was decided while the table could not be asked: where a client goes until it can, and what is
//! proposed then in place of a new decision. It says nothing about what is stored, so nobody follows it
//! without having asked.

use std::time::Duration;

use super::{Assignments, Entry, NEVER, lifetime, ttl};
use crate::table::{TableError, view::Service};

/// The table answers and does not store: it is asked again about a client after so many milliseconds.
const PAUSE: u64 = 500;

impl Assignments {
    /// The number of the server that is held for a client. Neither waits nor allocates.
    pub fn held(&self, service: &Service, client: &str, now: u64) -> Option<u32> {
        self.held.peek(service.number, client, now).map(|found| found.server)
    }

    /// Holds a choice that could not be stored for this reason.
    pub fn hold(&self, service: &Service, client: &str, server: &str, why: &TableError) {
        let server = self.numbers.of(server);
        self.put_held(service.number, ttl(service), client, server);
        if !matches!(why, TableError::Unavailable(_) | TableError::Unknown(_) | TableError::Adapter(_)) {
            self.pause(service, client, server);
        }
    }

    /// Remembers a choice for a moment, here only.
    pub fn hold_briefly(&self, service: &Service, client: &str, server: &str) {
        self.pause(service, client, self.numbers.of(server));
    }

    fn pause(&self, service: &Service, client: &str, server: u32) {
        let entry = Entry { server, expires: self.time.now() + PAUSE, renew: NEVER, stamp: 0 };
        self.put(service.number, client, entry, None);
    }

    pub(super) fn put_held(&self, service: u32, ttl: Duration, client: &str, server: u32) {
        let entry = Entry { server, expires: self.time.now() + lifetime(ttl), renew: NEVER, stamp: 0 };
        let _ = self.held.put(service, client, entry, None);
        self.count();
    }

    /// The table knows: nothing is to be held any more.
    pub(super) fn let_go(&self, service: u32, client: &str) {
        if self.held.len() > 0 {
            self.held.remove(service, client);
            self.count();
        }
    }

    /// The table is not the one that said what is remembered: it is only held from now on.
    pub(in crate::table) fn doubt(&self) {
        for part in 0..self.cache.parts() {
            for (service, client, entry) in self.cache.take(part) {
                if self.held.peek(service, &client, 0).is_none() {
                    let _ = self.held.put(service, &client, Entry { renew: NEVER, stamp: 0, ..entry }, None);
                }
            }
        }
        self.detours.clear();
        self.count();
    }
}
