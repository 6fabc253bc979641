//! How many clients that were never seen before are remembered: so many in a second at this router,
//! and so many from one address. Ids are the clients' to invent, and each costs a write to the table;
//! who is over the bound is served all the same, and not remembered.
//!
//! Neither locks nor allocates. Addresses share a slot when their hashes do, which is seldom, depends
//! on a random key and makes them share one bound.

use std::{
    hash::BuildHasher,
    net::{IpAddr, Ipv6Addr},
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use foldhash::quality::RandomState;

/// Addresses that are counted apart.
const SLOTS: usize = 1 << 14;

/// New clients that are remembered in one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewClients {
    /// At this router.
    pub in_all: u32,
    /// From one address, of IPv6 from one network of 64 bits.
    pub per_peer: u32,
}

impl Default for NewClients {
    /// What an etcd on a disk of its own takes beside everything else, and more than a busy office
    /// behind one address brings.
    fn default() -> Self {
        Self { in_all: 10_000, per_peer: 1000 }
    }
}

pub(super) struct Intake {
    in_all: AtomicU32,
    per_peer: AtomicU32,
    all: AtomicU64,
    peers: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Default for Intake {
    fn default() -> Self {
        let NewClients { in_all, per_peer } = NewClients::default();
        Self {
            in_all: in_all.into(),
            per_peer: per_peer.into(),
            all: AtomicU64::new(0),
            peers: std::iter::repeat_with(AtomicU64::default).take(SLOTS).collect(),
            hasher: RandomState::default(),
        }
    }
}

impl Intake {
    pub(super) fn limit(&self, limits: NewClients) {
        self.in_all.store(limits.in_all, Relaxed);
        self.per_peer.store(limits.per_peer, Relaxed);
    }

    /// Whether one more new client of this address is to be remembered, at `now` in Unix milliseconds.
    pub(super) fn admit(&self, peer: IpAddr, now: u64) -> bool {
        let slot = usize::try_from(self.hasher.hash_one(network(peer))).unwrap_or(0) % SLOTS;
        take(&self.peers[slot], self.per_peer.load(Relaxed), now)
            && take(&self.all, self.in_all.load(Relaxed), now)
    }
}

/// Whoever has one address of such a network has all of them.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

/// Takes one of `limit` for this second. A slot is the second, then what was taken in it.
fn take(slot: &AtomicU64, limit: u32, now: u64) -> bool {
    let second = (now / 1000) << 32;
    let next = |taken: u64| {
        let (of, count) = (taken & !u64::from(u32::MAX), taken & u64::from(u32::MAX));
        match of == second {
            true => (count < u64::from(limit)).then_some(taken + 1),
            false => (limit > 0).then_some(second | 1),
        }
    };
    slot.fetch_update(Relaxed, Relaxed, next).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(intake: &Intake, peer: &str, now: u64) -> usize {
        let peer = peer.parse().unwrap();
        (0..100).filter(|_| intake.admit(peer, now)).count()
    }

    #[test]
    fn an_address_gets_its_share_each_second() {
        let intake = Intake::default();
        intake.limit(NewClients { in_all: 25, per_peer: 10 });
        assert_eq!(admitted(&intake, "192.0.2.1", 5000), 10);
        assert_eq!(admitted(&intake, "::ffff:192.0.2.1", 5999), 0);
        assert_eq!(admitted(&intake, "192.0.2.2", 5999), 10);
        assert_eq!(admitted(&intake, "192.0.2.3", 5999), 5);
        assert_eq!(admitted(&intake, "192.0.2.1", 6000), 10);
        assert_eq!(admitted(&intake, "2001:db8::1", 7000), 10);
        assert_eq!(admitted(&intake, "2001:db8::ffff:2", 7000), 0);
        assert_eq!(admitted(&intake, "2001:db8:0:1::1", 7000), 10);
        intake.limit(NewClients { in_all: 0, per_peer: 10 });
        assert_eq!(admitted(&intake, "192.0.2.9", 8000), 0);
    }
}
