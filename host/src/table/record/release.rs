//! Which versions of a service are live, and how that changes: promoting, rolling back, and what is
//! remembered of it. Pure: what the record becomes is decided here, who writes it elsewhere.
//!
//! All of a release is one entry of the table, its history included, so that a change and its note
//! are written together and two operators cannot undo each other unseen.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::units::Span;

/// In place of a version: the service that has none.
pub const UNVERSIONED: &str = "";
/// So many changes are remembered.
const HISTORY: usize = 24;
/// Versions that may be live at once.
const LIVE: usize = 8;
/// Of what people write about a change, in bytes.
const TEXT: usize = 512;

/// Which versions of a service are live: the value of a `release` entry, whose key is the name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReleaseRecord {
    /// Shares of the clients by version; a version that is not here is not live.
    pub weights: BTreeMap<String, u32>,
    /// Messages that go to another version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// Clients that have an assignment at one of these versions stay there, whatever their share
    /// says; the latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stay: Vec<String>,
    /// Until then, in Unix milliseconds; none: until their assignment ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stay_until: Option<u64>,
    /// Counts the changes.
    #[serde(default)]
    pub number: u64,
    /// What clients were given before this change no longer holds: they were moved.
    #[serde(default)]
    pub moved: u64,
    /// Some clients may be pinned to a version.
    #[serde(default)]
    pub pins: bool,
    /// When this goes back by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Guard>,
    /// The latest last; the last one says how it is now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Change>,
}

/// Messages with a header go to a version that need not be live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Canary {
    /// Where they go.
    pub version: String,
    /// Which these are.
    pub header: HeaderMatch,
}

/// A header of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HeaderMatch {
    /// In any case.
    pub name: String,
    /// All of its value; without one it need only be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// When a promotion is undone by itself: the new version does worse than the old one by a margin,
/// on one router, while it is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Guard {
    /// For so long a new version is watched.
    #[serde(default = "Guard::within")]
    #[schema(value_type = String)]
    pub within: Span,
    /// Percentage points of messages answered with 5xx, above those of the old version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<u32>,
    /// Percent by which the mean time to answer exceeds that of the old version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<u32>,
    /// Messages to the new version before it is judged.
    #[serde(default = "Guard::messages")]
    pub messages: u64,
}

impl Guard {
    fn within() -> Span {
        Span(Duration::from_secs(600))
    }

    fn messages() -> u64 {
        50
    }
}

/// One change, and what was live from then on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Change {
    /// Of the release from then on.
    pub number: u64,
    /// Milliseconds since the Unix epoch.
    pub at: u64,
    /// Who did it.
    pub by: String,
    /// What was done.
    pub action: Action,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What became live.
    pub weights: BTreeMap<String, u32>,
    /// What became the canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// The change to which a rollback goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back: Option<u64>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// What was live before anybody said so.
    Found,
    /// Versions were made live.
    Promote,
    /// What was live before was made live again.
    Rollback,
    /// The same, because the new version did worse.
    AutomaticRollback,
}

/// What becomes of clients that have an assignment at a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Move {
    /// They stay until it ends.
    #[default]
    Drain,
    /// Their next message goes by what is live now.
    Now,
    /// They stay until it ends, at most for this time.
    Within(Duration),
}

/// What is to be live.
#[derive(Clone, Debug, Default)]
pub struct Promotion {
    /// None: as it is.
    pub weights: Option<BTreeMap<String, u32>>,
    /// `Some(None)` ends it; none: ended by new weights, else as it is.
    pub canary: Option<Option<Canary>>,
    /// `Some(None)` ends it; none: as it is.
    pub rollback: Option<Option<Guard>>,
    /// What becomes of clients.
    pub moving: Move,
}

/// Back to what was live before.
#[derive(Clone, Debug)]
pub struct Rollback {
    /// None: what the latest change replaced.
    pub to: Option<u64>,
    /// What becomes of clients.
    pub moving: Move,
    /// By whom it is done.
    pub action: Action,
}

