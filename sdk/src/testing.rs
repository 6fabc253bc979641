//! Unit tests of plugins, natively and without a router.
//!
//! A [`Scene`] is a message and its surroundings. It calls a plugin as the host would and keeps
//! what the plugin changed. Each call is on the calling thread; scenes do not share anything.

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod host;

use std::collections::BTreeMap;

use crate::{
    BodyError, Decision, EventFilter, EventVerdict, Lifecycle, Registrar, RequestFilter, ResponseFilter,
};
use crate::{Server, ServiceId, Verdict};

/// A message, the servers to choose among, and what the plugin's capabilities hold.
#[derive(Clone, Debug)]
pub struct Scene {
    /// `GET` unless set.
    pub method: String,
    /// Path and query, `/` unless set.
    pub path: String,
    /// The host that the client asked for.
    pub authority: String,
    /// The request's headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The request's body; none: there is none to read.
    pub body: Option<Vec<u8>>,
    /// The client id.
    pub client: String,
    /// The other end of the connection.
    pub peer: String,
    /// The service that the message is for.
    pub service: ServiceId,
    /// The id of the chosen server.
    pub routed_to: Option<String>,
    /// Whom a registrar may choose among.
    pub servers: Vec<Server>,
    /// The response's status.
    pub status: u16,
    /// The response's headers, names in lower case.
    pub response_headers: Vec<(String, String)>,
    /// The response's body; none: there is none to read.
    pub response_body: Option<Vec<u8>>,
    /// The topic of the event at hand.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// What the operator configured.
    pub config: BTreeMap<String, String>,
    /// What the plugin remembers, with the time (as [`Scene::now`]) at which each goes away.
    pub state: BTreeMap<String, (Vec<u8>, Option<u64>)>,
    /// The limit of `state` in bytes.
    pub state_limit: u64,
    /// The clock, in milliseconds since the Unix epoch; stands still.
    pub now: u64,
    /// The next random number; each one asked for adds an odd constant, so runs repeat.
    pub random: u64,
    /// What the plugin logged.
    pub log: Vec<String>,
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            method: "GET".into(),
            path: "/".into(),
            authority: "localhost".into(),
            headers: Vec::new(),
            body: None,
            client: "client".into(),
            peer: "127.0.0.1:1".into(),
            service: ServiceId { name: "service".into(), version: None },
            routed_to: None,
            servers: Vec::new(),
            status: 200,
            response_headers: Vec::new(),
            response_body: None,
            topic: "topic".into(),
            payload: Vec::new(),
            attributes: BTreeMap::new(),
            config: BTreeMap::new(),
            state: BTreeMap::new(),
            state_limit: 16 << 20,
            now: 1_700_000_000_000,
            random: 1,
            log: Vec::new(),
        }
    }
}

impl Scene {
    /// A `GET /` of the client `client` with no servers, state or configuration.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a request header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// Sets the client id.
    pub fn client(mut self, id: &str) -> Self {
        self.client = id.into();
        self
    }

    /// Sets path and query.
    pub fn path(mut self, path: &str) -> Self {
        self.path = path.into();
        self
    }

    /// Sets the request's body.
    pub fn body(mut self, bytes: &[u8]) -> Self {
        self.body = Some(bytes.into());
        self
    }

    /// Sets a configuration value.
    pub fn config(mut self, key: &str, value: &str) -> Self {
        self.config.insert(key.into(), value.into());
        self
    }

    /// Adds a healthy server `http://ID` of weight 1 with nothing in flight.
    pub fn server(mut self, id: &str, metadata: &[(&str, &str)]) -> Self {
        let metadata = metadata.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let uri = format!("http://{id}");
        self.servers.push(Server { id: id.into(), uri, weight: 1, healthy: true, in_flight: 0, metadata });
        self
    }

    /// Says how many messages the server added last has in flight.
    pub fn in_flight(mut self, messages: u32) -> Self {
        if let Some(server) = self.servers.last_mut() {
            server.in_flight = messages;
        }
        self
    }

    /// Asks a registrar about this message.
    pub fn resolve<P: Registrar>(&mut self) -> Result<Decision, String> {
        self.run(P::resolve)
    }

    /// Shows this message to a request filter.
    pub fn on_request<P: RequestFilter>(&mut self) -> Result<Verdict, String> {
        self.run(P::on_request)
    }

    /// Shows this message's response to a response filter.
    pub fn on_response<P: ResponseFilter>(&mut self) -> Result<(), String> {
        self.run(P::on_response)
    }

    /// Shows the event to an event filter.
    pub fn on_event<P: EventFilter>(&mut self) -> Result<EventVerdict, String> {
        self.run(P::on_event)
    }

    /// Starts a plugin, as is done once for a new build.
    pub fn start<P: Lifecycle>(&mut self) -> Result<(), String> {
        self.run(P::start)
    }

    /// The first value of a request header, as the plugin left it.
    pub fn request_header(&self, name: &str) -> Option<&str> {
        first(&self.headers, name)
    }

    /// The first value of a response header, as the plugin left it.
    pub fn response_header(&self, name: &str) -> Option<&str> {
        first(&self.response_headers, name)
    }

    /// Runs any code that uses the host's functions in this scene.
    ///
    /// # Panics
    /// Natively only: in a component there is no scene to run in.
    pub fn run<T>(&mut self, call: impl FnOnce() -> T) -> T {
        #[cfg(not(target_arch = "wasm32"))]
        return host::within(self, call);
        #[cfg(target_arch = "wasm32")]
        panic!("scenes are for native tests, not for components: {:p}", std::ptr::from_ref(&call));
    }
}

fn first<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

#[allow(dead_code, reason = "used by the native host functions only")]
fn read_body(body: Option<&Vec<u8>>, limit: u64) -> Result<Vec<u8>, BodyError> {
    let bytes = body.ok_or(BodyError::Unavailable)?;
    if bytes.len() as u64 > limit { Err(BodyError::TooLarge(limit)) } else { Ok(bytes.clone()) }
}
