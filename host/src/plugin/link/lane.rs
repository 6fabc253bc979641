//! One definition of a host function for each way in which guests call it: through the component
//! model, or [directly](crate::plugin::direct).

use std::{borrow::Cow, sync::Arc};

use http::HeaderValue;
use wasmtime::{
    Caller, Error, StoreContextMut, WasmRet,
    component::{ComponentNamedList, Lift, Linker, Lower},
};

use crate::plugin::{
    bounds::{Cut, REASON, TooLong, VALUE, Whole},
    candidates::Pair,
    direct::{self, Pen, View},
    guest::Guest,
    types::{Level, ServiceId},
};

pub(super) type Linked = Result<(), Error>;

/// Where host functions are defined.
pub(super) trait Lane {
    /// Defines a function of one of our interfaces.
    fn define<P: Param<Lifted: ComponentNamedList>, R: Returned>(
        &mut self,
        interface: &'static str,
        function: &'static str,
        f: impl Fn(&mut Guest, P::Given<'_>) -> R + Copy + Send + Sync + 'static,
    ) -> Linked;
}

/// For components.
impl Lane for Linker<Guest> {
    fn define<P: Param<Lifted: ComponentNamedList>, R: Returned>(
        &mut self,
        interface: &'static str,
        function: &'static str,
        f: impl Fn(&mut Guest, P::Given<'_>) -> R + Copy + Send + Sync + 'static,
    ) -> Linked {
        super::interface(self, interface)?.func_wrap(
            function,
            move |mut store: StoreContextMut<'_, Guest>, lifted: P::Lifted| {
                let guest = store.data_mut();
                let result = match P::given(&lifted) {
                    Ok(given) => f(guest, given),
                    Err(too_long) => refused(guest, function, too_long),
                };
                Ok(result.lowered())
            },
        )
    }
}

/// For core modules.
impl Lane for direct::Host {
    fn define<P: Param<Lifted: ComponentNamedList>, R: Returned>(
        &mut self,
        interface: &'static str,
        function: &'static str,
        f: impl Fn(&mut Guest, P::Given<'_>) -> R + Copy + Send + Sync + 'static,
    ) -> Linked {
        let module = super::full_name(interface);
        let linker = &mut self.linker;
        macro_rules! define {
            ($($flat:ident)*) => {
                linker.func_wrap(&module, function, move |mut caller: Caller<'_, Guest>, $($flat: u32),*| {
                    called::<P, R>(&mut caller, function, f, &[$($flat),*])
                })
            };
        }
        match P::FLAT + usize::from(R::WRITTEN) {
            0 => define!()?,
            1 => define!(a)?,
            2 => define!(a b)?,
            3 => define!(a b c)?,
            4 => define!(a b c d)?,
            more => unreachable!("{interface}.{function} has {more} flat parameters"),
        };
        self.functions.insert((module, function.to_owned()));
        Ok(())
    }
}

/// Calls a host function with what a guest gave, and gives it what came of it.
#[inline]
fn called<P: Param, R: Returned>(
    caller: &mut Caller<'_, Guest>,
    function: &'static str,
    f: impl Fn(&mut Guest, P::Given<'_>) -> R,
    flat: &[u32],
) -> Result<R::Flat, Error> {
    let memory = caller.data().access()?.memory;
    let (bytes, guest) = memory.data_and_store_mut(&mut *caller);
    let result = match P::read(flat, bytes) {
        Ok(given) => f(guest, given),
        Err(error) => refused(guest, function, error.downcast()?),
    };
    let place = flat.get(P::FLAT).copied().unwrap_or_default();
    result.give(Pen { caller, memory }, place)
}

/// A text that is too long for this function fails the call once it returns, and changes nothing.
#[cold]
fn refused<R: Returned>(guest: &mut Guest, function: &str, too_long: TooLong) -> R {
    guest.fail(|| format!("{function}: {too_long}"));
    R::nothing()
}

/// What a host function takes: one parameter, or all of them as a tuple.
pub(super) trait Param: 'static {
    /// As the host function sees it.
    type Given<'a>;
    /// As a component gives it.
    type Lifted: Lift + Send + Sync + 'static;
    /// As so many numbers a core module gives it.
    const FLAT: usize;

    fn given(lifted: &Self::Lifted) -> Result<Self::Given<'_>, TooLong>;

    /// Out of these numbers, and the memory into which some of them point. An error is a [`TooLong`], or
    /// ends the guest.
    fn read<'a>(flat: &[u32], memory: &'a [u8]) -> Result<Self::Given<'a>, Error>;
}

/// A `string` of at most so many bytes.
pub(super) struct Str<const MOST: usize>;

