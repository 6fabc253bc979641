//! Files that are not what was written: every flipped bit is harmless or named.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{super::disk::Place, *};

/// A log as a process leaves it that is killed, and one that was closed; and what they hold.
async fn logs(directory: &Path) -> ([Vec<u8>; 2], Vec<(Arc<str>, super::super::Value)>) {
    let store = StateStores::new(directory, None).open("memory", DURABLE).unwrap();
    for number in 0..6_u8 {
        store.set(&format!("key-{number}"), &[number; 7]).unwrap();
        durable(&store).await.unwrap();
    }
    store.delete("key-2").unwrap();
    durable(&store).await.unwrap();
    let path = log(directory);
    let killed = fs::read(&path).unwrap();
    let held = store.scan("", None, usize::MAX);
    drop(store);
    ([killed, fs::read(&path).unwrap()], held)
}

fn log(directory: &Path) -> PathBuf {
    directory.join("state/memory.state")
}

fn open(directory: &Path) -> Result<Vec<(Arc<str>, super::super::Value)>, String> {
    let place = Place::new(directory, "memory", None);
    let (_, entries) = place.open().map_err(|error| error.to_string())?;
    Ok(entries.iter().map(|(key, entry)| (Arc::clone(key), entry.stored.value())).collect())
}

#[tokio::test]
async fn every_flipped_bit_is_harmless_or_named() {
    let directory = tempfile::tempdir().unwrap();
    let (logs, held) = logs(directory.path()).await;
    let path = log(directory.path());
    let before = directory.path().join("high-water");
    // As it was some seconds ago: nothing is known of the end.
    fs::remove_dir_all(before).unwrap();
    for (way, whole) in logs.iter().enumerate() {
        let mut named = 0;
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, flipped).unwrap();
            match open(directory.path()) {
                Ok(found) => assert_eq!(found, held, "{way}: bit {bit} changed what is held"),
                Err(error) => {
                    named += 1;
                    let says = error.contains("memory.state: record ") && error.contains(" at offset ");
                    assert!(says && error.contains("data repair"), "{way}: bit {bit}: {error}");
                }
            }
        }
        assert!(named > 1000, "{way}: {named}");
    }
}

#[tokio::test]
async fn what_was_cut_off_or_is_gone_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let ([_, whole], held) = logs(directory.path()).await;
    let path = log(directory.path());
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let error = open(directory.path()).expect_err("it was longer");
        assert!(error.contains("memory.state"), "cut to {length}: {error}");
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(open(directory.path()).unwrap(), held);
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(error.contains("memory.state is gone") && error.contains("high-water"), "{error}");
}

#[tokio::test]
async fn a_killed_process_leaves_the_changes_before_the_torn_one() {
    let directory = tempfile::tempdir().unwrap();
    let ([killed, _], held) = logs(directory.path()).await;
    fs::remove_dir_all(directory.path().join("high-water")).unwrap();
    let mut last = usize::MAX;
    for length in (100..killed.len()).rev() {
        fs::write(log(directory.path()), &killed[..length]).unwrap();
        let found = open(directory.path()).unwrap();
        assert!(
            found
                .iter()
                .all(|(key, value)| &**key == "key-2" || held.contains(&(key.clone(), value.clone())))
        );
        last = last.min(found.len());
    }
    assert!(last < held.len());
}

#[tokio::test]
async fn a_log_that_grew_is_written_anew() {
    let directory = tempfile::tempdir().unwrap();
    let store = StateStores::new(directory.path(), None).open("memory", DURABLE).unwrap();
    let mut longest = 0;
    for round in 0..600_u32 {
        store.set(&format!("key-{}", round % 7), &round.to_le_bytes().repeat(50)).unwrap();
        durable(&store).await.unwrap();
        longest = longest.max(fs::metadata(log(directory.path())).unwrap().len());
    }
    assert!(longest < 60_000, "it grew to {longest} bytes");
    let held = store.scan("", None, usize::MAX);
    drop(store);
    assert_eq!(open(directory.path()).unwrap(), held);
}
