//! Stores on a disk that is full for a while, breaks, tears writes, and loses files: what was refused is not there, what
//! was acknowledged is, and of what is unknown that is said.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    path::Path,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    super::{
        StateError,
        disk::Place,
        store::{Cell, StateStore},
    },
    durable, durable_since, keys, text,
};
use crate::durable::storage::{Disk, RealDisk, Storage};

/// Fails so many of a hundred operations, by chance.
#[derive(Clone)]
struct FaultyDisk(Arc<Mutex<Plan>>);

struct Plan {
    chance: u32,
    /// Only writes fail, as on a full disk.
    only_full: bool,
    /// Writes work, and nothing gets to disk.
    only_sync: bool,
    random: StdRng,
}

impl FaultyDisk {
    fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Plan {
            chance: 0,
            only_full: false,
            only_sync: false,
            random: StdRng::seed_from_u64(seed),
        })))
    }

    fn set(&self, chance: u32, only_full: bool) {
        let mut plan = self.0.lock();
        (plan.chance, plan.only_full, plan.only_sync) = (chance, only_full, false);
    }

    fn fails(&self) -> bool {
        let mut plan = self.0.lock();
        let chance = plan.chance;
        plan.random.random_range(0..100) < chance
    }

    fn fills(&self) -> bool {
        !self.0.lock().only_sync && self.fails()
    }

    fn breaks(&self) -> io::Result<()> {
        match !self.0.lock().only_full && self.fails() {
            true => Err(io::Error::other("input/output error")),
            false => Ok(()),
        }
    }

    fn store(&self, directory: &Path) -> StateStore {
        let store = StateStore::volatile(1 << 20);
        store.persist(self.place(directory)).unwrap();
        store
    }

    fn place(&self, directory: &Path) -> Place {
        Place { disk: Arc::new(self.clone()), ..Place::new(directory, "faulty", None) }
    }

    fn wrap(&self, storage: Box<dyn Storage>) -> Box<dyn Storage> {
        Box::new(FaultyStorage { storage, disk: self.clone() })
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Storage>> {
        if self.fills() {
            return Err(ErrorKind::StorageFull.into());
        }
        RealDisk.create(path).map(|storage| self.wrap(storage))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Storage>> {
        RealDisk.open(path).map(|storage| self.wrap(storage))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.breaks()?;
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
}

struct FaultyStorage {
    storage: Box<dyn Storage>,
    disk: FaultyDisk,
}

impl Storage for FaultyStorage {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.storage.read_at(into, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        if self.disk.fills() {
            let part = self.disk.0.lock().random.random_range(0..bytes.len());
            self.storage.write_at(&bytes[..part], at)?;
            return Err(ErrorKind::StorageFull.into());
        }
        self.storage.write_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.breaks()?;
        self.storage.sync()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.breaks()?;
        self.storage.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.storage.len()
    }

    fn again(&self) -> io::Result<Box<dyn Storage>> {
        self.storage.again().map(|storage| self.disk.wrap(storage))
    }

    fn stays_at(&self, path: &Path, len: u64) -> io::Result<()> {
        self.storage.stays_at(path, len)
    }
}

/// Waits until changes are taken.
async fn takes_changes(store: &StateStore) {
    let taken = async {
        while let seen = store.commit_sequence()
            && (store.set("probe", b"1").is_err() || durable_since(store, seen).await.is_err())
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), taken).await.expect("the disk works again");
}

#[tokio::test]
async fn a_full_disk_refuses_changes_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(1);
    let store = disk.store(directory.path());
    store.set("before", b"1").unwrap();
    durable(&store).await.unwrap();
    disk.set(100, true);
    let seen = store.commit_sequence();
    store.set("during", b"1").unwrap();
    store.set("before", b"2").unwrap();
    let lost = durable_since(&store, seen).await.unwrap_err().to_string();
    assert!(lost.contains("no space left") && lost.ends_with("the change was not stored"), "{lost}");
    assert_eq!(keys(&store), ["before"], "what was refused is not there");
    assert_eq!(text(&store, "before").as_deref(), Some("1"));
    let refused = store.set("refused", b"1").unwrap_err().to_string();
    assert!(refused.contains("faulty.state") && refused.contains("refused until"), "{refused}");
    assert!(store.failure().is_some());
    disk.set(0, false);
    takes_changes(&store).await;
    assert!(store.failure().is_none());
    drop(store);
    assert_eq!(keys(&disk.store(directory.path())), ["before", "probe"]);
}

