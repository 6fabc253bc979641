//! How many connections there may be: in all, and from one address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;

/// Counts connections of all workers of a listener.
pub(crate) struct Limits {
    max: usize,
    max_per_peer: usize,
    open: AtomicUsize,
    peers: Mutex<HashMap<IpAddr, usize>>,
}

impl Limits {
    pub(crate) fn new(max: usize, max_per_peer: usize) -> Arc<Self> {
        Arc::new(Self { max, max_per_peer, open: AtomicUsize::new(0), peers: Mutex::default() })
    }

    /// A place for one more connection, unless there is none.
    pub(crate) fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let place = Place { limits: self.clone(), peer: (self.max_per_peer > 0).then_some(peer) };
        let open = self.open.fetch_add(1, Relaxed);
        let mut counted = true;
        if let Some(peer) = place.peer {
            let mut peers = self.peers.lock();
            let count = peers.entry(peer).or_default();
            *count += 1;
            counted = *count <= self.max_per_peer;
        }
        (open < self.max && counted).then_some(place)
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }
}

/// One connection's place; given back when dropped.
pub(crate) struct Place {
    limits: Arc<Limits>,
    peer: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limits.open.fetch_sub(1, Relaxed);
        if let Some(peer) = self.peer {
            let mut peers = self.limits.peers.lock();
            if let Some(count) = peers.get_mut(&peer) {
                *count -= 1;
                if *count == 0 {
                    peers.remove(&peer);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn counts_all_and_each_peer() {
        let limits = Limits::new(3, 2);
        let [one, two] = [1, 2].map(|last| IpAddr::from(Ipv4Addr::new(192, 0, 2, last)));
        let held = [limits.admit(one).unwrap(), limits.admit(one).unwrap()];
        assert!(limits.admit(one).is_none(), "third of one peer");
        let other = limits.admit(two).unwrap();
        assert!(limits.admit(two).is_none(), "fourth of all");
        drop(held);
        drop(other);
        assert_eq!(limits.open(), 0);
        assert!(limits.peers.lock().is_empty());
    }
}
