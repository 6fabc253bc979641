//! From the configuration to what each part calls the same.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;

use super::data::Data;
use crate::{
    config::{Config, DiscoveryConfig},
    discovery,
    plugin::{Kind, Settings, Uses},
    proxy::Plan,
    supervise::Supervisor,
    table::{
        self,
        assignments::NewClients,
        identity::Source,
        record::{RouterRecord, ServiceRecord},
    },
};

pub(super) fn table_options(
    config: &Config,
    (router, data): (&str, &Data),
    api: SocketAddr,
    tasks: &Supervisor,
) -> table::Options {
    let scheme = if config.api.tls.is_some() { "https" } else { "http" };
    let record = RouterRecord {
        uri: config.router.uri.clone().unwrap_or_else(|| format!("{scheme}://{api}")),
        incarnation: format!("{:016x}", rand::random::<u64>()),
        directory: data.identity(),
        ..RouterRecord::default()
    };
    let source = match config.router.id {
        Some(_) => Source::Configuration,
        None => Source::File(data.router_id_file()),
    };
    table::Options {
        record,
        source,
        alone: config.table.adapter == "memory",
        dir: Some(config.data.dir.clone()),
        overlay: config.services.clone(),
        assignments: config.table.assignments,
        wait: config.table.wait,
        grace: config.discovery.grace,
        tasks: tasks.clone(),
        ..table::Options::new(router, &config.table.adapter)
    }
}

pub(super) fn new_clients(config: &Config) -> NewClients {
    let limits = &config.proxy.limits;
    NewClients { in_all: limits.new_clients, per_peer: limits.new_clients_per_peer }
}

pub(super) fn discovery_options(config: &DiscoveryConfig) -> discovery::Options {
    let DiscoveryConfig { grace, ping, deadline, drain, message, requirements, connections, rate } = *config;
    discovery::Options { grace, ping, deadline, drain, message, requirements, connections, rate }
}

/// What was told by an earlier run counts only if that had the same table.
pub(super) fn discovery_memory(config: &Config) -> discovery::Memory {
    let adapter = &config.table.adapter;
    let table = format!("{adapter} {:?}", config.plugin(adapter).config);
    discovery::Memory::new(&config.data.dir, &table)
}

/// Those that are mentioned, and the default adapters, whose defaults differ from other plugins'.
pub(super) fn plugin_settings(config: &Config) -> BTreeMap<String, Settings> {
    let mentioned = config.plugin.keys().map(String::as_str);
    mentioned.chain(["memory", "etcd"]).map(|name| (name.to_owned(), config.plugin(name))).collect()
}

/// Who uses a plugin, by what messages are routed with at the moment.
pub(super) fn uses(config: &Config, plan: &Arc<ArcSwap<Plan>>) -> Uses {
    let (adapter, plan) = (config.table.adapter.clone(), Arc::clone(plan));
    Box::new(move |name, kind| {
        let plan = plan.load();
        let is = |record: &ServiceRecord| match kind {
            Kind::Registrar => record.registrar.as_deref() == Some(name),
            Kind::RequestFilter | Kind::ResponseFilter => record.filters.iter().any(|filter| filter == name),
            Kind::EventFilter | Kind::RoutingTable => false,
        };
        match kind {
            Kind::RoutingTable => (adapter == name).then(|| "[table] adapter".to_owned()),
            Kind::RequestFilter | Kind::ResponseFilter
                if plan.settings.filters.iter().any(|filter| filter == name) =>
            {
                Some("[proxy] filters".to_owned())
            }
            _ => {
                let mut services = plan.view.services().filter(|service| is(&service.record));
                services.next().map(|service| format!("service `{}`", service.id))
            }
        }
    })
}
