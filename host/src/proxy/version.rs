//! Asks which version an unversioned name means, and for the rule what it asks of the world.

use std::sync::Arc;

use futures_util::FutureExt;
use http::HeaderMap;

use super::{
    identify,
    plan::{Plan, ServicePlan},
};
use crate::{
    listener::Connection,
    resolve::{self, Health, TraceLine, Untraced, VersionQuery, VersionSources},
    table::{
        Assignments, Release, ServiceId, TableError,
        adapter::{Assignment, Condition},
        assignments::Wait,
        record::ServerUri,
        view::Service,
    },
};

/// A message to a name without a version.
#[derive(Clone, Copy)]
pub(super) struct Unversioned<'a> {
    pub(super) plan: &'a Plan,
    pub(super) release: &'a Release,
    pub(super) assignments: &'a Assignments,
    pub(super) client: &'a str,
    pub(super) headers: &'a HeaderMap,
    /// On which it came; none: there is only a question.
    pub(super) connection: Option<&'a Connection>,
    /// In the table's own time.
    pub(super) now: u64,
    /// How long it may wait for the table.
    pub(super) wait: &'a Wait,
}

impl<'a> Unversioned<'a> {
    fn query(&self) -> VersionQuery<'a> {
        VersionQuery { release: self.release, client: self.client, headers: self.headers, now: self.now }
    }

    /// If nobody has to be asked: the common case.
    pub(super) fn at_once(self) -> Option<Arc<ServicePlan>> {
        let id = resolve::version(self.query(), &mut AtOnce(self), &mut Untraced).now_or_never()?;
        self.plan.service(&id).cloned()
    }

    /// Asks whoever has to be asked, and stores what was decided. None: it is gone.
    pub(super) async fn ask(self) -> Option<Arc<ServicePlan>> {
        let id = resolve::version(self.query(), &mut Asking(self), &mut Untraced).await;
        self.plan.service(&id).cloned()
    }

    /// The same, and why; stores nothing.
    pub(super) async fn explain(self, trace: &mut Vec<TraceLine>) -> Option<Arc<ServicePlan>> {
        let id = resolve::version(self.query(), &mut Dry(self), trace).await;
        self.plan.service(&id).cloned()
    }

    fn cached(&self) -> Option<Arc<str>> {
        let number = self.assignments.cached(&self.release.choices, self.client, self.now)?;
        self.assignments.text(number)
    }

    fn held(&self) -> Option<Arc<str>> {
        self.assignments.text(self.assignments.held(&self.release.choices, self.client, self.now)?)
    }

    fn is_there(&self, service: &ServiceId) -> bool {
        self.plan.service(service).is_some()
    }

    /// Whether an assignment that this router remembers holds or only makes a detour: it stays either way.
    fn holds_cached(&self, service: &ServiceId) -> bool {
        let Some(plan) = self.plan.service(service) else { return false };
        self.stays(plan, self.assignments.cached(&plan.service, self.client, self.now))
    }

    fn stays(&self, plan: &ServicePlan, cached: Option<u32>) -> bool {
        cached.is_some_and(|number| match plan.service.place(number) {
            Some(place) => plan.health(&plan.service.servers[place]) != Health::Left,
            None => self.assignments.text(number).is_some_and(|text| is_elsewhere(&text)),
        })
    }

    async fn holds(&self, service: &ServiceId) -> Result<bool, TableError> {
        if self.holds_cached(service) {
            return Ok(true);
        }
        let Some(plan) = self.plan.service(service) else { return Ok(false) };
        let found = self.assignments.lookup(&plan.service, self.client, self.wait).await?;
        Ok(found.is_some_and(|found| self.is_held(plan, &found)))
    }

    /// The same, and nothing is remembered or prolonged by asking.
    async fn seems_held(&self, service: &ServiceId) -> Result<bool, TableError> {
        let Some(plan) = self.plan.service(service) else { return Ok(false) };
        let cached = self.assignments.peek(&plan.service, self.client, self.now);
        if self.stays(plan, cached.map(|cached| cached.server)) {
            return Ok(true);
        }
        let found = self.assignments.look(&plan.service, self.client, self.wait).await?;
        Ok(found.is_some_and(|found| self.is_held(plan, &found)))
    }

    fn is_held(&self, plan: &ServicePlan, found: &Assignment) -> bool {
        let expired = found.expires.is_some_and(|expires| expires <= self.now);
        !expired
            && match server(&plan.service, &found.server) {
                Some(server) => plan.health(server) != Health::Left,
                None => is_elsewhere(&found.server),
            }
    }
}

