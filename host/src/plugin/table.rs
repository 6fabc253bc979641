//! A routing-table plugin behind the seam of [`crate::table::adapter`].
//!
//! Every call goes to the generation that is active when it is made, so a reload of the adapter
//! is no event for the table.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use super::{
    CallError, Cause, Generation, Kind, Message, Plugins,
    bounds::{Bounded, NAME, TooLong, VALUE, Whole},
    instance::{self, Lookup, Params},
    pool::{Call, Pick},
};
use crate::table::adapter::{self, Answer, Revision, TableError};

/// The functions that may have changed something when no answer came.
const CHANGING: [&str; 4] = ["write", "assign", "forget", "locate"];
/// As `wit/routing-table.wit` has it.
const MAY_HAVE_HAPPENED: &str = "it may have been carried out";
/// How long `changes` may wait for the next change, guest and host together.
const CHANGES: Duration = Duration::from_secs(40);

mod records {
    #![allow(unsafe_code, reason = "the derives of the component model write unsafe impls")]

    use wasmtime::component::{ComponentType, Lift, Lower};

    use crate::plugin::bounds::{Cut, NAME, REASON, VALUE, Whole};

    #[derive(ComponentType, Lift)]
    #[component(record)]
    pub(super) struct Entry {
        pub(super) kind: Whole<NAME>,
        pub(super) key: Whole<VALUE>,
        pub(super) value: String,
    }

    #[derive(ComponentType, Lift)]
    #[component(record)]
    pub(super) struct Snapshot {
        pub(super) entries: Vec<Entry>,
        pub(super) revision: u64,
    }

    #[derive(ComponentType, Lift, Lower)]
    #[component(record)]
    pub(super) struct Change {
        pub(super) kind: String,
        pub(super) key: String,
        pub(super) value: Option<String>,
        pub(super) ephemeral: bool,
    }

    #[derive(ComponentType, Lift)]
    #[component(record)]
    pub(super) struct ChangeSet {
        pub(super) changes: Vec<Change>,
        pub(super) revision: u64,
    }

    #[derive(ComponentType, Lift)]
    #[component(record)]
    pub(super) struct Assignment {
        pub(super) server: Whole<VALUE>,
        pub(super) expires: Option<u64>,
        pub(super) router: Whole<VALUE>,
        pub(super) stamp: u64,
    }

    #[derive(ComponentType, Lower)]
    #[component(variant)]
    pub(super) enum Condition {
        #[component(name = "absent")]
        Absent,
        #[component(name = "unchanged")]
        Unchanged(u64),
        #[component(name = "always")]
        Always,
    }

    #[derive(ComponentType, Lower)]
    #[component(record)]
    pub(super) struct Proposal {
        pub(super) client: String,
        pub(super) service: String,
        pub(super) server: String,
        pub(super) expires: Option<u64>,
        pub(super) router: String,
    }

    #[derive(ComponentType, Lift)]
    #[component(record)]
    pub(super) struct ClientRecord {
        pub(super) router: Option<Whole<VALUE>>,
        pub(super) assignments: Vec<(Whole<VALUE>, Assignment)>,
    }

    #[derive(ComponentType, Lift)]
    #[component(variant)]
    pub(super) enum Error {
        #[component(name = "unavailable")]
        Unavailable(Cut<REASON>),
        #[component(name = "compacted")]
        Compacted,
        #[component(name = "conflict")]
        Conflict(u64),
        #[component(name = "refused")]
        Refused(Cut<REASON>),
        #[component(name = "invalid")]
        Invalid(Cut<REASON>),
        #[component(name = "other")]
        Other(Cut<REASON>),
    }
}

type Function<P, T> = instance::Function<P, (Result<T, records::Error>,)>;
type Fallible<T> = (Result<T, records::Error>,);

/// The functions of `routing-table`.
pub(super) struct TableFunctions {
    read: Function<(), records::Snapshot>,
    changes: Function<(u64,), records::ChangeSet>,
    write: Function<(Vec<records::Change>, Option<u64>), u64>,
    assigned: Function<(String, String), Option<records::Assignment>>,
    assign: Function<(records::Proposal, records::Condition), Option<records::Assignment>>,
    forget: Function<(String, String), ()>,
    client: Function<(String,), records::ClientRecord>,
    locate: Function<(String, Option<String>), ()>,
    sweep: Function<(u64, u32), u32>,
}

