//! What is counted of discovery.

use prometheus::{IntCounter, IntGauge, Registry};

macro_rules! metrics {
    ($($type:ident $name:ident: $exported:literal $help:literal)*) => {
        /// Handles, resolved once.
        #[derive(Clone)]
        pub struct Metrics {
            $(#[doc = $help] pub $name: $type,)*
        }

        impl Metrics {
            /// Exports all of them.
            pub fn new(registry: &Registry) -> prometheus::Result<Self> {
                let metrics = Self { $($name: $type::new($exported, $help)?,)* };
                $(registry.register(Box::new(metrics.$name.clone()))?;)*
                Ok(metrics)
            }
        }
    };
}

metrics! {
    IntGauge connections: "message_flow_discovery_connections"
        "Connections of services."
    IntGauge servers: "message_flow_discovery_servers"
        "Servers whose lease is a connection to this router."
    IntCounter notifications: "message_flow_discovery_notifications_total"
        "Services told of a server of a requirement."
    IntCounter losses: "message_flow_discovery_losses_total"
        "Services told that a requirement is gone."
    IntCounter faults: "message_flow_discovery_faults_total"
        "Messages of services that were answered with an error."
    IntCounter refused: "message_flow_discovery_refused_total"
        "Connections refused, because there were too many."
    IntCounter dead: "message_flow_discovery_dead_total"
        "Connections given up because nothing came, or nothing could be sent, for too long."
    IntCounter throttled: "message_flow_discovery_throttled_total"
        "Messages of services that had to wait because there were too many."
    IntCounter suspects: "message_flow_discovery_suspects_total"
        "Servers that became suspect because their connection ended."
    IntCounter removals: "message_flow_discovery_removals_total"
        "Servers that this router removed because their lease had ended."
    IntCounter drained: "message_flow_discovery_drained_total"
        "Servers drained at the request of a service or an operator."
    IntCounter writes: "message_flow_discovery_writes_total"
        "Batches that this router wrote for services."
}
