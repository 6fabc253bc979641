//! Follows the view: tells the index what changed, holds what this router's connections hold, and
//! ends what nobody vouches for any more.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{Discovery, Failing, doubts::Doubts, doubts::Patience, order::Order};
use crate::table::{ServiceId, Status, View};

/// What was written in vain is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// Other routers leave a lease to the router that holds it for so long.
const OTHERS: Duration = Duration::from_millis(500);

/// Follows the view from this one on, until dropped.
pub(super) async fn keep(discovery: Arc<Discovery>, first: Arc<View>) {
    let mut views = discovery.table.subscribe();
    let mut status = discovery.table.status();
    let mut failing = discovery.failing.subscribe();
    let mut keeper = Keeper::new(&discovery, &first);
    loop {
        let view = Arc::clone(&views.borrow_and_update());
        keeper.follow(view).await;
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            changed = status.changed() => if changed.is_err() { return } else { keeper.cut_off(&status.borrow_and_update()) },
            Ok(()) = failing.changed() => keeper.checked(&failing.borrow_and_update()),
            () = sleep_until(keeper.next()) => {}
        }
    }
}

struct Keeper<'a> {
    discovery: &'a Discovery,
    view: Arc<View>,
    doubts: Doubts,
    /// When what is not there is taken to be gone.
    settles: Option<Instant>,
    /// The table says nothing of this router, or of an earlier start of it.
    estranged: bool,
    /// When holdings are looked at again.
    again: Instant,
    began: bool,
}

impl<'a> Keeper<'a> {
    fn new(discovery: &'a Discovery, first: &Arc<View>) -> Self {
        let now = Instant::now();
        Self {
            discovery,
            view: Arc::clone(first),
            doubts: Doubts::default(),
            settles: Some(now + discovery.options().grace),
            estranged: true,
            again: now + AGAIN,
            began: false,
        }
    }

    async fn follow(&mut self, view: Arc<View>) {
        let before = std::mem::replace(&mut self.view, view);
        let mut changed = self.discovery.index.apply(&before, &self.view);
        if !std::mem::replace(&mut self.began, true) {
            changed.extend(self.view.stored_services().map(|service| service.id.clone()));
        }
        // The configuration may hide a service of which the table says something new.
        changed.extend(self.view.stored_since(&before).map(|changed| changed.id.clone()));
        let now = Instant::now();
        if self.settles.is_some_and(|at| at <= now) {
            self.settles = None;
            self.discovery.index.settle();
        }
        let mut orders = self.holdings(&changed, now);
        let options = self.discovery.options();
        let patience =
            Patience { grace: options.grace, router: self.discovery.table.router().0, others: OTHERS };
        self.doubts.look(&self.view, changed.iter(), patience, now);
        if *self.discovery.table.status().borrow() == Status::Current {
            orders.extend(self.expired(now));
        }
        for order in orders {
            self.discovery.order(order).await;
        }
    }

    /// Active checks have changed their mind about some servers.
    fn checked(&self, failing: &Failing) {
        self.discovery.index.check(&self.view, failing);
    }

    fn holdings(&mut self, changed: &BTreeSet<ServiceId>, now: Instant) -> Vec<Order> {
        let (router, record) = self.discovery.table.router();
        let known = self.view.routers().get(router);
        let known = known.is_some_and(|known| known.incarnation == record.incarnation);
        let mut holdings = self.discovery.holdings.lock();
        let estranged = self.estranged || !known;
        let mut orders = holdings.compare(&self.view, changed.iter(), estranged);
        let returned = std::mem::replace(&mut self.estranged, !known) && known;
        if returned || (self.again <= now && holdings.has_open()) {
            orders.extend(holdings.again(&self.view, self.estranged));
        }
        if self.again <= now {
            self.again = now + AGAIN;
        }
        self.discovery.metrics.servers.set(i64::try_from(holdings.len()).unwrap_or(i64::MAX));
        orders
    }

    fn expired(&mut self, now: Instant) -> Vec<Order> {
        let orders = self.doubts.due(now);
        for order in &orders {
            let Order { place, wish } = order;
            let (service, server) = (&place.service, &place.server);
            tracing::info!(%service, %server, what = wish.word(), "a server's time is over");
        }
        orders
    }

    /// While nothing was known nothing was missed, so all that is doubted gets its time again.
    fn cut_off(&mut self, status: &Status) {
        if *status == Status::Current {
            let options = self.discovery.options();
            let patience =
                Patience { grace: options.grace, router: self.discovery.table.router().0, others: OTHERS };
            self.doubts.postpone(patience, Instant::now());
        }
    }

    fn next(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let doubts = self.doubts.next().unwrap_or(far);
        let again = if self.discovery.holdings.lock().has_open() { self.again } else { far };
        doubts.min(again).min(self.settles.unwrap_or(far))
    }
}
