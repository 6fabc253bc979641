//! Who may do what: bearer tokens, kept as hashes, with rules of actions, names and hosts.
//!
//! A leaf: the configuration reads rules into these types, the API asks them. Tokens are random
//! and long, so one round of SHA-256 is enough to keep them; comparing takes the same time
//! whichever rule matches, and none does.

mod host;
mod origin;

use std::{fmt, str::FromStr};

pub use host::{HostPattern, InvalidHostPattern};
pub use origin::{InvalidOrigin, Origin};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// The SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

/// What a rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// See services, servers and clients.
    Read,
    /// Write services and servers, pin and forget clients.
    Register,
    /// See what the router itself is and does, whatever the names: its metrics, plugins and neighbours.
    Inspect,
    /// Publish events to topics.
    Publish,
    /// Read topics.
    Subscribe,
    /// Send events to queues.
    Send,
    /// Receive events from queues.
    Receive,
    /// All of these and what runs the router itself.
    Admin,
}

impl Action {
    /// Every action, as written.
    pub const WORDS: [(&'static str, Self); 8] = [
        ("read", Self::Read),
        ("register", Self::Register),
        ("inspect", Self::Inspect),
        ("publish", Self::Publish),
        ("subscribe", Self::Subscribe),
        ("send", Self::Send),
        ("receive", Self::Receive),
        ("admin", Self::Admin),
    ];
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::WORDS.iter().find(|(_, action)| action == self);
        f.write_str(found.map_or("", |(word, _)| word))
    }
}

/// Names of services, topics and queues: words separated by dots, where `*` stands for one word
/// and a final `>` for one or more. A pattern without `@` holds for every version of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Every name.
    pub fn any() -> Self {
        Self(">".to_owned())
    }

    /// Whether it stands for every name.
    pub fn is_any(&self) -> bool {
        self.0 == ">"
    }

    /// Whether it stands for this name, such as `chat`, `chat@2` or `orders.eu.new`.
    pub fn matches(&self, name: &str) -> bool {
        let name = if self.0.contains('@') { name } else { name.split('@').next().unwrap_or(name) };
        let (mut wanted, mut words) = (self.0.split('.'), name.split('.'));
        loop {
            match (wanted.next(), words.next()) {
                (None, None) | (Some(">"), Some(_)) => return true,
                (Some("*"), Some(_)) => {}
                (Some(wanted), Some(word)) if wanted == word => {}
                _ => return false,
            }
        }
    }
}

/// Why a text is not a [`Pattern`].
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a name pattern: write words and `*` separated by dots, with `>` only at the end")]
pub struct InvalidPattern(String);

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let last = text.split('.').count() - 1;
        let valid = |(place, word): (usize, &str)| match word {
            "*" => true,
            ">" => place == last,
            "" => false,
            word => !word.contains(['*', '>']) && word.bytes().all(|byte| byte.is_ascii_graphic()),
        };
        if text.len() <= 256 && text.split('.').enumerate().all(valid) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidPattern(text.chars().take(200).collect()))
        }
    }
}

/// One `[[access]]`: what a token allows, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What the log calls the token's holder.
    pub label: String,
    /// The hash of the token.
    pub token: TokenHash,
    /// What it allows.
    pub actions: Vec<Action>,
    /// For which names.
    pub names: Vec<Pattern>,
    /// Which hosts servers may be registered at; none: any.
    pub hosts: Option<Vec<HostPattern>>,
}

impl Rule {
    fn permits(&self, action: Action, name: Option<&str>) -> bool {
        let action = self.actions.iter().any(|own| *own == action || *own == Action::Admin);
        action && name.is_none_or(|name| self.names.iter().any(|pattern| pattern.matches(name)))
    }

    fn reaches(&self, host: &str) -> bool {
        self.hosts.as_ref().is_none_or(|hosts| hosts.iter().any(|pattern| pattern.matches(host)))
    }

    fn inspects(&self) -> bool {
        let reads_all = || self.actions.contains(&Action::Read) && self.names.iter().any(Pattern::is_any);
        self.permits(Action::Inspect, None) || reads_all()
    }
}

/// Every rule; without any, everything is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    rules: Vec<Rule>,
}

