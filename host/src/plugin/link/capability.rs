//! The capabilities that every plugin has and that answer at once: `log`, `config`, `state`,
//! `clock` and `random`.

use std::{
    borrow::Cow,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use wasmtime::{
    StoreContextMut,
    component::{Linker, WasmList, WasmStr},
};

use super::{
    interface,
    lane::{Lane, Line, Linked, Str, Text},
};
use crate::plugin::{
    bounds::VALUE,
    guest::Guest,
    state::{self, Cell, imagined::Seen},
    types::{Level, StateError},
};

type Store<'a> = StoreContextMut<'a, Guest>;
type Lifted = (WasmStr, Option<WasmList<u8>>);

pub(super) fn link(linker: &mut Linker<Guest>) -> Linked {
    link_simple(linker)?;
    config(linker)?;
    clock(linker)?;
    state_reads(linker)?;
    state_writes(linker)?;
    interface(linker, "random")?.func_wrap("next", |_: Store<'_>, ()| Ok((rand::random::<u64>(),)))
}

/// What exchanges texts at most.
pub(super) fn link_simple(lane: &mut impl Lane) -> Linked {
    lane.define::<(Level, Line), ()>("log", "log", |guest, (level, message)| log(guest, level, message))?;
    lane.define::<(Str<VALUE>,), Option<Text>>("config", "get", |guest, (key,)| {
        guest.plugin.settings.config.get(key).map(|value| value.as_str().into())
    })
}

fn log(guest: &mut Guest, level: Level, text: &str) {
    if !guest.may_log() {
        return;
    }
    if matches!(level, Level::Error) {
        guest.last_error = Some(text.into());
    }
    let (plugin, client) = (&*guest.plugin.name, guest.message.client.as_str());
    match level {
        Level::Trace => tracing::trace!(plugin, client, "{text}"),
        Level::Debug => tracing::debug!(plugin, client, "{text}"),
        Level::Info => tracing::info!(plugin, client, "{text}"),
        Level::Warn => tracing::warn!(plugin, client, "{text}"),
        Level::Error => tracing::error!(plugin, client, "{text}"),
    }
}

fn config(linker: &mut Linker<Guest>) -> Linked {
    interface(linker, "config")?.func_wrap("entries", |store: Store<'_>, ()| {
        Ok((store.data().plugin.settings.config.clone().into_iter().collect::<Vec<_>>(),))
    })
}

fn clock(linker: &mut Linker<Guest>) -> Linked {
    let started = Instant::now();
    let mut clock = interface(linker, "clock")?;
    clock.func_wrap("now", |_: Store<'_>, ()| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok((u64::try_from(now.as_millis()).unwrap_or(u64::MAX),))
    })?;
    clock.func_wrap("monotonic", move |_: Store<'_>, ()| {
        Ok((u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX),))
    })
}

fn state_reads(linker: &mut Linker<Guest>) -> Linked {
    let mut functions = interface(linker, "state")?;
    functions.func_wrap("get", |store: Store<'_>, (key,): (WasmStr,)| {
        let key = key.to_str(&store)?;
        Ok((state_of(&store).get(&key),))
    })?;
    functions.func_wrap(
        "scan",
        |store: Store<'_>, (prefix, after, limit): (WasmStr, Option<WasmStr>, u32)| {
            let prefix = prefix.to_str(&store)?;
            let after = after.as_ref().map(|after| after.to_str(&store)).transpose()?;
            let found = state_of(&store).scan(&prefix, after.as_deref(), limit as usize);
            Ok((found.into_iter().map(|(key, value)| (key.to_string(), value)).collect::<Vec<_>>(),))
        },
    )
}

