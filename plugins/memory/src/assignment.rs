//! Assignments and client locations.

use message_flow_sdk::{
    keys::{escape, unescape},
    random,
    routing_table::{Assignment, Change, ClientRecord, Condition, Proposal, TableError},
    state,
};

use crate::{
    Cell, Purpose, apply, apply_for,
    codec::{Reader, Writer},
    head::Head,
    log, until_applied,
};

/// A batch removes so many expired assignments.
const BATCH: usize = 64;
const PAGE: u32 = 1000;
/// A client has no more assignments than this.
const OF_A_CLIENT: u32 = 10_000;

/// Where the assignment of a client for a service is: `CLIENT/SERVICE`, both escaped.
struct Place(String);

impl Place {
    fn new(client: &str, service: &str) -> Self {
        Self(format!("{}/{}", escape(client), escape(service)))
    }

    fn key(&self) -> String {
        format!("a/{}", self.0)
    }

    /// Its place among those that expire; none for a pin.
    fn expiry(&self, assignment: &Assignment) -> Option<String> {
        assignment.expires.map(|expires| format!("x/{expires:016x}/{}", self.0))
    }

    fn read(&self) -> Result<Stored, TableError> {
        let bytes = state::get(&self.key());
        let assignment = bytes.as_deref().map(decode).transpose()?;
        Ok(Stored { bytes, assignment })
    }

    /// The cells that put `new` in the place of what is stored.
    fn replace(&self, stored: &Stored, new: Option<&Assignment>) -> Vec<Cell> {
        let old = stored.assignment.as_ref().and_then(|old| self.expiry(old));
        let new_expiry = new.and_then(|new| self.expiry(new));
        let mut cells = vec![(self.key(), new.map(encode))];
        cells.extend(old.filter(|old| Some(old) != new_expiry.as_ref()).map(|key| (key, None)));
        cells.extend(new_expiry.map(|key| (key, Some(Vec::new()))));
        cells
    }
}

/// What is there, as bytes to be expected and as what they mean.
struct Stored {
    bytes: Option<Vec<u8>>,
    assignment: Option<Assignment>,
}

pub(crate) fn assigned(client: &str, service: &str) -> Result<Option<Assignment>, TableError> {
    Ok(Place::new(client, service).read()?.assignment)
}

pub(crate) fn assign(proposal: &Proposal, condition: Condition) -> Result<Option<Assignment>, TableError> {
    let place = Place::new(&proposal.client, &proposal.service);
    until_applied(|| {
        let stored = place.read()?;
        let holds = match (condition, &stored.assignment) {
            (Condition::Always, _) | (Condition::Absent, None) => true,
            (Condition::Unchanged(stamp), Some(stored)) => stored.stamp == stamp,
            (Condition::Absent, Some(_)) | (Condition::Unchanged(_), None) => false,
        };
        if !holds {
            return Ok(Some(stored.assignment));
        }
        let new = Assignment {
            server: proposal.server.clone(),
            expires: proposal.expires,
            router: proposal.router.clone(),
            stamp: random::next(),
        };
        let replaces = stored.assignment.as_ref().is_some_and(|stored| stored.server != new.server);
        let done = match condition {
            Condition::Always => replace_and_tell(Purpose::Growth, &place, &stored, Some(&new))?,
            Condition::Unchanged(_) if replaces => {
                replace_and_tell(Purpose::Client, &place, &stored, Some(&new))?
            }
            _ => {
                let changes = place.replace(&stored, Some(&new));
                apply_for(Purpose::Client, &changes, &[(place.key(), stored.bytes)])?
            }
        };
        Ok(done.then_some(Some(new)))
    })
}

pub(crate) fn forget(client: &str, service: &str) -> Result<(), TableError> {
    let place = Place::new(client, service);
    until_applied(|| Ok(replace_and_tell(Purpose::Upkeep, &place, &place.read()?, None)?.then_some(())))
}

/// Replaces an assignment and reports it to every router.
fn replace_and_tell(
    purpose: Purpose,
    place: &Place,
    stored: &Stored,
    new: Option<&Assignment>,
) -> Result<bool, TableError> {
    let head = Head::read()?;
    let change = Change { kind: "assignment".to_owned(), key: place.change(), value: None, ephemeral: false };
    let (new_head, mut cells) = log::append(head, &[change]);
    cells.push(new_head.cell());
    cells.extend(place.replace(stored, new));
    apply_for(purpose, &cells, &[head.cell(), (place.key(), stored.bytes.clone())])
}

