//! Follows the view: tells the index what changed, holds what this router's connections hold, and
//! ends what nobody vouches for any more.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    Discovery, Failing,
    doubts::{Doubts, Patience},
    order::{Order, Wish},
    removals::Removals,
};
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
    let mut identity = discovery.table.identity();
    // At a revision at which nothing changed there is nothing to do but to know that it was seen.
    let mut revisions = discovery.table.revisions();
    let mut keeper = Keeper::new(&discovery, &first);
    loop {
        revisions.mark_unchanged();
        let view = Arc::clone(&views.borrow_and_update());
        keeper.follow(view).await;
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            changed = status.changed() => if changed.is_err() { return } else { keeper.cut_off(&status.borrow_and_update()) },
            changed = revisions.changed() => if changed.is_err() { return },
            Ok(()) = identity.changed() => keeper.renamed().await,
            Ok(()) = failing.changed() => keeper.checked(&failing.borrow_and_update()),
            () = sleep_until(keeper.next()) => {}
        }
    }
}

struct Keeper<'a> {
    discovery: &'a Discovery,
    view: Arc<View>,
    doubts: Doubts,
    removals: Removals,
    /// When what is not there is taken to be gone.
    settles: Option<Instant>,
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
            removals: Removals::default(),
            settles: Some(now + discovery.options().grace),
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
        changed.extend(removed(&before, &self.view));
        let now = Instant::now();
        if self.settles.is_some_and(|at| at <= now) {
            self.settles = None;
            self.discovery.index.settle();
        }
        let mut orders = self.holdings(&changed, now);
        let options = self.discovery.options();
        let router = self.discovery.table.router().0;
        let patience = Patience { grace: options.grace, router: &router, others: OTHERS };
        self.doubts.look(&self.view, changed.iter(), patience, now);
        if *self.discovery.table.status().borrow() == Status::Current {
            orders.extend(self.expired(now));
            orders.extend(self.removals.due(now));
        }
        for order in orders {
            self.discovery.order(order).await;
        }
    }

    /// This router may go by another id.
    async fn renamed(&mut self) {
        let router = self.discovery.table.router().0;
        let orders = self.discovery.holdings.lock().rename(&router, &self.view);
        for order in orders {
            self.discovery.order(order).await;
        }
    }

    /// Active checks have changed their mind about some servers.
    fn checked(&self, failing: &Failing) {
        self.discovery.index.check(&self.view, failing);
    }

    fn holdings(&mut self, changed: &BTreeSet<ServiceId>, now: Instant) -> Vec<Order> {
        let mut holdings = self.discovery.holdings.lock();
        let mut orders = holdings.compare(&self.view, changed.iter());
        if self.again <= now {
            if holdings.has_open() {
                orders.extend(holdings.again(&self.view));
            }
            self.again = now + AGAIN;
        }
        self.discovery.metrics.servers.set(i64::try_from(holdings.len()).unwrap_or(i64::MAX));
        drop(holdings);
        self.removals.look(&self.view, &self.discovery.table.router().1.incarnation, now);
        let restored = orders.iter().filter(|order| matches!(order.wish, Wish::Restore(_))).count();
        if restored > 0 {
            tracing::warn!(
                servers = restored,
                "connected servers went from the routing table and nobody removed them: written again"
            );
        }
        orders
    }

    /// What nobody vouches for any more. This router vouches for what is connected to it, whatever the table says
    /// of this router.
    fn expired(&mut self, now: Instant) -> Vec<Order> {
        let mut orders = self.doubts.due(now);
        let holdings = self.discovery.holdings.lock();
        orders.retain(
            |order| !matches!(&order.wish, Wish::Expire(lease) if holdings.vouches(&order.place, lease)),
        );
        drop(holdings);
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
            let router = self.discovery.table.router().0;
            let patience = Patience { grace: options.grace, router: &router, others: OTHERS };
            self.doubts.postpone(patience, Instant::now());
        }
    }

    fn next(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let again = if self.discovery.holdings.lock().has_open() { self.again } else { far };
        let next = again.min(self.settles.unwrap_or(far));
        // While the table is away nothing of this is carried out; its return is a notice of its own.
        if *self.discovery.table.status().borrow() != Status::Current {
            return next;
        }
        let due = [self.doubts.next(), self.removals.next()].into_iter().flatten();
        due.fold(next, Instant::min)
    }
}

/// The services of which somebody removed a server since an earlier view.
fn removed<'a>(before: &'a View, now: &'a View) -> impl Iterator<Item = ServiceId> + 'a {
    let new = now.removed().iter().filter(|(key, held)| before.removed().get(*key) != Some(*held));
    new.filter_map(|(key, _)| key.split_once('/')?.0.parse().ok())
}
