//! By way of which plugins a message came: requests that a plugin makes carry its mark, and those of
//! the plugins whose requests led to it.
//!
//! A plugin may ask a service through this very gateway. If it were shown its own request, it would
//! ask again, and so on until nothing is left to ask with. Its mark says so before. Marks stand in
//! `via` (RFC 9110, section 7.6.3); a message by way of another plugin is none of its own.
//!
//! A request that goes to the proxy of this router shows a pass besides, so that it reaches services
//! that are not public. Marks go on to servers, who could repeat them; the pass does not.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use http::{HeaderMap, HeaderValue, header::VIA};

use super::{load::sha256, message::PASS};
use crate::{fields::elements, own::Own};

/// Before every mark. No pseudonym of a router begins with this.
const PREFIX: &str = "message-flow.plugin-";

/// A secret of this process: nobody else can make or foresee a mark or the pass.
#[derive(Clone)]
pub(super) struct Key {
    secret: u128,
    home: Arc<OnceLock<Own>>,
}

/// What tells the requests of one plugin of this process from all others; the same for all its builds.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    via: HeaderValue,
    pass: HeaderValue,
    /// Where the proxy of this router listens, once it does.
    home: Arc<OnceLock<Own>>,
}

/// The marks of a message at hand.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Trail(Vec<HeaderValue>);

impl Key {
    pub(super) fn random() -> Self {
        Self { secret: rand::random(), home: Arc::default() }
    }

    /// What all plugins show at home, and nowhere else.
    pub(super) fn pass(&self) -> HeaderValue {
        let hash = sha256(format!("{:032x} pass", self.secret).as_bytes());
        HeaderValue::from_str(&hash[..32]).expect("digits are a header value")
    }

    /// This is where the proxy of this router listens.
    pub(super) fn at_home(&self, proxy: Own) {
        // Only the first of them counts; there is one.
        let _ = self.home.set(proxy);
    }
}

impl Mark {
    pub(super) fn new(key: &Key, plugin: &str) -> Self {
        let hash = sha256(format!("{:032x}{plugin}", key.secret).as_bytes());
        let via = HeaderValue::from_maybe_shared(format!("1.1 {PREFIX}{}", &hash[..16]));
        let via = via.expect("letters and digits are a header value");
        Self { via, pass: key.pass(), home: Arc::clone(&key.home) }
    }

    /// Whether a message came by way of this plugin.
    pub(super) fn is_on(&self, headers: &HeaderMap) -> bool {
        elements(headers, &VIA).any(|element| element == self.via.as_bytes())
    }

    /// Puts it on a request that the plugin makes, about a message with this trail.
    pub(super) fn put_on(&self, headers: &mut HeaderMap, trail: &Trail) {
        for mark in trail.0.iter().chain([&self.via]) {
            // A map that is full is none that can be sent.
            let _ = headers.try_append(VIA, mark.clone());
        }
    }

    /// Shows the pass if the request goes home: to no other address, as whoever sees it could show it
    /// as well.
    pub(super) fn show_pass(&self, headers: &mut HeaderMap, to: &[SocketAddr]) {
        headers.remove(PASS);
        let home = self.home.get();
        if !to.is_empty() && home.is_some_and(|home| to.iter().all(|address| home.is_at(*address))) {
            let _ = headers.try_insert(PASS, self.pass.clone());
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
        let [geo, auth] = ["geo", "auth"].map(|name| Mark::new(&key, name));
        assert_eq!(geo.via, Mark::new(&key, "geo").via);
        assert_ne!(geo.via, Mark::new(&Key::random(), "geo").via);
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

    #[test]
    fn the_pass_is_shown_at_home_alone() {
        let key = Key::random();
        let mark = Mark::new(&key, "geo");
        let shown = |to: &[&str]| {
            let mut headers = HeaderMap::new();
            headers.insert(PASS, "forged".parse().unwrap());
            let to: Vec<SocketAddr> = to.iter().map(|to| to.parse().unwrap()).collect();
            mark.show_pass(&mut headers, &to);
            headers.remove(PASS)
        };
        assert_eq!(shown(&["127.0.0.1:80"]), None, "nobody knows where home is");
        key.at_home(Own("127.0.0.1:80".parse().unwrap()));
        assert_eq!(shown(&["127.0.0.1:80"]), Some(key.pass()));
        assert_ne!(key.pass(), Key::random().pass());
        for to in [&[][..], &["127.0.0.1:81"], &["192.0.2.1:80"], &["127.0.0.1:80", "192.0.2.1:80"]] {
            assert_eq!(shown(to), None, "{to:?}");
        }
    }
}
