//! From the bytes of a dropped file to a component: what it is, what it asks for, and whether it
//! may have it.

use wasmparser::{Encoding, Parser, Payload};
use wasmtime::component::Component;

use super::{
    Kind, Settings, bare,
    capability::Grant,
    link::VERSION,
    script,
    wasi::preview1::{self, Adapter},
};

/// The largest file that is looked at.
pub(super) const MAX_FILE: u64 = 128 << 20;

/// Why a file does not become a plugin. The reconciler names the plugin and the file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it has {0} bytes; a plugin has at most {MAX_FILE}")]
    TooLarge(u64),
    #[error("it is neither a WebAssembly component nor a core module: {0}")]
    NotWasm(String),
    #[error("it is a core module that cannot be made a component: {0}")]
    NotComponent(String),
    #[error("it cannot be compiled: {0}")]
    NotCompiled(String),
    #[error(
        "it exports none of the interfaces that make a plugin: message-flow:plugin/registrar, \
         routing-table, request-filter, response-filter or event-filter"
    )]
    NoKind,
    #[error(
        "it was built for message-flow:plugin {0}; this host speaks {VERSION} and what is compatible with it"
    )]
    Version(String),
    #[error("it imports `{import}`, which is not granted; to grant it, write {line}")]
    NotGranted { import: String, line: String },
    #[error("it imports `{0}`, which this host does not provide")]
    UnknownImport(String),
    #[error("it is no script: its text is not UTF-8, from byte {0} on")]
    NotText(usize),
}

/// A component as its bytes, after a core module was made one.
pub(super) fn componentize(file: &[u8], adapter: Adapter) -> Result<std::borrow::Cow<'_, [u8]>, Refusal> {
    match encoding(file)? {
        Encoding::Component => Ok(file.into()),
        Encoding::Module => encode(file, adapter).map(Into::into),
    }
}

/// Whether a file is a component or a core module.
pub(super) fn encoding(file: &[u8]) -> Result<Encoding, Refusal> {
    let not_wasm = |error: wasmparser::BinaryReaderError| Refusal::NotWasm(error.message().to_owned());
    match Parser::new(0).parse_all(file).next() {
        Some(Ok(Payload::Version { encoding, .. })) => Ok(encoding),
        Some(Err(error)) => Err(not_wasm(error)),
        Some(Ok(_)) | None => Err(Refusal::NotWasm("it is empty".into())),
    }
}

/// Makes a core module a component. The encoder takes for granted that the module is valid, and may
/// still panic on a `component-type` section that is not: anybody's file must not end this thread.
fn encode(module: &[u8], adapter: Adapter) -> Result<Vec<u8>, Refusal> {
    let valid =
        wasmparser::Validator::new_with_features(wasmparser::WasmFeatures::all()).validate_all(module);
    valid.map_err(|error| Refusal::NotWasm(error.message().to_owned()))?;
    std::panic::catch_unwind(|| encode_valid(module, adapter))
        .unwrap_or_else(|_| Err(Refusal::NotComponent("its component-type section makes no sense".into())))
}

fn encode_valid(module: &[u8], adapter: Adapter) -> Result<Vec<u8>, Refusal> {
    let described = bare::described(module)?;
    let failed = |error: anyhow::Error| Refusal::NotComponent(format!("{error:#}"));
    let adapter = adapter.module().map_err(failed)?;
    let encoded = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&described)
        .and_then(|encoder| encoder.adapter(preview1::NAME, &adapter))
        .and_then(|mut encoder| encoder.encode());
    encoded.map_err(failed)
}

/// What a component is and asks for, read off its exports and imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// What it exports, in the order of [`Kind`].
    pub(super) kinds: Vec<Kind>,
    /// The full export name of each interface of ours.
    pub(super) exports: Vec<String>,
    /// Whether it imports anything that waits.
    pub(super) waits: bool,
    /// Whether it reads bodies.
    pub(super) reads_body: bool,
    /// Whether it imports WASI.
    pub(super) wasi: bool,
    /// What it was made with, as far as that makes a difference.
    pub(super) language: Language,
    /// Every interface that it imports.
    pub(super) imports: Vec<String>,
}

/// Languages whose components differ from others in what is to be said of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    /// Its runtime imports sockets, whatever a plugin does: without a grant it has none and does
    /// without.
    Python,
    /// What a plugin returns is looked at by nobody before it traps.
    JavaScript,
    Other,
}

