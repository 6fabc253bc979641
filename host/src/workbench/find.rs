//! Where a plugin and its scenarios are, given a file or a project's directory.

use std::path::{Path, PathBuf};

use super::{WorkbenchError, scenario::Scenario};

/// A plugin's file and the scenarios beside it.
#[derive(Debug)]
pub struct Target {
    /// The plugin.
    pub file: PathBuf,
    /// By file and then in the order in which they are written.
    pub scenarios: Vec<Scenario>,
}

/// Where builds leave a plugin, below a project's directory.
const BUILDS: [&str; 4] = ["", "target/wasm32-unknown-unknown/release", "build", "dist"];

impl Target {
    /// Of a file, the scenarios are beside it or in the project that it was built in.
    pub fn find(path: &Path) -> Result<Self, WorkbenchError> {
        let (file, project) = if path.is_dir() {
            (built(path)?, Some(path.to_owned()))
        } else {
            (path.to_owned(), project_of(path))
        };
        let scenarios = project.map_or(Ok(Vec::new()), |project| read_all(&project.join("scenarios")))?;
        Ok(Self { file, scenarios })
    }
}

/// The nearest directory above a file that has scenarios.
fn project_of(file: &Path) -> Option<PathBuf> {
    let file = std::path::absolute(file).ok()?;
    let above = file.ancestors().skip(1).take(4);
    above.into_iter().find(|directory| directory.join("scenarios").is_dir()).map(Path::to_owned)
}

fn built(project: &Path) -> Result<PathBuf, WorkbenchError> {
    // What a package is built from is no script, however it ends.
    let script = (!project.join("package.json").exists()).then_some(("", "js"));
    for (place, extension) in BUILDS.iter().map(|place| (*place, "wasm")).chain(script) {
        let mut found = files(&project.join(place), extension);
        match found.len() {
            0 => {}
            1 => return Ok(found.remove(0)),
            _ => {
                let names: Vec<_> = found.iter().map(|path| path.display().to_string()).collect();
                return Err(WorkbenchError::Several(project.to_owned(), names.join(", ")));
            }
        }
    }
    Err(WorkbenchError::NoPlugin(project.to_owned()))
}

/// Files with this extension, by name; none if there is no such directory.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<_> = paths.filter(|path| path.extension().is_some_and(|is| is == extension)).collect();
    found.sort();
    found
}

fn read_all(directory: &Path) -> Result<Vec<Scenario>, WorkbenchError> {
    let mut scenarios = Vec::new();
    for path in files(directory, "json") {
        let text =
            std::fs::read_to_string(&path).map_err(|error| WorkbenchError::Read(path.clone(), error))?;
        let read = Scenario::read_all(&text);
        scenarios.extend(read.map_err(|reason| WorkbenchError::Scenario(path, reason))?);
    }
    Ok(scenarios)
}