impl<const MOST: usize> Param for Str<MOST> {
    type Given<'a> = &'a str;
    type Lifted = Whole<MOST>;
    const FLAT: usize = 2;

    fn given(lifted: &Whole<MOST>) -> Result<&str, TooLong> {
        lifted.0.as_deref().map_err(|too_long| *too_long)
    }

    #[inline]
    fn read<'a>(flat: &[u32], memory: &'a [u8]) -> Result<&'a str, Error> {
        direct::text(memory, flat[0], flat[1], MOST)
    }
}

/// A `string` for people, of which only the beginning counts.
pub(super) struct Line;

impl Param for Line {
    type Given<'a> = &'a str;
    type Lifted = Cut<REASON>;
    const FLAT: usize = 2;

    fn given(lifted: &Cut<REASON>) -> Result<&str, TooLong> {
        Ok(&lifted.0)
    }

    fn read<'a>(flat: &[u32], memory: &'a [u8]) -> Result<&'a str, Error> {
        direct::start_of_text(memory, flat[0], flat[1], REASON)
    }
}

/// A `list<tuple<string, string>>`; none if it is longer than [`PAIRS`].
pub(super) struct Pairs;

/// The most pairs that are taken.
pub(super) const PAIRS: usize = 8;

impl Param for Pairs {
    type Given<'a> = Option<Vec<Pair<'a>>>;
    type Lifted = Vec<(Whole<VALUE>, Whole<VALUE>)>;
    const FLAT: usize = 2;

    fn given(lifted: &Self::Lifted) -> Result<Self::Given<'_>, TooLong> {
        if lifted.len() > PAIRS {
            return Ok(None);
        }
        let text = Str::<VALUE>::given;
        let pairs = lifted.iter().map(|(key, value)| Ok((text(key)?, text(value)?)));
        pairs.collect::<Result<_, TooLong>>().map(Some)
    }

    fn read<'a>(flat: &[u32], memory: &'a [u8]) -> Result<Self::Given<'a>, Error> {
        if flat[1] as usize > PAIRS {
            return Ok(None);
        }
        let first = View { memory, at: flat[0] };
        let pair = |number| {
            let key = first.after(16 * number)?;
            Ok((key.text(VALUE)?, key.after(8)?.text(VALUE)?))
        };
        (0..flat[1]).map(pair).collect::<Result<_, Error>>().map(Some)
    }
}

/// What one number says.
pub(super) trait Number: Lift + Copy + Send + Sync + 'static {
    fn of(flat: u32) -> Result<Self, Error>;
}

impl<N: Number> Param for N {
    type Given<'a> = N;
    type Lifted = N;
    const FLAT: usize = 1;

    fn given(lifted: &N) -> Result<N, TooLong> {
        Ok(*lifted)
    }

    fn read(flat: &[u32], _: &[u8]) -> Result<N, Error> {
        N::of(flat[0])
    }
}

impl Number for u16 {
    fn of(flat: u32) -> Result<Self, Error> {
        // Only its lower bits count.
        Ok(flat as Self)
    }
}

impl Number for Level {
    fn of(flat: u32) -> Result<Self, Error> {
        const LEVELS: [Level; 5] = [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error];
        LEVELS.get(flat as usize).copied().ok_or_else(|| Error::msg("there is no such level of a log"))
    }
}

macro_rules! params {
    ($($param:ident)*) => {
        #[allow(unused, non_snake_case, clippy::unused_unit, reason = "also for none of them")]
        impl<$($param: Param),*> Param for ($($param,)*) {
            type Given<'a> = ($($param::Given<'a>,)*);
            type Lifted = ($($param::Lifted,)*);
            const FLAT: usize = 0 $(+ $param::FLAT)*;

            fn given(lifted: &Self::Lifted) -> Result<Self::Given<'_>, TooLong> {
                let ($($param,)*) = lifted;
                Ok(($($param::given($param)?,)*))
            }

            #[inline]
            fn read<'a>(flat: &[u32], memory: &'a [u8]) -> Result<Self::Given<'a>, Error> {
                let mut from = 0;
                Ok(($({
                    let read = $param::read(&flat[from..], memory)?;
                    from += $param::FLAT;
                    read
                },)*))
            }
        }
    };
}

params!();
params!(A);
params!(A B);