impl Language {
    /// By what `componentize-py` and QuickJS's componentizer export of their own.
    fn of(exports: &[String]) -> Self {
        let has = |name: &str| exports.iter().any(|export| export == name);
        match (has("exports"), has("init")) {
            (true, _) => Self::Python,
            (_, true) => Self::JavaScript,
            _ => Self::Other,
        }
    }
}

/// With which the names of our interfaces start.
pub(super) const OURS: &str = "message-flow:plugin/";

/// Our interfaces that every plugin may import.
const FREE: [&str; 13] = [
    "types",
    "body",
    "request",
    "request-body",
    "response",
    "response-body",
    "event",
    "candidates",
    "log",
    "config",
    "state",
    "clock",
    "random",
];

const SOCKETS: &str = "wasi:sockets/";

/// WASI that is harmless in the form in which it is given.
const FREE_WASI: [&str; 5] = ["wasi:cli/", "wasi:clocks/", "wasi:random/", "wasi:io/", "wasi:filesystem/"];

impl Shape {
    /// The script engine's, without what is for it alone. What it is, and whether it reads bodies, its
    /// script says.
    pub(super) fn of_script(component: &Component) -> Result<Self, Refusal> {
        let mut shape = Self::of(component)?;
        shape.imports.retain(|name| !name.starts_with(script::IMPORTS));
        (shape.waits, shape.reads_body) = (false, false);
        Ok(shape)
    }

    /// Reads a component's exports and imports.
    pub(super) fn of(component: &Component) -> Result<Self, Refusal> {
        let ty = component.component_type();
        let engine = component.engine();
        let imports = ty.imports(engine).map(|(name, _)| name.to_owned());
        let imports = imports.filter(|name| name != preview1::IMPORT).collect();
        let exports: Vec<_> = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
        let language = Language::of(&exports);
        let ours = exports.into_iter().filter(|name| name.starts_with(OURS)).collect();
        Ok(Self { language, ..Self::new(imports, ours)? })
    }

    /// With these imports, and exports of ours.
    pub(super) fn new(imports: Vec<String>, exports: Vec<String>) -> Result<Self, Refusal> {
        for name in imports.iter().chain(&exports) {
            check_version(name)?;
        }
        let mut kinds: Vec<_> = exports.iter().filter_map(|name| kind(name)).collect();
        kinds.sort_unstable();
        if kinds.is_empty() {
            return Err(Refusal::NoKind);
        }
        let reads_body =
            imports.iter().any(|name| matches!(own(name), Some("request-body" | "response-body")));
        let waits = imports.iter().any(|name| match own(name) {
            Some(interface) => matches!(interface, "request-body" | "response-body" | "etcd"),
            None if name.starts_with(script::IMPORTS) => false,
            None => name.starts_with("wasi:http/"),
        });
        let wasi = imports.iter().any(|name| name.starts_with("wasi:"));
        Ok(Self { kinds, exports, waits, reads_body, wasi, language: Language::Other, imports })
    }

    /// Whether what it imports is granted to the plugin of this name.
    pub(super) fn check_grants(&self, plugin: &str, settings: &Settings) -> Result<(), Refusal> {
        self.asking().try_for_each(|import| check_grant(import, plugin, settings))
    }

    /// The imports that it does not do without.
    fn asking(&self) -> impl Iterator<Item = &String> {
        self.imports
            .iter()
            .filter(|import| !(self.language == Language::Python && import.starts_with(SOCKETS)))
    }

    /// With these settings it may import something more that waits.
    pub(super) fn configure(&mut self, settings: &Settings) {
        let sockets = self.imports.iter().any(|import| import.starts_with(SOCKETS));
        self.waits |= sockets && is_granted("tcp:IP:PORT", &settings.grant);
    }

