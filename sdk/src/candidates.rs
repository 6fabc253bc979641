//! Whom a registrar may choose among: see `wit/candidates.wit`.

use crate::bindings::imports::message_flow::plugin::candidates;
pub use candidates::servers;

/// The id of the server with the least to do, of those whose metadata has all of these pairs.
#[must_use]
pub fn least_loaded(having: &[(&str, &str)]) -> Option<String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    candidates::least_loaded(&having.iter().map(owned).collect::<Vec<_>>())
}
