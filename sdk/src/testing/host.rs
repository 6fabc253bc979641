//! The host's functions, natively: each reads or changes the scene that runs on this thread.

use std::cell::RefCell;

use super::Scene;

thread_local! {
    static SCENE: RefCell<Option<Scene>> = const { RefCell::new(None) };
}

/// Runs a call with the scene in place, and takes it back with what the call changed.
pub(crate) fn within<T>(scene: &mut Scene, call: impl FnOnce() -> T) -> T {
    SCENE.set(Some(std::mem::take(scene)));
    let result = call();
    *scene = SCENE.take().expect("a call does not take the scene away");
    result
}

fn scene<T>(with: impl FnOnce(&mut Scene) -> T) -> T {
    SCENE.with_borrow_mut(|scene| {
        with(scene.as_mut().expect("host functions work inside of testing::Scene::run"))
    })
}

fn values(headers: &[(String, String)], name: &str) -> Vec<String> {
    headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone()).collect()
}

fn names(headers: &[(String, String)]) -> Vec<String> {
    let mut names: Vec<_> = headers.iter().map(|(key, _)| key.clone()).collect();
    names.sort();
    names.dedup();
    names
}

fn remove(headers: &mut Vec<(String, String)>, name: &str) {
    headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
}

fn add(headers: &mut Vec<(String, String)>, name: &str, value: &str) {
    headers.push((name.to_ascii_lowercase(), value.into()));
}

/// The request at hand: see `wit/request.wit`.
pub mod request {
    use super::{add as append, names, remove, scene, values};
    use crate::ServiceId;

    /// The method, such as `GET`.
    pub fn method() -> String {
        scene(|scene| scene.method.clone())
    }

    /// The path, without the query.
    pub fn path() -> String {
        scene(|scene| scene.path.split('?').next().unwrap_or_default().to_owned())
    }

    /// What follows the first `?`.
    pub fn query() -> Option<String> {
        scene(|scene| scene.path.split_once('?').map(|(_, query)| query.to_owned()))
    }

    /// The host and port that the client asked for.
    pub fn authority() -> String {
        scene(|scene| scene.authority.clone())
    }

    /// The first value of a header.
    pub fn header(name: &str) -> Option<String> {
        scene(|scene| scene.request_header(name).map(str::to_owned))
    }

    /// Every value of a header.
    pub fn headers(name: &str) -> Vec<String> {
        scene(|scene| values(&scene.headers, name))
    }

    /// The name of every header, each once.
    pub fn header_names() -> Vec<String> {
        scene(|scene| names(&scene.headers))
    }

    /// The client id.
    pub fn client() -> String {
        scene(|scene| scene.client.clone())
    }

    /// The other end of the connection.
    pub fn peer() -> String {
        scene(|scene| scene.peer.clone())
    }

    /// The service that the message is for.
    pub fn service() -> ServiceId {
        scene(|scene| scene.service.clone())
    }

    /// The id of the chosen server.
    pub fn server() -> Option<String> {
        scene(|scene| scene.routed_to.clone())
    }

    /// Replaces every value of a header.
    pub fn set_header(name: &str, value: &str) {
        remove_header(name);
        add_header(name, value);
    }

    /// Adds a value to a header.
    pub fn add_header(name: &str, value: &str) {
        scene(|scene| append(&mut scene.headers, name, value));
    }

    /// Removes every value of a header.
    pub fn remove_header(name: &str) {
        scene(|scene| remove(&mut scene.headers, name));
    }

    /// Replaces path and query.
    pub fn set_path(path_and_query: &str) {
        scene(|scene| scene.path = path_and_query.to_owned());
    }
}

/// The body of the request at hand: see `wit/request-body.wit`.
pub mod request_body {
    use super::scene;
    use crate::{BodyError, testing::read_body};

    /// Reads the whole body.
    pub fn read(limit: u64) -> Result<Vec<u8>, BodyError> {
        scene(|scene| read_body(scene.body.as_ref(), limit))
    }

    /// Sends these bytes in its place.
    pub fn replace(bytes: &[u8]) -> Result<(), BodyError> {
        scene(|scene| scene.body.replace(bytes.into()).map(|_| ()).ok_or(BodyError::Unavailable))
    }
}

/// The response at hand: see `wit/response.wit`.
pub mod response {
    use super::{add as append, names, remove, scene, values};

    /// The HTTP status.
    pub fn status() -> u16 {
        scene(|scene| scene.status)
    }

    /// The first value of a header.
    pub fn header(name: &str) -> Option<String> {
        scene(|scene| scene.response_header(name).map(str::to_owned))
    }

