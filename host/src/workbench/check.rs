//! `message-flow plugin check`: what a file is, what it asks for, and whether it starts.

use std::{collections::BTreeMap, fmt, net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    plugin::{Generation, Grant, Inspection, Kind, Settings, Solo, SoloError},
    units::Span,
};

/// What is to be said of a plugin.
#[derive(Debug)]
pub struct Report {
    /// The plugin's name.
    pub name: String,
    /// Read off the file.
    pub inspection: Inspection,
    /// What it is.
    pub kinds: Vec<Kind>,
    /// How it is called.
    pub lane: &'static str,
    /// How long another instance took to make.
    pub instance: Duration,
    /// The linear memory of an instance, in bytes.
    pub memory: u64,
}

/// What can be granted in place of nothing, to see whether a plugin starts: it leads nowhere.
fn stand_in(need: &&str) -> Option<Grant> {
    match *need {
        "http:HOST" => Some(Grant::Http("nowhere.invalid".to_owned())),
        "tcp:IP:PORT" => Some(Grant::Tcp(SocketAddr::from(([0, 0, 0, 0], 0)))),
        need => need.parse().ok(),
    }
}

/// Looks at a plugin, and has it start with these settings and what else it asks for.
pub async fn check(solo: &Solo, settings: &Settings) -> Result<Report, SoloError> {
    let inspection = solo.inspect(settings)?;
    let build = solo.load(with_all_grants(settings.clone(), &inspection)).await?;
    let instance = solo.instantiate(&build).await.map_err(|error| SoloError::Failed(error.to_string()))?;
    let (kinds, lane, memory) = (build.kinds().to_vec(), build.lane(), memory_of(&build));
    Ok(Report { name: solo.name().to_owned(), inspection, kinds, lane, instance, memory })
}

/// These settings and what a plugin needs besides.
pub fn with_all_grants(mut settings: Settings, inspection: &Inspection) -> Settings {
    settings.grant.extend(inspection.missing.iter().filter_map(stand_in));
    settings
}

/// The linear memory of one instance of a build that has some.
pub(super) fn memory_of(build: &Arc<Generation>) -> u64 {
    let (instances, memory) = build.instances_and_memory();
    u64::try_from(memory / instances.max(1)).unwrap_or_default()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inspection = &self.inspection;
        let line = |f: &mut fmt::Formatter<'_>, what: &str, value: &str| writeln!(f, "  {what:<10} {value}");
        writeln!(f, "plugin {}", self.name)?;
        line(f, "kinds", &kinds(&self.kinds))?;
        let versions = match inspection.versions.as_slice() {
            [] => "no version".to_owned(),
            versions => versions.join(", "),
        };
        line(
            f,
            "built for",
            &format!("message-flow:plugin {versions}; this host speaks {}", inspection.speaks),
        )?;
        let why = match self.lane {
            "direct" => ": a core module that only exchanges texts with its host",
            "async" => ": it imports something that waits",
            _ => "",
        };
        line(f, "lane", &format!("{}{why}", self.lane))?;
        for (package, names) in by_package(&inspection.imports) {
            line(f, "imports", &format!("{package}{}", names.join(", ")))?;
        }
        line(f, "grants", &grants(inspection))?;
        let took = millis(inspection.compiled);
        let (size, code) = (bytes(inspection.size as u64), bytes(inspection.code as u64));
        line(f, "size", &format!("{size}, compiled in {took} to {code}"))?;
        let memory = bytes(self.memory);
        line(
            f,
            "canary",
            &format!("starts; a further instance took {:?}, with {memory} of memory", self.instance),
        )
    }
}

/// Kinds as people read them.
pub fn kinds(kinds: &[Kind]) -> String {
    let name = |kind: &Kind| match kind {
        Kind::Registrar => "registrar",
        Kind::RequestFilter => "request-filter",
        Kind::ResponseFilter => "response-filter",
        Kind::EventFilter => "event-filter",
        Kind::RoutingTable => "routing-table",
    };
    kinds.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn grants(inspection: &Inspection) -> String {
    match (&inspection.line, inspection.needs.as_slice()) {
        (Some(line), _) => format!("needed: write {line}"),
        (None, []) => "none needed".to_owned(),
        (None, needs) => format!("{} needed, and granted", needs.join(", ")),
    }
}

/// Interfaces by package, such as `wasi:clocks/`.
fn by_package(imports: &[String]) -> BTreeMap<&str, Vec<&str>> {
    let mut packages = BTreeMap::<&str, Vec<&str>>::new();
    for import in imports {
        let bare = import.split('@').next().unwrap_or(import);
        let (package, name) = bare.split_at(bare.find('/').map_or(0, |at| at + 1));
        packages.entry(package).or_default().push(name);
    }
    packages
}

/// A size for people, to a tenth of its unit.
pub(super) fn bytes(size: u64) -> String {
    match size {
        0..1024 => format!("{size} B"),
        1024..0x10_0000 => format!("{:.1} KiB", size as f64 / 1024.0),
        _ => format!("{:.1} MiB", size as f64 / 1_048_576.0),
    }
}

fn millis(took: Duration) -> String {
    if took < Duration::from_millis(1) { format!("{took:.1?}") } else { Span(took).to_string() }
}
