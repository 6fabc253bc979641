//! Releases: which versions of a service are live, changed by people or by themselves.
//!
//! What a release becomes is decided in [`crate::table::record`]; here it is written, so that a change
//! is never made on top of one that nobody saw, and [`guard`] undoes a promotion that goes wrong. May
//! know the table; knows neither `api` nor `proxy`.

pub mod guard;

use crate::table::{
    Table, TableError, View,
    adapter::{Change, Revision},
    record::{ReleaseRecord, ReleaseRefused, ReleaseVersions, UNVERSIONED},
};

/// Why a release was not changed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChangeError {
    /// Somebody else did.
    #[error(
        "the release of {name} is at change {number}, by {by}, not at {expected}: look at it and decide again"
    )]
    Changed {
        /// Of which service.
        name: String,
        /// Where it is.
        number: u64,
        /// Who made that change.
        by: String,
        /// Where it was thought to be.
        expected: u64,
    },
    /// It makes no sense.
    #[error(transparent)]
    Refused(#[from] ReleaseRefused),
    /// There is no such service.
    #[error("there is no service {0}")]
    Unknown(String),
    /// The table could not be written.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// A release that was changed.
#[derive(Clone, Debug)]
pub struct Changed {
    /// As it is now.
    pub release: ReleaseRecord,
    /// Of the table.
    pub revision: Revision,
}

/// Changes a release: one that is at `expected`, or without that the one there is. Of two changes at
/// once the second is made of what the first has left.
pub async fn change(
    table: &Table,
    name: &str,
    expected: Option<u64>,
    plan: impl Fn(&ReleaseRecord, &ReleaseVersions<'_>) -> Result<ReleaseRecord, ReleaseRefused>,
) -> Result<Changed, ChangeError> {
    let revised = table.revise(|view| {
        let versions = versions(view, name);
        let release = view.release(name);
        if versions.is_empty() && release.is_none() {
            return Err(ChangeError::Unknown(name.to_owned()));
        }
        let release = release.cloned().unwrap_or_default();
        expected.map_or(Ok(()), |expected| must_be_at(name, &release, expected))?;
        let planned = plan(&release, &ReleaseVersions { name, versions })?;
        let changes = vec![put(name, &planned)];
        Ok((planned, changes))
    });
    let revised = revised.await?;
    Ok(Changed { release: revised.answer, revision: revised.revision })
}

fn must_be_at(name: &str, release: &ReleaseRecord, expected: u64) -> Result<(), ChangeError> {
    if release.number == expected {
        return Ok(());
    }
    let by = release.latest().map_or_else(|| "nobody".to_owned(), |change| change.by.clone());
    Err(ChangeError::Changed { name: name.to_owned(), number: release.number, by, expected })
}

fn put(name: &str, release: &ReleaseRecord) -> Change {
    let value = serde_json::to_string(release).expect("a release has text keys only");
    Change { kind: "release".to_owned(), key: name.to_owned(), value: Some(value), ephemeral: false }
}

/// Every version of a name that there is, the service without one as [`UNVERSIONED`].
pub fn versions<'v>(view: &'v View, name: &str) -> Vec<&'v str> {
    let named = view.services().filter(|service| service.id.name() == name);
    named.map(|service| service.id.version().unwrap_or(UNVERSIONED)).collect()
}