/// Who changes a release, when and why.
#[derive(Clone, Debug)]
pub struct Note {
    /// Who.
    pub by: String,
    /// In words.
    pub why: Option<String>,
    /// The time of day, for people, in milliseconds since the Unix epoch.
    pub at: u64,
    /// The table's own time.
    pub now: u64,
}

/// Why a release is not changed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    /// A version that is not there.
    #[error("there is no version {version} of {name}; there is {there}")]
    NoVersion {
        /// Of which service.
        name: String,
        /// That was asked for.
        version: String,
        /// Those that there are.
        there: String,
    },
    /// Nothing would be live.
    #[error("no version of {0} has a weight above 0")]
    NothingLive(String),
    /// Too many would be.
    #[error("{0} may have at most {LIVE} live versions")]
    TooMany(String),
    /// Nothing was asked for.
    #[error("write {{\"version\": …}}, {{\"weights\": …}}, {{\"canary\": …}} or {{\"rollback\": …}}")]
    NothingAsked,
    /// There is nothing before it.
    #[error("{0} has nothing to go back to")]
    NothingBefore(String),
    /// A change that is not remembered.
    #[error("{name} has no change {number} in its history")]
    NoChange {
        /// Of which service.
        name: String,
        /// That was asked for.
        number: u64,
    },
}

/// A name and the versions of it that there are.
#[derive(Clone, Debug)]
pub struct Named<'a> {
    /// Without a version.
    pub name: &'a str,
    /// [`UNVERSIONED`] among them if there is a service without one.
    pub versions: Vec<&'a str>,
}

impl ReleaseRecord {
    /// Before anybody said anything: the one service of this name that messages go to.
    pub fn found(named: &Named<'_>, at: u64) -> Self {
        let live = match (named.versions.contains(&UNVERSIONED), &named.versions[..]) {
            (true, _) => UNVERSIONED,
            (false, [only]) => only,
            _ => return Self::default(),
        };
        let weights = BTreeMap::from([(live.to_owned(), 1)]);
        let (by, action) = ("message-flow".to_owned(), Action::Found);
        let change = Change {
            number: 1,
            at,
            by,
            action,
            why: None,
            weights: weights.clone(),
            canary: None,
            back: None,
        };
        Self { weights, number: 1, history: vec![change], ..Self::default() }
    }

    /// What it becomes by a promotion.
    pub fn promote(&self, named: &Named<'_>, promotion: Promotion, note: Note) -> Result<Self, Refused> {
        let Promotion { weights, canary, rollback, moving } = promotion;
        if weights.is_none() && canary.is_none() && rollback.is_none() {
            return Err(Refused::NothingAsked);
        }
        let canary = canary.unwrap_or_else(|| self.canary.clone().filter(|_| weights.is_none()));
        let weights = weights.unwrap_or_else(|| self.weights.clone());
        named.must_have(weights.keys().chain(canary.as_ref().map(|canary| &canary.version)))?;
        if weights.len() > LIVE {
            return Err(Refused::TooMany(named.name.to_owned()));
        }
        let mut new = self.clone();
        new.rollback = rollback.unwrap_or_else(|| self.rollback.clone());
        new.canary = canary;
        let back = self.history.last().map(|change| change.number);
        new.become_live(named, weights, moving, note, (Action::Promote, back))
    }

    /// What it becomes by a rollback.
    pub fn roll_back(&self, named: &Named<'_>, rollback: Rollback, note: Note) -> Result<Self, Refused> {
        let nothing = || Refused::NothingBefore(named.name.to_owned());
        let to = match rollback.to {
            Some(number) => number,
            None => self.history.last().and_then(|change| change.back).ok_or_else(nothing)?,
        };
        let target = self.history.iter().find(|change| change.number == to);
        let target =
            target.ok_or_else(|| Refused::NoChange { name: named.name.to_owned(), number: to })?.clone();
        named.must_have(target.weights.keys())?;
        let mut new = self.clone();
        new.canary = target.canary.filter(|canary| named.versions.contains(&canary.version.as_str()));
        new.become_live(named, target.weights, rollback.moving, note, (rollback.action, target.back))
    }

