//! Which version an unversioned name means for a client, before the routing rule begins.
//!
//! 1. The client is pinned to a version: that one.
//! 2. The message has the canary's header: the canary.
//! 3. The client was given a version that is still live, or where it may stay: that one.
//! 4. It has an assignment at a version where clients may stay: that one.
//! 5. The live version of whose clients it is a part, by its id and the weights.
//!
//! What 4 and 5 decide is stored by create-if-absent while there are pins or clients may stay
//! anywhere, so that routers agree; what the client was given while the table could not be asked goes
//! before them. Else 2 and 5 need no memory at all.

use std::{future::Future, sync::Arc};

use http::HeaderMap;

use super::{Step, Trace};
use crate::table::{
    TableError,
    adapter::{Assignment, Condition},
    record::{ServiceId, Sticky},
    view::{Choice, Release},
};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct VersionQuery<'a> {
    /// What the name means.
    pub release: &'a Release,
    /// The client id.
    pub client: &'a str,
    /// Of the message.
    pub headers: &'a HeaderMap,
    /// In the table's own time.
    pub now: u64,
}

/// What the rule asks of the world, about the one client and release of the [`VersionQuery`].
pub trait VersionSources: Send {
    /// The choice that this router remembers. Must not wait.
    fn cached(&mut self) -> Option<Arc<str>>;

    /// The choice in the table, expired or not.
    fn chosen(&mut self) -> impl Future<Output = Result<Option<Assignment>, TableError>> + Send;

    /// Whether there is a service with this id.
    fn is_there(&self, service: &ServiceId) -> bool;

    /// Whether the client has an assignment that holds at this service.
    fn holds(&mut self, service: &ServiceId) -> impl Future<Output = Result<bool, TableError>> + Send;

    /// Stores a choice if the condition holds; returns what is stored afterwards, if anything.
    fn claim(
        &mut self,
        choice: &str,
        condition: Condition,
    ) -> impl Future<Output = Result<Option<Assignment>, TableError>> + Send;

    /// The choice that is held for the client, as the table could not be asked before. Must not wait.
    fn held(&mut self) -> Option<Arc<str>>;

    /// Holds a choice that could not be stored for this reason.
    fn hold(&mut self, choice: &str, why: &TableError);

    /// Remembers a choice for a moment, here only.
    fn hold_briefly(&mut self, choice: &str);
}

