//! Where everything is: the names below the prefix, and what a key found there stands for.

use message_flow_sdk::{config, etcd::KeyRange};

use message_flow_sdk::keys::{escape, unescape};

const PREFIX: &str = "/message-flow";

/// So many markers there are: with the 64 entries that one write may name, as many comparisons as
/// etcd takes in a transaction are not reached.
const BUCKETS: u64 = 32;

/// Kinds of entries and the folder of each.
const FOLDERS: [(&str, &str); 4] =
    [("release", "releases"), ("router", "routers"), ("server", "servers"), ("service", "services")];

/// The keys below a prefix.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
}

/// What a watched key is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Entry {
        kind: String,
        key: String,
    },
    Notice,
    /// Of the adapter's own: a marker.
    Marker,
    /// Of nobody's.
    Unknown,
}

impl Keys {
    pub(crate) fn configured() -> Result<Self, String> {
        Self::new(config::get("prefix").as_deref().unwrap_or(PREFIX))
    }

    pub(crate) fn new(prefix: &str) -> Result<Self, String> {
        let trimmed = prefix.trim_end_matches('/');
        if trimmed.is_empty() || trimmed.chars().any(char::is_control) {
            return Err(format!("config.prefix is `{prefix}`: write a path such as `{PREFIX}`"));
        }
        Ok(Self { prefix: trimmed.to_owned() })
    }

    pub(crate) fn entry(&self, kind: &str, key: &str) -> String {
        match FOLDERS.iter().find(|(known, _)| *known == kind) {
            Some((_, folder)) => self.below(&format!("{folder}/{key}")),
            None => self.below(&format!("others/{}/{key}", escape(kind))),
        }
    }

    /// What earlier versions write with every change to entries.
    pub(crate) fn revision(&self) -> String {
        self.below("revision")
    }

    /// What is written when the entry at this key is deleted. Entries share markers, as each stays.
    pub(crate) fn marker(&self, entry: &str) -> String {
        let below = entry.strip_prefix(&self.prefix).unwrap_or(entry);
        self.below(&format!("revision/{:02x}", bucket(below)))
    }

    pub(crate) fn notice(&self) -> String {
        self.below("notice")
    }

    pub(crate) fn assignment(&self, client: &str, service: &str) -> String {
        self.below(&format!("assignments/{}", assignment(client, service)))
    }

    pub(crate) fn client(&self, client: &str) -> String {
        self.below(&format!("clients/{}", escape(client)))
    }

    /// All entries, and the markers.
    pub(crate) fn entries(&self) -> KeyRange {
        KeyRange { start: self.below("others/"), end: Some(format!("{}0", self.prefix)) }
    }

    /// What routers follow: the entries and notices.
    pub(crate) fn watched(&self) -> KeyRange {
        KeyRange { start: self.notice(), ..self.entries() }
    }

    pub(crate) fn assignments(&self) -> KeyRange {
        self.folder("assignments")
    }

    pub(crate) fn assignments_of(&self, client: &str) -> KeyRange {
        self.folder(&format!("assignments/{}", escape(client)))
    }

    /// What a key of [`Self::watched`] is about.
    pub(crate) fn place(&self, key: &str) -> Place {
        let Some(below) = key.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix('/')) else {
            return Place::Unknown;
        };
        match below.split_once('/') {
            None if below == "revision" => Place::Marker,
            None if below == "notice" => Place::Notice,
            Some(("revision", _)) => Place::Marker,
            Some(("others", rest)) => {
                match rest.split_once('/').and_then(|(kind, key)| Some((unescape(kind)?, key))) {
                    Some((kind, key)) => Place::Entry { kind, key: key.to_owned() },
                    None => Place::Unknown,
                }
            }
            Some((folder, key)) => match FOLDERS.iter().find(|(_, known)| *known == folder) {
                Some((kind, _)) => Place::Entry { kind: (*kind).to_owned(), key: key.to_owned() },
                None => Place::Unknown,
            },
            None => Place::Unknown,
        }
    }

    /// The service of an assignment's key.
    pub(crate) fn service(&self, key: &str) -> Option<String> {
        unescape(key.rsplit_once('/')?.1)
    }

    fn folder(&self, name: &str) -> KeyRange {
        KeyRange { start: self.below(&format!("{name}/")), end: Some(self.below(&format!("{name}0"))) }
    }

    fn below(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }
}

/// FNV-1a, the same in every router and version.
fn bucket(text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)) % BUCKETS
}

/// `CLIENT/SERVICE`, as notices name an assignment.
pub(crate) fn assignment(client: &str, service: &str) -> String {
    format!("{}/{}", escape(client), escape(service))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(range: &KeyRange, key: &str) -> bool {
        range.start.as_str() <= key && range.end.as_deref().is_none_or(|end| key < end)
    }

    #[test]
    fn entries_are_found_where_they_were_put() {
        let keys = Keys::new("/mf/").unwrap();
        assert_eq!(keys.entry("server", "chat@2/10.0.0.7:80"), "/mf/servers/chat@2/10.0.0.7:80");
        assert_eq!(keys.entry("service", "chat"), "/mf/services/chat");
        for (kind, key) in
            [("service", "chat@2"), ("server", "a/b"), ("odd/kind", "k/1"), ("release", "x"), ("router", "r")]
        {
            let at = keys.entry(kind, key);
            assert_eq!(keys.place(&at), Place::Entry { kind: kind.into(), key: key.into() });
            assert!(within(&keys.entries(), &at) && within(&keys.watched(), &at), "{at}");
        }
        assert_eq!(keys.place(&keys.revision()), Place::Marker);
        let marker = keys.marker(&keys.entry("server", "chat/a:1"));
        assert_eq!((marker.as_str(), keys.place(&marker)), ("/mf/revision/19", Place::Marker));
        assert!(within(&keys.entries(), &marker), "earlier versions see deletions by it");
        assert_eq!(keys.place(&keys.notice()), Place::Notice);
        for foreign in ["/mf/settings/x", "/mf/x", "/other/services/x", "/mf/others/%zz/x"] {
            assert_eq!(keys.place(foreign), Place::Unknown, "{foreign}");
        }
    }

    #[test]
    fn routers_do_not_follow_what_there_is_much_of() {
        let keys = Keys::new("/mf").unwrap();
        for many in
            [keys.assignment("ann", "chat"), keys.client("ann"), "/mfx/services/a".into(), "/mf".into()]
        {
            assert!(!within(&keys.watched(), &many), "{many}");
        }
        assert!(within(&keys.watched(), &keys.notice()) && within(&keys.watched(), &keys.revision()));
        assert!(!within(&keys.entries(), &keys.notice()));
    }

    #[test]
    fn the_assignments_of_a_client_are_its_own() {
        let keys = Keys::new("/mf").unwrap();
        let of = keys.assignments_of("a/b");
        assert!(within(&of, &keys.assignment("a/b", "chat@2")));
        for other in
            [keys.assignment("a", "b"), keys.assignment("a/b0", "chat"), keys.assignment("a/", "chat")]
        {
            assert!(!within(&of, &other), "{other}");
            assert!(within(&keys.assignments(), &other), "{other}");
        }
        assert_eq!(keys.service(&keys.assignment("a/b", "chat@2")).as_deref(), Some("chat@2"));
    }

    #[test]
    fn a_prefix_is_a_path() {
        for prefix in ["", "/", "a\nb"] {
            assert!(Keys::new(prefix).is_err(), "{prefix:?}");
        }
    }
}
