//! How much is taken of what a guest says.
//!
//! A guest's memory is bounded, but a text in it may be passed to the host again and again, and a list may
//! name the same bytes many times over. So the length of a text is looked at before the text is: what is
//! longer than its kind may be is the guest's error ([`Whole`]), or cut where it is for people
//! ([`Cut`]). Nothing longer is copied, parsed, escaped or logged.

#![allow(unsafe_code, reason = "a type of the component model is an unsafe impl, here of a string's parts")]

use wasmtime::{
    Error, ValRaw,
    component::{
        __internal::{
            CanonicalAbiInfo, InstanceType, InterfaceType, LiftContext,
            wasmtime_environ::component::StringEncoding,
        },
        ComponentType, Lift,
    },
};

use super::Settings;
use crate::text::cut;

/// The most bytes of a name: of a header, of an attribute.
pub(super) const NAME: usize = 256;
/// The most bytes of a value: of a header or a path, of a server that a registrar chooses, of a key.
pub(super) const VALUE: usize = 64 << 10;
/// The most bytes of what is for people: reasons, errors, lines of the log.
pub(super) const REASON: usize = 4 << 10;
/// The most lines of headers that a message has for a guest to add another.
pub(super) const HEADERS: usize = 1000;
/// The most that a guest may write into heads and attributes in one call, in bytes.
pub(super) const WRITTEN: usize = 256 << 10;
/// The most changes of a message in one call.
pub(super) const CHANGES: u32 = 4096;
/// The most that is kept of what a guest writes to standard output and error in one call, in bytes.
pub(super) const OUTPUT: usize = 256 << 10;

/// A text of a guest is longer than its kind may be.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("a text of {bytes} bytes, where there may be {most}")]
pub(super) struct TooLong {
    bytes: usize,
    most: usize,
}

impl TooLong {
    /// Whether so many bytes are not too many.
    pub(super) fn check(bytes: usize, most: usize) -> Result<(), Self> {
        if bytes <= most { Ok(()) } else { Err(Self { bytes, most }) }
    }
}

/// The most bytes that a guest may pass to the host in one call of it, or give as an answer. A routing
/// table is given as one.
pub(super) fn passed(settings: &Settings, is_table: bool) -> usize {
    const MORE: u64 = 2 << 20;
    const MOST: u64 = 128 << 20;
    let largest = settings.state_limit.max(settings.body);
    if is_table { MOST as usize } else { largest.saturating_add(MORE).min(MOST) as usize }
}

/// A text of a guest that is taken if it is not longer than this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whole<const MOST: usize>(pub(super) Result<String, TooLong>);

/// A text of a guest of which no more than this is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut<const MOST: usize>(pub(super) String);

impl<const MOST: usize> From<String> for Cut<MOST> {
    fn from(mut text: String) -> Self {
        text.truncate(cut(&text, MOST).len());
        Self(text)
    }
}

/// A text as a guest's memory has it: read as far as it goes.
pub(super) trait Bounded: Sized {
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error>;
    fn from_text(text: String) -> Self;
}

impl<const MOST: usize> Bounded for Whole<MOST> {
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        match TooLong::check(bytes.len(), MOST) {
            Ok(()) => Ok(Self(Ok(utf8(bytes)?.to_owned()))),
            Err(too_long) => Ok(Self(Err(too_long))),
        }
    }

    fn from_text(text: String) -> Self {
        Self(TooLong::check(text.len(), MOST).map(|()| text))
    }
}

impl<const MOST: usize> Bounded for Cut<MOST> {
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        start(bytes, MOST).map(|text| Self(text.to_owned()))
    }

    fn from_text(text: String) -> Self {
        text.into()
    }
}

/// The beginning of a text, at most so many bytes.
#[inline]
pub(super) fn start(bytes: &[u8], most: usize) -> Result<&str, Error> {
    let Some(first) = bytes.get(..most).filter(|first| first.len() < bytes.len()) else { return utf8(bytes) };
    match str::from_utf8(first) {
        Ok(text) => Ok(text),
        // The last character is cut through.
        Err(error) if error.error_len().is_none() => utf8(&first[..error.valid_up_to()]),
        Err(_) => utf8(first),
    }
}