impl TableFunctions {
    /// None if the component is no adapter.
    pub(super) fn find(lookup: &mut Lookup<'_>) -> Result<Option<Self>, wasmtime::Error> {
        const INTERFACE: &str = "routing-table";
        let Some(read) = lookup.function(INTERFACE, "read")? else { return Ok(None) };
        macro_rules! found {
            ($name:literal) => {
                lookup.function(INTERFACE, $name)?.expect("the interface was found above")
            };
        }
        Ok(Some(Self {
            read,
            changes: found!("changes"),
            write: found!("write"),
            assigned: found!("assigned"),
            assign: found!("assign"),
            forget: found!("forget"),
            client: found!("client"),
            locate: found!("locate"),
            sweep: found!("sweep"),
        }))
    }
}

/// The active generation of one plugin, as an adapter.
pub struct TablePlugin {
    name: Arc<str>,
    active: Box<dyn Fn() -> Option<Arc<Generation>> + Send + Sync>,
}

impl TablePlugin {
    /// The plugin of this name, whether it is there already or not.
    pub fn new(plugins: Arc<Plugins>, name: &str) -> Self {
        let name = Arc::<str>::from(name);
        let wanted = Arc::clone(&name);
        let active = move || plugins.current().by_name.get(&wanted).cloned();
        Self { name, active: Box::new(active) }
    }

    /// One build, whatever else there is.
    pub fn of(build: Arc<Generation>) -> Self {
        Self { name: build.name().into(), active: Box::new(move || Some(Arc::clone(&build))) }
    }

    fn active(&self) -> Result<Arc<Generation>, TableError> {
        let found = (self.active)().filter(|generation| generation.is(Kind::RoutingTable));
        let missing = || format!("there is no routing-table plugin `{}` (see [table] adapter)", self.name);
        found.ok_or_else(|| TableError::Adapter(missing()))
    }

    async fn call<P, T>(
        &self,
        name: &'static str,
        pick: Pick<P, Fallible<T>>,
        params: P,
        deadline: Option<Duration>,
    ) -> Result<T, TableError>
    where
        P: Params,
        Fallible<T>: instance::Answer,
    {
        let generation = self.active()?;
        let deadline = deadline.unwrap_or(generation.template.plugin.deadline);
        let call = Call { name, pick, deadline };
        let answer = generation.call_within(&mut Message::default(), &call, params).await;
        let (answer,) = answer.map_err(|error: CallError| match error.cause {
            // Nobody knows how far it came.
            Cause::Deadline(..) if CHANGING.contains(&name) => TableError::Unknown(error.to_string()),
            _ => TableError::Adapter(error.to_string()),
        })?;
        answer.map_err(lift_error)
    }
}

fn lift_error(error: records::Error) -> TableError {
    match error {
        records::Error::Unavailable(text) => TableError::Unavailable(text.0),
        records::Error::Compacted => TableError::Compacted,
        records::Error::Conflict(revision) => TableError::Conflict(revision),
        records::Error::Refused(text) => TableError::Refused(text.0),
        records::Error::Invalid(text) => TableError::Invalid(text.0),
        records::Error::Other(text) => TableError::Adapter(text.0),
    }
}

/// What came of a change, where a datastore that did not answer may have made it.
fn decided<T>(answer: Result<T, TableError>) -> Result<T, TableError> {
    answer.map_err(|error| match error {
        TableError::Unavailable(why) if why.contains(MAY_HAVE_HAPPENED) => {
            let why = why.replace(MAY_HAVE_HAPPENED, "");
            TableError::Unknown(why.trim_end_matches([' ', ';']).to_owned())
        }
        error => error,
    })
}

fn lift_assignment(assignment: records::Assignment) -> Result<adapter::Assignment, TableError> {
    let records::Assignment { server, expires, router, stamp } = assignment;
    Ok(adapter::Assignment { server: whole(server)?, expires, router: whole(router)?, stamp })
}

/// A text of an adapter, if it is no longer than its kind may be.
fn whole<const MOST: usize>(text: Whole<MOST>) -> Result<String, TableError> {
    text.0.map_err(|too_long| TableError::Adapter(format!("the adapter answered with {too_long}")))
}

/// What stands for an entry whose kind or key is longer than any may be: the others are read all the same.
fn too_long(kind: Result<String, TooLong>, key: Result<String, TooLong>) -> adapter::Entry {
    let why = kind.as_ref().err().or(key.as_ref().err()).map(ToString::to_string).unwrap_or_default();
    let key = key.or(kind).unwrap_or_else(|_| "kind and key".to_owned());
    let key = crate::text::cut(&key, NAME).to_owned();
    adapter::Entry { kind: adapter::STRAY.to_owned(), key, value: why }
}

