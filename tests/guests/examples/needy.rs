//! A filter that imports `etcd`, which nobody has by default. Stamps like a build of `stamp`.

use message_flow_sdk::{RequestFilter, Verdict, etcd, request};

struct Needy;

impl RequestFilter for Needy {
    fn on_request() -> Result<Verdict, String> {
        let all = etcd::KeyRange { start: "a".to_owned(), end: None };
        let found = etcd::get(&all, 1, None);
        request::set_header("stamp", if found.is_ok() { "reached" } else { "unreached" });
        Ok(Verdict::Forward)
    }
}

message_flow_sdk::export!(Needy: RequestFilter);
