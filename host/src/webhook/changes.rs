//! What happened between two views, and between two lists of plugins. Pure.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use serde_json::json;

use super::{Event, Notification};
use crate::{
    plugin::{PluginState, PluginStatus},
    table::{
        Service, ServiceId, View,
        record::{ReleaseAction, ReleaseChange},
        view::Changed,
    },
};

/// So many services are remembered as seen; after that all count as seen.
const SEEN: usize = 100_000;

/// Follows views, and remembers which services were seen.
pub(super) struct Views {
    before: Arc<View>,
    seen: HashSet<ServiceId>,
}

impl Views {
    /// What is there now is nothing new.
    pub(super) fn new(view: Arc<View>) -> Self {
        let seen = view.services().map(|service| service.id.clone()).collect();
        Self { before: view, seen }
    }

    /// The view up to which everything was returned.
    pub(super) fn latest(&self) -> &Arc<View> {
        &self.before
    }

    /// What happened since the view before.
    pub(super) fn next(&mut self, view: Arc<View>, at: u64) -> Vec<Notification> {
        let before = std::mem::replace(&mut self.before, Arc::clone(&view));
        let mut happened = Vec::new();
        for Changed { id, before: was, now } in view.changed_since(&before) {
            let Some(service) = now else {
                let went = was.into_iter().flat_map(|was| came(was, None).map(move |server| (was, server)));
                happened
                    .extend(went.map(|(was, server)| up_or_down(Event::ServerDown, was, server, &view, at)));
                continue;
            };
            if self.seen.len() < SEEN && self.seen.insert(id.clone()) {
                happened.push(first_seen(id, view.revision, at));
            }
            happened.extend(
                came(service, was).map(|server| up_or_down(Event::ServerUp, service, server, &view, at)),
            );
            let went = was.into_iter().flat_map(|was| came(was, Some(service)));
            happened.extend(went.map(|server| up_or_down(Event::ServerDown, service, server, &view, at)));
        }
        if view.is_released_as(&before) {
            return happened;
        }
        happened.extend(releases(&before, &view));
        happened
    }
}

/// The servers of a service that it did not have before.
fn came<'a>(
    service: &'a Service,
    before: Option<&'a Arc<Service>>,
) -> impl Iterator<Item = &'a crate::table::Server> {
    let known = move |id: &str| before.is_some_and(|before| before.server(id).is_some());
    service.servers.iter().map(|server| &**server).filter(move |server| !known(&server.id))
}

fn up_or_down(
    event: Event,
    service: &Service,
    server: &crate::table::Server,
    view: &View,
    at: u64,
) -> Notification {
    let (id, uri) = (&server.id, &server.record.uri);
    let is = if event == Event::ServerUp { "up" } else { "down" };
    let text = format!("{}: server {id} is {is}", service.id);
    let left = view.service(&service.id).map_or(0, |service| service.servers.len());
    let data = json!({ "service": service.id, "server": &**id, "uri": uri, "servers": left });
    Notification::new(event, &format!("{}/{id} {}", service.id, view.revision), at, (text, data))
}

fn first_seen(id: &ServiceId, revision: u64, at: u64) -> Notification {
    let text = format!("{id} is there for the first time");
    let data = json!({ "service": id, "name": id.name(), "version": id.version() });
    Notification::new(Event::VersionFirstSeen, &format!("{id} {revision}"), at, (text, data))
}

fn releases(before: &View, after: &View) -> Vec<Notification> {
    let new = after.releases().iter().flat_map(|(name, release)| {
        let was = before.release(name).map_or(0, |before| before.number);
        let changes = release.history.iter().filter(move |change| change.number > was);
        changes.filter_map(move |change| changed(name, change))
    });
    new.collect()
}

fn changed(name: &str, change: &ReleaseChange) -> Option<Notification> {
    let ReleaseChange { number, at, by, action, why, weights, canary, .. } = change;
    let (event, verb) = match action {
        ReleaseAction::Found => return None,
        ReleaseAction::Promote => (Event::ReleasePromoted, "promoted"),
        ReleaseAction::Rollback => (Event::ReleaseRolledBack, "rolled back"),
        ReleaseAction::AutomaticRollback => (Event::ReleaseRolledBack, "rolled back by itself"),
    };
    let reason = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let text = format!("{name} was {verb} to {} by {by}{reason}", live(weights));
    let data = json!({
        "service": name, "number": number, "by": by, "action": action, "why": why, "weights": weights, "canary": canary,
    });
    Some(Notification::new(event, &format!("{name} {number}"), *at, (text, data)))
}