fn server<'s>(service: &'s Service, text: &str) -> Option<&'s crate::table::Server> {
    service.server(text).map(|server| &**server)
}

/// A URI that a registrar gave.
fn is_elsewhere(text: &str) -> bool {
    text.parse::<ServerUri>().is_ok()
}

/// Answers at once or never; whatever would have to wait is left for [`Asking`].
struct AtOnce<'a>(Unversioned<'a>);

impl VersionSources for AtOnce<'_> {
    fn cached(&mut self) -> Option<Arc<str>> {
        self.0.cached()
    }

    async fn chosen(&mut self) -> Result<Option<Assignment>, TableError> {
        std::future::pending().await
    }

    fn is_there(&self, service: &ServiceId) -> bool {
        self.0.is_there(service)
    }

    async fn holds(&mut self, service: &ServiceId) -> Result<bool, TableError> {
        match self.0.holds_cached(service) {
            true => Ok(true),
            false => std::future::pending().await,
        }
    }

    async fn claim(&mut self, _: &str, _: Condition) -> Result<Option<Assignment>, TableError> {
        std::future::pending().await
    }

    fn held(&mut self) -> Option<Arc<str>> {
        self.0.held()
    }

    fn hold(&mut self, _: &str, _: &TableError) {}

    fn hold_briefly(&mut self, _: &str) {}
}

/// Asks the table, and stores.
struct Asking<'a>(Unversioned<'a>);

impl VersionSources for Asking<'_> {
    fn cached(&mut self) -> Option<Arc<str>> {
        self.0.cached()
    }

    async fn chosen(&mut self) -> Result<Option<Assignment>, TableError> {
        self.0.assignments.lookup(&self.0.release.choices, self.0.client, self.0.wait).await
    }

    fn is_there(&self, service: &ServiceId) -> bool {
        self.0.is_there(service)
    }

    async fn holds(&mut self, service: &ServiceId) -> Result<bool, TableError> {
        self.0.holds(service).await
    }

    async fn claim(&mut self, choice: &str, condition: Condition) -> Result<Option<Assignment>, TableError> {
        if let (Condition::Absent, Some(connection)) = (condition, self.0.connection) {
            self.0.assignments.admit(identify::origin(&self.0.plan.settings, self.0.headers, connection))?;
        }
        let Unversioned { assignments, release, client, wait, .. } = self.0;
        assignments.claim(&release.choices, client, choice, condition, wait).await
    }

    fn held(&mut self) -> Option<Arc<str>> {
        self.0.held()
    }

    fn hold(&mut self, choice: &str, why: &TableError) {
        self.0.assignments.hold(&self.0.release.choices, self.0.client, choice, why);
    }

    fn hold_briefly(&mut self, choice: &str) {
        self.0.assignments.hold_briefly(&self.0.release.choices, self.0.client, choice);
    }
}

/// Asks the table and stores nothing.
struct Dry<'a>(Unversioned<'a>);

impl VersionSources for Dry<'_> {
    fn cached(&mut self) -> Option<Arc<str>> {
        let Unversioned { assignments, release, client, now, .. } = self.0;
        assignments.text(assignments.peek(&release.choices, client, now)?.server)
    }

    async fn chosen(&mut self) -> Result<Option<Assignment>, TableError> {
        self.0.assignments.look(&self.0.release.choices, self.0.client, self.0.wait).await
    }

    fn is_there(&self, service: &ServiceId) -> bool {
        self.0.is_there(service)
    }

    async fn holds(&mut self, service: &ServiceId) -> Result<bool, TableError> {
        self.0.seems_held(service).await
    }

    async fn claim(&mut self, choice: &str, _: Condition) -> Result<Option<Assignment>, TableError> {
        let server = choice.to_owned();
        Ok(Some(Assignment { server, expires: None, router: String::new(), stamp: 0 }))
    }

    fn held(&mut self) -> Option<Arc<str>> {
        self.0.held()
    }

    fn hold(&mut self, _: &str, _: &TableError) {}

    fn hold_briefly(&mut self, _: &str) {}
}
