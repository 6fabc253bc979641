//! `[[route]]`: which messages go to which service.

use http::{HeaderName, Method};

use super::encoded_slashes;
use crate::{
    authority,
    config::{
        EncodedSlashes, RouteConfig,
        reader::{Section, Value},
    },
    path::{self, Normal},
};

pub(super) fn one(section: Section<'_>) -> Option<RouteConfig> {
    let route = RouteConfigDraft {
        host: section.get("host", host),
        path: section.get("path", path),
        methods: section.get("method", methods).unwrap_or_default(),
        headers: section.get("headers", |value| Some(headers(&value.section()?))).unwrap_or_default(),
        strip: section.get("strip", Value::switch).unwrap_or(false),
        encoded_slashes: section.get("encoded_slashes", encoded_slashes),
    };
    let service = section.need("service", "service = \"NAME\"", Value::parse);
    section.end();
    let RouteConfigDraft { host, path, methods, headers, strip, encoded_slashes } = route;
    Some(RouteConfig { host, path, methods, headers, service: service?, strip, encoded_slashes })
}

/// A route whose service is not yet known to be there.
struct RouteConfigDraft {
    host: Option<String>,
    path: Option<String>,
    methods: Vec<Method>,
    headers: Vec<(HeaderName, String)>,
    strip: bool,
    encoded_slashes: Option<EncodedSlashes>,
}

/// As hosts of messages are compared with it.
fn host(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let (any, name) = text.strip_prefix("*.").map_or(("", text), |name| ("*.", name));
    let name = if name.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{name}]") } else { name.to_owned() };
    match authority::split(&name) {
        Some((host, None)) => Some(format!("{any}{}", authority::canonical(host)).to_ascii_lowercase()),
        _ => value.refuse(format!(
            "`{text}` is not a host: write chat.example.com or *.example.com, without a port"
        )),
    }
}

/// As paths of messages are compared with it.
fn path(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !text.starts_with('/') || !visible || text.contains(['?', '#', '*']) {
        return value.refuse(format!(
            "`{text}` is not a path prefix: write one that starts with `/`, such as \"/v1/\""
        ));
    }
    match path::normal(text) {
        Ok(Normal { target, .. }) => Some(target.into_owned()),
        Err(error) => value.refuse(format!("`{text}` is not a path prefix: {error}")),
    }
}

fn methods(value: &Value<'_>) -> Option<Vec<Method>> {
    if value.is_text() { Some(vec![method(value)?]) } else { value.list(method) }
}

fn method(value: &Value<'_>) -> Option<Method> {
    let text = value.text()?;
    let upper = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    match text.parse() {
        Ok(method) if upper => Some(method),
        _ => value.refuse(format!("`{text}` is not a method: write it in capitals, such as \"GET\"")),
    }
}

fn headers(section: &Section<'_>) -> Vec<(HeaderName, String)> {
    section.entries().filter_map(|(name, value)| header(name, &value)).collect()
}

fn header(name: &str, value: &Value<'_>) -> Option<(HeaderName, String)> {
    match name.parse() {
        Ok(name) => Some((name, value.text()?.to_owned())),
        Err(_) => value.refuse(format!("`{name}` is not the name of a header")),
    }
}
