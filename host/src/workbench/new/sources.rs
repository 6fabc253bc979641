//! The files of a project that depend on its language: an example's source, what it builds
//! against, and what builds it.

use super::{File, Language, NewKind, Project};

/// The text of a file of the repository.
macro_rules! text {
    ($path:literal) => {
        include_str!(concat!("../../../../", $path))
    };
}

/// Files of the repository, by their paths below `$from`.
macro_rules! files {
    ($from:literal: $($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../../", $from, "/", $name)))),*]
    };
}

const RUST_SDK: [(&str, &str); 7] = files!["sdk":
    "src/bindings.rs", "src/candidates.rs", "src/keys.rs", "src/lib.rs", "src/panic.rs",
    "src/testing.rs", "src/testing/host.rs",
];

const MEMORY: [(&str, &str); 8] = files!["plugins/memory":
    "src/assignment.rs", "src/codec.rs", "src/entry.rs", "src/head.rs", "src/lib.rs", "src/log.rs",
    "src/reserve.rs", "src/tests.rs",
];

const GO_SDK: [(&str, &str); 21] = files!["sdk/go":
    "go.mod", "doc.go", "candidates/candidates.go", "clock/clock.go", "config/config.go",
    "etcd/abi.go", "etcd/etcd.go", "event/event.go", "eventfilter/eventfilter.go", "internal/abi/abi.go", "lifecycle/lifecycle.go",
    "log/log.go", "random/random.go", "registrar/registrar.go", "request/request.go",
    "requestfilter/requestfilter.go", "response/response.go", "responsefilter/responsefilter.go",
    "routingtable/exports.go", "routingtable/routingtable.go", "state/state.go",
];

/// What `workspace = true` stands for in the SDK's manifest.
const WIT_BINDGEN: &str =
    "wit-bindgen = { version = \"0.63\", default-features = false, features = [\"macros\", \"realloc\"] }";

/// The files of a project.
pub(super) fn of(project: &Project) -> Vec<File> {
    match project.language {
        Language::Rust => rust(project),
        Language::C => c(project),
        Language::Js => javascript(project),
        Language::Ts => typescript(project),
        Language::Python => python(project),
        Language::Go => go(project),
    }
}

/// Either example, in one language.
fn example(project: &Project, registrar: &str, filter: &str) -> String {
    match project.kind {
        NewKind::Filter => filter.to_owned(),
        NewKind::Registrar | NewKind::Table => registrar.to_owned(),
    }
}

fn below(directory: &str, files: &[(&str, &str)]) -> Vec<File> {
    files.iter().map(|(name, text)| (format!("{directory}{name}"), (*text).to_owned())).collect()
}

fn rust(project: &Project) -> Vec<File> {
    let mut files = match project.kind {
        NewKind::Table => below("", &MEMORY),
        _ => {
            let registrar = text!("examples/region-registrar/src/lib.rs");
            let filter = text!("examples/stamp/src/lib.rs");
            vec![("src/lib.rs".to_owned(), example(project, registrar, filter))]
        }
    };
    files.extend(below("sdk/", &RUST_SDK));
    let name = &project.name;
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\npublish = false\n\n\
         [lib]\ncrate-type = [\"cdylib\"]\n\n[dependencies]\nmessage-flow-sdk = {{ path = \"sdk\" }}\n\n\
         # Of its own, wherever it is.\n[workspace]\n"
    );
    let sdk = format!(
        "[package]\nname = \"message-flow-sdk\"\nversion = \"{}\"\nedition = \"2024\"\nlicense = \"Apache-2.0\"\n\
         publish = false\n\n[dependencies]\n{WIT_BINDGEN}\n",
        env!("CARGO_PKG_VERSION"),
    );
    // A component needs no stack of a MiB.
    let flags = "[target.wasm32-unknown-unknown]\nrustflags = [\"-Clink-arg=-zstack-size=65536\"]\n";
    files.push(("Cargo.toml".to_owned(), manifest));
    files.push(("sdk/Cargo.toml".to_owned(), sdk));
    files.push((".cargo/config.toml".to_owned(), flags.to_owned()));
    files
}

fn c(project: &Project) -> Vec<File> {
    let name = &project.name;
    let source = example(project, text!("examples/c/region.c"), text!("examples/c/stamp.c"));
    let head = format!("# Where message-flow.h is.\nSDK = .\nall: build/{name}.wasm");
    vec![
        (format!("{name}.c"), source),
        ("message-flow.h".to_owned(), text!("sdk/c/message-flow.h").to_owned()),
        ("Makefile".to_owned(), makefile(&head, text!("examples/c/Makefile"))),
    ]
}

fn python(project: &Project) -> Vec<File> {
    let (name, world) = (&project.name, project.world());
    let source = example(project, text!("examples/python/region.py"), text!("examples/python/stamp.py"));
    let head = format!("WIT = wit\nSDK = .\nWORLD = {world}\nall: build/{name}.wasm");
    vec![
        (format!("{name}.py"), source),
        ("message_flow.py".to_owned(), text!("examples/python/message_flow.py").to_owned()),
        ("Makefile".to_owned(), makefile(&head, text!("examples/python/Makefile"))),
    ]
}

fn go(project: &Project) -> Vec<File> {
    let name = &project.name;
    let source = example(project, text!("examples/go/region/main.go"), text!("examples/go/stamp/main.go"));
    let module = text!("examples/go/go.mod").replace("module example", &format!("module {name}"));
    let mut files = below("sdk/", &GO_SDK);
    files.push((format!("{name}/main.go"), source));
    files.push(("go.mod".to_owned(), module.replace("../../sdk/go", "./sdk")));
    files.push((
        "Makefile".to_owned(),
        makefile(&format!("all: build/{name}.wasm"), text!("examples/go/Makefile")),
    ));
    files
}

fn javascript(project: &Project) -> Vec<File> {
    let name = &project.name;
    let source =
        example(project, text!("examples/javascript/region.js"), text!("examples/javascript/stamp.js"));
    let package = text!("examples/javascript/package.json");
    let entry = format!(
        "// What the build begins with: what a plugin has around it, and then the plugin.\n\
         import './message-flow.js';\nexport * from './{name}.js';\n"
    );
    let build = format!("mkdir -p build && {}", componentize(project, ENTRY));
    vec![
        (format!("{name}.js"), source),
        (ENTRY.to_owned(), entry),
        ("message-flow.js".to_owned(), text!("examples/javascript/message-flow.js").to_owned()),
        ("package.json".to_owned(), manifest(project, package, &build)),
    ]
}

/// No plugin has this name, as there is none with a `-` in a project.
const ENTRY: &str = "message-flow-entry.js";

fn typescript(project: &Project) -> Vec<File> {
    let name = &project.name;
    let source =
        example(project, text!("examples/typescript/region.ts"), text!("examples/typescript/stamp.ts"));
    let package = text!("examples/typescript/package.json");
    let bundle = format!(
        "esbuild {name}.ts --bundle --format=esm --external:message-flow:* --inject:./message-flow.js --outdir=build"
    );
    let build = format!("tsc && {bundle} && {}", componentize(project, &format!("build/{name}.js")));
    vec![
        (format!("{name}.ts"), source),
        ("package.json".to_owned(), manifest(project, package, &build)),
        ("message-flow.js".to_owned(), text!("examples/javascript/message-flow.js").to_owned()),
        ("message-flow.d.ts".to_owned(), text!("sdk/typescript/message-flow.d.ts").to_owned()),
        (
            "tsconfig.json".to_owned(),
            text!("examples/typescript/tsconfig.json").replace(", \"../../sdk/typescript/*.d.ts\"", ""),
        ),
    ]
}

/// An example's Makefile has its own targets up to the first empty line, and rules after it.
fn makefile(head: &str, example: &str) -> String {
    let rules = example.split_once("\n\n").map_or(example, |(_, rules)| rules);
    format!("{head}\n\n{rules}")
}

fn componentize(project: &Project, source: &str) -> String {
    let (name, world) = (&project.name, project.world());
    format!("componentize-qjs --sync --wit wit --world {world} --js {source} --output build/{name}.wasm")
}

/// An example's `package.json` with this build.
fn manifest(project: &Project, example: &str, build: &str) -> String {
    let mut package: serde_json::Value = serde_json::from_str(example).unwrap_or_default();
    package["name"] = project.name.to_lowercase().into();
    package["scripts"] = serde_json::json!({ "build": build, "prepare": "npm run build" });
    serde_json::to_string_pretty(&package).unwrap_or_default() + "\n"
}
