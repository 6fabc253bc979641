//! JSON documents that say each thing once.
//!
//! RFC 8259 leaves it to a reader which of two equal keys counts, so two readers may read the same document
//! differently. Here it is a mistake, named by its place.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Why a text is not such a document.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Invalid(#[from] serde_json::Error);

/// Reads a document; its depth is bounded by `serde_json`, its length by who got it.
pub fn read(text: &[u8]) -> Result<Value, Invalid> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Once { place: Place::Root }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// Where a value stands.
#[derive(Clone, Copy)]
enum Place<'p> {
    Root,
    Key(&'p Place<'p>, &'p str),
    Element(&'p Place<'p>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Texts of others: so much of each is enough to find it.
        let cut = |key: &str| key.chars().take(64).collect::<String>();
        match self {
            Self::Root => Ok(()),
            Self::Key(Place::Root, key) => f.write_str(&cut(key)),
            Self::Key(parent, key) => write!(f, "{parent}.{}", cut(key)),
            Self::Element(parent, at) => write!(f, "{parent}[{at}]"),
        }
    }
}

struct Once<'p> {
    place: Place<'p>,
}

impl<'de> DeserializeSeed<'de> for Once<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Once<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) =
            elements.next_element_seed(Once { place: Place::Element(&self.place, list.len()) })?
        {
            list.push(value);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let place = Place::Key(&self.place, &key);
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("`{place}` is written twice")));
            }
            let value = entries.next_value_seed(Once { place })?;
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_twice_is_named() {
        for (text, place) in [
            (r#"{"a":1,"a":1}"#, "`a` is written twice"),
            (r#"{"servers":[{"uri":"x"},{"uri":"x","\u0075ri":"y"}]}"#, "`servers[1].uri` is written twice"),
            (r#"{"a":{"b":{"c":1,"c":2}}}"#, "`a.b.c` is written twice"),
            (r#"[[{"":1,"":2}]]"#, "`[0][0].` is written twice"),
        ] {
            let error = read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(place), "{error}");
        }
    }

    #[test]
    fn everything_else_is_as_usual() {
        for text in [
            r#"{"a":[1,-2,3.5,true,false,null,"é\n"],"b":{"a":{}},"":[]}"#,
            "18446744073709551615",
            "\"x\"",
            " [] ",
        ] {
            assert_eq!(
                read(text.as_bytes()).unwrap(),
                serde_json::from_str::<Value>(text).unwrap(),
                "{text}"
            );
        }
        for text in
            ["", "{", "{}x", "{} {}", "\"\u{0}\"", "nul", "[1,]", "\u{feff}{}", "01", &"[".repeat(100_000)]
        {
            assert!(read(text.as_bytes()).is_err(), "{text:.40}");
            assert!(serde_json::from_str::<Value>(text).is_err(), "{text:.40}");
        }
        assert!(read(b"\"\xff\"").is_err());
    }
}
