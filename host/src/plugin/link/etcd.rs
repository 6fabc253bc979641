//! `etcd`: every call waits for the cluster, so it is on the async lane only.

use std::{sync::Arc, time::Duration};

use wasmtime::{StoreContextMut, component::Linker};

use super::interface;
use crate::plugin::{
    etcd::{self, Comparison, EtcdClient, KeyRange, Operation, Transaction},
    guest::Guest,
};

type Store<'a> = StoreContextMut<'a, Guest>;

mod records {
    #![allow(unsafe_code, reason = "the derives of the component model write unsafe impls")]

    use wasmtime::component::{ComponentType, Lift, Lower};

    #[derive(ComponentType, Lower)]
    #[component(record)]
    pub(super) struct KeyValue {
        pub(super) key: String,
        pub(super) value: Vec<u8>,
        pub(super) modified: u64,
        pub(super) version: u64,
    }

    #[derive(ComponentType, Lift)]
    #[component(record)]
    pub(super) struct KeyRange {
        pub(super) start: String,
        pub(super) end: Option<String>,
    }

    #[derive(ComponentType, Lower)]
    #[component(record)]
    pub(super) struct Page {
        pub(super) entries: Vec<KeyValue>,
        pub(super) more: bool,
        pub(super) revision: u64,
    }

    #[derive(ComponentType, Lift)]
    #[component(variant)]
    pub(super) enum Comparison {
        #[component(name = "modified")]
        Modified((String, u64)),
        #[component(name = "none-modified-after")]
        NoneModifiedAfter((KeyRange, u64)),
    }

    #[derive(ComponentType, Lift)]
    #[component(record)]
    pub(super) struct Put {
        pub(super) key: String,
        pub(super) value: Vec<u8>,
        pub(super) leased: bool,
    }

    #[derive(ComponentType, Lift)]
    #[component(variant)]
    pub(super) enum Operation {
        #[component(name = "put")]
        Put(Put),
        #[component(name = "delete")]
        Delete(KeyRange),
        #[component(name = "get")]
        Get(String),
    }

    #[derive(ComponentType, Lower)]
    #[component(record)]
    pub(super) struct Outcome {
        pub(super) succeeded: bool,
        pub(super) found: Vec<Option<KeyValue>>,
        pub(super) revision: u64,
    }

    #[derive(ComponentType, Lower)]
    #[component(record)]
    pub(super) struct Event {
        pub(super) key: String,
        pub(super) value: Option<Vec<u8>>,
        pub(super) revision: u64,
        pub(super) version: u64,
    }

    #[derive(ComponentType, Lower)]
    #[component(record)]
    pub(super) struct Batch {
        pub(super) events: Vec<Event>,
        pub(super) revision: u64,
    }

    #[derive(ComponentType, Lower)]
    #[component(variant)]
    pub(super) enum Error {
        #[component(name = "unavailable")]
        Unavailable(String),
        #[component(name = "compacted")]
        Compacted(u64),
        #[component(name = "denied")]
        Denied(String),
        #[component(name = "invalid")]
        Invalid(String),
        #[component(name = "other")]
        Other(String),
    }
}

type Transact = (Vec<records::Comparison>, Vec<records::Operation>, Vec<records::Operation>);

pub(super) fn link(linker: &mut Linker<Guest>) -> Result<(), wasmtime::Error> {
    let mut functions = interface(linker, "etcd")?;
    functions.func_wrap_async(
        "get",
        |store: Store<'_>, (keys, limit, at): (records::KeyRange, u32, Option<u64>)| {
            let client = client(&store);
            Box::new(async move {
                let page = async { client?.get(&range(keys), limit, at).await }.await;
                Ok((page.map(lower_page).map_err(lower_error),))
            })
        },
    )?;
    functions.func_wrap_async("transact", |store: Store<'_>, (when, then, otherwise): Transact| {
        let reads = |operation: &records::Operation| matches!(operation, records::Operation::Get(_));
        let client = match store.data().message.dry && !then.iter().chain(&otherwise).all(reads) {
            true => Err(etcd::EtcdError::Denied("a call that only explains changes nothing".into())),
            false => client(&store),
        };
        let when = when.into_iter().map(comparison).collect();
        let then = then.into_iter().map(operation).collect();
        let otherwise = otherwise.into_iter().map(operation).collect();
        Box::new(async move {
            let outcome = async { client?.transact(Transaction { when, then, otherwise }).await }.await;
            Ok((outcome.map(lower_outcome).map_err(lower_error),))
        })
    })?;
    functions.func_wrap_async(
        "next",
        |store: Store<'_>, (keys, after, timeout): (records::KeyRange, u64, u32)| {
            let client = client(&store);
            let patience = Duration::from_millis(timeout.into());
            Box::new(async move {
                let batch = async { client?.next(&range(keys), after, patience).await }.await;
                Ok((batch.map(lower_batch).map_err(lower_error),))
            })
        },
    )
}

fn client(store: &Store<'_>) -> Result<Arc<EtcdClient>, etcd::EtcdError> {
    let client = store.data().plugin.capabilities.etcd.clone();
    client.ok_or_else(|| etcd::EtcdError::Denied("the capability is not granted".into()))
}

fn range(range: records::KeyRange) -> KeyRange {
    KeyRange { start: range.start, end: range.end }
}

fn comparison(comparison: records::Comparison) -> Comparison {
    match comparison {
        records::Comparison::Modified((key, revision)) => Comparison::Modified(key, revision),
        records::Comparison::NoneModifiedAfter((keys, revision)) => {
            Comparison::NoneModifiedAfter(range(keys), revision)
        }
    }
}

fn operation(operation: records::Operation) -> Operation {
    match operation {
        records::Operation::Put(records::Put { key, value, leased }) => Operation::Put { key, value, leased },
        records::Operation::Delete(keys) => Operation::Delete(range(keys)),
        records::Operation::Get(key) => Operation::Get(key),
    }
}

fn lower_entry(entry: etcd::KeyValue) -> records::KeyValue {
    let etcd::KeyValue { key, value, modified, version } = entry;
    records::KeyValue { key, value, modified, version }
}

fn lower_page(page: etcd::Page) -> records::Page {
    let entries = page.entries.into_iter().map(lower_entry).collect();
    records::Page { entries, more: page.more, revision: page.revision }
}

fn lower_outcome(outcome: etcd::Outcome) -> records::Outcome {
    let found = outcome.found.into_iter().map(|entry| entry.map(lower_entry)).collect();
    records::Outcome { succeeded: outcome.succeeded, found, revision: outcome.revision }
}

fn lower_batch(batch: etcd::Batch) -> records::Batch {
    let events = batch.events.into_iter().map(|event| {
        let etcd::Event { key, value, revision, version } = event;
        records::Event { key, value, revision, version }
    });
    records::Batch { events: events.collect(), revision: batch.revision }
}

fn lower_error(error: etcd::EtcdError) -> records::Error {
    match error {
        etcd::EtcdError::Unavailable(text) => records::Error::Unavailable(text),
        etcd::EtcdError::Compacted(revision) => records::Error::Compacted(revision),
        etcd::EtcdError::Denied(text) => records::Error::Denied(text),
        etcd::EtcdError::Invalid(text) => records::Error::Invalid(text),
        etcd::EtcdError::Other(text) => records::Error::Other(text),
    }
}