    /// What must be granted to it, in the words of a grant, each once.
    pub(super) fn needs(&self) -> Result<Vec<&'static str>, Refusal> {
        let mut needs = Vec::new();
        for import in self.asking() {
            needs.extend(asked(import)?.filter(|asked| !needs.contains(asked)));
        }
        Ok(needs)
    }

    /// Of what it needs, what is not granted.
    pub(super) fn missing(&self, settings: &Settings) -> Result<Vec<&'static str>, Refusal> {
        let needs = self.needs()?;
        Ok(needs.into_iter().filter(|asked| !is_granted(asked, &settings.grant)).collect())
    }

    /// The versions of our interfaces that it was built for.
    pub(super) fn versions(&self) -> Vec<&str> {
        let named = self.imports.iter().chain(&self.exports).filter(|name| name.starts_with(OURS));
        let mut versions: Vec<_> = named.filter_map(|name| Some(name.split_once('@')?.1)).collect();
        versions.sort_unstable();
        versions.dedup();
        versions
    }

    /// Whether it may read the bodies of responses.
    pub(super) fn reads_responses(&self) -> bool {
        self.reads_body && self.imports.iter().any(|name| own(name) == Some("response-body"))
    }

    /// Whether it can change something elsewhere: in a datastore, or at whom it sends to.
    pub(super) fn reaches_out(&self) -> bool {
        let elsewhere = |name: &String| name.starts_with("wasi:http/") || name.starts_with(SOCKETS);
        self.imports_etcd() || self.waits && self.imports.iter().any(elsewhere)
    }

    /// Whether it asks for an etcd cluster.
    pub(super) fn imports_etcd(&self) -> bool {
        self.imports.iter().any(|name| own(name) == Some("etcd"))
    }

    /// The name under which it exports an interface of ours.
    pub(super) fn export(&self, interface: &str) -> Option<&str> {
        self.exports.iter().find(|name| own(name) == Some(interface)).map(String::as_str)
    }
}

/// `request` for `message-flow:plugin/request@0.1.0`.
fn own(name: &str) -> Option<&str> {
    let rest = name.strip_prefix(OURS)?;
    Some(rest.split('@').next().unwrap_or(rest))
}

fn kind(export: &str) -> Option<Kind> {
    Some(match own(export)? {
        "registrar" => Kind::Registrar,
        "request-filter" => Kind::RequestFilter,
        "response-filter" => Kind::ResponseFilter,
        "event-filter" => Kind::EventFilter,
        "routing-table" => Kind::RoutingTable,
        _ => return None,
    })
}

/// Before 1.0, versions are compatible that share the middle number.
pub(super) fn check_version(name: &str) -> Result<(), Refusal> {
    let Some((_, version)) = name.strip_prefix(OURS).and_then(|rest| rest.split_once('@')) else {
        return Ok(());
    };
    if version.starts_with("0.1.") { Ok(()) } else { Err(Refusal::Version(version.to_owned())) }
}

/// What must be granted for an import; none: every plugin has it.
fn asked(import: &str) -> Result<Option<&'static str>, Refusal> {
    match own(import) {
        Some("etcd") => Ok(Some("etcd")),
        Some(interface) if FREE.contains(&interface) => Ok(None),
        None if import.starts_with("wasi:http/") => Ok(Some("http:HOST")),
        None if import.starts_with(SOCKETS) => Ok(Some("tcp:IP:PORT")),
        None if FREE_WASI.iter().any(|free| import.starts_with(free)) => Ok(None),
        _ => Err(Refusal::UnknownImport(import.to_owned())),
    }
}

fn check_grant(import: &str, plugin: &str, settings: &Settings) -> Result<(), Refusal> {
    let Some(asked) = asked(import)? else { return Ok(()) };
    if is_granted(asked, &settings.grant) {
        return Ok(());
    }
    let line = grant_line(plugin, settings, &[asked]);
    Err(Refusal::NotGranted { import: import.to_owned(), line })
}

fn is_granted(asked: &str, grants: &[Grant]) -> bool {
    match asked {
        "etcd" => grants.contains(&Grant::Etcd),
        "tcp:IP:PORT" => grants.iter().any(|grant| matches!(grant, Grant::Tcp(_))),
        _ => grants.iter().any(|grant| matches!(grant, Grant::Http(_))),
    }
}

/// The line of configuration that grants this, besides what is granted.
pub(super) fn grant_line(plugin: &str, settings: &Settings, asked: &[&str]) -> String {
    let all = settings.grant.iter().map(ToString::to_string).chain(asked.iter().map(ToString::to_string));
    let all: Vec<_> = all.map(|grant| format!("\"{grant}\"")).collect();
    format!("`grant = [{}]` under [plugin.{plugin}]", all.join(", "))
}
