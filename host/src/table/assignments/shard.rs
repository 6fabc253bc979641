//! One part of the cache: an open-addressed table whose slots are one cache line each, so that
//! finding a client among a million costs one line of memory that is not in the processor's cache.
//! Collisions go to the next slot; removal closes the gap, so there are no tombstones. A hand goes
//! round the slots to find what was not used lately (the CLOCK algorithm: constant amortised time,
//! and one bit for each entry in place of a list).

/// What a client's assignment is remembered as. Times are in ticks of the [cache](super::cache).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remembered {
    /// As the table has it.
    pub(super) stamp: u64,
    /// The number of the server's id or URI.
    pub(super) server: u32,
    /// `u32::MAX` for a pin.
    pub(super) expires: u32,
    /// When it is due to be renewed; `u32::MAX` for never.
    pub(super) renew: u32,
}

/// Whose assignment it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key<'a> {
    pub(super) service: u32,
    pub(super) client: &'a str,
    pub(super) hash: u64,
}

#[derive(Default)]
pub(super) struct Shard {
    slots: Box<[Slot]>,
    len: usize,
    hand: usize,
    /// Client ids that did not fit into their slots, and their bytes.
    longs: usize,
    long: usize,
    /// Grows with every removal, so that an answer that was under way meanwhile is not kept.
    pub(super) epoch: u32,
}

#[repr(align(64))]
#[derive(Default)]
struct Slot {
    stamp: u64,
    service: u32,
    server: u32,
    expires: u32,
    renew: u32,
    client: Client,
}

const _: () = assert!(size_of::<Slot>() == 64);

const INLINE: usize = 37;

/// A client id, within the slot if it is short enough: a UUID is. `recent`: used since the hand
/// came by.
#[derive(Default)]
enum Client {
    #[default]
    Vacant,
    Short {
        recent: bool,
        len: u8,
        bytes: [u8; INLINE],
    },
    Long {
        recent: bool,
        id: Box<str>,
    },
}

impl Client {
    fn new(id: &str) -> Self {
        let mut bytes = [0; INLINE];
        match (bytes.get_mut(..id.len()), u8::try_from(id.len())) {
            (Some(start), Ok(len)) => {
                start.copy_from_slice(id.as_bytes());
                Self::Short { recent: false, len, bytes }
            }
            _ => Self::Long { recent: false, id: id.into() },
        }
    }

    /// None if the slot is vacant.
    fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Vacant => None,
            Self::Short { len, bytes, .. } => Some(&bytes[..usize::from(*len)]),
            Self::Long { id, .. } => Some(id.as_bytes()),
        }
    }

    fn recent(&mut self) -> Option<&mut bool> {
        match self {
            Self::Vacant => None,
            Self::Short { recent, .. } | Self::Long { recent, .. } => Some(recent),
        }
    }

    /// Its bytes outside of the slot.
    fn long(&self) -> usize {
        match self {
            Self::Long { id, .. } => id.len(),
            Self::Vacant | Self::Short { .. } => 0,
        }
    }
}

/// Hashes a service's number and a client's bytes.
pub(super) trait Hash: Fn(u32, &[u8]) -> u64 {}

impl<F: Fn(u32, &[u8]) -> u64> Hash for F {}

impl Shard {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of client ids that did not fit into their slots.
    pub(super) fn long(&self) -> usize {
        self.long
    }

    /// Memory taken outside of this, an allocator's overhead for long ids included.
    pub(super) fn bytes(&self) -> usize {
        const ALLOCATION: usize = 16;
        size_of_val(&*self.slots) + self.long + self.longs * ALLOCATION
    }

    /// What is remembered, marked as used; to change it, see [`Shard::renew_at`].
    pub(super) fn get(&mut self, key: Key<'_>) -> Option<Remembered> {
        let place = self.find(key)?;
        let slot = &mut self.slots[place];
        if let Some(recent) = slot.client.recent() {
            *recent = true;
        }
        Some(slot.remembered())
    }

    /// The same without a mark.
    pub(super) fn look(&self, key: Key<'_>) -> Option<Remembered> {
        self.find(key).map(|place| self.slots[place].remembered())
    }

    /// Puts off a renewal.
    pub(super) fn renew_at(&mut self, key: Key<'_>, renew: u32) {
        if let Some(place) = self.find(key) {
            self.slots[place].renew = renew;
        }
    }

    /// Remembers in place of what was there; false if nothing was.
    pub(super) fn replace(&mut self, key: Key<'_>, new: Remembered) -> bool {
        let found = self.find(key);
        if let Some(place) = found {
            self.slots[place].set(new);
        }
        found.is_some()
    }

