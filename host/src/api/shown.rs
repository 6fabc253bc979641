//! Services and servers as the API shows them: the records, and what is known of them besides.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use super::{
    Routing, Standing, State,
    problem::{Kind, Problem},
};
use crate::{
    plugin::PluginSet,
    table::{
        View,
        lease::{Draining, Lease},
        record::{HealthCheck, ServerRecord, ServerUri, ServiceId, Sticky, is_yes},
        view::{Origin, Server, Service},
    },
};

/// A service with its server list. Written back as it is, it changes nothing.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ShownService {
    /// `chat` or `chat@2`.
    #[schema(value_type = String)]
    service: ServiceId,
    /// Without the version.
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// Who defines it.
    source: Source,
    /// Where every message goes, whatever else is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    server: Option<ServerUri>,
    /// The plugin that is asked for clients without an assignment.
    #[serde(skip_serializing_if = "Option::is_none")]
    registrar: Option<String>,
    sticky: Sticky,
    filters: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<HealthCheck>,
    /// What services that need this one are told, in place of its servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    load_balancer: Option<ServerUri>,
    /// `false`: clients of the proxy do not reach it.
    #[serde(skip_serializing_if = "is_yes")]
    public: bool,
    servers: Vec<ShownServer>,
    /// What keeps its messages from being routed as it says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// A server of a service.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ShownServer {
    /// Unique within its service.
    id: String,
    #[schema(value_type = String)]
    uri: ServerUri,
    weight: u32,
    metadata: BTreeMap<String, String>,
    /// `healthy`, `suspect` or `unhealthy`, as this router sees it.
    health: &'static str,
    /// What active checks say, where there are any: `passing` or `failing`.
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<&'static str>,
    /// How it is checked, if that is not said of the whole service.
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<HealthCheck>,
    /// Failures of messages in a row keep it from getting any for a while.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ejected: bool,
    /// Messages on their way to it from this router, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight: Option<u32>,
    /// It is leaving.
    #[serde(skip_serializing_if = "Option::is_none")]
    draining: Option<Draining>,
    /// What keeps it in the table; nothing: it stays until it is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<Lease>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    load_balancer: Option<ServerUri>,
    /// Who defines it.
    source: Source,
}

/// Who defines something.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Source {
    /// The configuration; the API cannot change it.
    Config,
    /// The routing table.
    Table,
}

impl ShownService {
    fn new(service: &Service, routing: &dyn Routing, plugins: &PluginSet) -> Self {
        let source = Source::from(service.origin);
        let warnings = super::plugins::warnings(plugins, &service.record);
        let record = service.record.clone();
        let checked = record.health.is_some();
        let shown = |server: &Arc<Server>| {
            let standing = routing.standing(&service.id, &server.id);
            ShownServer::new(server, source, standing, checked)
        };
        Self {
            service: service.id.clone(),
            name: service.id.name().to_owned(),
            version: service.id.version().map(str::to_owned),
            source,
            server: record.server,
            registrar: record.registrar,
            sticky: record.sticky,
            filters: record.filters,
            servers: service.servers.iter().map(shown).collect(),
            health: record.health,
            load_balancer: record.load_balancer,
            public: record.public,
            warnings,
        }
    }
}

impl ShownServer {
    /// `checked`: its service says how its servers are checked.
    fn new(server: &Server, source: Source, standing: Standing, checked: bool) -> Self {
        let ServerRecord { check, draining, lease, load_balancer, .. } = server.record.clone();
        Self {
            id: server.id.to_string(),
            uri: server.record.uri.clone(),
            weight: server.record.weight,
            metadata: server.record.metadata.clone(),
            health: match standing {
                _ if server.is_suspect() => "suspect",
                Standing { fails_checks: true, .. } => "unhealthy",
                Standing { ejected: true, .. } => "suspect",
                Standing { .. } => "healthy",
            },
            checks: (check.is_some() || checked).then_some(if standing.fails_checks {
                "failing"
            } else {
                "passing"
            }),
            check,
            ejected: standing.ejected,
            in_flight: Some(standing.in_flight).filter(|count| *count > 0),
            draining,
            lease,
            load_balancer,
            source,
        }
    }
}

impl From<Origin> for Source {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Table => Self::Table,
            Origin::Configuration => Self::Config,
        }
    }
}

impl State {
    /// A server of a service, as a document by itself.
    pub(super) fn show_server(&self, service: &Service, server: &Server) -> ShownServer {
        let checked = service.record.health.is_some();
        let standing = self.routing.standing(&service.id, &server.id);
        ShownServer::new(server, Source::from(service.origin), standing, checked)
    }

    pub(super) fn show(&self, service: &Service) -> ShownService {
        ShownService::new(service, &*self.routing, &self.plugins.current())
    }
}

/// There is no such service; says which versions there are.
pub(super) fn no_service(view: &View, id: &ServiceId) -> Problem {
    let others = view.services().filter(|service| service.id.name() == id.name());
    let others: Vec<&str> = others.map(|service| service.id.as_str()).collect();
    let hint = if others.is_empty() { String::new() } else { format!("; there is {}", others.join(", ")) };
    absent(view, format!("there is no service {id}{hint}"))
}

/// Something is not in the view, which means that it is not there once the table was read.
pub(super) fn absent(view: &View, detail: String) -> Problem {
    match must_be_read(view) {
        Ok(()) => Problem::new(Kind::NotFound, detail),
        Err(unread) => unread,
    }
}

/// Refuses to answer with what a view holds as if that were all.
pub(super) fn must_be_read(view: &View) -> Result<(), Problem> {
    match view.is_read() {
        true => Ok(()),
        false => Err(Problem::new(
            Kind::TableUnread,
            "the routing table was not read yet, so what it holds is not known here; /ready says why",
        )),
    }
}

/// Refuses to write what the configuration defines.
pub(super) fn must_not_be_configured(view: &View, id: &ServiceId) -> Result<(), Problem> {
    match view.service(id) {
        Some(service) if service.origin == Origin::Configuration => Err(Problem::new(
            Kind::Configured,
            format!("service {id} is defined by the configuration: change [service.{id}] there"),
        )),
        _ => Ok(()),
    }
}