    /// Every value of a header.
    pub fn headers(name: &str) -> Vec<String> {
        scene(|scene| values(&scene.response_headers, name))
    }

    /// The name of every header, each once.
    pub fn header_names() -> Vec<String> {
        scene(|scene| names(&scene.response_headers))
    }

    /// Changes the status.
    pub fn set_status(status: u16) {
        scene(|scene| scene.status = status);
    }

    /// Replaces every value of a header.
    pub fn set_header(name: &str, value: &str) {
        remove_header(name);
        add_header(name, value);
    }

    /// Adds a value to a header.
    pub fn add_header(name: &str, value: &str) {
        scene(|scene| append(&mut scene.response_headers, name, value));
    }

    /// Removes every value of a header.
    pub fn remove_header(name: &str) {
        scene(|scene| remove(&mut scene.response_headers, name));
    }
}

/// The body of the response at hand: see `wit/response-body.wit`.
pub mod response_body {
    use super::scene;
    use crate::{BodyError, testing::read_body};

    /// Reads the whole body.
    pub fn read(limit: u64) -> Result<Vec<u8>, BodyError> {
        scene(|scene| read_body(scene.response_body.as_ref(), limit))
    }

    /// Sends these bytes in its place.
    pub fn replace(bytes: &[u8]) -> Result<(), BodyError> {
        scene(|scene| scene.response_body.replace(bytes.into()).map(|_| ()).ok_or(BodyError::Unavailable))
    }
}

/// The event at hand: see `wit/event.wit`.
pub mod event {
    use super::scene;

    /// The topic that it is published to.
    pub fn topic() -> String {
        scene(|scene| scene.topic.clone())
    }

    /// What was published.
    pub fn payload() -> Vec<u8> {
        scene(|scene| scene.payload.clone())
    }

    /// An attribute.
    pub fn attribute(name: &str) -> Option<String> {
        scene(|scene| scene.attributes.get(name).cloned())
    }

    /// Who publishes it.
    pub fn client() -> String {
        scene(|scene| scene.client.clone())
    }

    /// Publishes these bytes in place of the payload.
    pub fn set_payload(payload: &[u8]) {
        scene(|scene| scene.payload = payload.into());
    }

    /// Sets an attribute.
    pub fn set_attribute(name: &str, value: &str) {
        scene(|scene| scene.attributes.insert(name.into(), value.into()));
    }
}

/// Whom a registrar may choose among: see `wit/candidates.wit`.
pub mod candidates {
    use std::cmp::Ordering;

    use super::scene;
    use crate::Server;

    /// The service's server list.
    pub fn servers() -> Vec<Server> {
        scene(|scene| scene.servers.clone())
    }

    /// The id of the server with the least to do, of those whose metadata has all of these pairs.
    pub fn least_loaded(having: &[(&str, &str)]) -> Option<String> {
        scene(|scene| {
            let has = |server: &Server, (key, value): &(&str, &str)| {
                server.metadata.iter().any(|(its, is)| its == key && is == value)
            };
            let wanted = scene.servers.iter().filter(|server| having.iter().all(|pair| has(server, pair)));
            let best = wanted.filter(|server| server.weight > 0).min_by(|one, other| {
                let favour = |server: &Server| affinity(&scene.client, &server.id);
                order(one, other).then_with(|| favour(other).cmp(&favour(one)))
            });
            best.map(|server| server.id.clone())
        })
    }

    /// Healthy ones first, then by messages under way for each unit of weight.
    fn order(one: &Server, other: &Server) -> Ordering {
        let load = |of: &Server, weight: u32| u64::from(of.in_flight) * u64::from(weight);
        other.healthy.cmp(&one.healthy).then(load(one, other.weight).cmp(&load(other, one.weight)))
    }

    /// As routers have it: of hashes (FNV-1a and the finalizer of `SplitMix64`) of both.
    fn affinity(client: &str, server: &str) -> u64 {
        mix(stable(client) ^ stable(server))
    }

    fn stable(text: &str) -> u64 {
        let fnv = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        mix(fnv)
    }

