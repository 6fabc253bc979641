//! What plugins use of their capabilities, for `/metrics`: read off the stores and clients when
//! somebody asks, so that using them counts nothing twice.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{
    IntCounterVec, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{etcd::EtcdClient, state::StateStores};

/// Every client there is, with its plugin's name.
pub(super) type Clients = Box<dyn Fn() -> Vec<(Arc<str>, Arc<EtcdClient>)> + Send + Sync>;

struct Usage {
    states: Arc<StateStores>,
    clients: Clients,
    /// Scrapes take turns.
    families: Mutex<Families>,
    described: Vec<Desc>,
}

struct Families {
    state_bytes: IntGaugeVec,
    state_keys: IntGaugeVec,
    etcd_reachable: IntGaugeVec,
    etcd_events: IntCounterVec,
}

/// Adds these metrics to a registry.
pub(super) fn register(
    registry: &Registry,
    states: Arc<StateStores>,
    clients: Clients,
) -> Result<(), prometheus::Error> {
    let families = Families::new()?;
    let described = families.all().iter().flat_map(|family| family.desc()).cloned().collect();
    registry.register(Box::new(Usage { states, clients, families: Mutex::new(families), described }))
}

impl Families {
    fn new() -> Result<Self, prometheus::Error> {
        let gauge = |name, help| IntGaugeVec::new(Opts::new(name, help), &["plugin"]);
        Ok(Self {
            state_bytes: gauge(
                "message_flow_plugin_state_bytes",
                "Memory that the keys and values of a plugin's state take.",
            )?,
            state_keys: gauge("message_flow_plugin_state_keys", "Keys that a plugin keeps in its state.")?,
            etcd_reachable: gauge(
                "message_flow_etcd_reachable",
                "0 while a plugin's etcd is known to be out of reach.",
            )?,
            etcd_events: IntCounterVec::new(
                Opts::new(
                    "message_flow_etcd_events_total",
                    "What a plugin's etcd client did: call, failure, timeout, refused (failed at once while \
                     etcd was out of reach), connect, reauthentication, watch, compaction, lease.",
                ),
                &["plugin", "event"],
            )?,
        })
    }

    fn all(&self) -> [&dyn Collector; 4] {
        [&self.state_bytes, &self.state_keys, &self.etcd_reachable, &self.etcd_events]
    }

    fn read_state(&self, states: &StateStores) {
        for (plugin, store) in states.all() {
            let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            self.state_bytes.with_label_values(&[&plugin]).set(gauge(store.bytes()));
            self.state_keys.with_label_values(&[&plugin]).set(gauge(store.keys() as u64));
        }
    }

    fn read_etcd(&self, plugin: &str, client: &EtcdClient) {
        let reachable = i64::from(client.trouble().is_none());
        self.etcd_reachable.with_label_values(&[plugin]).set(reachable);
        for (event, count) in client.metrics().by_event() {
            let counter = self.etcd_events.with_label_values(&[plugin, event]);
            counter.reset();
            counter.inc_by(count);
        }
    }
}

impl Collector for Usage {
    fn desc(&self) -> Vec<&Desc> {
        self.described.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let families = self.families.lock();
        families.read_state(&self.states);
        for (plugin, client) in (self.clients)() {
            families.read_etcd(&plugin, &client);
        }
        families.all().iter().flat_map(|family| family.collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plugin::{etcd::EtcdSettings, state::StateOptions};

    #[tokio::test]
    async fn says_what_is_used() {
        let directory = tempfile::tempdir().unwrap();
        let states = Arc::new(StateStores::new(directory.path(), None));
        let store = states.open("limit", StateOptions { limit: 1000, durable: false }).unwrap();
        store.set("key", b"value").unwrap();
        let nowhere = EtcdSettings::new(|key| (key == "endpoints").then_some("http://127.0.0.1:1")).unwrap();
        let runtime = tokio::runtime::Handle::current();
        let client = Arc::new(EtcdClient::new(nowhere, Duration::from_secs(5), runtime));
        let registry = Registry::new();
        let clients = Box::new({
            let client = Arc::clone(&client);
            move || vec![("etcd".into(), Arc::clone(&client))]
        });
        register(&registry, states, clients).unwrap();
        let scrape = || prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(scrape().contains("message_flow_etcd_reachable{plugin=\"etcd\"} 1"));
        let range = crate::plugin::etcd::KeyRange { start: "a".into(), end: None };
        client.get(&range, 1, None).await.unwrap_err();
        let page = scrape();
        for line in [
            "message_flow_plugin_state_bytes{plugin=\"limit\"} 148",
            "message_flow_plugin_state_keys{plugin=\"limit\"} 1",
            "message_flow_etcd_reachable{plugin=\"etcd\"} 0",
            "message_flow_etcd_events_total{event=\"failure\",plugin=\"etcd\"} 1",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }
}
