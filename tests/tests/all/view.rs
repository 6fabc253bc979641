//! The view, by property: however it came about, it is what the table holds, and what did not
//! change is shared.

use std::{collections::BTreeMap, sync::Arc};

use message_flow::table::{
    Numbers, Overlay, View,
    adapter::{Change, Entry},
};
use proptest::prelude::*;

type Table = BTreeMap<(String, String), String>;

/// A change to one of few entries, so that the same one often changes again.
fn change() -> impl Strategy<Value = Change> {
    let service = prop::sample::select(vec!["a", "a@1", "a@2", "b@1"]);
    let record = prop::sample::select(vec!["{}", r#"{"sticky":false}"#, r#"{"registrar":"geo"}"#]);
    let entry = prop_oneof![
        (service.clone(), record).prop_map(|(key, value)| ("service", key.to_owned(), value.to_owned())),
        (service, 0..4_u8, 0..3_u8).prop_map(|(service, server, weight)| {
            let value = format!(r#"{{"uri":"http://s{server}","weight":{weight}}}"#);
            ("server", format!("{service}/s{server}"), value)
        }),
        ("[ab]", 0..3_u32).prop_map(|(name, weight)| {
            ("release", name, format!(r#"{{"weights":{{"1":{weight},"2":1}}}}"#))
        }),
        "[xy]".prop_map(|id| ("router", id, r#"{"uri":"http://r","incarnation":"1"}"#.to_owned())),
    ];
    (entry, prop::bool::weighted(0.7)).prop_map(|((kind, key, value), put)| Change {
        kind: kind.to_owned(),
        key,
        value: put.then_some(value),
        ephemeral: false,
    })
}

fn changes() -> impl Strategy<Value = Vec<Vec<Change>>> {
    prop::collection::vec(prop::collection::vec(change(), 0..6), 0..12)
}

fn make(table: &mut Table, change: &Change) {
    let key = (change.kind.clone(), change.key.clone());
    match &change.value {
        Some(value) => table.insert(key, value.clone()),
        None => table.remove(&key),
    };
}

fn entries(table: &Table) -> Vec<Entry> {
    let entry = |((kind, key), value): (&(String, String), &String)| Entry {
        kind: kind.clone(),
        key: key.clone(),
        value: value.clone(),
    };
    table.iter().map(entry).collect()
}

/// All that a view says, but for the numbers.
fn said(view: &View) -> String {
    let services: Vec<_> =
        view.services().map(|service| (&service.id, service.declared, service.spec())).collect();
    let mut names: Vec<_> = view.names().collect();
    names.sort_by_key(|(name, _)| (*name).clone());
    format!("{services:#?} {names:#?} {:#?} {:#?}", view.releases(), view.routers())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changes_and_differences_lead_to_what_the_table_holds(rounds in changes()) {
        let (numbers, overlay) = (Numbers::default(), Overlay::new());
        let (mut table, mut view) = (Table::new(), View::default());
        let mut seldom = View::default();
        for (round, changes) in (1..).zip(&rounds) {
            changes.iter().for_each(|change| make(&mut table, change));
            view = view.apply(changes, round, &overlay, &numbers);
            let whole = View::build(&entries(&table), round, &overlay, &numbers);
            prop_assert_eq!(said(&view), said(&whole));
            prop_assert!(view.difference(&entries(&table)).is_empty());
            if round % 3 == 0 {
                let difference = seldom.difference(&entries(&table));
                seldom = seldom.apply(&difference, round, &overlay, &numbers);
                prop_assert_eq!(said(&seldom), said(&whole));
            }
        }
    }

    #[test]
    fn what_did_not_change_is_shared(rounds in changes(), last in change()) {
        let (numbers, overlay) = (Numbers::default(), Overlay::new());
        let before = View::default().apply(&rounds.concat(), 1, &overlay, &numbers);
        let after = before.apply(std::slice::from_ref(&last), 2, &overlay, &numbers);
        for service in after.services() {
            let Some(known) = before.service(&service.id) else { continue };
            prop_assert_eq!(known == service, Arc::ptr_eq(known, service), "{}", service.id);
            for server in &service.servers {
                let same = known.server(&server.id).filter(|known| *known == server);
                prop_assert!(same.is_none_or(|known| Arc::ptr_eq(known, server)), "{}", server.id);
            }
        }
    }

    #[test]
    fn an_unversioned_name_means_the_same_for_a_client_everywhere(rounds in changes(), client in "[a-z]{1,8}") {
        let changes = rounds.concat();
        let meant = |numbers: Numbers| {
            let view = View::default().apply(&changes, 1, &Overlay::new(), &numbers);
            ["a", "b"].map(|name| view.choose(&name.parse().unwrap(), &client).map(|service| service.id.clone()))
        };
        let other = Numbers::default();
        (0..100).for_each(|number| { other.of(&number.to_string()); });
        let meant_here = meant(Numbers::default());
        prop_assert_eq!(&meant_here, &meant(other));
        for id in meant_here.iter().flatten() {
            prop_assert!(matches!(id.version(), None | Some("1" | "2")), "{id}");
        }
    }
}