    fn become_live(
        mut self,
        named: &Named<'_>,
        weights: BTreeMap<String, u32>,
        moving: Move,
        note: Note,
        (action, back): (Action, Option<u64>),
    ) -> Result<Self, Refused> {
        if !weights.values().any(|weight| *weight > 0) {
            return Err(Refused::NothingLive(named.name.to_owned()));
        }
        self.number += 1;
        self.let_stay(named, moving, note.now);
        self.weights = weights;
        let Note { by, why, at, .. } = note;
        let (weights, canary) = (self.weights.clone(), self.canary.clone());
        let (by, why) = (cut(by), why.map(cut));
        self.history.push(Change { number: self.number, at, by, action, why, weights, canary, back });
        let surplus = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..surplus);
        Ok(self)
    }

    /// Where clients were that are not moved now.
    fn let_stay(&mut self, named: &Named<'_>, moving: Move, now: u64) {
        if moving == Move::Now {
            self.moved = self.number;
            self.stay.clear();
            self.stay_until = None;
            return;
        }
        if self.stay_until.is_some_and(|until| until <= now) {
            self.stay.clear();
        }
        let earlier = std::mem::take(&mut self.stay);
        for version in self.weights.keys().cloned().chain(earlier) {
            if named.versions.contains(&version.as_str()) && !self.stay.contains(&version) {
                self.stay.push(version);
            }
        }
        self.stay.truncate(LIVE);
        self.stay_until = match moving {
            Move::Within(span) => Some(now + u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 2)),
            Move::Drain | Move::Now => None,
        };
    }

    /// The change that holds now.
    pub fn latest(&self) -> Option<&Change> {
        self.history.last()
    }
}

