//! Assignments and clients: a hash for each client, and one order of expiry.

use std::fmt::Write;

use message_flow_sdk::routing_table::{Assignment, ClientRecord, Condition, Proposal, TableError};
use serde::{Deserialize, Serialize};

use crate::{
    connection::{ask, prefix, run},
    reply::Reply,
    scripts,
};

/// As it is stored; the script that stores it adds the stamp as its last member.
#[derive(Serialize, Deserialize)]
struct Stored {
    server: String,
    expires: Option<u64>,
    router: String,
    #[serde(default, skip_serializing)]
    stamp: u64,
}

pub(crate) fn assigned(client: &str, service: &str) -> Result<Option<Assignment>, TableError> {
    ask(&["HGET", &hash(client), &format!("@{service}")])?.option()?.as_deref().map(lift).transpose()
}

pub(crate) fn assign(proposal: &Proposal, condition: &Condition) -> Result<Option<Assignment>, TableError> {
    let Proposal { client, service, server, expires, router } = proposal;
    let stored = Stored { server: server.clone(), expires: *expires, router: router.clone(), stamp: 0 };
    let json = serde_json::to_string(&stored).map_err(|error| TableError::Invalid(error.to_string()))?;
    let condition = match condition {
        Condition::Absent => "absent".to_owned(),
        Condition::Unchanged(stamp) => stamp.to_string(),
        Condition::Always => "always".to_owned(),
    };
    let expires = expires.map(|expires| expires.to_string()).unwrap_or_default();
    let told = told_as(client, service);
    let answer = run(scripts::ASSIGN, &[client, service, &json, &expires, &condition, &told])?;
    answer.option()?.as_deref().map(lift).transpose()
}

pub(crate) fn forget(client: &str, service: &str) -> Result<(), TableError> {
    run(scripts::FORGET, &[client, service, &told_as(client, service)]).map(drop)
}

pub(crate) fn client(client: &str) -> Result<ClientRecord, TableError> {
    let mut fields = ask(&["HGETALL", &hash(client)])?.list()?.into_iter();
    let mut record = ClientRecord { router: None, assignments: Vec::new() };
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        let (name, value) = (name.text()?, value.text()?);
        match name.strip_prefix('@') {
            Some(service) => record.assignments.push((service.to_owned(), lift(&value)?)),
            None => record.router = Some(value),
        }
    }
    Ok(record)
}

pub(crate) fn locate(client: &str, router: Option<&str>) -> Result<(), TableError> {
    let hash = hash(client);
    let answer: Result<Reply, TableError> = match router {
        Some(router) => ask(&["HSET", &hash, "router", router]),
        None => ask(&["HDEL", &hash, "router"]),
    };
    answer.map(drop)
}

pub(crate) fn sweep(now: u64, limit: u32) -> Result<u32, TableError> {
    let swept = run(scripts::SWEEP, &[&now.to_string(), &limit.to_string()])?.number()?;
    Ok(u32::try_from(swept).unwrap_or(u32::MAX))
}

fn hash(client: &str) -> String {
    format!("{}:client:{client}", prefix())
}

fn lift(json: &str) -> Result<Assignment, TableError> {
    let stored: Stored = serde_json::from_str(json)
        .map_err(|error| TableError::Invalid(format!("redis holds an assignment that is none: {error}")))?;
    let Stored { server, expires, router, stamp } = stored;
    Ok(Assignment { server, expires, router, stamp })
}

/// The key under which routers are told: the client percent-encoded, so that `/` ends it.
fn told_as(client: &str, service: &str) -> String {
    let mut key = String::with_capacity(client.len() + 1 + service.len());
    for byte in client.bytes() {
        match byte {
            b'%' | b'/' | 0..=0x20 | 0x7f.. => {
                let _ = write!(key, "%{byte:02X}");
            }
            _ => key.push(char::from(byte)),
        }
    }
    key.push('/');
    key.push_str(service);
    key
}
