//! What is counted of the routing table, for `/metrics`.

use prometheus::{IntCounter, IntGauge, Registry};

macro_rules! stats {
    ($($type:ident $name:ident: $exported:literal $help:literal)*) => {
        /// Counters and gauges of one table.
        pub struct Stats {
            $(#[doc = $help] pub $name: $type,)*
        }

        impl Default for Stats {
            fn default() -> Self {
                Self { $($name: $type::new($exported, $help).expect("the name is one that Prometheus allows"),)* }
            }
        }

        impl Stats {
            /// Exports all of them.
            ///
            /// # Errors
            /// If the registry has such a metric already.
            pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
                $(registry.register(Box::new(self.$name.clone()))?;)*
                Ok(())
            }
        }
    };
}

stats! {
    IntGauge assignments: "message_flow_assignments"
        "Assignments remembered by this router."
    IntGauge assignment_bytes: "message_flow_assignment_bytes"
        "Memory taken by the assignments remembered by this router, as of the last sweep."
    IntCounter assignment_hits: "message_flow_assignment_hits_total"
        "Messages whose client's assignment was remembered."
    IntCounter assignment_lookups: "message_flow_assignment_lookups_total"
        "Assignments that were not remembered and asked of the table."
    IntCounter assignment_evictions: "message_flow_assignment_evictions_total"
        "Assignments no longer remembered, to make room for others."
    IntCounter assignment_claims: "message_flow_assignment_claims_total"
        "Assignments that this router tried to store."
    IntCounter assignment_claims_lost: "message_flow_assignment_claims_lost_total"
        "Assignments that another router had stored first."
    IntCounter assignments_unremembered: "message_flow_assignments_unremembered_total"
        "New clients that were served and not remembered, as there were too many of them in one second."
    IntGauge assignments_held: "message_flow_assignments_held"
        "Clients whose server was decided while the table could not be asked, and is to be proposed to it."
    IntCounter assignment_renewals: "message_flow_assignment_renewals_total"
        "Assignments renewed."
    IntCounter assignment_renewals_failed: "message_flow_assignment_renewals_failed_total"
        "Assignments whose renewal failed or found no room in the queue."
    IntCounter assignments_swept: "message_flow_assignments_swept_total"
        "Expired assignments that this router removed from the table."
    IntGauge view_revision: "message_flow_view_revision"
        "Revision of the view."
    IntGauge view_services: "message_flow_view_services"
        "Services in the view."
    IntGauge view_servers: "message_flow_view_servers"
        "Servers in the view, those of the configuration included."
    IntGauge view_problems: "message_flow_view_problems"
        "Entries of the table that cannot be read."
    IntGauge view_suspects: "message_flow_view_suspects"
        "Servers that may be gone: their connection or their router went, or most of the table."
    IntGauge table_current: "message_flow_table_current"
        "1 while the view follows the table, 0 while it is the last known one."
    IntCounter table_changes: "message_flow_table_changes_total"
        "Changes to entries that were applied to the view."
    IntCounter table_resyncs: "message_flow_table_resyncs_total"
        "Times that the whole table was read."
    IntCounter table_errors: "message_flow_table_errors_total"
        "Calls of the adapter that failed."
    IntGauge table_full: "message_flow_table_full"
        "1 while the table refuses what operators and services write, such as for want of room."
    IntCounter table_refused: "message_flow_table_refused_total"
        "Batches of entries that the table refused."
    IntCounter table_writes: "message_flow_table_writes_total"
        "Batches of entries written."
    IntCounter view_saves: "message_flow_view_saves_total"
        "Times that the view was saved to disk."
    IntCounter view_saves_failed: "message_flow_view_saves_failed_total"
        "Times that the view could not be saved to disk."
}

/// As a gauge shows it.
pub(super) fn shown(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
