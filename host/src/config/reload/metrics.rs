//! What is counted of the configuration file, and why a version of it is not taken.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

/// Why a version of the file is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Gone,
    Unreadable,
    Changing,
    Empty,
    NotText,
    Invalid,
    Opens,
}

impl Reason {
    const ALL: [Self; 7] = [
        Self::Gone,
        Self::Unreadable,
        Self::Changing,
        Self::Empty,
        Self::NotText,
        Self::Invalid,
        Self::Opens,
    ];

    /// As the metrics and the log write it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Unreadable => "unreadable",
            Self::Changing => "changing",
            Self::Empty => "empty",
            Self::NotText => "not-text",
            Self::Invalid => "invalid",
            Self::Opens => "opens",
        }
    }

    /// What the file is, after its name. Nothing of what it holds: whoever reaches `/ready` reads it.
    pub(super) fn shown(self) -> &'static str {
        match self {
            Self::Gone => "is not there",
            Self::Unreadable => "cannot be read",
            Self::Changing => "changes all the time",
            Self::Empty => "is empty",
            Self::NotText => "is not UTF-8 text",
            Self::Invalid => "is not valid",
            Self::Opens => "opens what was closed",
        }
    }

    /// What an operator can do.
    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::Opens => "; if that is meant, send SIGHUP",
            _ => "",
        }
    }
}

/// Of the configuration file of one process.
#[derive(Clone)]
pub struct Metrics {
    pub(super) current: IntGauge,
    refused: IntCounterVec,
}

impl Metrics {
    /// Exports them.
    ///
    /// # Errors
    /// If the registry has such a metric already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let current = IntGauge::new(
            "message_flow_configuration_current",
            "1 while the configuration file, or the defaults without one, is what runs.",
        )?;
        let refused = IntCounterVec::new(
            Opts::new(
                "message_flow_configuration_refused_total",
                "Versions of the configuration file that were not taken, by reason.",
            ),
            &["reason"],
        )?;
        for reason in Reason::ALL {
            refused.with_label_values(&[reason.word()]);
        }
        current.set(1);
        registry.register(Box::new(current.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Self { current, refused })
    }

    pub(super) fn refused(&self, reason: Reason) {
        self.current.set(0);
        self.refused.with_label_values(&[reason.word()]).inc();
    }
}
