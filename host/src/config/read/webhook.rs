//! `[[webhook]]`: who is told of what happens.

use std::time::Duration;

use http::Uri;
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::bounded;
use crate::{
    authority,
    config::{
        WebhookConfig,
        reader::{Section, Value},
    },
    webhook::{Event, Secret},
};

pub(super) fn one(section: Section<'_>) -> Option<WebhookConfig> {
    let address = section.need("url", "url = \"https://HOST/PATH\"", url);
    let (written, file) = (section.get("secret", Value::parse), section.get("secret_file", secret_file));
    if section.value("secret").is_some() && section.value("secret_file").is_some() {
        section.refuse("write `secret` or `secret_file`, not both");
    }
    let host = address.as_ref().and_then(Uri::host).unwrap_or_default().to_owned();
    let webhook = Draft {
        name: section.get("name", Value::word).unwrap_or(host),
        secret: written.or(file),
        events: section.get("events", |value| value.list(event)).unwrap_or_default(),
        ca: section.get("ca", certificates).unwrap_or_default(),
        queue: section.get("queue", |value| bounded(value, 1..100_001)).unwrap_or(256),
        timeout: section.get("timeout", Value::span).unwrap_or(Duration::from_secs(10)),
        attempts: section.get("attempts", |value| bounded(value, 1..101)).unwrap_or(8),
    };
    section.end();
    let Draft { name, secret, events, ca, queue, timeout, attempts } = webhook;
    Some(WebhookConfig { name, url: address?, secret, events, ca, queue, timeout, attempts })
}

/// A webhook whose address may not be valid.
struct Draft {
    name: String,
    secret: Option<Secret>,
    events: Vec<Event>,
    ca: Vec<CertificateDer<'static>>,
    queue: usize,
    timeout: Duration,
    attempts: u32,
}

fn url(value: &Value<'_>) -> Option<Uri> {
    let text = value.text()?;
    let uri: Option<Uri> = text.parse().ok();
    let valid = |uri: &Uri| {
        let plain = uri.authority().is_some_and(|it| authority::split(it.as_str()).is_some());
        matches!(uri.scheme_str(), Some("http" | "https")) && plain
    };
    // What is wrong with it is not repeated: the path of a webhook is often a secret.
    uri.filter(valid).or_else(|| value.refuse("not a webhook's address: write https://HOST/PATH"))
}

fn secret_file(value: &Value<'_>) -> Option<Secret> {
    let path = value.path()?;
    match std::fs::read_to_string(&path) {
        Ok(text) => text.parse().map_err(|error| value.complain(format!("{}: {error}", path.display()))).ok(),
        Err(error) => value.refuse(format!("cannot read {}: {error}", path.display())),
    }
}

fn certificates(value: &Value<'_>) -> Option<Vec<CertificateDer<'static>>> {
    let path = value.path()?;
    let read = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if !certificates.is_empty() => Some(certificates),
        Ok(_) => value.refuse(format!("{} holds no certificate in PEM form", path.display())),
        Err(error) => value.refuse(format!("cannot read {}: {error}", path.display())),
    }
}

fn event(value: &Value<'_>) -> Option<Event> {
    value.choice(&Event::WORDS)
}
