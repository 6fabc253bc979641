//! What is wrong with the files of durable states, and how to go on with what is whole of them. For `message-flow data`.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use super::{
    disk::{self, DiskError, HighWater, Place},
    entries::Entries,
    former,
};
use crate::{
    durable::{
        log::{self, Begin, Fault},
        record::HEADER,
        storage::Storage,
        whole,
    },
    files::Hold,
};

/// So many keys are named of what may be lost.
const NAMED: usize = 20;

/// What was found of one plugin's state.
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it; nothing: it is whole.
    pub wrong: Vec<String>,
    /// What is lost once it is repaired.
    pub lost: Vec<String>,
    place: Place,
    begin: Begin,
    whole: Entries,
    high_water: Option<HighWater>,
}

/// Looks at every state below a data directory, and changes nothing.
///
/// # Errors
/// If the directory cannot be read.
pub fn examine(data: &Path, hold: Option<&Hold>) -> io::Result<Vec<Finding>> {
    let mut plugins = BTreeSet::new();
    for (directory, ends) in [("state", &[".state", ".redb"][..]), ("high-water", &[".json"])] {
        let entries = match fs::read_dir(data.join(directory)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            let plugin = ends.iter().find_map(|end| name.strip_suffix(end));
            plugins.extend(plugin.filter(|plugin| !plugin.starts_with('.')).map(str::to_owned));
        }
    }
    plugins.iter().map(|plugin| look(Place::new(data, plugin, hold.cloned()))).collect()
}

fn look(place: Place) -> io::Result<Finding> {
    let high_water = whole::load(&place.high_water).ok();
    let (path, begin) = (place.log.clone(), Begin { id: rand::random(), generation: 0 });
    let (wrong, lost, whole) = (Vec::new(), Vec::new(), Entries::default());
    let mut finding = Finding { path, wrong, lost, place, begin, whole, high_water };
    match File::open(&finding.path) {
        Ok(file) => finding.read(&file)?,
        Err(error) if error.kind() == ErrorKind::NotFound => finding.without_log(),
        Err(error) => return Err(error),
    }
    Ok(finding)
}

impl Finding {
    /// Where it is noted how far the file had come.
    pub fn high_water(&self) -> &Path {
        &self.place.high_water
    }

    /// What is whole, in keys.
    pub fn keys(&self) -> usize {
        self.whole.len()
    }

    fn read(&mut self, file: &File) -> io::Result<()> {
        let (mut whole, mut unknown) = (Entries::default(), Vec::new());
        let reading = log::read(file, &mut |record, offset, body| {
            let replayed = disk::each(body, &mut |key, entry| match entry {
                Some(entry) => drop(whole.put(key, entry, u64::MAX)),
                None => drop(whole.remove(key)),
            });
            if let Err(why) = replayed {
                unknown.push(format!("record {record} at offset {offset}: {why}"));
            }
        })?;
        for fault in &reading.faults {
            self.wrong.push(fault.to_string());
            self.lost.push(lost(file, fault)?);
        }
        self.wrong.append(&mut unknown);
        self.whole = whole;
        match reading.begin {
            Some(begin) => self.begin = begin,
            None if reading.faults.is_empty() => {
                self.wrong.push("it is empty, or was cut off in its first record".to_owned())
            }
            None => {}
        }
        let is = HighWater::from(log::Position { begin: self.begin, records: reading.records });
        match self.high_water {
            Some(was) if reading.begin.is_some() && !was.is_of(is) => {
                self.wrong.push("it is another file than the one that was used last".to_owned());
            }
            Some(was) if was > is || reading.begin.is_none() => {
                self.wrong.push(format!("it ends with record {}, and {was}", reading.records));
                self.lost.push("the changes of the records that are missing at its end".to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    fn without_log(&mut self) {
        match former::load(&self.place.former) {
            Ok(Some(_)) => {}
            Ok(None) => {
                self.wrong.push("it is gone".to_owned());
                self.lost.push("everything that was in it".to_owned());
            }
            Err(error) => {
                self.wrong.push(match error {
                    DiskError::Damaged { why } => why,
                    DiskError::Io { source, .. } => source.to_string(),
                });
                self.lost.push("everything that is in it".to_owned());
            }
        }
    }

    /// Moves the file aside and writes what is whole of it into a new one; returns where the damaged one is.
    ///
    /// # Errors
    /// If the disk refuses; what was moved aside stays there.
    pub fn repair(&self) -> io::Result<Option<PathBuf>> {
        let aside =
            [&self.place.log, &self.place.former].into_iter().find_map(|path| match whole::set_aside(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                moved => Some(moved),
            });
        let aside = aside.transpose()?;
        let generation = self.begin.generation.max(self.high_water.map_or(0, HighWater::generation)) + 1;
        let log = self.place.write(Begin { generation, ..self.begin }, &self.whole)?;
        self.place.note(log.position())?;
        Ok(aside)
    }
}

/// What a wrong record held, as far as it can be read.
fn lost(file: &File, fault: &Fault) -> io::Result<String> {
    let mut bytes = vec![0; usize::try_from(fault.end - fault.offset).unwrap_or(usize::MAX)];
    let read = file.read_at(&mut bytes, fault.offset)?;
    let body = bytes[..read].get(HEADER..).unwrap_or_default();
    let (mut keys, mut more) = (BTreeSet::new(), 0);
    // What cannot be read ends it.
    let _ = disk::each(body, &mut |key, _| match keys.len() < NAMED {
        true => drop(keys.insert(key.escape_debug().to_string())),
        false => more += 1,
    });
    let keys: Vec<_> = keys.into_iter().collect();
    Ok(match (keys.is_empty(), more) {
        (true, _) => format!("the changes in record {}, of keys that cannot be read", fault.record),
        (false, 0) => {
            format!("the changes in record {}, which seem to be of {}", fault.record, keys.join(", "))
        }
        (false, more) => format!(
            "the changes in record {}, which seem to be of {} and {more} more",
            fault.record,
            keys.join(", ")
        ),
    })
}
