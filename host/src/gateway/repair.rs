//! `message-flow data`: what is wrong in a data directory, and how to go on with what is whole. Without a gateway.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use super::data::former_router_id;
use crate::{
    durable::whole::{self, Unreadable},
    files::Hold,
    plugin::state::repair::{self, Finding},
};

/// Documents that are made again when they are gone.
const DOCUMENTS: [&str; 4] = ["router-id", "view.json", "told.json", "assignments.json"];

/// A data directory that was looked at.
pub struct Examined {
    states: Vec<Finding>,
    documents: Vec<(PathBuf, String)>,
    hold: Option<Hold>,
}

/// Looks at every file with a checksum, and changes nothing.
///
/// # Errors
/// If the directory cannot be read.
pub fn examine(data: &Path) -> anyhow::Result<Examined> {
    look(data, None)
}

/// As [`examine`], of a directory that no gateway uses, nor begins to before this is dropped.
///
/// # Errors
/// Also if one uses it.
pub fn take(data: &Path) -> anyhow::Result<Examined> {
    let shown = data.display();
    if !data.is_dir() {
        bail!("there is no data directory {shown}");
    }
    let hold = Hold::take(data).with_context(|| format!("cannot write to the data directory {shown}"))?;
    let Some(hold) = hold else {
        bail!("the data directory {shown} is in use: stop its gateway first");
    };
    look(data, Some(hold))
}

fn look(data: &Path, hold: Option<Hold>) -> anyhow::Result<Examined> {
    let states = repair::examine(data, hold.as_ref());
    let states = states.with_context(|| format!("cannot look into {}", data.display()))?;
    let high_water = states.iter().map(|finding| finding.high_water().to_owned());
    let paths = DOCUMENTS.iter().map(|name| data.join(name)).chain(high_water);
    let wrong = |path: PathBuf| match whole::load::<serde_json::Value>(&path) {
        Err(Unreadable::Damaged { why, .. }) if former_router_id(&path).is_none() => Some((path, why)),
        _ => None,
    };
    Ok(Examined { documents: paths.filter_map(wrong).collect(), states, hold })
}

impl Examined {
    /// What is wrong, a line each, with what is lost of it.
    pub fn wrong(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for finding in self.states.iter().filter(|finding| !finding.wrong.is_empty()) {
            let path = finding.path.display();
            lines.extend(finding.wrong.iter().map(|wrong| format!("{path}: {wrong}")));
            lines.extend(finding.lost.iter().map(|lost| format!("  lost: {lost}")));
            lines.push(format!("  kept: {} keys", finding.keys()));
        }
        for (path, why) in &self.documents {
            lines.push(format!("{}: {why}", path.display()));
            lines.push("  lost: nothing that lasts; it is made again".to_owned());
        }
        lines
    }

    /// What is whole, a line each.
    pub fn whole(&self) -> Vec<String> {
        let whole = self.states.iter().filter(|finding| finding.wrong.is_empty());
        whole.map(|finding| format!("{}: whole, {} keys", finding.path.display(), finding.keys())).collect()
    }

    /// Sets aside what is wrong and writes what is whole of it anew; a line for each file.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn repair(&self) -> io::Result<Vec<String>> {
        if let Some(hold) = &self.hold {
            hold.secure()?;
        }
        let mut lines = Vec::new();
        for (path, _) in &self.documents {
            let aside = whole::set_aside(path)?;
            lines.push(format!("{}: moved to {}", path.display(), aside.display()));
        }
        for finding in self.states.iter().filter(|finding| !finding.wrong.is_empty()) {
            let aside = finding.repair()?;
            let moved =
                aside.map_or("there was none".to_owned(), |aside| format!("moved to {}", aside.display()));
            lines.push(format!(
                "{}: {moved}; written anew with {} keys",
                finding.path.display(),
                finding.keys()
            ));
        }
        Ok(lines)
    }
}
