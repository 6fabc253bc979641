//! `[[route]]`: which messages go to which service.

use http::{HeaderName, Method};

use crate::{
    authority,
    config::{
        RouteConfig,
        reader::{Section, Value},
    },
};

pub(super) fn one(section: Section<'_>) -> Option<RouteConfig> {
    let route = RouteConfigDraft {
        host: section.get("host", host),
        path: section.get("path", path),
        methods: section.get("method", methods).unwrap_or_default(),
        headers: section.get("headers", |value| Some(headers(&value.section()?))).unwrap_or_default(),
        strip: section.get("strip", Value::switch).unwrap_or(false),
    };
    let service = section.need("service", "service = \"NAME\"", Value::parse);
    section.end();
    let RouteConfigDraft { host, path, methods, headers, strip } = route;
    Some(RouteConfig { host, path, methods, headers, service: service?, strip })
}

/// A route whose service is not yet known to be there.
struct RouteConfigDraft {
    host: Option<String>,
    path: Option<String>,
    methods: Vec<Method>,
    headers: Vec<(HeaderName, String)>,
    strip: bool,
}

fn host(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let name = text.strip_prefix("*.").unwrap_or(text);
    match authority::split(name) {
        Some((_, None)) => Some(text.to_ascii_lowercase()),
        _ => value.refuse(format!(
            "`{text}` is not a host: write chat.example.com or *.example.com, without a port"
        )),
    }
}

fn path(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.starts_with('/') && visible && !text.contains(['?', '#', '*']) {
        Some(text.to_owned())
    } else {
        value.refuse(format!(
            "`{text}` is not a path prefix: write one that starts with `/`, such as \"/v1/\""
        ))
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