fn state_writes(linker: &mut Linker<Guest>) -> Linked {
    let mut functions = interface(linker, "state")?;
    functions.func_wrap("set", |mut store: Store<'_>, (key, value): (WasmStr, WasmList<u8>)| {
        acts(&mut store);
        let (key, value) = (key.to_str(&store)?, value.as_le_slice(&store));
        Ok((state_of(&store).set(&key, value).map_err(lower),))
    })?;
    functions.func_wrap("delete", |mut store: Store<'_>, (key,): (WasmStr,)| {
        acts(&mut store);
        let deleted = state_of(&store).delete(&key.to_str(&store)?);
        if let Err(error) = &deleted {
            let reason = format!("state.delete: {error}");
            store.data_mut().fail(|| reason);
        }
        Ok((deleted.unwrap_or(false),))
    })?;
    functions.func_wrap(
        "swap",
        |mut store: Store<'_>,
         (key, expected, value): (WasmStr, Option<WasmList<u8>>, Option<WasmList<u8>>)| {
            acts(&mut store);
            let (expected, value) = (bytes(&store, expected.as_ref()), bytes(&store, value.as_ref()));
            let key = key.to_str(&store)?;
            Ok((state_of(&store).swap(&key, expected, value).map_err(lower),))
        },
    )?;
    functions.func_wrap("add", |mut store: Store<'_>, (key, amount, ttl): (WasmStr, i64, Option<u64>)| {
        acts(&mut store);
        Ok((state_of(&store).add(&key.to_str(&store)?, amount, ttl).map_err(lower),))
    })?;
    functions.func_wrap(
        "apply",
        |store: Store<'_>, (changes, expected): (WasmList<Lifted>, WasmList<Lifted>)| {
            if changes.len() > 256 || expected.len() > 256 {
                return Ok((Err(StateError::Other("apply takes at most 256 changes".into())),));
            }
            apply(store, &changes, &expected)
        },
    )
}

fn bytes<'a>(store: &'a Store<'_>, list: Option<&WasmList<u8>>) -> Option<&'a [u8]> {
    list.map(|list| list.as_le_slice(store))
}

type Applied = (Result<bool, StateError>,);

fn apply(
    mut store: Store<'_>,
    changes: &WasmList<Lifted>,
    expected: &WasmList<Lifted>,
) -> Result<Applied, wasmtime::Error> {
    acts(&mut store);
    let (changes, expected) = (lifted(&mut store, changes)?, lifted(&mut store, expected)?);
    let (changes, expected) = (cells(&store, &changes)?, cells(&store, &expected)?);
    Ok((state_of(&store).apply(&borrow(&changes), &borrow(&expected)).map_err(lower),))
}

fn lifted(store: &mut Store<'_>, list: &WasmList<Lifted>) -> Result<Vec<Lifted>, wasmtime::Error> {
    list.iter(&mut *store)?.collect()
}

/// A key and its value, where they lie in the guest's memory: a list may name the same bytes many times.
type There<'a> = (Cow<'a, str>, Option<&'a [u8]>);

fn cells<'a>(store: &'a Store<'_>, lifted: &'a [Lifted]) -> Result<Vec<There<'a>>, wasmtime::Error> {
    let there = lifted
        .iter()
        .map(|(key, value)| Ok((key.to_str(store)?, value.as_ref().map(|value| value.as_le_slice(store)))));
    there.collect()
}

fn borrow<'a>(cells: &'a [There<'_>]) -> Vec<Cell<'a>> {
    cells.iter().map(|(key, value)| Cell { key, value: *value }).collect()
}

/// The call at hand changes something that outlasts it.
fn acts(store: &mut Store<'_>) {
    store.data_mut().message.acted = true;
}

fn state_of<'a>(store: &'a Store<'_>) -> Seen<'a> {
    let guest = store.data();
    Seen { store: &guest.plugin.capabilities.state, imagined: guest.imagined.as_deref() }
}

fn lower(error: state::StateError) -> StateError {
    match error {
        state::StateError::Full(limit) => StateError::Full(limit),
        state::StateError::NotANumber => StateError::NotANumber,
        other => StateError::Other(other.to_string()),
    }
}
