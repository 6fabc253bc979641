//! What active checks say of one server to one service.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use parking_lot::Mutex;

use super::Board;
use crate::{
    table::record::{HealthCheck, ServiceId},
    upstream::Endpoint,
};

/// Whether a server fails the active checks of a service; it does not before it was ever asked.
pub struct Verdict {
    service: ServiceId,
    server: Arc<str>,
    endpoint: Arc<Endpoint>,
    failing: AtomicBool,
    row: Mutex<Row>,
    board: Board,
}

impl Verdict {
    pub(super) fn new(service: ServiceId, server: Arc<str>, endpoint: &Arc<Endpoint>, board: Board) -> Self {
        let (failing, row) = (AtomicBool::new(false), Mutex::default());
        Self { service, server, endpoint: Arc::clone(endpoint), failing, row, board }
    }

    /// Whether the server gets no messages of this service.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Relaxed)
    }

    /// Takes note of an answer to what `health` asks.
    pub(super) fn add(&self, well: bool, health: &HealthCheck) {
        let Some(well) = self.row.lock().add(well, health) else { return };
        self.failing.store(!well, Relaxed);
        let (service, server) = (&self.service, &self.endpoint.uri);
        if well {
            tracing::info!(%service, %server, "a server passes its active checks again");
            self.endpoint.recovered();
            self.withdraw();
        } else {
            tracing::warn!(%service, %server, "a server fails its active checks");
            self.board.send_modify(|board| {
                let failing = Arc::make_mut(board).entry(self.service.clone()).or_default();
                failing.insert(Arc::clone(&self.server));
            });
        }
    }

    /// Tells nobody any more that the server fails.
    pub(super) fn withdraw(&self) {
        self.board.send_if_modified(|board| {
            let told = board.get(&self.service).is_some_and(|failing| failing.contains(&self.server));
            if told && let Some(failing) = Arc::make_mut(board).get_mut(&self.service) {
                failing.remove(&self.server);
                if failing.is_empty() {
                    Arc::make_mut(board).remove(&self.service);
                }
            }
            told
        });
    }
}

/// Answers of the same kind in a row.
#[derive(Default)]
struct Row {
    well: bool,
    length: u32,
    unhealthy: bool,
}

impl Row {
    /// What is now thought of the server, if that changes.
    fn add(&mut self, well: bool, health: &HealthCheck) -> Option<bool> {
        self.length = if self.well == well { self.length.saturating_add(1) } else { 1 };
        self.well = well;
        let needed = if well { health.healthy_after } else { health.unhealthy_after };
        if self.unhealthy != well || self.length < needed.max(1) {
            return None;
        }
        self.unhealthy = !well;
        Some(well)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_a_row_to_change_a_mind() {
        let health: HealthCheck = serde_json::from_str(r#"{"unhealthy_after":3,"healthy_after":2}"#).unwrap();
        let mut row = Row::default();
        let outcomes = [false, false, true, false, false, false, false, true, true, true];
        let minds = outcomes.map(|well| row.add(well, &health));
        let expect = [None, None, None, None, None, Some(false), None, None, Some(true), None];
        assert_eq!(minds, expect);
    }
}
