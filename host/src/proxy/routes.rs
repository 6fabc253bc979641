//! Routes: which service a message is for, by host, path, method and headers.
//!
//! The most specific route that matches decides: an exact host before a suffix before any, then
//! the longer path, then more header conditions, then methods; among equals the first configured.

use http::{HeaderMap, Method};

use crate::{config::RouteConfig, path};

/// All routes, most specific first.
#[derive(Default)]
pub(super) struct Routes(Vec<RouteConfig>);

/// What routes look at.
pub(super) struct Target<'a> {
    /// Without a port, in canonical form.
    pub(super) host: &'a str,
    /// In normal form.
    pub(super) path: &'a str,
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
}

impl Routes {
    pub(super) fn new(routes: &[RouteConfig]) -> Self {
        let mut routes = routes.to_vec();
        routes.sort_by_key(|route| std::cmp::Reverse(rank(route)));
        Self(routes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn find(&self, target: &Target<'_>) -> Option<&RouteConfig> {
        self.0.iter().find(|route| matches(route, target))
    }
}

fn rank(route: &RouteConfig) -> (u8, usize, usize, usize, bool) {
    let host = match route.host.as_deref() {
        Some(suffix) if suffix.starts_with("*.") => 1,
        Some(_) => 2,
        None => 0,
    };
    let suffix = route.host.as_deref().map_or(0, str::len);
    let path = route.path.as_deref().map_or(0, str::len);
    (host, suffix, path, route.headers.len(), !route.methods.is_empty())
}

fn matches(route: &RouteConfig, target: &Target<'_>) -> bool {
    route.host.as_deref().is_none_or(|host| matches_host(host, target.host))
        && route.path.as_deref().is_none_or(|path| matches_path(path, target.path))
        && (route.methods.is_empty() || route.methods.contains(target.method))
        && route.headers.iter().all(|(name, value)| {
            target.headers.get_all(name).iter().any(|found| found.as_bytes() == value.as_bytes())
        })
}

fn matches_host(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(suffix) => {
            let at = host.len().checked_sub(suffix.len()).filter(|at| *at > 1);
            at.is_some_and(|at| {
                host.is_char_boundary(at)
                    && host[at..].eq_ignore_ascii_case(suffix)
                    && host.as_bytes()[at - 1] == b'.'
            })
        }
        None => pattern.eq_ignore_ascii_case(host),
    }
}

/// Whole segments only, unless the prefix ends with a slash.
fn matches_path(prefix: &str, path: &str) -> bool {
    path::strip_prefix(path, prefix)
        .is_some_and(|rest| prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
}

/// The rest of a path once this much has been taken off its front; `/` where nothing is left.
pub(super) fn strip<'a>(path_and_query: &'a str, prefix: &str) -> std::borrow::Cow<'a, str> {
    let rest = path::strip_prefix(path_and_query, prefix.trim_end_matches('/')).unwrap_or(path_and_query);
    match rest.starts_with('/') {
        true => rest.into(),
        false => format!("/{rest}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(host: &str, path: &str, service: &str) -> RouteConfig {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        RouteConfig {
            host: given(host),
            path: given(path),
            methods: Vec::new(),
            headers: Vec::new(),
            service: service.parse().unwrap(),
            strip: false,
            encoded_slashes: None,
        }
    }

    fn check(routes: &Routes, host: &str, path: &str, expect: Option<&str>) {
        let (method, headers) = (&Method::GET, &HeaderMap::new());
        let found = routes.find(&Target { host, path, method, headers });
        assert_eq!(found.map(|route| route.service.as_str()), expect, "{host}{path}");
    }

    #[test]
    fn the_most_specific_decides() {
        let routes = Routes::new(&[
            route("", "", "rest"),
            route("*.example.com", "", "suffix"),
            route("*.eu.example.com", "", "longer-suffix"),
            route("chat.example.com", "", "host"),
            route("chat.example.com", "/v1/", "host-path"),
            route("", "/v1", "path"),
        ]);
        check(&routes, "chat.example.com", "/", Some("host"));
        check(&routes, "CHAT.example.com", "/v1/x", Some("host-path"));
        check(&routes, "chat.example.com", "/v1", Some("host"));
        check(&routes, "a.example.com", "/v1", Some("suffix"));
        check(&routes, "a.eu.example.com", "/", Some("longer-suffix"));
        check(&routes, "example.com", "/", Some("rest"));
        check(&routes, "xexample.com", "/v1", Some("path"));
        check(&routes, "other", "/v12", Some("rest"));
    }

    #[test]
    fn methods_and_headers_must_hold() {
        let mut strict = route("", "/", "strict");
        strict.methods = vec![Method::POST];
        strict.headers = vec![(http::HeaderName::from_static("x-beta"), "yes".into())];
        let routes = Routes::new(&[route("", "/", "plain"), strict]);
        let mut headers = HeaderMap::new();
        let find = |headers: &HeaderMap, method: &Method| {
            let target = Target { host: "", path: "/", method, headers };
            routes.find(&target).map(|route| route.service.to_string()).unwrap()
        };
        assert_eq!(find(&headers, &Method::POST), "plain");
        headers.insert("x-beta", "yes".parse().unwrap());
        assert_eq!(find(&headers, &Method::POST), "strict");
        assert_eq!(find(&headers, &Method::GET), "plain");
    }

    #[test]
    fn strips_and_keeps_a_slash() {
        for (path, prefix, expect) in [
            ("/v1/a?b", "/v1/", "/a?b"),
            ("/v1", "/v1", "/"),
            ("/v1?x", "/v1", "/?x"),
            ("/a", "/", "/a"),
            ("/%40a/b?c", "/@a", "/b?c"),
            ("/%40a", "/@a/", "/"),
        ] {
            assert_eq!(strip(path, prefix), expect);
        }
    }
}
