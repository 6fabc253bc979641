//! Guests that are called without the component model in between.
//!
//! Between a host and a component stand a table of handles, a check of who may call whom and a search
//! for the core function behind every call. A guest that exchanges a few texts needs none of it, and
//! every message would pay for it, several times over. A core module was written against the canonical
//! ABI itself: so where all that it imports is known to [`super::link::direct`] and all that it exports
//! is decisions, its functions are called as they are, and what they return is read out of its memory.
//! That it keeps to the types is checked by making it a component, before it is compiled. Its memory is
//! its own: nothing in it is believed.

use std::collections::BTreeSet;

use wasmparser::Encoding;
use wasmtime::{Caller, Error, Instance, InstancePre, Linker, Memory, Store, TypedFunc};

use super::{
    Kind,
    bare::Names,
    bounds::{Bounded, TooLong, start, utf8},
    component::{Shape, encoding},
    guest::Guest,
    types::{Decision, Rejection, Said, Verdict},
};

/// What such guests may import.
pub(super) struct Host {
    pub(super) linker: Linker<Guest>,
    /// By interface and function.
    pub(super) functions: BTreeSet<(String, String)>,
}

impl Host {
    /// What a file is, if it is a core module that can be called directly: it imports nothing else,
    /// decides, and does nothing before it is asked to.
    pub(super) fn shape(&self, file: &[u8]) -> Option<Shape> {
        if encoding(file).ok()? != Encoding::Module {
            return None;
        }
        let names = Names::of(file).ok()?;
        if names.starts || names.other_encoding || !names.functions.is_subset(&self.functions) {
            return None;
        }
        let all = |names: BTreeSet<String>| names.into_iter().collect();
        let shape = Shape::new(all(names.imports), all(names.exports)).ok()?;
        let decides = |kind| matches!(kind, &Kind::Registrar | &Kind::RequestFilter | &Kind::ResponseFilter);
        shape.kinds.iter().all(decides).then_some(shape)
    }
}

/// The old place, its size, the alignment and the new size.
type Realloc = TypedFunc<(u32, u32, u32, u32), u32>;

/// What is needed of a guest to read its texts and hand it others.
pub(super) struct Access {
    pub(super) memory: Memory,
    /// Gives some of its memory. Not here while it does.
    realloc: Option<Realloc>,
}

/// Finds the functions of an instance by interface and name.
pub(super) struct Lookup<'a> {
    store: &'a mut Store<Guest>,
    exports: Instance,
    shape: &'a Shape,
}

impl<'a> Lookup<'a> {
    /// Makes an instance, and has it make itself ready.
    pub(super) fn new(
        build: &InstancePre<Guest>,
        store: &'a mut Store<Guest>,
        shape: &'a Shape,
    ) -> Result<Self, Error> {
        let exports = build.instantiate(&mut *store)?;
        let memory = exports.get_memory(&mut *store, "memory");
        let memory = memory.ok_or_else(|| Error::msg("it exports no `memory`"))?;
        let realloc = exports.get_typed_func(&mut *store, "cabi_realloc").ok();
        store.data_mut().access = Some(Access { memory, realloc });
        if let Ok(initialize) = exports.get_typed_func::<(), ()>(&mut *store, "_initialize") {
            initialize.call(&mut *store, ())?;
        }
        Ok(Self { store, exports, shape })
    }

    /// None if the interface is not exported.
    pub(super) fn function<R: Answer>(
        &mut self,
        interface: &str,
        function: &str,
    ) -> Result<Option<Function<R>>, Error> {
        let Some(interface) = self.shape.export(interface) else { return Ok(None) };
        let name = format!("{interface}#{function}");
        let call = self.exports.get_typed_func(&mut *self.store, &name)?;
        let free = self.exports.get_typed_func(&mut *self.store, &format!("cabi_post_{name}")).ok();
        Ok(Some(Function { call, free, read: R::read }))
    }
}

/// A function that takes nothing and returns where its answer is.
pub(super) struct Function<R> {
    call: TypedFunc<(), u32>,
    /// Takes back what the answer took.
    free: Option<TypedFunc<u32, ()>>,
    read: fn(View<'_>) -> Result<R, Error>,
}

impl<R> Function<R> {
    #[inline]
    pub(super) fn call(&self, store: &mut Store<Guest>) -> Result<R, Error> {
        let at = self.call.call(&mut *store, ())?;
        let memory = store.data().access()?.memory;
        let answer = (self.read)(View { memory: memory.data(&*store), at })?;
        if let Some(free) = &self.free {
            free.call(store, at)?;
        }
        Ok(answer)
    }
}

impl Guest {
    pub(super) fn access(&self) -> Result<&Access, Error> {
        self.access.as_ref().ok_or_else(|| Error::msg("it calls the host before it is ready"))
    }
}

/// A place in a guest's memory.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) memory: &'a [u8],
    pub(super) at: u32,
}

impl<'a> View<'a> {
    /// So many bytes further on.
    pub(super) fn after(self, bytes: u32) -> Result<Self, Error> {
        let at = self.at.checked_add(bytes).ok_or_else(out_of_bounds)?;
        Ok(Self { at, ..self })
    }

    fn bytes<const N: usize>(self) -> Result<[u8; N], Error> {
        let bytes = self.memory.get(self.at as usize..).and_then(<[u8]>::first_chunk);
        bytes.copied().ok_or_else(out_of_bounds)
    }

    fn number(self) -> Result<u32, Error> {
        self.bytes().map(u32::from_le_bytes)
    }

