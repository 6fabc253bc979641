//! What the server is asked: the message at hand and whom there is to choose among.

use std::collections::BTreeMap;

use message_flow_sdk::{candidates, request};
use serde::Serialize;

use crate::settings::Settings;

#[derive(Debug, Serialize)]
pub(crate) struct Question {
    client: String,
    /// Written `chat` or `chat@2`.
    service: String,
    method: String,
    path: String,
    peer: String,
    /// Those that are configured and there.
    headers: BTreeMap<String, String>,
    candidates: Vec<Candidate>,
}

#[derive(Debug, Serialize)]
struct Candidate {
    id: String,
    uri: String,
    weight: u32,
    healthy: bool,
    in_flight: u32,
    metadata: BTreeMap<String, String>,
}

impl Question {
    pub(crate) fn at_hand(settings: &Settings) -> Self {
        let service = request::service();
        let header = |name: &String| Some((name.clone(), request::header(name)?));
        Self {
            client: request::client(),
            service: match service.version {
                Some(version) => format!("{}@{version}", service.name),
                None => service.name,
            },
            method: request::method(),
            path: request::path(),
            peer: request::peer(),
            headers: settings.headers.iter().filter_map(header).collect(),
            candidates: candidates::servers().into_iter().map(Candidate::from).collect(),
        }
    }

    /// For whom an answer holds: whatever else a question says changes with every message.
    pub(crate) fn key(&self) -> String {
        let own = (&self.service, &self.client, &self.headers);
        serde_json::to_string(&own).expect("texts are JSON")
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are JSON")
    }
}

impl From<message_flow_sdk::Server> for Candidate {
    fn from(server: message_flow_sdk::Server) -> Self {
        Self {
            id: server.id,
            uri: server.uri,
            weight: server.weight,
            healthy: server.healthy,
            in_flight: server.in_flight,
            metadata: server.metadata.into_iter().collect(),
        }
    }
}