macro_rules! pick {
    ($function:ident) => {
        |functions| functions.table.as_ref().map(|table| &table.$function)
    };
}

impl adapter::Adapter for TablePlugin {
    fn snapshot(&self) -> Answer<'_, adapter::Snapshot> {
        Box::pin(async move {
            let snapshot = self.call("read", pick!(read), (), None).await?;
            let entries = snapshot.entries.into_iter();
            let entries = entries.map(|records::Entry { kind, key, value }| match (kind.0, key.0) {
                (Ok(kind), Ok(key)) => adapter::Entry { kind, key, value },
                (kind, key) => too_long(kind, key),
            });
            Ok(adapter::Snapshot { entries: entries.collect(), revision: snapshot.revision })
        })
    }

    fn changes(&self, after: Revision) -> Answer<'_, adapter::ChangeSet> {
        Box::pin(async move {
            let set = self.call("changes", pick!(changes), (after,), Some(CHANGES)).await?;
            let changes = set.changes.into_iter().map(|change| {
                let records::Change { kind, key, value, ephemeral } = change;
                match (Whole::<NAME>::from_text(kind).0, Whole::<VALUE>::from_text(key).0) {
                    (Ok(kind), Ok(key)) => adapter::Change { kind, key, value, ephemeral },
                    (kind, key) => {
                        let adapter::Entry { kind, key, value: why } = too_long(kind, key);
                        adapter::Change { kind, key, value: value.map(|_| why), ephemeral }
                    }
                }
            });
            Ok(adapter::ChangeSet { changes: changes.collect(), revision: set.revision })
        })
    }

    fn stirred(&self) -> BoxFuture<'_, ()> {
        let Ok(generation) = self.active() else { return Box::pin(std::future::pending()) };
        let state = Arc::clone(&generation.template.plugin.capabilities.state);
        let seen = state.commit_sequence();
        Box::pin(async move {
            state.stirred(seen).await;
        })
    }

    fn write(&self, changes: Vec<adapter::Change>, expect: Option<Revision>) -> Answer<'_, Revision> {
        Box::pin(async move {
            let changes = changes.into_iter().map(|change| {
                let adapter::Change { kind, key, value, ephemeral } = change;
                records::Change { kind, key, value, ephemeral }
            });
            decided(self.call("write", pick!(write), (changes.collect(), expect), None).await)
        })
    }

    fn assigned(&self, client: String, service: String) -> Answer<'_, Option<adapter::Assignment>> {
        Box::pin(async move {
            let assignment = self.call("assigned", pick!(assigned), (client, service), None).await?;
            assignment.map(lift_assignment).transpose()
        })
    }

    fn assign(
        &self,
        proposal: adapter::Proposal,
        condition: adapter::Condition,
    ) -> Answer<'_, Option<adapter::Assignment>> {
        Box::pin(async move {
            let adapter::Proposal { client, service, server, expires, router } = proposal;
            let proposal = records::Proposal { client, service, server, expires, router };
            let condition = match condition {
                adapter::Condition::Absent => records::Condition::Absent,
                adapter::Condition::Unchanged(stamp) => records::Condition::Unchanged(stamp),
                adapter::Condition::Always => records::Condition::Always,
            };
            let stored = self.call("assign", pick!(assign), (proposal, condition), None).await;
            let stored = decided(stored)?;
            stored.map(lift_assignment).transpose()
        })
    }

    fn forget(&self, client: String, service: String) -> Answer<'_, ()> {
        Box::pin(async move { decided(self.call("forget", pick!(forget), (client, service), None).await) })
    }

    fn client(&self, client: String) -> Answer<'_, adapter::ClientRecord> {
        Box::pin(async move {
            let record = self.call("client", pick!(client), (client,), None).await?;
            let assignments = record.assignments.into_iter();
            let assignments =
                assignments.map(|(service, assignment)| Ok((whole(service)?, lift_assignment(assignment)?)));
            let assignments = assignments.collect::<Result<_, TableError>>()?;
            Ok(adapter::ClientRecord { router: record.router.map(whole).transpose()?, assignments })
        })
    }

    fn locate(&self, client: String, router: Option<String>) -> Answer<'_, ()> {
        Box::pin(async move { decided(self.call("locate", pick!(locate), (client, router), None).await) })
    }

    fn sweep(&self, now: u64, limit: u32) -> Answer<'_, u32> {
        Box::pin(self.call("sweep", pick!(sweep), (now, limit), None))
    }
}
