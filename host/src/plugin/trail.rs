//! By way of which plugins a message came: requests that a plugin makes carry its mark, and those of
//! the plugins whose requests led to it.
//!
//! A plugin may ask a service through this very gateway. If it were shown its own request, it would
//! ask again, and so on until nothing is left to ask with. Its mark says so before. Marks stand in
//! `via` (RFC 9110, section 7.6.3); a message by way of another plugin is none of its own.

use http::{HeaderMap, HeaderValue, header::VIA};

use super::load::sha256;
use crate::fields::elements;

/// Before every mark. No pseudonym of a router begins with this.
const PREFIX: &str = "message-flow.plugin-";

/// A secret of this process: nobody else can make or foresee a mark.
#[derive(Clone, Copy)]
pub(super) struct Key(u128);

/// What tells the requests of one plugin of this process from all others; the same for all its builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark(HeaderValue);

/// The marks of a message at hand.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Trail(Vec<HeaderValue>);

impl Key {
    pub(super) fn random() -> Self {
        Self(rand::random())
    }
}

impl Mark {
    pub(super) fn new(Key(key): Key, plugin: &str) -> Self {
        let hash = sha256(format!("{key:032x}{plugin}").as_bytes());
        let text = format!("1.1 {PREFIX}{}", &hash[..16]);
        Self(HeaderValue::from_maybe_shared(text).expect("letters and digits are a header value"))
    }

    /// Whether a message came by way of this plugin.
    pub(super) fn is_on(&self, headers: &HeaderMap) -> bool {
        elements(headers, &VIA).any(|element| element == self.0.as_bytes())
    }

    /// Puts it on a request that the plugin makes, about a message with this trail.
    pub(super) fn put_on(&self, headers: &mut HeaderMap, trail: &Trail) {
        for mark in trail.0.iter().chain([&self.0]) {
            // A map that is full is none that can be sent.
            let _ = headers.try_append(VIA, mark.clone());
        }
    }
}

impl Trail {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let marks = elements(headers, &VIA).filter(|element| is_mark(element));
        Self(marks.filter_map(|mark| HeaderValue::from_bytes(mark).ok()).collect())
    }
}

fn is_mark(element: &[u8]) -> bool {
    element.strip_prefix(b"1.1 ").is_some_and(|name| name.starts_with(PREFIX.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_told_apart_and_passed_on() {
        let key = Key::random();
        let [geo, auth] = ["geo", "auth"].map(|name| Mark::new(key, name));
        assert_eq!(geo, Mark::new(key, "geo"));
        assert_ne!(geo, Mark::new(Key::random(), "geo"));
        let mut first = HeaderMap::new();
        first.insert(VIA, "1.1 message-flow-router, 1.0 fred".parse().unwrap());
        assert_eq!(Trail::of(&first), Trail::default());
        geo.put_on(&mut first, &Trail::default());
        assert!(geo.is_on(&first) && !auth.is_on(&first));
        let mut second = HeaderMap::new();
        auth.put_on(&mut second, &Trail::of(&first));
        assert!(geo.is_on(&second) && auth.is_on(&second));
        assert_eq!(second.get_all(VIA).iter().count(), 2);
        let joined =
            second.get_all(VIA).iter().map(|line| line.to_str().unwrap()).collect::<Vec<_>>().join(",");
        let mut one_line = HeaderMap::new();
        one_line.insert(VIA, joined.parse().unwrap());
        assert!(geo.is_on(&one_line) && auth.is_on(&one_line));
    }
}