    /// Which case of a variant it is.
    fn case(self) -> Result<u8, Error> {
        self.bytes().map(u8::from_le_bytes)
    }

    /// The text whose place and length are here, if it has at most so many bytes.
    pub(super) fn text(self, most: usize) -> Result<&'a str, Error> {
        text(self.memory, self.number()?, self.after(4)?.number()?, most)
    }

    /// The same, taken as far as its kind goes.
    fn bounded<T: Bounded>(self) -> Result<T, Error> {
        T::from_bytes(bytes(self.memory, self.number()?, self.after(4)?.number()?)?)
    }

    fn rejection(self) -> Result<Rejection, Error> {
        let status = self.bytes().map(u16::from_le_bytes)?;
        Ok(Rejection { status, reason: self.after(4)?.bounded()? })
    }
}

/// A text in a guest's memory, if it has at most so many bytes; else a [`TooLong`].
#[inline]
pub(super) fn text(memory: &[u8], at: u32, length: u32, most: usize) -> Result<&str, Error> {
    TooLong::check(length as usize, most)?;
    utf8(bytes(memory, at, length)?)
}

/// The beginning of a text in a guest's memory.
pub(super) fn start_of_text(memory: &[u8], at: u32, length: u32, most: usize) -> Result<&str, Error> {
    start(bytes(memory, at, length)?, most)
}

#[inline]
fn bytes(memory: &[u8], at: u32, length: u32) -> Result<&[u8], Error> {
    let bytes = memory.get(at as usize..).and_then(|memory| memory.get(..length as usize));
    bytes.ok_or_else(out_of_bounds)
}

#[cold]
fn out_of_bounds() -> Error {
    Error::msg("it points to what is not in its memory")
}

/// Writes texts into a guest's memory.
pub(super) struct Pen<'a, 'c> {
    pub(super) caller: &'a mut Caller<'c, Guest>,
    pub(super) memory: Memory,
}

impl Pen<'_, '_> {
    /// Puts a text where the guest says; its place and length.
    pub(super) fn text(&mut self, text: &[u8]) -> Result<[u32; 2], Error> {
        let length = u32::try_from(text.len())?;
        let at = self.room(length, 1)?;
        self.put(at, text)?;
        Ok([at, length])
    }

    /// So many bytes of the guest's memory, at a multiple of `alignment`.
    pub(super) fn room(&mut self, bytes: u32, alignment: u32) -> Result<u32, Error> {
        let access = self.caller.data_mut().access.as_mut();
        let realloc = access.and_then(|access| access.realloc.take());
        let realloc =
            realloc.ok_or_else(|| Error::msg("it has no `cabi_realloc`, or asks for texts in it"))?;
        let at = realloc.call(&mut *self.caller, (0, 0, alignment, bytes))?;
        if let Some(access) = &mut self.caller.data_mut().access {
            access.realloc = Some(realloc);
        }
        Ok(at)
    }

    /// Writes at a place.
    pub(super) fn put(&mut self, at: u32, bytes: &[u8]) -> Result<(), Error> {
        self.place(at, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// Writes numbers, one after the other.
    pub(super) fn put_numbers(&mut self, at: u32, numbers: &[u32]) -> Result<(), Error> {
        let place = self.place(at, size_of_val(numbers))?;
        for (place, number) in place.chunks_exact_mut(size_of::<u32>()).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        Ok(())
    }

    fn place(&mut self, at: u32, bytes: usize) -> Result<&mut [u8], Error> {
        let memory = self.memory.data_mut(&mut *self.caller);
        let place = memory.get_mut(at as usize..).and_then(|memory| memory.get_mut(..bytes));
        place.ok_or_else(out_of_bounds)
    }
}

/// What a guest decides, as it lies in its memory.
pub(super) trait Answer: Sized {
    fn read(view: View<'_>) -> Result<Self, Error>;
}

/// A result whose two cases begin at a multiple of four, as everything does that has a text in it.
fn result<T>(view: View<'_>, read: fn(View<'_>) -> Result<T, Error>) -> Result<(Result<T, Said>,), Error> {
    let inside = view.after(4)?;
    match view.case()? {
        0 => Ok((Ok(read(inside)?),)),
        1 => Ok((Err(inside.bounded()?),)),
        case => Err(no_such_case(case)),
    }
}

#[cold]
fn no_such_case(case: u8) -> Error {
    Error::msg(format!("it answered with case {case}, which there is not"))
}

impl Answer for (Result<Decision, Said>,) {
    fn read(view: View<'_>) -> Result<Self, Error> {
        result(view, |view| match (view.case()?, view.after(4)?) {
            (0, inside) => inside.bounded().map(Decision::Server),
            (1, _) => Ok(Decision::Pass),
            (2, inside) => inside.rejection().map(Decision::Reject),
            (3, inside) => inside.bounded().map(Decision::Other),
            (case, _) => Err(no_such_case(case)),
        })
    }
}

impl Answer for (Result<Verdict, Said>,) {
    fn read(view: View<'_>) -> Result<Self, Error> {
        result(view, |view| match (view.case()?, view.after(4)?) {
            (0, _) => Ok(Verdict::Forward),
            (1, inside) => inside.rejection().map(Verdict::Respond),
            (2, inside) => inside.bounded().map(Verdict::Other),
            (case, _) => Err(no_such_case(case)),
        })
    }
}

impl Answer for (Result<(), Said>,) {
    fn read(view: View<'_>) -> Result<Self, Error> {
        result(view, |_| Ok(()))
    }
}
