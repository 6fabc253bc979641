//! A new version takes no message from the one that is there: as long as nothing was promoted, a name
//! means its only version. Before a second one is registered, the first is written down as live.

use super::{
    Named, ServiceId, View,
    adapter::Change,
    record::{ReleaseRecord, ReleaseVersions},
};

/// The releases that have to be written with, or before, these changes.
pub(super) fn releases(view: &View, changes: &[Change], at: u64) -> Vec<Change> {
    let mut found: Vec<Change> = changes.iter().filter_map(|change| release(view, change, at)).collect();
    found.dedup_by(|one, other| one.key == other.key);
    found
}

fn release(view: &View, change: &Change, at: u64) -> Option<Change> {
    let id = match (change.kind.as_str(), &change.value) {
        ("service", Some(_)) => &change.key,
        ("server", Some(_)) => change.key.split_once('/')?.0,
        _ => return None,
    };
    let id: ServiceId = id.parse().ok()?;
    let name = id.name();
    id.version()?;
    if view.service(&id).is_some() || view.release(name).is_some() {
        return None;
    }
    let Named::One(only) = view.named(name)? else { return None };
    let release = ReleaseRecord::found(&ReleaseVersions { name, versions: vec![only.version()?] }, at);
    let value = serde_json::to_string(&release).expect("a release has text keys only");
    Some(Change { kind: "release".to_owned(), key: name.to_owned(), value: Some(value), ephemeral: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{
        Numbers, Overlay,
        testing::{delete, put, server},
    };

    #[track_caller]
    fn check(there: &[Change], changes: &[Change], expect: &[&str]) {
        let view = View::default().apply(there, 1, &Overlay::new(), &Numbers::default());
        let found = releases(&view, changes, 7);
        let found: Vec<_> = found.iter().map(|change| change.value.as_deref().unwrap_or_default()).collect();
        assert_eq!(found.len(), expect.len(), "{found:?}");
        for (found, expect) in found.iter().zip(expect) {
            assert!(found.starts_with(expect), "{found}");
        }
    }

    #[test]
    fn the_only_version_is_written_down_before_a_second_one_comes() {
        let one = [server("chat@1", "a")];
        check(&one, &[put("service", "chat@2", "{}"), server("chat@2", "b")], &[r#"{"weights":{"1":1},"#]);
        check(&one, &[server("chat@1", "b")], &[]);
        check(&one, &[server("chess@2", "b"), delete("server", "chat@1/a")], &[]);
        check(&[server("chat", "a")], &[server("chat@2", "b")], &[]);
        check(&[one[0].clone(), server("chat@2", "b")], &[server("chat@3", "c")], &[]);
        check(&[one[0].clone(), put("release", "chat", r#"{"weights":{}}"#)], &[server("chat@3", "c")], &[]);
    }
}
