//! A service, a server or a promotion as a JSON document, as the API gets it: read by the same functions
//! as `[service.NAME]`, so that both say the same of the same mistake, and all mistakes at once.

use std::path::Path;

use super::{Problem, diagnose::Source, read, reader::Value, tree::Tree};
use crate::table::record::{Promotion, Rollback, ServerSpec, ServiceSpec};

/// A service with its server list. Keys that the API only shows may be there and mean nothing.
pub fn service(json: &serde_json::Value) -> Result<ServiceSpec, Vec<Problem>> {
    document(json, |value| value.section().map(read::service::service))
}

/// A server: a URI, or an object with one.
pub fn server(json: &serde_json::Value) -> Result<ServerSpec, Vec<Problem>> {
    document(json, read::service::server)
}

/// What is to be live, and what people say of it.
#[derive(Clone, Debug)]
pub struct Promote {
    /// What is to be live.
    pub promotion: Promotion,
    /// In words.
    pub why: Option<String>,
    /// Who asks, besides the token.
    pub by: Option<String>,
}

/// What to go back to, and what people say of it.
#[derive(Clone, Debug)]
pub struct RollBack {
    /// What to go back to.
    pub rollback: Rollback,
    /// In words.
    pub why: Option<String>,
    /// Who asks, besides the token.
    pub by: Option<String>,
}

/// A promotion.
pub fn promote(json: &serde_json::Value) -> Result<Promote, Vec<Problem>> {
    document(json, |value| value.section().map(read::release::promotion))
}

/// A rollback.
pub fn roll_back(json: &serde_json::Value) -> Result<RollBack, Vec<Problem>> {
    document(json, |value| value.section().map(read::release::rollback))
}

fn document<T>(
    json: &serde_json::Value,
    read: impl FnOnce(&Value<'_>) -> Option<T>,
) -> Result<T, Vec<Problem>> {
    let source = Source::new(String::new(), Path::new(""), "");
    let tree = Tree::of_json(json);
    let read = read(&Value::root(&source, &tree));
    let problems = source.into_problems();
    read.filter(|_| problems.is_empty()).ok_or(problems)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(json: &serde_json::Value) -> Vec<String> {
        service(json).expect_err("there is something wrong").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn reads_what_it_shows() {
        let shown = json!({
            "service": "chat@2", "name": "chat", "version": "2", "source": "table", "registrar": null,
            "server": "http://a:1", "sticky": {"ttl": "10m"}, "filters": ["stamp"],
            "servers": [{"id": "b:2", "uri": "http://b:2", "weight": 3, "metadata": {"x": "y"}, "health": "healthy"}],
        });
        let spec = service(&shown).unwrap();
        assert_eq!(spec.record.registrar, None);
        assert_eq!(spec.servers[0].record.weight, 3);
        let again = service(&serde_json::to_value(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
    }

    #[test]
    fn a_port_that_is_none_is_no_server() {
        for uri in [
            "http://a:99999",
            "http://a:",
            "http://a:0",
            "http://a:+80",
            "h2c://[::1]:65536/b",
            "http://u@a:1",
        ] {
            let uris =
                [json!({"server": uri}), json!({"servers": [uri]}), json!({"servers": [{"uri": uri}]})];
            for spec in uris.into_iter().chain([json!({"load_balancer": uri})]) {
                assert!(problems(&spec)[0].contains("is not a server"), "{spec}");
            }
        }
        for uri in
            ["http://a", "http://a:1", "http://a:65535/base", "h2c://[::1]:2", "http://my_service.ns:80"]
        {
            assert!(server(&json!(uri)).is_ok(), "{uri}");
        }
    }

    #[test]
    fn says_everything_that_is_wrong_by_field() {
        let found = problems(&json!({
            "sever": "http://a:1", "sticky": {"ttl": "fast"}, "servers": ["ftp://b", {"uri": "http://c:1", "weight": -1}],
        }));
        assert_eq!(
            found,
            [
                "servers[0]: `ftp://b` is not a server: write http://HOST:PORT (or h2c://HOST:PORT for HTTP/2 without TLS)",
                "servers[1].weight: `-1` is out of bounds: write 0 to 1000000",
                "sever: unknown key; did you mean `server`?",
                "sticky.ttl: `fast` is not a duration: write a whole number and ms, s, m, h or d, such as `30m`",
            ]
        );
        assert_eq!(problems(&json!([1])), ["expected a table, found an array"]);
        assert_eq!(problems(&json!(null)), ["expected a table, found null"]);
        assert_eq!(
            problems(&json!({"source": 1, "health": "healthy"})),
            ["health: expected a table, found a string"]
        );
    }
}