/// `2`, or `1 (90), 2 (10)`.
fn live(weights: &BTreeMap<String, u32>) -> String {
    let version =
        |version: &str| if version.is_empty() { "no version".to_owned() } else { version.to_owned() };
    let shares: Vec<_> = weights.iter().filter(|(_, weight)| **weight > 0).collect();
    match shares[..] {
        [(only, _)] => version(only),
        _ => shares
            .iter()
            .map(|(name, weight)| format!("{} ({weight})", version(name)))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// Follows the list of plugins.
pub(super) struct Builds {
    router: String,
    active: BTreeMap<String, Option<u64>>,
    refused: HashSet<(String, Option<String>, Option<String>)>,
}

impl Builds {
    /// What is loaded or refused now is nothing new.
    pub(super) fn new(router: &str, builds: &[PluginStatus]) -> Self {
        let mut new = Self { router: router.to_owned(), active: BTreeMap::new(), refused: HashSet::new() };
        new.next(builds, 0);
        new
    }

    /// What happened since the list before.
    pub(super) fn next(&mut self, builds: &[PluginStatus], at: u64) -> Vec<Notification> {
        let mut happened = Vec::new();
        let active = builds.iter().filter(|build| build.state == PluginState::Active);
        let active: BTreeMap<_, _> = active.map(|build| (build.name.clone(), build.generation)).collect();
        for (name, generation) in
            active.iter().filter(|(name, generation)| self.active.get(*name) != Some(generation))
        {
            let number = generation.unwrap_or_default();
            let text = format!("plugin {name}: build {number} serves at router {}", self.router);
            let data = json!({ "plugin": name, "generation": generation, "router": self.router });
            happened.push(Notification::new(Event::PluginSwapped, &self.mark(name, at), at, (text, data)));
        }
        self.active = active;
        let wrong = |build: &&PluginStatus| matches!(build.state, PluginState::Refused | PluginState::Failed);
        let key = |build: &PluginStatus| (build.name.clone(), build.sha256.clone(), build.error.clone());
        for build in builds.iter().filter(wrong).filter(|build| !self.refused.contains(&key(build))) {
            let (name, error) = (&build.name, build.error.as_deref().unwrap_or("no reason is known"));
            let text = format!("plugin {name}: a build is not served at router {}: {error}", self.router);
            let data =
                json!({ "plugin": name, "sha256": build.sha256, "error": error, "router": self.router });
            happened.push(Notification::new(Event::PluginRefused, &self.mark(name, at), at, (text, data)));
        }
        self.refused = builds.iter().filter(wrong).map(key).collect();
        happened
    }

    fn mark(&self, name: &str, at: u64) -> String {
        format!("{} {name} {at}", self.router)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Numbers, Overlay, adapter::Change};

    fn put(kind: &str, key: &str, value: &str) -> Change {
        Change { kind: kind.into(), key: key.into(), value: Some(value.into()), ephemeral: false }
    }

    fn delete(kind: &str, key: &str) -> Change {
        Change { kind: kind.into(), key: key.into(), value: None, ephemeral: false }
    }

    fn server(key: &str) -> Change {
        put("server", key, r#"{"uri":"http://a:1"}"#)
    }

    /// What is told of each of these batches of changes.
    fn told(batches: &[&[Change]]) -> Vec<Vec<String>> {
        let (numbers, overlay) = (Numbers::default(), Overlay::new());
        let mut view = View::default();
        let mut views = Views::new(Arc::new(view.clone()));
        let tell = |(revision, changes): (usize, &&[Change])| {
            view = view.apply(changes, revision as u64 + 1, &overlay, &numbers);
            let happened = views.next(Arc::new(view.clone()), 0);
            happened.into_iter().map(|told| told.text).collect()
        };
        batches.iter().enumerate().map(tell).collect()
    }

    #[test]
    fn servers_come_and_go() {
        let told = told(&[
            &[server("chat@1/a"), server("chat@1/b")],
            &[server("chat@1/a")],
            &[delete("server", "chat@1/a")],
            &[delete("server", "chat@1/b")],
            &[server("chat@1/b")],
        ]);
        assert_eq!(
            told[0],
            ["chat@1 is there for the first time", "chat@1: server a is up", "chat@1: server b is up"]
        );
        assert!(told[1].is_empty());
        assert_eq!(
            told[2..],
            [["chat@1: server a is down"], ["chat@1: server b is down"], ["chat@1: server b is up"]]
        );
    }

    #[test]
    fn releases_are_told_by_their_history() {
        let change = |number: u64, action: &str, why: &str| {
            format!(
                r#"{{"number":{number},"at":5,"by":"ann","action":"{action}"{why},"weights":{{"1":90,"2":10}}}}"#
            )
        };
        let release = |history: &[String]| {
            let value =
                format!(r#"{{"weights":{{}},"number":{},"history":[{}]}}"#, history.len(), history.join(","));
            put("release", "chat", &value)
        };
        let first = [change(1, "found", ""), change(2, "promote", "")];
        let second = [&first[..], &[change(3, "automatic-rollback", r#","why":"it was worse""#)]].concat();
        let told = told(&[&[release(&first)], &[release(&first)], &[release(&second)]]);
        assert_eq!(told[0], ["chat was promoted to 1 (90), 2 (10) by ann"]);
        assert!(told[1].is_empty());
        assert_eq!(told[2], ["chat was rolled back by itself to 1 (90), 2 (10) by ann: it was worse"]);
    }

    #[test]
    fn a_build_is_told_of_once() {
        let build = |generation: u64, state: PluginState, error: Option<&str>| PluginStatus {
            name: "geo".into(),
            kinds: vec![],
            generation: Some(generation),
            sha256: Some(generation.to_string()),
            state,
            error: error.map(str::to_owned),
            confined: None,
            lane: None,
            calls: 0,
            crashes: 0,
            instances: 0,
            memory: 0,
            last_error: None,
            next: None,
        };
        let first = build(1, PluginState::Active, None);
        let mut builds = Builds::new("router-1", std::slice::from_ref(&first));
        let refused = [first, build(2, PluginState::Refused, Some("no grant"))];
        let texts = |builds: &mut Builds, list: &[PluginStatus]| {
            builds.next(list, 7).into_iter().map(|told| (told.event.name(), told.text)).collect::<Vec<_>>()
        };
        let told = texts(&mut builds, &refused);
        assert_eq!(
            told,
            [("plugin.refused", "plugin geo: a build is not served at router router-1: no grant".into())]
        );
        assert!(texts(&mut builds, &refused).is_empty());
        let told = texts(&mut builds, &[build(3, PluginState::Active, None)]);
        assert_eq!(told, [("plugin.swapped", "plugin geo: build 3 serves at router router-1".to_owned())]);
    }
}
