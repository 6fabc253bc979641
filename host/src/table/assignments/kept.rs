//! What is remembered of assignments, as it is kept over a restart: a router that starts while the
//! table is away goes on by it.

use super::{Assignments, Entry, NEVER};

/// What a router remembers of one assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The client id.
    pub client: String,
    /// Written `chat` or `chat@2`; a name without a version also stands for the version that the client
    /// was given of it.
    pub service: String,
    /// A server's id, or a URI that a registrar gave.
    pub server: String,
    /// As the table has it.
    pub stamp: u64,
    /// In the table's [time](crate::table::TableTime); none: pinned, or held for as long as there is room.
    pub expires: Option<u64>,
    /// It was decided here while the table could not be asked, and is not known to be stored.
    pub held: bool,
}

impl Assignments {
    /// Into so many parts is divided what is remembered.
    pub fn parts(&self) -> usize {
        self.cache.parts() + self.held.parts()
    }

    /// Differs when what is remembered may differ. Costs nothing.
    pub fn changes(&self) -> u64 {
        self.cache.changes().wrapping_add(self.held.changes())
    }

    /// A copy of one of [`Self::parts`], a few thousand at the most. Whoever asks for it about a client
    /// of that part waits meanwhile.
    pub fn part(&self, part: usize) -> Vec<Kept> {
        let (cache, part, held) = match part.checked_sub(self.cache.parts()) {
            Some(part) => (&self.held, part, true),
            None => (&self.cache, part, false),
        };
        let kept = |(service, client, entry): (u32, String, Entry)| {
            let (service, server) = (self.numbers.text(service)?, self.numbers.text(entry.server)?);
            let expires = (entry.expires != NEVER).then_some(entry.expires);
            let Entry { stamp, .. } = entry;
            Some(Kept {
                client,
                service: service.to_string(),
                server: server.to_string(),
                stamp,
                expires,
                held,
            })
        };
        cache.part(part).into_iter().filter_map(kept).collect()
    }

    /// Remembers what was kept, unless it has expired. It is followed until the table is read: then
    /// the table is asked again for each.
    pub fn put_back(&self, kept: &Kept) {
        let expires = kept.expires.unwrap_or(NEVER);
        if expires <= self.time.now() {
            return;
        }
        let (service, server) = (self.numbers.of(&kept.service), self.numbers.of(&kept.server));
        // Its use is told to the table as soon as that is there, whatever the time to live is now.
        let renew = if kept.expires.is_some() && !kept.held { 0 } else { NEVER };
        let entry = Entry { server, stamp: kept.stamp, expires, renew };
        match kept.held {
            true => drop(self.held.put(service, &kept.client, entry, None)),
            false => self.put(service, &kept.client, entry, None),
        }
    }
}
