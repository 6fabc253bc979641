//! Assignments and client locations: read and written one by one, never watched.
//!
//! An assignment's stamp is the revision of its key, so a transaction that compares it is all that
//! create-if-absent and renewal need.

use message_flow_sdk::{
    etcd::{Comparison, EtcdError, KeyRange, KeyValue, Operation},
    log::{Level, log},
    routing_table::{Assignment, ClientRecord, Condition, Proposal, TableError},
    state,
};
use serde::{Deserialize, Serialize};

use crate::{
    cluster::{Cluster, delete, each_page, failed, one, put},
    keys::{self, Keys},
};

const PAGE: u32 = 500;
/// How many pages one sweep looks at; the next goes on from there.
const SWEEP_PAGES: u32 = 20;
/// Deleted at once. If one of them changed meanwhile, they are deleted one by one.
const SWEEP_TOGETHER: usize = 64;
/// The key of `state` under which a sweep keeps where it stopped.
const SWEPT: &str = "swept";

#[derive(Serialize, Deserialize)]
struct AssignmentRecord {
    server: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    router: String,
}

#[derive(Serialize, Deserialize)]
struct LocationRecord {
    router: String,
}

pub(crate) fn assigned(
    cluster: &impl Cluster,
    keys: &Keys,
    client: &str,
    service: &str,
) -> Result<Option<Assignment>, TableError> {
    let page = cluster.get(&one(keys.assignment(client, service)), 1, None).map_err(failed)?;
    page.entries.first().map(assignment).transpose()
}

pub(crate) fn assign(
    cluster: &impl Cluster,
    keys: &Keys,
    proposal: &Proposal,
    condition: Condition,
) -> Result<Option<Assignment>, TableError> {
    let key = keys.assignment(&proposal.client, &proposal.service);
    let (when, tell) = match condition {
        Condition::Absent => (vec![Comparison::Modified((key.clone(), 0))], false),
        Condition::Unchanged(stamp) => {
            // A transaction cannot compare servers, but what it is told by stays what was read here.
            let page = cluster.get(&one(key.clone()), 1, None).map_err(failed)?;
            let Some(stored) = page.entries.first() else { return Ok(None) };
            if stored.modified != stamp {
                return assignment(stored).map(Some);
            }
            (vec![Comparison::Modified((key.clone(), stamp))], !is_to(stored, &proposal.server))
        }
        Condition::Always => (Vec::new(), true),
    };
    let mut then = vec![put(key.clone(), encoded(&AssignmentRecord::from(proposal)))];
    then.extend(tell.then(|| notice(keys, &proposal.client, &proposal.service)));
    let outcome = cluster.transact(&when, &then, &[Operation::Get(key)]).map_err(failed)?;
    if outcome.succeeded {
        let Proposal { server, expires, router, .. } = proposal.clone();
        return Ok(Some(Assignment { server, expires, router, stamp: outcome.revision }));
    }
    outcome.found.first().and_then(Option::as_ref).map(assignment).transpose()
}

pub(crate) fn forget(
    cluster: &impl Cluster,
    keys: &Keys,
    client: &str,
    service: &str,
) -> Result<(), TableError> {
    let then = [delete(keys.assignment(client, service)), notice(keys, client, service)];
    cluster.transact(&[], &then, &[]).map_err(failed)?;
    Ok(())
}

pub(crate) fn client(cluster: &impl Cluster, keys: &Keys, client: &str) -> Result<ClientRecord, TableError> {
    let location = cluster.get(&one(keys.client(client)), 1, None).map_err(failed)?;
    let router = location.entries.first().map(decoded::<LocationRecord>).transpose()?;
    let mut assignments = Vec::new();
    each_page(cluster, keys.assignments_of(client), PAGE, |page| {
        let found = page
            .entries
            .iter()
            .map(|found| Ok((keys.service(&found.key).unwrap_or_default(), assignment(found)?)));
        assignments.extend(found);
    })
    .map_err(failed)?;
    // One that cannot be read hides none of the others.
    let readable = assignments.into_iter().filter_map(|found: Result<_, TableError>| {
        found.inspect_err(|error| log(Level::Warn, &format!("assignment ignored: {error:?}"))).ok()
    });
    let assignments = readable.collect();
    Ok(ClientRecord { router: router.map(|location| location.router), assignments })
}

