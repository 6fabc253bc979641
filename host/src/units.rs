//! Durations, sizes and networks as people write them: `30m`, `250ms`, `64MiB`, `10.0.0.0/8`. A leaf that every
//! module may use, so that the configuration, the API and the records read them alike.

mod network;

use std::{fmt, str::FromStr, time::Duration};

pub use network::{Cidr, InvalidCidr};

/// A duration as text: a whole number and one of `ms`, `s`, `m`, `h`, `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A size as text: a whole number of bytes, or of `KiB`, `MiB`, `GiB` (or `B`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Why a text is not a [`Span`] or a [`Size`].
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidUnit {
    /// Not a duration.
    #[error("`{0}` is not a duration: write a whole number and ms, s, m, h or d, such as `30m`")]
    Span(String),
    /// Not a size.
    #[error("`{0}` is not a size: write a whole number and B, KiB, MiB or GiB, such as `64MiB`")]
    Size(String),
}

const SPANS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl FromStr for Span {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let millis = parse(text, &SPANS).ok_or_else(|| InvalidUnit::Span(text.to_owned()))?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl FromStr for Size {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let bytes = parse(text, &SIZES).or_else(|| text.parse().ok().filter(|_| digits));
        Ok(Self(bytes.ok_or_else(|| InvalidUnit::Size(text.to_owned()))?))
    }
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        write(f, millis, &SPANS, "ms")
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.0, &SIZES, "B")
    }
}

fn write(f: &mut fmt::Formatter<'_>, amount: u64, units: &[(&str, u64)], smallest: &str) -> fmt::Result {
    let whole = units.iter().find(|(_, factor)| amount >= *factor && amount.is_multiple_of(*factor));
    let (unit, factor) = whole.copied().unwrap_or((smallest, 1));
    write!(f, "{}{unit}", amount / factor)
}

/// A moment, in milliseconds since the Unix epoch, as RFC 3339 writes it: `2026-01-31T12:00:00.000Z`.
pub fn utc(millis: u64) -> String {
    let (days, rest) = (millis / 86_400_000, millis % 86_400_000);
    let (hour, minute, second, milli) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60, rest % 1000);
    // Howard Hinnant's `civil_from_days`: years begin in March, so that leap days come last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

macro_rules! as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use as_text;

as_text!(Span);
as_text!(Size);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_and_print_alike() {
        for (text, millis) in [("30m", 1_800_000), ("250ms", 250), ("2h", 7_200_000), ("0s", 0)] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(millis))), "{text}");
        }
        for text in ["", "30", "m", "1.5s", "-1s", "30 m", "99999999999999999999d", "1w"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        assert_eq!(Span(Duration::from_secs(90)).to_string(), "90s");
    }

    #[test]
    fn moments_are_written_in_utc() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(millis), text);
        }
    }

    #[test]
    fn sizes_read_and_print_alike() {
        for (text, bytes) in [("64MiB", 64 << 20), ("10", 10), ("10B", 10), ("1GiB", 1 << 30)] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "MiB", "1MB", "1.5KiB", "99999999999999GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        assert_eq!(Size(65_536).to_string(), "64KiB");
    }
}