    /// Remembers; the caller has seen that there is nothing to replace.
    pub(super) fn insert(&mut self, key: Key<'_>, new: Remembered, hash: impl Hash) {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.resize((self.slots.len() + self.slots.len() / 2).max(8), hash);
        }
        let mut slot = Slot { service: key.service, client: Client::new(key.client), ..Slot::default() };
        slot.set(new);
        self.long += slot.client.long();
        self.longs += usize::from(slot.client.long() > 0);
        self.len += 1;
        self.settle(slot, key.hash);
    }

    pub(super) fn remove(&mut self, key: Key<'_>, hash: impl Hash) -> bool {
        self.epoch = self.epoch.wrapping_add(1);
        let found = self.find(key);
        found.map(|place| self.vacate(place, hash)).is_some()
    }

    /// Forgets one that was not used lately; false if there is none at all.
    pub(super) fn evict(&mut self, hash: impl Hash) -> bool {
        if self.len == 0 {
            return false;
        }
        loop {
            self.hand = (self.hand + 1) % self.slots.len();
            match self.slots[self.hand].client.recent() {
                Some(recent @ true) => *recent = false,
                Some(false) => {
                    self.vacate(self.hand, hash);
                    return true;
                }
                None => {}
            }
        }
    }

    /// Forgets what has expired; returns how many.
    pub(super) fn expire(&mut self, now: u32, hash: impl Hash) -> usize {
        let (before, mut place) = (self.len, 0);
        while place < self.slots.len() {
            let slot = &self.slots[place];
            match slot.client.as_bytes().is_some() && slot.expires <= now {
                // Another one may have moved here.
                true => self.vacate(place, &hash),
                false => place += 1,
            }
        }
        if self.len * 8 < self.slots.len() {
            self.resize(self.len * 2, hash);
        }
        before - self.len
    }

    /// Calls with the numbers of service and server of each.
    pub(super) fn each(&self, mut call: impl FnMut(u32, u32)) {
        let taken = self.slots.iter().filter(|slot| slot.client.as_bytes().is_some());
        taken.for_each(|slot| call(slot.service, slot.server));
    }

    /// Every entry, with its service and client.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u32, &[u8], Remembered)> {
        self.slots.iter().filter_map(|slot| Some((slot.service, slot.client.as_bytes()?, slot.remembered())))
    }

    pub(super) fn clear(&mut self) {
        *self = Self { epoch: self.epoch.wrapping_add(1), ..Self::default() };
    }

    fn find(&self, key: Key<'_>) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut place = self.home(key.hash);
        loop {
            let slot = &self.slots[place];
            match slot.client.as_bytes()? == key.client.as_bytes() && slot.service == key.service {
                true => return Some(place),
                false => place = self.after(place),
            }
        }
    }

    /// Where a key belongs, by the lower half of its hash, scaled; there is always a vacant slot.
    fn home(&self, hash: u64) -> usize {
        (((hash & 0xffff_ffff) * self.slots.len() as u64) >> 32) as usize
    }

    fn after(&self, place: usize) -> usize {
        if place + 1 == self.slots.len() { 0 } else { place + 1 }
    }

    /// Puts a slot where it belongs or into the next vacant place.
    fn settle(&mut self, slot: Slot, hash: u64) {
        let mut place = self.home(hash);
        while self.slots[place].client.as_bytes().is_some() {
            place = self.after(place);
        }
        self.slots[place] = slot;
    }

    fn vacate(&mut self, place: usize, hash: impl Hash) {
        let gone = std::mem::take(&mut self.slots[place]);
        self.long -= gone.client.long();
        self.longs -= usize::from(gone.client.long() > 0);
        self.len -= 1;
        self.close(place, hash);
    }

    /// Moves back those that the slot vacated had pushed on.
    fn close(&mut self, mut gap: usize, hash: impl Hash) {
        let mut place = self.after(gap);
        while let Some(client) = self.slots[place].client.as_bytes() {
            let home = self.home(hash(self.slots[place].service, client));
            // How far round it is from its home to each; it may move if the gap is on the way.
            let size = self.slots.len();
            let (to_gap, to_place) = ((gap + size - home) % size, (place + size - home) % size);
            if to_gap < to_place {
                self.slots.swap(gap, place);
                gap = place;
            }
            place = self.after(place);
        }
    }

    fn resize(&mut self, size: usize, hash: impl Hash) {
        let new = std::iter::repeat_with(Slot::default).take(size).collect();
        self.hand = 0;
        for slot in std::mem::replace(&mut self.slots, new) {
            let hash = slot.client.as_bytes().map(|client| hash(slot.service, client));
            if let Some(hash) = hash {
                self.settle(slot, hash);
            }
        }
    }
}

impl Slot {
    fn remembered(&self) -> Remembered {
        let Self { stamp, server, expires, renew, .. } = *self;
        Remembered { stamp, server, expires, renew }
    }

    fn set(&mut self, new: Remembered) {
        let Remembered { stamp, server, expires, renew } = new;
        (self.stamp, self.server, self.expires, self.renew) = (stamp, server, expires, renew);
    }
}
