//! Conditions: what an operator should know of and no message shows, such as a configuration file
//! that is not followed or a task that ended.
//!
//! Each has one name. The part that finds it out raises it with a text, and clears it when it is
//! over; `/ready` lists what is raised, and `message_flow_condition` is 1 for it. No condition makes
//! a router unready. Knows no other module.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use prometheus::{IntGaugeVec, Opts, Registry};

/// What may be wrong while messages are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// The configuration file is not what runs.
    Configuration,
    /// The routing table cannot be read; the last known view routes on.
    TableStale,
    /// The routing table holds records that cannot be read.
    TableRecords,
    /// The routing table refuses what operators and services write.
    TableFull,
    /// What should last is not kept: the data directory was deleted, or its disk takes nothing.
    Data,
    /// Two running routers came with one id.
    RouterId,
    /// A task that should run for as long as the process ended.
    Tasks,
    /// Lines of the log were lost.
    Log,
}

impl Name {
    /// Every name.
    pub const ALL: [Self; 8] = [
        Self::Configuration,
        Self::TableStale,
        Self::TableRecords,
        Self::TableFull,
        Self::Data,
        Self::RouterId,
        Self::Tasks,
        Self::Log,
    ];

    /// As `/ready` and the metrics write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::TableStale => "table-stale",
            Self::TableRecords => "table-records",
            Self::TableFull => "table-full",
            Self::Data => "data",
            Self::RouterId => "router-id",
            Self::Tasks => "tasks",
            Self::Log => "log",
        }
    }
}

/// A condition that is raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which.
    pub name: Name,
    /// Since when, in milliseconds since the Unix epoch.
    pub since: u64,
    /// In words, for people. Without secrets: whoever reaches `/ready` may read it.
    pub detail: String,
}

/// The conditions of one process; copies share them.
#[derive(Clone, Debug)]
pub struct Conditions {
    raised: Arc<Mutex<BTreeMap<Name, Condition>>>,
    gauges: IntGaugeVec,
}

impl Default for Conditions {
    fn default() -> Self {
        let opts = Opts::new(
            "message_flow_condition",
            "1 while something is wrong that messages do not show, by its name; /ready says what.",
        );
        let gauges = IntGaugeVec::new(opts, &["name"]).expect("the name is one that Prometheus allows");
        // Lost lines are looked up when somebody asks, and counted by themselves.
        for name in Name::ALL.into_iter().filter(|name| *name != Name::Log) {
            gauges.with_label_values(&[name.word()]).set(0);
        }
        Self { raised: Arc::default(), gauges }
    }
}

impl Conditions {
    /// Exports one gauge for each name.
    ///
    /// # Errors
    /// If the registry has such a metric already.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.gauges.clone()))
    }

    /// Raises a condition, or says of one that is raised what it is now; since when it holds stays.
    pub fn raise(&self, name: Name, detail: impl Into<String>) {
        let mut raised = self.raised.lock();
        let since = raised.get(&name).map_or_else(now, |known| known.since);
        raised.insert(name, Condition { name, since, detail: detail.into() });
        self.gauges.with_label_values(&[name.word()]).set(1);
    }

    /// It is over. Returns whether it was raised.
    pub fn clear(&self, name: Name) -> bool {
        let cleared = self.raised.lock().remove(&name).is_some();
        if cleared {
            self.gauges.with_label_values(&[name.word()]).set(0);
        }
        cleared
    }

    /// What is raised, in the order of the names.
    pub fn raised(&self) -> Vec<Condition> {
        self.raised.lock().values().cloned().collect()
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_raised_is_listed_until_it_is_cleared() {
        let conditions = Conditions::default();
        conditions.raise(Name::Tasks, "one");
        let since = conditions.raised()[0].since;
        conditions.raise(Name::Tasks, "two");
        conditions.raise(Name::Configuration, "a.toml");
        let raised: Vec<_> = conditions.raised().into_iter().map(|it| (it.name, it.detail)).collect();
        assert_eq!(raised, [(Name::Configuration, "a.toml".into()), (Name::Tasks, "two".into())]);
        assert_eq!(conditions.raised()[1].since, since);
        assert_eq!(conditions.gauges.with_label_values(&["tasks"]).get(), 1);
        assert!(conditions.clear(Name::Tasks) && !conditions.clear(Name::Tasks));
        assert_eq!(conditions.gauges.with_label_values(&["tasks"]).get(), 0);
        assert_eq!(conditions.raised().len(), 1);
    }
}