impl Named<'_> {
    fn must_have<'v>(&self, versions: impl Iterator<Item = &'v String>) -> Result<(), Refused> {
        let mut missing = versions.filter(|version| !self.versions.contains(&version.as_str()));
        let Some(version) = missing.next() else { return Ok(()) };
        let there: Vec<_> = self.versions.iter().filter(|version| !version.is_empty()).copied().collect();
        let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
        Err(Refused::NoVersion { name: self.name.to_owned(), version: version.clone(), there })
    }
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT {
        text.truncate(text.floor_char_boundary(TEXT));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &[&str] = &["1", "2", "3"];

    fn named(versions: &'static [&'static str]) -> Named<'static> {
        Named { name: "chat", versions: versions.to_vec() }
    }

    fn weights(versions: &[(&str, u32)]) -> BTreeMap<String, u32> {
        versions.iter().map(|(version, weight)| ((*version).to_owned(), *weight)).collect()
    }

    fn note(at: u64) -> Note {
        Note { by: "ann".into(), why: None, at, now: at }
    }

    fn promote(release: &ReleaseRecord, version: &str, moving: Move) -> ReleaseRecord {
        let weights = Some(weights(&[(version, 1)]));
        let promotion = Promotion { weights, moving, ..Promotion::default() };
        release.promote(&named(CHAT), promotion, note(10)).unwrap()
    }

    fn back(release: &ReleaseRecord, to: Option<u64>) -> Result<ReleaseRecord, Refused> {
        let rollback = Rollback { to, moving: Move::Now, action: Action::Rollback };
        release.roll_back(&named(CHAT), rollback, note(20))
    }

    #[test]
    fn each_rollback_goes_one_promotion_further_back() {
        let one = promote(&ReleaseRecord::default(), "1", Move::Drain);
        let three = promote(&promote(&one, "2", Move::Drain), "3", Move::Drain);
        let two = back(&three, None).unwrap();
        assert_eq!(two.weights, weights(&[("2", 1)]));
        let first = back(&two, None).unwrap();
        assert_eq!((first.weights.clone(), first.number), (weights(&[("1", 1)]), 5));
        assert_eq!(back(&first, None), Err(Refused::NothingBefore("chat".into())));
        assert_eq!(back(&first, Some(3)).unwrap().weights, weights(&[("3", 1)]));
        assert!(matches!(back(&first, Some(9)), Err(Refused::NoChange { number: 9, .. })));
    }

    #[test]
    fn clients_stay_unless_they_are_moved() {
        let one = promote(&ReleaseRecord::default(), "1", Move::Drain);
        let two = promote(&one, "2", Move::Drain);
        assert_eq!((&two.stay[..], two.stay_until, two.moved), (&["1".to_owned()][..], None, 0));
        let three = promote(&two, "3", Move::Within(Duration::from_secs(1)));
        assert_eq!((three.stay.join(","), three.stay_until), ("2,1".into(), Some(1010)));
        let moved = promote(&three, "1", Move::Now);
        assert_eq!((moved.stay.len(), moved.stay_until, moved.moved), (0, None, moved.number));
    }

    #[test]
    fn what_was_live_before_anybody_said_so_is_gone_back_to() {
        let found = |versions| ReleaseRecord::found(&named(versions), 0);
        assert_eq!(found(&["", "2"]).weights, weights(&[("", 1)]));
        assert_eq!(found(CHAT).weights, weights(&[]));
        let release = found(&["1"]);
        assert_eq!(release.weights, weights(&[("1", 1)]));
        assert_eq!(back(&promote(&release, "2", Move::Drain), None).unwrap().weights, weights(&[("1", 1)]));
    }

    #[test]
    fn a_canary_lasts_until_the_next_weights() {
        let one = promote(&ReleaseRecord::default(), "1", Move::Drain);
        let header = HeaderMatch { name: "beta".into(), value: None };
        let canary = Canary { version: "2".into(), header };
        let promotion = Promotion { canary: Some(Some(canary.clone())), ..Promotion::default() };
        let with = one.promote(&named(CHAT), promotion, note(1)).unwrap();
        assert_eq!((&with.canary, &with.weights), (&Some(canary), &one.weights));
        assert_eq!(promote(&with, "2", Move::Drain).canary, None);
    }

    #[test]
    fn nonsense_is_refused() {
        let release = ReleaseRecord::default();
        let promote = |versions: &[(&str, u32)]| {
            let promotion = Promotion { weights: Some(weights(versions)), ..Promotion::default() };
            release.promote(&named(CHAT), promotion, note(1)).unwrap_err().to_string()
        };
        assert_eq!(promote(&[("9", 1)]), "there is no version 9 of chat; there is 1, 2, 3");
        assert_eq!(promote(&[("1", 0)]), "no version of chat has a weight above 0");
        assert_eq!(release.promote(&named(CHAT), Promotion::default(), note(1)), Err(Refused::NothingAsked));
    }

    #[test]
    fn the_record_stays_small() {
        let mut release = ReleaseRecord::default();
        let all: Vec<String> = (0..LIVE).map(|number| format!("{number:0>64}")).collect();
        let versions: Vec<&str> = all.iter().map(String::as_str).collect();
        let named = Named { name: "chat", versions };
        for _ in 0..100 {
            let weights = Some(all.iter().map(|version| (version.clone(), u32::MAX)).collect());
            let note = Note {
                by: "é".repeat(1000),
                why: Some("y".repeat(1000)),
                at: u64::MAX / 4,
                now: u64::MAX / 4,
            };
            release = release.promote(&named, Promotion { weights, ..Promotion::default() }, note).unwrap();
        }
        assert_eq!((release.history.len(), release.number), (HISTORY, 100));
        let bytes = serde_json::to_string(&release).unwrap().len();
        assert!(bytes < 60 << 10, "{bytes}");
    }
}