/// What was stored of a client.
enum Known {
    Follow(ServiceId, &'static str),
    /// May be replaced while it has this stamp; none: there is nothing.
    Void(Option<u64>),
}

/// Chooses; see the module. A client whose choice is cached costs no wait.
pub async fn version<S: VersionSources, T: Trace>(
    query: VersionQuery<'_>,
    sources: &mut S,
    trace: &mut T,
) -> ServiceId {
    let VersionQuery { release, client, headers, now } = query;
    let canary = release.canary(headers);
    if !release.remembers(now) {
        return match canary {
            Some(id) => noted(id.clone(), "its canary has this message's header", trace),
            None => share(release, client, trace),
        };
    }
    match known(query, sources).await {
        Ok(Known::Follow(id, why)) if why == PINNED || canary.is_none() => noted(id, why, trace),
        Ok(_) if let Some(id) = canary => noted(id.clone(), "its canary has this message's header", trace),
        Ok(Known::Follow(id, why)) => noted(id, why, trace),
        Ok(Known::Void(stamp)) => decide(query, sources, trace, stamp).await,
        Err(error) => {
            trace.note(Step::Version, || format!("what the client was given is not known: {error}"));
            let id = match held(query, sources).await {
                Some((id, why)) => noted(id, why, trace),
                None => share(release, client, trace),
            };
            sources.hold(&choice(release, &id).to_string(), &error);
            id
        }
    }
}

/// What the client was given while the table could not be asked, if that is still to be followed.
async fn held<S: VersionSources>(
    query: VersionQuery<'_>,
    sources: &mut S,
) -> Option<(ServiceId, &'static str)> {
    let text = sources.held()?;
    match judge(query, sources, &text, None).await {
        Ok(Known::Follow(id, _)) => Some((id, "the client was given it while the table was away")),
        Ok(Known::Void(_)) | Err(_) => None,
    }
}

const PINNED: &str = "the client is pinned to it";

async fn known<S: VersionSources>(query: VersionQuery<'_>, sources: &mut S) -> Result<Known, TableError> {
    if let Some(text) = sources.cached()
        && let Known::Follow(id, why) = judge(query, sources, &text, None).await?
    {
        return Ok(Known::Follow(id, why));
    }
    match sources.chosen().await? {
        Some(found) if found.expires.is_some_and(|expires| expires <= query.now) => {
            Ok(Known::Void(Some(found.stamp)))
        }
        Some(found) => judge(query, sources, &found.server, Some(found.stamp)).await,
        None => Ok(Known::Void(None)),
    }
}

/// Whether what a client was given is still to be followed.
async fn judge<S: VersionSources>(
    query: VersionQuery<'_>,
    sources: &mut S,
    text: &str,
    stamp: Option<u64>,
) -> Result<Known, TableError> {
    let release = query.release;
    let parsed = text.parse::<Choice>().ok();
    let given = parsed.and_then(|choice| {
        let id = ServiceId::versioned(release.choices.id.name(), &choice.version).ok()?;
        Some((id, choice.number)).filter(|(id, _)| sources.is_there(id))
    });
    Ok(match given {
        Some((id, None)) => Known::Follow(id, PINNED),
        Some((id, Some(number))) if number >= release.moved => {
            if release.is_live(&id) {
                Known::Follow(id, "the client was given it before")
            } else if may_stay(query, &id) && sources.holds(&id).await? {
                Known::Follow(id, "the client's assignment there has not ended")
            } else {
                Known::Void(stamp)
            }
        }
        Some(_) | None => Known::Void(stamp),
    })
}

fn may_stay(query: VersionQuery<'_>, id: &ServiceId) -> bool {
    query.release.lets_stay(query.now) && query.release.stay.contains(id)
}

async fn decide<S: VersionSources, T: Trace>(
    query: VersionQuery<'_>,
    sources: &mut S,
    trace: &mut T,
    stamp: Option<u64>,
) -> ServiceId {
    let VersionQuery { release, client, now, .. } = query;
    let mut stays = held(query, sources).await;
    for id in release.stay.iter().filter(|_| release.lets_stay(now)) {
        if stays.is_none() && sources.holds(id).await.unwrap_or(false) {
            stays = Some((id.clone(), "the client's assignment there has not ended"));
        }
    }
    let id = match stays {
        Some((id, why)) => noted(id, why, trace),
        None => share(release, client, trace),
    };
    let text = choice(release, &id).to_string();
    if release.choices.record.sticky == Sticky::Off {
        sources.hold_briefly(&text);
        return id;
    }
    let condition = stamp.map_or(Condition::Absent, Condition::Unchanged);
    match sources.claim(&text, condition).await {
        Ok(Some(stored)) if stored.server != text => {
            match judge(query, sources, &stored.server, None).await {
                Ok(Known::Follow(first, _)) => noted(first, "another router was first", trace),
                _ => id,
            }
        }
        Ok(Some(_)) => id,
        Ok(None) => {
            sources.hold_briefly(&text);
            id
        }
        Err(error) => {
            sources.hold(&text, &error);
            id
        }
    }
}

fn share<T: Trace>(release: &Release, client: &str, trace: &mut T) -> ServiceId {
    let share = release.share(client);
    trace.note(Step::Version, || {
        let all: u64 = release.shares.iter().map(|share| u64::from(share.weight)).sum();
        format!("{}: the client is in its share of {} in {all}", share.id, share.weight)
    });
    share.id.clone()
}

fn noted<T: Trace>(id: ServiceId, why: &str, trace: &mut T) -> ServiceId {
    trace.note(Step::Version, || format!("{id}: {why}"));
    id
}

fn choice(release: &Release, id: &ServiceId) -> Choice {
    Choice { version: id.version().unwrap_or_default().to_owned(), number: Some(release.number) }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::{
        resolve::TraceLine,
        table::{Named, Numbers, Overlay, View, adapter::Entry},
    };

    /// A client with a choice and assignments, or a table that is away.
    #[derive(Default)]
    struct Told {
        choice: Option<Assignment>,
        holds: &'static [&'static str],
        away: bool,
        claimed: Option<String>,
        held: Option<String>,
    }

    impl Told {
        fn chose(text: &str) -> Self {
            let choice =
                Assignment { server: text.into(), expires: Some(100), router: String::new(), stamp: 3 };
            Self { choice: Some(choice), ..Self::default() }
        }

        fn answer<T>(&self, answer: T) -> Result<T, TableError> {
            if self.away { Err(TableError::Unavailable("away".into())) } else { Ok(answer) }
        }
    }

    impl VersionSources for Told {
        fn cached(&mut self) -> Option<Arc<str>> {
            None
        }

        async fn chosen(&mut self) -> Result<Option<Assignment>, TableError> {
            self.answer(self.choice.clone())
        }