/// The rules that hold for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// None: there are no rules, everything is allowed.
    rules: Option<Vec<Rule>>,
}

impl Access {
    /// With these rules.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules }
    }

    /// Every rule.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether there are no rules.
    pub fn is_open(&self) -> bool {
        self.rules.is_empty()
    }

    /// Who holds this token; `None` if nobody does. Looks at every rule whichever matches.
    pub fn identify(&self, token: Option<&str>) -> Option<Identity> {
        self.identify_hash(token.map(TokenHash::of))
    }

    /// As [`Self::identify`], of a token that is only known by its hash.
    pub fn identify_hash(&self, token: Option<TokenHash>) -> Option<Identity> {
        if self.is_open() {
            return Some(Identity { rules: None });
        }
        let hash = token?;
        let mut known = Choice::from(0);
        let mut rules = Vec::new();
        for rule in &self.rules {
            let same = rule.token.0.ct_eq(&hash.0);
            known |= same;
            if same.into() {
                rules.push(rule.clone());
            }
        }
        bool::from(known).then_some(Identity { rules: Some(rules) })
    }
}

impl Identity {
    /// Who may do nothing.
    pub fn nobody() -> Self {
        Self { rules: Some(Vec::new()) }
    }

    /// Whether it may do this with something of this name; without a name, with anything at all.
    pub fn may(&self, action: Action, name: Option<&str>) -> bool {
        self.rules.as_ref().is_none_or(|rules| rules.iter().any(|rule| rule.permits(action, name)))
    }

    /// Whether it may register a server of the service of this name at this host.
    pub fn may_register_at(&self, name: &str, host: &str) -> bool {
        let permits = |rule: &Rule| rule.permits(Action::Register, Some(name)) && rule.reaches(host);
        self.rules.as_ref().is_none_or(|rules| rules.iter().any(permits))
    }

    /// Whether it may see what the router itself is and does, which no name limits: who may
    /// [`Action::Inspect`], and who may read everything.
    pub fn may_inspect(&self) -> bool {
        self.rules.as_ref().is_none_or(|rules| rules.iter().any(Rule::inspects))
    }

    /// What the log calls it.
    pub fn label(&self) -> &str {
        self.rules.as_ref().and_then(|rules| rules.first()).map_or("anyone", |rule| &rule.label)
    }
}

impl TokenHash {
    /// Hashes a token.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }
}

/// Why a text is not a [`TokenHash`].
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a SHA-256: write the 64 hexadecimal digits that `message-flow token` prints")]
pub struct InvalidTokenHash;

impl FromStr for TokenHash {
    type Err = InvalidTokenHash;

    fn from_str(text: &str) -> Result<Self, InvalidTokenHash> {
        let mut hash = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidTokenHash);
        }
        for (place, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).map_err(|_| InvalidTokenHash)?;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A new random token of 256 bits, starting with `mf_` so that scanners for leaked secrets can know it.
