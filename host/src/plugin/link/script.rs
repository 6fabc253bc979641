//! What the script engine gets from the host (`plugins/script/wit/script.wit`): its script. Linked
//! for all, but whatever imports it and is not the engine is refused when it is loaded.

use wasmtime::{StoreContextMut, Trap, component::Linker};

use crate::plugin::{
    bounds::{Cut, REASON},
    guest::Guest,
};

type Store<'a> = StoreContextMut<'a, Guest>;

pub(super) fn link(linker: &mut Linker<Guest>) -> Result<(), wasmtime::Error> {
    let mut source = linker.instance("message-flow:script/source@0.1.0")?;
    source.func_wrap("name", |store: Store<'_>, ()| {
        let script = store.data().plugin.script.as_ref();
        Ok((script.map(|script| script.file.to_string()).unwrap_or_default(),))
    })?;
    source.func_wrap("text", |store: Store<'_>, ()| {
        let script = store.data().plugin.script.as_ref();
        Ok((script.map(|script| script.text.to_string()).unwrap_or_default(),))
    })?;
    source.func_wrap("deadline", |store: Store<'_>, ()| {
        let deadline = store.data().plugin.deadline.as_nanos();
        Ok((u64::try_from(deadline).unwrap_or(u64::MAX),))
    })?;
    // The script is where the deadline found it, which the trap by itself could not say.
    source.func_wrap("overrun", |mut store: Store<'_>, (place,): (Cut<REASON>,)| {
        store.data_mut().overrun = Some(place.0.into());
        Err::<(), _>(Trap::Interrupt.into())
    })
}
