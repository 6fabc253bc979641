//! `[proxy.token]`: which tokens of clients are believed.

use std::{sync::Arc, time::Duration};

use crate::{
    config::{
        ClientIdSource,
        reader::{Section, Value},
    },
    token::Rules,
};

/// The rules in a section of `[proxy]`, for the claims that are sources of client ids.
pub(super) fn token(proxy: &Section<'_>, sources: &[ClientIdSource]) -> Option<Rules> {
    let claims = sources.iter().filter_map(|source| match source {
        ClientIdSource::Token(claim) => Some(Arc::from(claim.as_str())),
        _ => None,
    });
    let claims: Vec<Arc<str>> = claims.collect();
    match (proxy.value("token"), claims.first()) {
        (Some(value), _) => rules(value.section()?, claims),
        (None, Some(claim)) => proxy.value("client_id")?.refuse(format!(
            "`token:{claim}` needs keys: add [proxy.token] with keys = [\"FILE.pem\"] or secret_file = \"FILE\""
        )),
        (None, None) => None,
    }
}

fn rules(section: Section<'_>, claims: Vec<Arc<str>>) -> Option<Rules> {
    let rules = Rules {
        keys: section.get("keys", |value| value.list(Value::path)).unwrap_or_default(),
        secret_file: section.get("secret_file", Value::path),
        issuer: section.get("issuer", words).unwrap_or_default(),
        audience: section.get("audience", words).unwrap_or_default(),
        leeway: section.get("leeway", leeway).unwrap_or(Duration::from_secs(30)),
        required: section.get("required", Value::switch).unwrap_or(false),
        claims,
    };
    if section.value("keys").is_none() && section.value("secret_file").is_none() {
        section.refuse("has no key: write keys = [\"FILE.pem\"], or secret_file = \"FILE\"");
    }
    if rules.claims.is_empty() && !rules.required {
        section.refuse("has no effect: write \"token:sub\" into `client_id` of [proxy], or required = true");
    }
    section.end();
    Some(rules)
}

/// One word or several.
fn words(value: &Value<'_>) -> Option<Vec<String>> {
    if value.is_text() { value.word().map(|word| vec![word]) } else { value.list(Value::word) }
}

/// In whole seconds, as the times in tokens are.
fn leeway(value: &Value<'_>) -> Option<Duration> {
    match value.span()? {
        span if span <= Duration::from_secs(600) => Some(Duration::from_secs(span.as_secs())),
        _ => value.refuse("out of bounds: write \"1s\" to \"10m\""),
    }
}