#[inline]
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, Error> {
    str::from_utf8(bytes).map_err(|_| Error::msg("a text of it is not UTF-8"))
}

type Pair = [ValRaw; 2];

/// A string's place and length, as the canonical ABI has them.
fn bytes<'c>(cx: &'c LiftContext<'_>, at: u32, length: u32) -> Result<&'c [u8], Error> {
    let bytes = cx.memory().get(at as usize..).and_then(|memory| memory.get(..length as usize));
    bytes.ok_or_else(|| Error::msg("string pointer/length out of bounds of memory"))
}

fn is_utf8(cx: &LiftContext<'_>) -> bool {
    cx.options().string_encoding == StringEncoding::Utf8
}

macro_rules! lifted {
    ($type:ident) => {
        // SAFETY: it is a string's in all that is said here, and read as one: its pair of numbers is checked
        // against the memory before what they point to is looked at.
        unsafe impl<const MOST: usize> ComponentType for $type<MOST> {
            type Lower = Pair;
            const ABI: CanonicalAbiInfo = CanonicalAbiInfo::POINTER_PAIR;

            fn typecheck(ty: &InterfaceType, types: &InstanceType<'_>) -> Result<(), Error> {
                <String as ComponentType>::typecheck(ty, types)
            }
        }

        // SAFETY: as above.
        unsafe impl<const MOST: usize> Lift for $type<MOST> {
            #[inline]
            fn linear_lift_from_flat(
                cx: &mut LiftContext<'_>,
                ty: InterfaceType,
                src: &Pair,
            ) -> Result<Self, Error> {
                if !is_utf8(cx) {
                    return String::linear_lift_from_flat(cx, ty, src).map(Self::from_text);
                }
                Self::from_bytes(bytes(cx, src[0].get_u32(), src[1].get_u32())?)
            }

            #[inline]
            fn linear_lift_from_memory(
                cx: &mut LiftContext<'_>,
                ty: InterfaceType,
                src: &[u8],
            ) -> Result<Self, Error> {
                if !is_utf8(cx) {
                    return String::linear_lift_from_memory(cx, ty, src).map(Self::from_text);
                }
                let number = |at: usize| {
                    let bytes = src.get(at..).and_then(<[u8]>::first_chunk).copied();
                    bytes.map(u32::from_le_bytes).ok_or_else(|| Error::msg("a string has two numbers"))
                };
                Self::from_bytes(bytes(cx, number(0)?, number(4)?)?)
            }
        }
    };
}

lifted!(Whole);
lifted!(Cut);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_not_looked_at() {
        assert_eq!(Whole::<4>::from_bytes(b"name").unwrap(), Whole(Ok("name".into())));
        // Not UTF-8, and nobody looks.
        let long = Whole::<4>::from_bytes(&[0xff; 5]).unwrap();
        assert_eq!(long.0.unwrap_err().to_string(), "a text of 5 bytes, where there may be 4");
        assert!(Whole::<4>::from_bytes(&[0xff; 4]).is_err());
        assert_eq!(Whole::<4>::from_text("names".into()).0, TooLong::check(5, 4).map(|()| String::new()));
    }

    #[test]
    fn what_is_for_people_is_cut_between_characters() {
        for (text, kept) in [("abcd", "abcd"), ("abcde", "abcd"), ("abcü", "abc"), ("🙂🙂", "🙂"), ("ü", "ü")]
        {
            assert_eq!(Cut::<4>::from_bytes(text.as_bytes()).unwrap().0, kept);
            assert_eq!(Cut::<4>::from(text.to_owned()).0, kept);
        }
        assert!(Cut::<4>::from_bytes(b"a\xffbcdef").is_err());
    }

    #[test]
    fn as_much_may_be_passed_as_a_limit_allows_to_keep() {
        let settings = |state_limit, body| Settings { state_limit, body, ..Settings::default() };
        assert_eq!(passed(&settings(0, 0), false), 2 << 20);
        assert_eq!(passed(&settings(16 << 20, 1 << 20), false), 18 << 20);
        assert_eq!(passed(&settings(1 << 40, 0), false), 128 << 20);
        assert_eq!(passed(&settings(0, 0), true), 128 << 20);
    }
}