pub(crate) fn locate(
    cluster: &impl Cluster,
    keys: &Keys,
    client: &str,
    router: Option<String>,
) -> Result<(), TableError> {
    let key = keys.client(client);
    let operation = match router {
        Some(router) => put(key, encoded(&LocationRecord { router })),
        None => delete(key),
    };
    cluster.transact(&[], &[operation], &[]).map_err(failed)?;
    Ok(())
}

/// Looks at a part of all assignments, from where the last sweep stopped, on this router.
pub(crate) fn sweep(cluster: &impl Cluster, keys: &Keys, now: u64, limit: u32) -> Result<u32, TableError> {
    let all = keys.assignments();
    let within = |start: &String| *start >= all.start && all.end.as_ref().is_none_or(|end| start < end);
    let resumed = state::get(SWEPT).and_then(|bytes| String::from_utf8(bytes).ok()).filter(within);
    let mut range = KeyRange { start: resumed.unwrap_or_else(|| all.start.clone()), end: all.end.clone() };
    let mut swept = 0;
    for _ in 0..SWEEP_PAGES {
        let page = cluster.get(&range, PAGE, None).map_err(failed)?;
        let expired = page.entries.iter().filter(|found| has_expired(found, now));
        let room = (limit - swept) as usize;
        let expired: Vec<_> = expired.take(room).map(|found| (found.key.clone(), found.modified)).collect();
        let cut = expired.len() == room;
        swept += delete_unchanged(cluster, &expired).map_err(failed)?;
        let last = if cut {
            expired.last().map(|(key, _)| key)
        } else {
            page.entries.last().map(|found| &found.key)
        };
        match last.filter(|_| page.more || cut) {
            Some(last) => range.start = format!("{last}\0"),
            None => range.start.clone_from(&all.start),
        }
        if cut || !page.more {
            break;
        }
    }
    // A sweep that cannot say where it stopped starts over: slower, not wrong.
    let _ = state::set(SWEPT, range.start.as_bytes());
    Ok(swept)
}

fn has_expired(found: &KeyValue, now: u64) -> bool {
    let record = serde_json::from_slice::<AssignmentRecord>(&found.value);
    record.is_ok_and(|record| record.expires.is_some_and(|expires| expires < now))
}

/// Returns how many went.
fn delete_unchanged(cluster: &impl Cluster, expired: &[(String, u64)]) -> Result<u32, EtcdError> {
    let mut deleted = 0;
    for together in expired.chunks(SWEEP_TOGETHER) {
        if try_delete(cluster, together)? {
            deleted += together.len() as u32;
            continue;
        }
        for alone in together {
            deleted += u32::from(try_delete(cluster, std::slice::from_ref(alone))?);
        }
    }
    Ok(deleted)
}

fn try_delete(cluster: &impl Cluster, keys: &[(String, u64)]) -> Result<bool, EtcdError> {
    let unchanged: Vec<_> = keys.iter().map(|key| Comparison::Modified(key.clone())).collect();
    let delete: Vec<_> = keys.iter().map(|(key, _)| delete(key.clone())).collect();
    Ok(cluster.transact(&unchanged, &delete, &[])?.succeeded)
}

fn notice(keys: &Keys, client: &str, service: &str) -> Operation {
    put(keys.notice(), keys::assignment(client, service).into_bytes())
}

/// Whether it is an assignment to this server.
fn is_to(found: &KeyValue, server: &str) -> bool {
    serde_json::from_slice::<AssignmentRecord>(&found.value).is_ok_and(|record| record.server == server)
}

fn assignment(found: &KeyValue) -> Result<Assignment, TableError> {
    let AssignmentRecord { server, expires, router } = decoded(found)?;
    Ok(Assignment { server, expires, router, stamp: found.modified })
}

impl From<&Proposal> for AssignmentRecord {
    fn from(proposal: &Proposal) -> Self {
        let Proposal { server, expires, router, .. } = proposal.clone();
        Self { server, expires, router }
    }
}

fn encoded(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("texts and numbers are always JSON")
}

fn decoded<'a, T: Deserialize<'a>>(found: &'a KeyValue) -> Result<T, TableError> {
    serde_json::from_slice(&found.value).map_err(|error| {
        TableError::Invalid(format!("etcd key `{}` does not hold what it should: {error}", found.key))
    })
}
