//! Entries as typed records, and records as entries.

use std::{collections::HashSet, sync::Arc};

use super::{ReleaseRecord, RouterRecord, Server, ServerRecord, Service, ServiceId, ServiceRecord, View};
use crate::table::{
    adapter::{Change, Entry, STRAY},
    lease::Held,
    removal, time,
};

/// Why an entry of the table cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{kind} `{}` in the routing table is not valid: {reason}", key.escape_debug())]
pub struct InvalidEntry {
    /// As in [`Entry`].
    pub kind: String,
    /// As in [`Entry`].
    pub key: String,
    /// In words.
    pub reason: String,
}

/// The key of an entry of a kind that the view holds.
#[derive(Debug)]
pub(super) enum Key<'a> {
    Service(ServiceId),
    Server(ServiceId, &'a str),
    Release(&'a str),
    Router(&'a str),
    /// A server that somebody removed from under its connection.
    Removed,
}

impl<'a> Key<'a> {
    /// None for a kind that the view does not hold.
    pub(super) fn parse(kind: &str, key: &'a str) -> Option<Result<Self, InvalidEntry>> {
        let parsed = match kind {
            "service" => key.parse().map(Self::Service).map_err(|error| error.to_string()),
            "server" => server_key(key).map(|(service, server)| Self::Server(service, server)),
            "release" => release_key(key),
            "router" => Ok(Self::Router(key)),
            removal::KIND => server_key(key).map(|_| Self::Removed),
            _ => return None,
        };
        Some(parsed.map_err(|reason| invalid(kind, key, reason)))
    }
}

fn server_key(key: &str) -> Result<(ServiceId, &str), String> {
    let (service, server) = key.split_once('/').ok_or("its key is not SERVICE/SERVER")?;
    let service = service.parse::<ServiceId>().map_err(|error| error.to_string())?;
    if server.is_empty() {
        return Err("its key is not SERVICE/SERVER".to_owned());
    }
    Ok((service, server))
}

fn release_key(key: &str) -> Result<Key<'_>, String> {
    let id = key.parse::<ServiceId>().map_err(|error| error.to_string())?;
    match id.version() {
        Some(_) => Err("a release is of a name without a version".to_owned()),
        None => Ok(Key::Release(key)),
    }
}

pub(super) fn read<T: serde::de::DeserializeOwned>(
    kind: &str,
    key: &str,
    value: &str,
) -> Result<T, InvalidEntry> {
    serde_json::from_str(value).map_err(|error| {
        let begin: String = value.chars().take(40).collect();
        invalid(kind, key, format!("{error}; it begins with {begin:?}"))
    })
}

/// What lies among the entries and is none.
pub(super) fn stray(key: &str, why: &str) -> InvalidEntry {
    let reason = crate::text::cut(why, 200).to_owned();
    InvalidEntry { kind: STRAY.to_owned(), key: key.to_owned(), reason }
}

fn invalid(kind: &str, key: &str, reason: String) -> InvalidEntry {
    InvalidEntry { kind: kind.to_owned(), key: key.to_owned(), reason }
}

/// What the table holds, as this view knows it, without routers.
pub(super) fn entries(view: &View) -> Vec<Entry> {
    let services = view.stored.values().flat_map(|service| {
        let record = service.declared.then(|| entry("service", service.id.as_str(), &service.record));
        let server = |server: &Arc<Server>| entry("server", &server_key_of(service, server), &server.record);
        record.into_iter().chain(service.servers.iter().map(server))
    });
    let releases = view.releases.iter().map(|(name, release)| entry("release", name, release));
    services.chain(releases).collect()
}

fn server_key_of(service: &Service, server: &Server) -> String {
    format!("{}/{}", service.id, server.id)
}

fn entry(kind: &str, key: &str, record: &impl serde::Serialize) -> Entry {
    let value = serde_json::to_string(record).expect("records have text keys only");
    Entry { kind: kind.to_owned(), key: key.to_owned(), value }
}

/// The changes that lead from a view to a table with exactly these entries.
pub(super) fn difference(view: &View, entries: &[Entry]) -> Vec<Change> {
    let there: HashSet<_> = entries.iter().map(|entry| (entry.kind.as_str(), entry.key.as_str())).collect();
    let routers = view.routers.keys().map(|id| ("router", id.to_string()));
    let known = self::entries(view).into_iter().map(|known| (kind_of(&known), known.key)).chain(routers);
    let removed = view.removed.keys().map(|key| (removal::KIND, key.clone()));
    let known = known.chain(removed).map(|(kind, key)| (kind.to_owned(), key));
    let problems = view.problems.values().map(|problem| (problem.kind.clone(), problem.key.clone()));
    let gone = known.chain(problems).filter(|(kind, key)| !there.contains(&(kind.as_str(), key.as_str())));
    let gone = gone.map(|(kind, key)| Change { kind, key, value: None, ephemeral: false });
    let timeless = view.time.is_some() && !there.contains(&(time::KIND, time::KEY));
    let gone = gone.chain(timeless.then(time::removal));
    let new = entries.iter().filter(|entry| !holds(view, entry)).map(|entry| Change {
        kind: entry.kind.clone(),
        key: entry.key.clone(),
        value: Some(entry.value.clone()),
        ephemeral: false,
    });
    gone.chain(new).collect()
}

fn kind_of(entry: &Entry) -> &'static str {
    match entry.kind.as_str() {
        "service" => "service",
        "server" => "server",
        _ => "release",
    }
}

/// Whether a view already says what an entry says.
fn holds(view: &View, entry: &Entry) -> bool {
    let (kind, key, value) = (entry.kind.as_str(), entry.key.as_str(), entry.value.as_str());
    match Key::parse(kind, key) {
        Some(Ok(Key::Service(id))) => {
            let known = view.stored.get(&id).filter(|service| service.declared);
            known.is_some_and(|known| {
                read::<ServiceRecord>(kind, key, value).is_ok_and(|new| new == known.record)
            })
        }
        Some(Ok(Key::Server(id, server))) => {
            let known = view.stored.get(&id).and_then(|service| service.server(server));
            let known = known.filter(|server| !server.held);
            known.is_some_and(|known| {
                read::<ServerRecord>(kind, key, value).is_ok_and(|new| new == known.record)
            })
        }
        Some(Ok(Key::Release(name))) => {
            let known = view.releases.get(name);
            known.is_some_and(|known| read::<ReleaseRecord>(kind, key, value).as_ref() == Ok(known))
        }
        Some(Ok(Key::Router(id))) => {
            let known = view.routers.get(id);
            known.is_some_and(|known| read::<RouterRecord>(kind, key, value).as_ref() == Ok(known))
        }
        Some(Ok(Key::Removed)) => {
            let known = view.removed.get(key);
            known.is_some_and(|known| read::<Held>(kind, key, value).as_ref() == Ok(known))
        }
        Some(Err(_)) => false,
        None if kind == STRAY => view.problems.contains_key(&format!("{kind} {key}")),
        None => time::read(kind, key, value).is_none_or(|now| view.time == Some(now)),
    }
}