#[tokio::test]
async fn a_broken_disk_says_that_nothing_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(2);
    let store = disk.store(directory.path());
    store.set("acknowledged", b"1").unwrap();
    durable(&store).await.unwrap();
    disk.set(100, false);
    disk.0.lock().only_sync = true;
    let seen = store.commit_sequence();
    store.set("lost", b"1").unwrap();
    let lost = durable_since(&store, seen).await.unwrap_err().to_string();
    assert!(lost.contains("faulty.state") && lost.contains("it is not known whether"), "{lost}");
    assert_eq!(keys(&store), ["acknowledged"]);
    assert!(store.set("refused", b"1").is_err());
    disk.set(0, false);
    takes_changes(&store).await;
    drop(store);
    assert_eq!(keys(&disk.store(directory.path())), ["acknowledged", "probe"]);
}

#[tokio::test]
async fn a_directory_that_is_deleted_is_noticed_and_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let place = Place::new(&data, "memory", None);
    let store = StateStore::volatile(1 << 20);
    store.persist(place.clone()).unwrap();
    store.set("kept", b"1").unwrap();
    durable(&store).await.unwrap();
    for round in 0..3 {
        match round {
            0 => fs::remove_dir_all(&data).unwrap(),
            1 => fs::rename(&place.log, data.join("elsewhere")).unwrap(),
            _ => fs::write(&place.log, "cut").unwrap(),
        }
        let seen = store.commit_sequence();
        let lost = match store.set("lost", b"1") {
            Ok(()) => durable_since(&store, seen).await.unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(lost.contains("while it was in use"), "{round}: {lost}");
        takes_changes(&store).await;
        assert_eq!(keys(&store), ["kept", "probe"], "{round}");
    }
    drop(store);
    let store = StateStore::volatile(1 << 20);
    store.persist(place).unwrap();
    assert_eq!(keys(&store), ["kept", "probe"]);
}

/// One change of several keys, each to a value that is not seen again.
fn change(random: &mut StdRng, step: u64) -> BTreeMap<String, Option<String>> {
    let count = random.random_range(1..4);
    let one = |random: &mut StdRng| {
        let key = format!("key-{}", random.random_range(0..12));
        let value = format!("{step}-{}", "x".repeat(random.random_range(0..200)));
        (key, random.random_bool(0.8).then_some(value))
    };
    (0..count).map(|_| one(random)).collect()
}

fn contents(store: &StateStore) -> BTreeMap<String, String> {
    let all = store.scan("key-", None, usize::MAX).into_iter();
    all.map(|(key, value)| (key.to_string(), String::from_utf8(value.to_vec()).unwrap())).collect()
}

fn applied(
    model: &BTreeMap<String, String>,
    change: &BTreeMap<String, Option<String>>,
) -> BTreeMap<String, String> {
    let mut model = model.clone();
    for (key, value) in change {
        match value {
            Some(value) => drop(model.insert(key.clone(), value.clone())),
            None => drop(model.remove(key)),
        }
    }
    model
}

/// The store, its file and a model of them, through faults of every kind and restarts, with logs that are written anew.
#[tokio::test]
async fn whatever_fails_what_was_said_is_true() {
    for seed in 0..12 {
        let directory = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::new(seed);
        let mut random = StdRng::seed_from_u64(seed);
        let mut model = BTreeMap::new();
        let mut store = disk.store(directory.path());
        let (mut refused, mut unknown) = (0, 0);
        for step in 0..120 {
            if random.random_bool(0.1) {
                disk.set(random.random_range(0..3) * 25, random.random_bool(0.5));
            }
            let changes = change(&mut random, step);
            let cells: Vec<_> = changes
                .iter()
                .map(|(key, value)| Cell { key, value: value.as_ref().map(String::as_bytes) })
                .collect();
            let applied = applied(&model, &changes);
            let seen = store.commit_sequence();
            match store.apply(&cells, &[]) {
                Ok(true) => match durable_since(&store, seen).await {
                    Ok(()) => model = applied,
                    Err(StateError::Disk(why)) if why.ends_with("was not stored") => refused += 1,
                    Err(error) => {
                        assert!(error.to_string().contains("it is not known"), "{error}");
                        unknown += 1;
                    }
                },
                Ok(false) => unreachable!("nothing was expected"),
                Err(StateError::Disk(_)) => refused += 1,
                Err(error) => panic!("{error}"),
            }
            assert_eq!(contents(&store), model, "seed {seed}, step {step}");
            if random.random_bool(0.05) {
                disk.set(0, false);
                takes_changes(&store).await;
                drop(store);
                store = disk.store(directory.path());
                assert_eq!(contents(&store), model, "seed {seed}, restart at step {step}");
            }
        }
        assert!(refused > 0, "seed {seed}: {refused} refused, {unknown} unknown");
    }
}