    fn mix(mut bits: u64) -> u64 {
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

/// The router's log: see `wit/log.wit`.
pub mod log {
    pub use crate::bindings::imports::message_flow::plugin::log::Level;

    /// Writes a line; the scene keeps it.
    pub fn log(level: Level, message: &str) {
        super::scene(|scene| scene.log.push(format!("{level:?}: {message}")));
    }
}

/// What the operator configured: see `wit/config.wit`.
pub mod config {
    use super::scene;

    /// One value.
    pub fn get(key: &str) -> Option<String> {
        scene(|scene| scene.config.get(key).cloned())
    }

    /// Every value.
    pub fn entries() -> Vec<(String, String)> {
        scene(|scene| scene.config.clone().into_iter().collect())
    }
}

/// What the plugin remembers: see `wit/state.wit`.
pub mod state {
    use super::{Scene, scene};
    pub use crate::bindings::imports::message_flow::plugin::state::{Cell, StateError};

    /// A value.
    pub fn get(key: &str) -> Option<Vec<u8>> {
        scene(|scene| live(scene, key))
    }

    /// Sets a value.
    pub fn set(key: &str, value: &[u8]) -> Result<(), StateError> {
        scene(|scene| store(scene, key, Some(value.to_vec()), None))
    }

    /// Removes a value; returns whether it was there.
    pub fn delete(key: &str) -> bool {
        scene(|scene| live(scene, key).is_some_and(|_| scene.state.remove(key).is_some()))
    }

    /// Sets or removes a value if it equals `expected`; returns whether it did.
    pub fn swap(key: &str, expected: Option<&[u8]>, value: Option<&[u8]>) -> Result<bool, StateError> {
        scene(|scene| {
            let matches = live(scene, key).as_deref() == expected;
            if matches {
                store(scene, key, value.map(<[u8]>::to_vec), None)?;
            }
            Ok(matches)
        })
    }

    /// Carries out all changes if everything expected is what is there, else none of them.
    pub fn apply(changes: &[Cell], expected: &[Cell]) -> Result<bool, StateError> {
        scene(|scene| {
            if !expected.iter().all(|(key, value)| live(scene, key) == *value) {
                return Ok(false);
            }
            let before = scene.state.clone();
            for (key, value) in changes {
                if let Err(error) = store(scene, key, value.clone(), None) {
                    scene.state = before;
                    return Err(error);
                }
            }
            Ok(true)
        })
    }

    /// Adds to a number and returns the sum.
    pub fn add(key: &str, amount: i64, ttl_ms: Option<u64>) -> Result<i64, StateError> {
        scene(|scene| {
            let before = live(scene, key);
            let ends = match &before {
                Some(_) => scene.state[key].1,
                None => ttl_ms.map(|ttl| scene.now + ttl),
            };
            let text =
                before.map_or(Ok("0".into()), String::from_utf8).map_err(|_| StateError::NotANumber)?;
            let sum = text.parse::<i64>().map_err(|_| StateError::NotANumber)?.saturating_add(amount);
            store(scene, key, Some(sum.to_string().into_bytes()), ends)?;
            Ok(sum)
        })
    }

    /// Keys with their values, in order, that start with `prefix` and come after `after`.
    pub fn scan(prefix: &str, after: Option<&str>, limit: u32) -> Vec<(String, Vec<u8>)> {
        scene(|scene| {
            let later = scene
                .state
                .iter()
                .filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after));
            let live = later.filter(|(_, (_, ends))| ends.is_none_or(|ends| ends > scene.now));
            live.take(limit as usize).map(|(key, (value, _))| (key.clone(), value.clone())).collect()
        })
    }

    fn live(scene: &Scene, key: &str) -> Option<Vec<u8>> {
        let (value, ends) = scene.state.get(key)?;
        ends.is_none_or(|ends| ends > scene.now).then(|| value.clone())
    }

    fn store(
        scene: &mut Scene,
        key: &str,
        value: Option<Vec<u8>>,
        ends: Option<u64>,
    ) -> Result<(), StateError> {
        let Some(value) = value else {
            scene.state.remove(key);
            return Ok(());
        };
        let size = |key: &str, value: &[u8]| (key.len() + value.len()) as u64;
        let others = scene.state.iter().filter(|(other, _)| *other != key);
        let used: u64 = others.map(|(key, (value, _))| size(key, value)).sum();
        if used + size(key, &value) > scene.state_limit {
            return Err(StateError::Full(scene.state_limit));
        }
        scene.state.insert(key.into(), (value, ends));
        Ok(())
    }
}

/// The time: see `wit/clock.wit`.
pub mod clock {
    /// Milliseconds since the Unix epoch.
    pub fn now() -> u64 {
        super::scene(|scene| scene.now)
    }

    /// Nanoseconds since an arbitrary moment.
    pub fn monotonic() -> u64 {
        super::scene(|scene| scene.now * 1_000_000)
    }
}

/// Randomness: see `wit/random.wit`.
pub mod random {
    /// The scene's next number.
    pub fn next() -> u64 {
        super::scene(|scene| {
            scene.random = scene.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
            scene.random
        })
    }
}

/// An etcd cluster: see `wit/etcd.wit`. A scene has none; every call finds it unavailable.
pub mod etcd {
    pub use crate::bindings::imports::message_flow::plugin::etcd::*;
}