pub fn new_token() -> String {
    let bytes: [u8; 32] = rand::random();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("mf_{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_by_words() {
        for (pattern, name, expect) in [
            ("chat", "chat", true),
            ("chat", "chat@2", true),
            ("chat@2", "chat@2", true),
            ("chat@2", "chat", false),
            ("chat@2", "chat@3", false),
            ("chat", "chats", false),
            ("*", "chat", true),
            ("*", "orders.eu", false),
            ("orders.*", "orders.eu", true),
            ("orders.*", "orders", false),
            ("orders.*", "orders.eu.new", false),
            ("orders.*.new", "orders.eu.new", true),
            ("orders.>", "orders.eu.new", true),
            ("orders.>", "orders", false),
            (">", "anything.at.all@3", true),
        ] {
            assert_eq!(pattern.parse::<Pattern>().unwrap().matches(name), expect, "{pattern} {name}");
        }
        for text in ["", ".", "a..b", ">.a", "a*", "a b", "a.>b"] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }

    fn rule(token: &str, actions: &[Action], names: &[&str]) -> Rule {
        let names = names.iter().map(|name| name.parse().unwrap()).collect();
        Rule { label: token.into(), token: TokenHash::of(token), actions: actions.into(), names, hosts: None }
    }

    #[test]
    fn hosts_limit_what_is_registered_and_nothing_else() {
        use Action::{Admin, Read, Register};
        let at = |hosts: &[&str], rule: Rule| {
            let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
            Rule { hosts: Some(hosts), ..rule }
        };
        let access = Access::new(vec![
            at(&["10.0.0.0/8", "*.internal"], rule("deploy", &[Register], &["chat"])),
            at(&["a.test"], rule("deploy", &[Register], &["mail"])),
            at(&["a.test"], rule("root", &[Admin, Read], &[">"])),
            at(&[], rule("nowhere", &[Register], &[">"])),
            rule("free", &[Register], &[">"]),
        ]);
        for (token, name, host, expect) in [
            ("deploy", "chat@2", "10.1.2.3", true),
            ("deploy", "chat", "b.internal", true),
            ("deploy", "chat", "a.test", false),
            ("deploy", "mail", "a.test", true),
            ("deploy", "mail", "10.1.2.3", false),
            ("deploy", "shop", "10.1.2.3", false),
            ("root", "chat", "a.test", true),
            ("root", "chat", "10.1.2.3", false),
            ("nowhere", "chat", "a.test", false),
            ("free", "chat", "anything", true),
        ] {
            let identity = access.identify(Some(token)).unwrap();
            assert_eq!(identity.may_register_at(name, host), expect, "{token} {name} {host}");
        }
        assert!(access.identify(Some("root")).unwrap().may(Admin, Some("chat")));
        assert!(Access::default().identify(None).unwrap().may_register_at("chat", "anything"));
        assert!(!Identity::nobody().may_register_at("chat", "anything"));
    }

    #[test]
    fn the_router_itself_is_seen_by_its_operators() {
        use Action::{Admin, Inspect, Read, Register};
        let access = Access::new(vec![
            rule("scraper", &[Inspect], &["chat"]),
            rule("all", &[Read], &[">"]),
            rule("some", &[Read], &["chat", "*"]),
            rule("writer", &[Register], &[">"]),
            rule("admin", &[Admin], &["*"]),
        ]);
        for (token, expect) in
            [("scraper", true), ("all", true), ("some", false), ("writer", false), ("admin", true)]
        {
            assert_eq!(access.identify(Some(token)).unwrap().may_inspect(), expect, "{token}");
        }
        assert!(Access::default().identify(None).unwrap().may_inspect());
    }

    #[test]
    fn rules_decide_by_token_action_and_name() {
        use Action::{Admin, Publish, Read, Register};
        let access = Access::new(vec![
            rule("reader", &[Read], &[">"]),
            rule("deploy", &[Register], &["chat", "shop.*"]),
            rule("deploy", &[Read], &["chat"]),
            rule("root", &[Admin], &[">"]),
        ]);
        for (token, action, name, expect) in [
            ("reader", Read, Some("chat"), true),
            ("reader", Read, None, true),
            ("reader", Register, Some("chat"), false),
            ("deploy", Register, Some("chat@2"), true),
            ("deploy", Register, Some("shop.cart"), true),
            ("deploy", Register, Some("mail"), false),
            ("deploy", Read, Some("shop.cart"), false),
            ("deploy", Read, Some("chat"), true),
            ("root", Publish, Some("orders.new"), true),
        ] {
            let identity = access.identify(Some(token)).unwrap();
            assert_eq!(identity.may(action, name), expect, "{token} {action} {name:?}");
        }
        for token in [None, Some(""), Some("nobody"), Some("reade"), Some("readerr")] {
            assert!(access.identify(token).is_none(), "{token:?}");
        }
    }

    #[test]
    fn without_rules_everything_is_allowed() {
        let identity = Access::default().identify(None).unwrap();
        assert!(identity.may(Action::Admin, Some("chat")));
    }

    #[test]
    fn hashes_read_and_print_alike() {
        let hash = TokenHash::of("mf_1");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for text in ["", "00", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(text.parse::<TokenHash>(), Err(InvalidTokenHash), "{text}");
        }
    }

    #[test]
    fn tokens_differ() {
        assert_ne!(new_token(), new_token());
        assert_eq!(new_token().len(), 67);
    }
}
