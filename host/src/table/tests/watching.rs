//! What readers of the history are told.

use super::{
    history::{Op, Update},
    *,
};

async fn next(watch: &mut history::Watch) -> String {
    match watch.next().await.unwrap() {
        Update::Resync(view) => format!("resync at {}", view.revision),
        Update::Changes(group) => {
            let event = |event: &history::Event| {
                let op = if event.op == Op::Put { "+" } else { "-" };
                format!("{op}{} {}", event.kind, event.key)
            };
            group.events.iter().map(event).collect::<Vec<_>>().join(", ")
        }
    }
}

#[tokio::test(start_paused = true)]
async fn changes_are_told_from_any_known_revision_on() {
    let far = TestTable::new();
    let table = start(&far).await;
    pass(Duration::from_secs(1)).await;
    let mut watch = table.watch(None);
    let first = far.change(&[server("chat", "a"), put("service", "chat", "{}")]);
    assert_eq!(next(&mut watch).await, "+server chat/a, +service chat");
    assert_eq!(watch.revision(), first);
    far.change(&[put("unknown", "x", "{}"), delete("assignment", "alice/chat")]);
    let last = far.change(&[delete("server", "chat/a")]);
    assert_eq!(next(&mut watch).await, "-server chat/a");
    let mut resumed = table.watch(Some(first));
    assert_eq!(next(&mut resumed).await, "-server chat/a");
    let mut early = table.watch(Some(1));
    assert_eq!(next(&mut early).await, format!("resync at {last}"));
    let mut foreign = table.watch(Some(last + 1000));
    assert_eq!(next(&mut foreign).await, format!("resync at {last}"));
    far.change(&[server("chat", "b")]);
    for watch in [&mut watch, &mut resumed, &mut early, &mut foreign] {
        assert_eq!(next(watch).await, "+server chat/b");
    }
    drop(table);
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn one_who_was_too_slow_or_meets_another_table_is_told_to_begin_anew() {
    let far = TestTable::new();
    let table = start(&far).await;
    pass(Duration::from_secs(1)).await;
    let mut slow = table.watch(None);
    let mut last = 0;
    for _ in 0..100 {
        let changes: Vec<_> = (0..50).map(|id| server("chat", &format!("s{id}"))).collect();
        last = table.write(changes, None).await.unwrap();
    }
    assert_eq!(next(&mut slow).await, format!("resync at {last}"));
    far.wipe();
    pass(Duration::from_secs(3)).await;
    assert_eq!(next(&mut slow).await, format!("resync at {}", table.view().revision));
}

#[tokio::test(start_paused = true)]
async fn a_resync_is_told_as_changes() {
    let far = TestTable::new();
    far.change(&[server("chat", "a")]);
    let table = start(&far).await;
    pass(Duration::from_secs(1)).await;
    let mut watch = table.watch(None);
    far.down.store(true, SeqCst);
    far.change(&[delete("server", "chat/a"), server("chat", "b")]);
    far.compact();
    far.down.store(false, SeqCst);
    assert_eq!(next(&mut watch).await, "-server chat/a, +server chat/b");
}

#[tokio::test(start_paused = true)]
async fn what_came_at_once_is_told_by_the_revision_at_which_it_happened() {
    let far = TestTable::new();
    let table = start(&far).await;
    pass(Duration::from_secs(1)).await;
    far.down.store(true, SeqCst);
    pass(Duration::from_secs(1)).await;
    far.change(&[server("chat", "a")]);
    let seen = far.change(&[server("chat", "b")]);
    let last = far.change(&[server("chat", "c"), server("chat", "d")]);
    far.down.store(false, SeqCst);
    super::seen(&table, last).await;
    // Whoever saw some of it at another router is told the rest.
    let mut resumed = table.watch(Some(seen));
    assert_eq!(next(&mut resumed).await, "+server chat/c, +server chat/d");
    assert_eq!(table.view().changed_at(&"chat".parse().unwrap()), Some(last));
}

#[tokio::test(start_paused = true)]
async fn one_who_has_seen_more_elsewhere_is_told_what_comes_then() {
    let far = TestTable::new();
    let table = start(&far).await;
    pass(Duration::from_secs(1)).await;
    let here = table.view().revision;
    let mut ahead = table.watch(Some(here + 1));
    far.change(&[server("chat", "a")]);
    far.change(&[server("chat", "b")]);
    assert_eq!(next(&mut ahead).await, "+server chat/b");
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_is_told_anew() {
    let far = TestTable::new();
    let table = start(&far).await;
    pass(Duration::from_secs(1)).await;
    let here = far.change(&[server("chat", "a")]);
    super::seen(&table, here).await;
    far.down.store(true, SeqCst);
    pass(Duration::from_secs(1)).await;
    far.change(&[delete("server", "chat/a")]);
    let last = far.change(&[server("chat", "a"), server("chat", "b")]);
    far.compact();
    far.down.store(false, SeqCst);
    super::seen(&table, last).await;
    // Elsewhere somebody saw `a` go.
    let mut resumed = table.watch(Some(here + 1));
    assert_eq!(next(&mut resumed).await, format!("resync at {last}"));
    let mut resumed = table.watch(Some(here));
    assert_eq!(next(&mut resumed).await, "+server chat/b");
}
