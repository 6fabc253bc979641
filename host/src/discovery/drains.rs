//! Drains: which servers leave, whether every router has let go of them, and who waits for that.
//!
//! A drain stands in the server's record, so every router follows it. Each says in its own record
//! to which of these servers nothing goes from it any more; when all do, the drain is done.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::sleep};

use super::{Discovery, session::Place};
use crate::table::{ServiceId, View, adapter::Revision, view::Changed};

/// From one look at what is still on its way to the next.
const LOOK: Duration = Duration::from_millis(50);

/// What discovery asks of the part that routes messages.
pub trait Traffic: Send + Sync {
    /// The revision of the view by which messages are routed.
    fn routed(&self) -> watch::Receiver<Revision>;

    /// Whether no message goes to a server any more, because of the drain with this stamp.
    fn is_quiet(&self, service: &ServiceId, server: &str, stamp: u32) -> bool;
}

/// How a drain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is safe to stop the server.
    Drained,
    /// Messages may still go to it.
    Draining,
    /// It was registered anew, and so is not leaving any more.
    Cancelled,
}

/// Every server of the table that drains, with the stamp of its drain.
#[derive(Default)]
struct Leaving(BTreeMap<Place, u32>);

impl Leaving {
    /// Goes on from one view to another.
    fn follow(&mut self, before: &View, view: &View) {
        for Changed { id, now, .. } in view.stored_since(before) {
            self.0.retain(|place, _| place.service != *id);
            for server in now.into_iter().flat_map(|service| &service.servers) {
                if let Some(draining) = &server.record.draining {
                    let place = Place { service: id.clone(), server: Arc::clone(&server.id) };
                    self.0.insert(place, draining.stamp);
                }
            }
        }
    }
}

fn key(place: &Place) -> String {
    format!("{}/{}", place.service, place.server)
}

/// How the drain of a server with this stamp stands.
pub(super) fn progress(view: &View, place: &Place, stamp: u32) -> Progress {
    let server = view.stored(&place.service).and_then(|service| service.server(&place.server));
    let Some(server) = server else { return Progress::Drained };
    let key = key(place);
    match &server.record.draining {
        Some(draining) if draining.stamp == stamp => {
            let mut routers = view.routers().values();
            let all =
                !view.routers().is_empty() && routers.all(|router| router.drained.get(&key) == Some(&stamp));
            if all { Progress::Drained } else { Progress::Draining }
        }
        _ => Progress::Cancelled,
    }
}

/// Says what this router has let go of, and tells the connections whose servers are drained.
pub(super) async fn follow(discovery: Arc<Discovery>, traffic: Arc<dyn Traffic>) {
    let mut views = discovery.table.subscribe();
    let mut routed = traffic.routed();
    let (mut told, mut leaving, mut before) = (HashSet::new(), Leaving::default(), Arc::<View>::default());
    loop {
        let view = Arc::clone(&views.borrow_and_update());
        leaving.follow(&before, &view);
        before = Arc::clone(&view);
        let Leaving(leaving) = &leaving;
        let quiet =
            leaving.iter().filter(|(place, stamp)| traffic.is_quiet(&place.service, &place.server, **stamp));
        let report: BTreeMap<String, u32> = quiet.map(|(place, stamp)| (key(place), *stamp)).collect();
        let waits = report.len() < leaving.len();
        discovery.table.report(report);
        told.retain(|(place, stamp)| leaving.get(place) == Some(stamp));
        for (place, stamp) in leaving {
            if progress(&view, place, *stamp) == Progress::Drained && told.insert((place.clone(), *stamp)) {
                discovery.drained(place);
            }
        }
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            changed = routed.changed() => if changed.is_err() { return },
            () = sleep(LOOK), if waits => {}
        }
    }
}
