//! Promises about assignments and clients: many, read one by one.

use std::{collections::BTreeSet, sync::Arc};

use super::{Held, Table, done, following, holds, proposal, put, same};
use crate::table::adapter::{Assignment, Condition, Proposal};

async fn assign(
    table: &Table,
    proposal: Proposal,
    condition: Condition,
) -> Result<Option<Assignment>, String> {
    done("assign", table.assign(proposal, condition).await)
}

async fn assigned(table: &Table, client: &str, service: &str) -> Result<Option<Assignment>, String> {
    done("assigned", table.assigned(client.into(), service.into()).await)
}

fn there(what: &str, assignment: Option<Assignment>) -> Result<Assignment, String> {
    assignment.ok_or_else(|| format!("{what}: there is no assignment"))
}

pub(super) async fn are_created_once(table: &Table) -> Held {
    let race = (0..8).map(|number| {
        let table = Arc::clone(table);
        let proposal = proposal("ann", &format!("s{number}"));
        tokio::spawn(async move { assign(&table, proposal, Condition::Absent).await })
    });
    let mut winners = BTreeSet::new();
    for racer in race.collect::<Vec<_>>() {
        let stored = racer.await.map_err(|error| error.to_string())??;
        winners.insert(there("assign", stored)?.server);
    }
    holds(winners.len() == 1, || format!("racing routers were told different servers: {winners:?}"))?;
    let first = there("assigned", assigned(table, "ann", "chat").await?)?;
    same("what is stored", &(first.expires, first.router.as_str()), &(Some(1000), "r1"))?;
    same("of another service", &assigned(table, "ann", "chat@2").await?, &None)
}

pub(super) async fn are_renewed_by_stamp(table: &Table) -> Held {
    let renew = async |stamp| assign(table, proposal("bob", "renewed"), Condition::Unchanged(stamp)).await;
    let first = there("assign", assign(table, proposal("bob", "s1"), Condition::Absent).await?)?;
    let renewed = there("renewing", renew(first.stamp).await?)?;
    same("renewing", &renewed.server, &"renewed".to_owned())?;
    holds(renewed.stamp != first.stamp, || "the stamp did not change".to_owned())?;
    let late = there("renewing with an old stamp", renew(first.stamp).await?)?;
    same("renewing with an old stamp", &late, &renewed)?;
    done("forget", table.forget("bob".into(), "chat".into()).await)?;
    same("renewing what was forgotten", &renew(renewed.stamp).await?, &None)?;
    same("what was forgotten", &assigned(table, "bob", "chat").await?, &None)
}

pub(super) async fn are_told_when_pinned(table: &Table) -> Held {
    let revision = put(table, "service", "before pins").await?;
    assign(table, proposal("kept/client", "s1"), Condition::Absent).await?;
    let pin = Proposal { expires: None, ..proposal("kept/client", "s2") };
    let pinned = there("pinning", assign(table, pin, Condition::Always).await?)?;
    same("the pin", &(pinned.server.as_str(), pinned.expires), &("s2", None))?;
    done("forget", table.forget("nobody".into(), "chat@2".into()).await)?;
    let last = put(table, "service", "after pins").await?;
    let told = following(table, revision, last).await?;
    let expected = ["-assignment kept%2Fclient/chat", "-assignment nobody/chat@2", "+service after pins"];
    same("changes", &told[..], &expected.map(str::to_owned)[..])
}

pub(super) async fn are_told_when_replaced(table: &Table) -> Held {
    let revision = put(table, "service", "before replacing").await?;
    let replace = async |server, stamp| {
        assign(table, proposal("moved/client", server), Condition::Unchanged(stamp)).await
    };
    let first = there("assign", assign(table, proposal("moved/client", "s1"), Condition::Absent).await?)?;
    let renewed = there("renewing", replace("s1", first.stamp).await?)?;
    let late = there("replacing with an old stamp", replace("s2", first.stamp).await?)?;
    same("what is there after that", &late, &renewed)?;
    let last = put(table, "service", "renewed").await?;
    let told = following(table, revision, last).await?;
    same("changes when nothing was replaced", &told[..], &["+service renewed".to_owned()][..])?;
    let replaced = there("replacing", replace("s2", renewed.stamp).await?)?;
    same("what replaced it", &replaced.server, &"s2".to_owned())?;
    let after = put(table, "service", "replaced").await?;
    let told = following(table, last, after).await?;
    let expected = ["-assignment moved%2Fclient/chat", "+service replaced"];
    same("changes when it was replaced", &told[..], &expected.map(str::to_owned)[..])
}

pub(super) async fn make_a_client(table: &Table) -> Held {
    let client = || "kept/client".to_owned();
    done("locate", table.locate(client(), Some("r7".into())).await)?;
    let known = done("client", table.client(client()).await)?;
    same("its router", &known.router.as_deref(), &Some("r7"))?;
    let pinned = there("assigned", assigned(table, "kept/client", "chat").await?)?;
    same("its assignments", &known.assignments, &vec![("chat".to_owned(), pinned)])?;
    done("locate", table.locate(client(), None).await)?;
    same("its router", &done("client", table.client(client()).await)?.router, &None)?;
    let prefix = done("client", table.client("kept".into()).await)?;
    same("assignments of a client whose id begins another's", &prefix.assignments, &Vec::new())
}

pub(super) async fn are_swept(table: &Table) -> Held {
    let sweep = async |now, limit| done("sweep", table.sweep(now, limit).await);
    // What the promises before this one left and has expired by then.
    while sweep(1500, 100).await? > 0 {}
    for number in 0..30_u64 {
        let proposal = Proposal { expires: Some(2000 + number), ..proposal(&format!("c{number}"), "s1") };
        assign(table, proposal, Condition::Absent).await?;
    }
    same("swept before any expired", &sweep(2000, 100).await?, &0)?;
    same("swept with a limit of 5", &sweep(2020, 5).await?, &5)?;
    same("swept then", &(sweep(2020, 100).await? + sweep(2020, 100).await?), &15)?;
    there("c20, not expired", assigned(table, "c20", "chat").await?)?;
    same("c19, expired", &assigned(table, "c19", "chat").await?, &None)?;
    there("a pin", assigned(table, "kept/client", "chat").await?).map(drop)
}