        fn is_there(&self, service: &ServiceId) -> bool {
            matches!(service.version(), Some("1" | "2" | "3"))
        }

        async fn holds(&mut self, service: &ServiceId) -> Result<bool, TableError> {
            self.answer(self.holds.contains(&service.as_str()))
        }

        async fn claim(&mut self, choice: &str, _: Condition) -> Result<Option<Assignment>, TableError> {
            self.claimed = Some(choice.to_owned());
            let stored = Assignment { server: choice.into(), expires: None, router: String::new(), stamp: 4 };
            self.answer(Some(stored))
        }

        fn held(&mut self) -> Option<Arc<str>> {
            self.held.as_deref().map(Arc::from)
        }

        fn hold(&mut self, choice: &str, _: &TableError) {
            self.held = Some(choice.to_owned());
        }

        fn hold_briefly(&mut self, _: &str) {}
    }

    /// A release of versions 1, 2 and 3, as its record is.
    fn release(record: &str) -> Arc<Release> {
        let entry =
            |kind: &str, key: String, value: &str| Entry { kind: kind.into(), key, value: value.into() };
        let mut entries: Vec<_> = (1..4)
            .map(|version| entry("server", format!("chat@{version}/a"), r#"{"uri":"http://a:1"}"#))
            .collect();
        entries.push(entry("release", "chat".into(), record));
        let view = View::build(&entries, 1, &Overlay::new(), &Numbers::default());
        match view.named("chat") {
            Some(Named::Released(release)) => Arc::clone(release),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn check(record: &str, beta: bool, mut told: Told, expect: &str) -> Told {
        let (release, mut headers) = (release(record), HeaderMap::new());
        if beta {
            headers.insert("beta", http::HeaderValue::from_static("1"));
        }
        let query = VersionQuery { release: &release, client: "ann", headers: &headers, now: 50 };
        let mut trace = Vec::<TraceLine>::new();
        let id = version(query, &mut told, &mut trace).now_or_never().unwrap();
        let why = trace.last().map(|line| line.outcome.as_str()).unwrap_or_default();
        assert!(why.starts_with(expect), "{id}: {why}");
        told
    }

    const DRAINING: &str = r#"{"weights":{"2":1},"stay":["1","3"],"number":7,"moved":5}"#;
    const CANARY: &str = r#"{"weights":{"1":1},"pins":true,"number":7,"canary":{"version":"3","header":{"name":"beta","value":"1"}}}"#;

    #[test]
    fn what_a_client_was_given_is_followed_as_long_as_it_may() {
        check(DRAINING, false, Told::chose("2#5"), "chat@2: the client was given it before");
        check(DRAINING, false, Told::chose("2#4"), "chat@2: the client is in its share of 1 in 1");
        check(DRAINING, false, Told::chose("9#6"), "chat@2: the client is in its share");
        check(DRAINING, false, Told::chose("nonsense"), "chat@2: the client is in its share");
        let stays = Told { holds: &["chat@1"], ..Told::chose("1#6") };
        check(DRAINING, false, stays, "chat@1: the client's assignment there has not ended");
        check(DRAINING, false, Told::chose("1#6"), "chat@2: the client is in its share");
        let over = DRAINING.replace("\"number\"", "\"stay_until\":50,\"number\"");
        let pinned = over.replace("\"number\"", "\"pins\":true,\"number\"");
        let stays = Told { holds: &["chat@1"], ..Told::chose("1#6") };
        check(&pinned, false, stays, "chat@2: the client is in its share");
    }

    #[test]
    fn a_new_choice_is_stored() {
        let told = Told { holds: &["chat@3"], ..Told::default() };
        let told = check(DRAINING, false, told, "chat@3: the client's assignment there has not ended");
        assert_eq!(told.claimed.as_deref(), Some("3#7"));
        let told = check(DRAINING, false, Told { away: true, ..Told::default() }, "chat@2: the client is in");
        assert_eq!((told.claimed, told.held.as_deref()), (None, Some("2#7")));
    }

    #[test]
    fn pins_go_before_the_canary_and_that_before_the_rest() {
        check(CANARY, true, Told::chose("1#6"), "chat@3: its canary");
        check(CANARY, false, Told::chose("1#6"), "chat@1: the client was given it before");
        let pinned = || Told {
            choice: Told::chose("2").choice.map(|pin| Assignment { expires: None, ..pin }),
            ..Told::default()
        };
        check(CANARY, true, pinned(), "chat@2: the client is pinned to it");
        check(&CANARY.replace("\"pins\":true,", ""), true, pinned(), "chat@3: its canary");
    }
}
