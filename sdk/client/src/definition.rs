//! Who a service is and what it needs, as the router reads it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Revision;

/// A service's definition. Everything but the name may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Definition {
    /// Such as `chat`.
    pub name: String,
    /// Versions of a service are separate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where the service listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Else the address from which it connects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// In place of `host` and `port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Services that it needs, such as `explosion-service` or `explosion-service@2`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    /// `all`: be told of every server of a requirement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub servers: Option<String>,
    /// Its share of new clients relative to the other servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Anything that others want to know of it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// What others are told in place of its own address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<String>,
}

/// A definition as it is sent after a handshake.
#[derive(Serialize)]
pub(crate) struct Resuming<'a> {
    #[serde(flatten)]
    pub(crate) definition: &'a Definition,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<&'a Revision>,
    /// Requirements of which nothing was told yet, so that `since` is not about them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) anew: Vec<&'a str>,
}

impl Definition {
    /// A service that needs nothing.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Listens there.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Is this version.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Needs these.
    pub fn requires<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.requires = names.into_iter().map(Into::into).collect();
        self
    }
}