/// What a host function returns.
pub(super) trait Returned: Sized + 'static {
    /// To a component.
    type Lowered: ComponentNamedList + Lower + Send + Sync + 'static;
    /// To a core module.
    type Flat: WasmRet;
    /// Whether it is written where the caller says, as everything is that is more than a number.
    const WRITTEN: bool;

    /// What there is in place of a result after a call that failed.
    fn nothing() -> Self;

    fn lowered(self) -> Self::Lowered;

    /// Writes it at a place in the guest's memory, if it is written; else this is it.
    fn give(self, pen: Pen<'_, '_>, place: u32) -> Result<Self::Flat, Error>;
}

/// A text for a guest, wherever it lies.
pub(super) enum Text {
    /// A header's, which is UTF-8.
    Value(HeaderValue),
    Shared(Arc<str>),
    Owned(String),
}

impl Text {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Value(value) => value.as_bytes(),
            Self::Shared(text) => text.as_bytes(),
            Self::Owned(text) => text.as_bytes(),
        }
    }

    fn into_string(self) -> String {
        match self {
            Self::Owned(text) => text,
            other => String::from_utf8_lossy(other.as_bytes()).into_owned(),
        }
    }
}

impl From<&HeaderValue> for Text {
    fn from(value: &HeaderValue) -> Self {
        match String::from_utf8_lossy(value.as_bytes()) {
            Cow::Borrowed(_) => Self::Value(value.clone()),
            Cow::Owned(replaced) => Self::Owned(replaced),
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::Owned(text.to_owned())
    }
}

impl Returned for () {
    type Lowered = ();
    type Flat = ();
    const WRITTEN: bool = false;

    fn nothing() -> Self {}

    fn lowered(self) {}

    fn give(self, _: Pen<'_, '_>, _: u32) -> Result<(), Error> {
        Ok(())
    }
}

impl Returned for u16 {
    type Lowered = (Self,);
    type Flat = u32;
    const WRITTEN: bool = false;

    fn nothing() -> Self {
        0
    }

    fn lowered(self) -> (Self,) {
        (self,)
    }

    fn give(self, _: Pen<'_, '_>, _: u32) -> Result<u32, Error> {
        Ok(self.into())
    }
}

impl Returned for Text {
    type Lowered = (String,);
    type Flat = ();
    const WRITTEN: bool = true;

    fn nothing() -> Self {
        Self::Owned(String::new())
    }

    fn lowered(self) -> (String,) {
        (self.into_string(),)
    }

    fn give(self, mut pen: Pen<'_, '_>, place: u32) -> Result<(), Error> {
        let text = pen.text(self.as_bytes())?;
        pen.put_numbers(place, &text)
    }
}

impl Returned for Option<Text> {
    type Lowered = (Option<String>,);
    type Flat = ();
    const WRITTEN: bool = true;

    fn nothing() -> Self {
        None
    }

    fn lowered(self) -> (Option<String>,) {
        (self.map(Text::into_string),)
    }

    #[inline]
    fn give(self, mut pen: Pen<'_, '_>, place: u32) -> Result<(), Error> {
        let written = written(&mut pen, self)?;
        pen.put_numbers(place, &written)
    }
}

/// An option as it lies in memory: whether it is there, and what it is then.
fn written(pen: &mut Pen<'_, '_>, option: Option<Text>) -> Result<[u32; 3], Error> {
    let Some(text) = option else { return Ok([0; 3]) };
    let [at, length] = pen.text(text.as_bytes())?;
    Ok([1, at, length])
}

impl Returned for Vec<Text> {
    type Lowered = (Vec<String>,);
    type Flat = ();
    const WRITTEN: bool = true;

    fn nothing() -> Self {
        Self::new()
    }

    fn lowered(self) -> (Vec<String>,) {
        (self.into_iter().map(Text::into_string).collect(),)
    }

    fn give(self, mut pen: Pen<'_, '_>, place: u32) -> Result<(), Error> {
        const EACH: u32 = 8;
        let length = u32::try_from(self.len())?;
        let list = pen.room(length.saturating_mul(EACH), 4)?;
        let texts: Vec<_> = self.iter().map(|text| pen.text(text.as_bytes())).collect::<Result<_, _>>()?;
        pen.put_numbers(list, texts.as_flattened())?;
        pen.put_numbers(place, &[list, length])
    }
}

impl Returned for ServiceId {
    type Lowered = (Self,);
    type Flat = ();
    const WRITTEN: bool = true;

    fn nothing() -> Self {
        Self { name: String::new(), version: None }
    }

    fn lowered(self) -> (Self,) {
        (self,)
    }

    fn give(self, mut pen: Pen<'_, '_>, place: u32) -> Result<(), Error> {
        let [name, length] = pen.text(self.name.as_bytes())?;
        let [is, version, digits] = written(&mut pen, self.version.map(Text::Owned))?;
        pen.put_numbers(place, &[name, length, is, version, digits])
    }
}