impl Place {
    /// As it stands in the key of a change: the client escaped, the service plain.
    fn change(&self) -> String {
        let (client, service) = self.0.split_once('/').unwrap_or((&self.0, ""));
        format!("{client}/{}", unescape(service).unwrap_or_default())
    }
}

pub(crate) fn client(client: &str) -> Result<ClientRecord, TableError> {
    let prefix = format!("a/{}/", escape(client));
    let one = |(key, bytes): (String, Vec<u8>)| {
        let service = unescape(&key[prefix.len()..]).unwrap_or_default();
        Ok((service, decode(&bytes)?))
    };
    let assignments =
        state::scan(&prefix, None, OF_A_CLIENT).into_iter().map(one).collect::<Result<_, _>>()?;
    let router = state::get(&location(client)).and_then(|bytes| String::from_utf8(bytes).ok());
    Ok(ClientRecord { router, assignments })
}

pub(crate) fn locate(client: &str, router: Option<&str>) -> Result<(), TableError> {
    let router = router.map(|router| router.as_bytes().to_vec());
    let purpose = if router.is_some() { Purpose::Client } else { Purpose::Upkeep };
    apply_for(purpose, &[(location(client), router)], &[]).map(drop)
}

fn location(client: &str) -> String {
    format!("c/{}", escape(client))
}

pub(crate) fn sweep(now: u64, limit: u32) -> Result<u32, TableError> {
    let expired = state::scan("x/", None, limit.min(PAGE)).into_iter().map_while(|(key, _)| {
        let (expiry, place) = key.strip_prefix("x/")?.split_once('/')?;
        let expired = u64::from_str_radix(expiry, 16).ok()? < now;
        let place = Place(place.to_owned());
        expired.then_some((key, place))
    });
    let expired: Vec<_> = expired.collect();
    let swept = expired.chunks(BATCH).map(remove).sum::<Result<usize, _>>()?;
    Ok(u32::try_from(swept).unwrap_or(u32::MAX))
}

/// Makes room: removes a batch of the assignments that expire first, which are those that were not
/// used for the longest. Pins do not expire. False: there is none left.
pub(crate) fn evict() -> Result<bool, TableError> {
    let place = |(key, _): (String, Vec<u8>)| {
        let place = key.strip_prefix("x/")?.split_once('/')?.1.to_owned();
        Some((key, Place(place)))
    };
    let oldest: Vec<_> = state::scan("x/", None, BATCH as u32).into_iter().filter_map(place).collect();
    remove(&oldest)?;
    Ok(!oldest.is_empty())
}

/// Makes room where there are no assignments: removes a batch of locations. False: there is none left.
pub(crate) fn evict_locations() -> Result<bool, TableError> {
    let some = state::scan("c/", None, BATCH as u32);
    let cells: Vec<_> = some.into_iter().map(|(key, _)| (key, None)).collect();
    Ok(!cells.is_empty() && apply(&cells, &[])?)
}

/// Removes expired assignments at once; if one of them changed meanwhile, one by one.
fn remove(expired: &[(String, Place)]) -> Result<usize, TableError> {
    let (mut cells, mut expected) = (Vec::new(), Vec::new());
    for (expiry, place) in expired {
        let stored = place.read()?;
        cells.push((expiry.clone(), None));
        expected.push((expiry.clone(), Some(Vec::new())));
        let same = |assignment: &Assignment| place.expiry(assignment).as_ref() == Some(expiry);
        if stored.assignment.as_ref().is_some_and(same) {
            cells.push((place.key(), None));
            expected.push((place.key(), stored.bytes));
        }
    }
    match apply(&cells, &expected)? {
        true => Ok(expired.len()),
        false if expired.len() == 1 => Ok(0),
        false => expired.iter().map(|one| remove(std::slice::from_ref(one))).sum(),
    }
}

fn encode(assignment: &Assignment) -> Vec<u8> {
    let mut writer = Writer::default();
    let Assignment { server, expires, router, stamp } = assignment;
    writer.number(*stamp).number(expires.unwrap_or(u64::MAX)).text(server).text(router);
    writer.0
}

fn decode(bytes: &[u8]) -> Result<Assignment, TableError> {
    let mut reader = Reader(bytes);
    let (stamp, expires) = (reader.number()?, reader.number()?);
    let expires = (expires < u64::MAX).then_some(expires);
    Ok(Assignment { server: reader.text()?, expires, router: reader.text()?, stamp })
}
