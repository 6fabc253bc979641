//! What lies in the plugins directory and is no plugin: why not, and what to do about it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::plugin_name;

/// What has been there for less than this may be on its way to another name.
const SETTLED: Duration = Duration::from_secs(1);

/// Files that are no plugins, of which the log has been told.
#[derive(Default)]
pub(in crate::plugin) struct PassedOver(BTreeMap<PathBuf, String>);

impl PassedOver {
    /// Tells the log, once for each file for as long as it is there.
    pub(in crate::plugin) fn tell(&mut self, directory: &Path) {
        // Who looks for plugins says that it cannot be read.
        let Ok(listing) = fs::read_dir(directory) else { return };
        let mut found = BTreeMap::new();
        for path in listing.filter_map(|entry| Some(entry.ok()?.path())) {
            let known = self.0.remove(&path);
            let Some(why) = why_not(&path) else { continue };
            if known.as_ref() != Some(&why) {
                if !has_settled(&path) {
                    continue;
                }
                tracing::warn!(file = %path.display(), "not taken as a plugin: {why}");
            }
            found.insert(path, why);
        }
        self.0 = found;
    }
}

fn has_settled(path: &Path) -> bool {
    let changed = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    changed.is_ok_and(|changed| SystemTime::now().duration_since(changed).is_ok_and(|since| since > SETTLED))
}

/// None: it is a plugin, or nothing that anybody takes for one.
fn why_not(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    if is_incidental(&name) {
        return None;
    }
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Some(
            "it is a directory, and only files in the plugins directory itself are: move its files there"
                .into(),
        ),
        Ok(metadata) if !metadata.is_file() => Some("it is no ordinary file".into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
            let target = fs::read_link(path).unwrap_or_default();
            Some(format!("it is a link to {}, where there is nothing", target.display()))
        }
        Ok(_) if plugin_name(path).is_none() => why_no_name(&name),
        Ok(_) | Err(_) => None,
    }
}

/// Hidden files, those that editors and copying programs make on the way, and what editors read.
fn is_incidental(name: &str) -> bool {
    const ENDS: [&str; 12] = [
        "~",
        "#",
        ".tmp",
        ".temp",
        ".partial",
        ".part",
        ".swp",
        ".swx",
        ".crdownload",
        ".d.ts",
        ".md",
        ".txt",
    ];
    const NAMES: [&str; 6] = ["4913", "jsconfig.json", "tsconfig.json", "LICENSE", "README", "lost+found"];
    name.starts_with('.') || ENDS.iter().any(|end| name.ends_with(end)) || NAMES.contains(&name)
}

/// The last part of a file's name, and what to do with files that end so.
const INSTEAD: [(&str, &str); 14] = [
    ("mjs", "a script's file ends in `.js`: rename it to `{}.js`"),
    ("cjs", "a script is a module that exports its functions, in a file `{}.js`"),
    ("jsx", "a script is plain JavaScript, in a file `{}.js`"),
    (
        "ts",
        "compile it: `npm run build` of a project that `message-flow plugin new --lang ts` makes gives `{}.wasm`",
    ),
    (
        "mts",
        "compile it: `npm run build` of a project that `message-flow plugin new --lang ts` makes gives `{}.wasm`",
    ),
    (
        "tsx",
        "compile it: `npm run build` of a project that `message-flow plugin new --lang ts` makes gives `{}.wasm`",
    ),
    (
        "py",
        "compile it: `make` of a project that `message-flow plugin new --lang python` makes gives `{}.wasm`",
    ),
    ("go", "compile it: `make` of a project that `message-flow plugin new --lang go` makes gives `{}.wasm`"),
    ("c", "compile it: `make` of a project that `message-flow plugin new --lang c` makes gives `{}.wasm`"),
    (
        "rs",
        "compile it: `cargo build` of a project that `message-flow plugin new --lang rust` makes gives `{}.wasm`",
    ),
    ("wat", "assemble it to `{}.wasm`, with `wasm-tools parse` for example"),
    ("wast", "assemble it to `{}.wasm`, with `wasm-tools parse` for example"),
    ("gz", "unpack it"),
    ("zip", "unpack it"),
];

fn why_no_name(name: &str) -> Option<String> {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let word = word(stem);
    let lower = extension.to_ascii_lowercase();
    let why = match lower.as_str() {
        "wasm" | "js" if extension != lower => {
            format!("`.{extension}` is written in lower case: rename it to `{word}.{lower}`")
        }
        "wasm" | "js" => format!(
            "a plugin's name has 1 to 128 letters (a to z, A to Z), digits, `-` and `_`: rename it, to `{word}.{lower}` for example"
        ),
        lower => match INSTEAD.iter().find(|(known, _)| *known == lower) {
            Some((_, instead)) => instead.replace("{}", &word),
            None => "a plugin's file is called NAME.wasm or NAME.js".to_owned(),
        },
    };
    Some(why)
}

/// A plugin's name out of any text.
fn word(stem: &str) -> String {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    let word: String = stem.chars().take(128).map(|letter| if fits(letter) { letter } else { '-' }).collect();
    if word.is_empty() { "plugin".to_owned() } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plugin_is_told_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        for (name, instead) in [
            ("near.ts", "--lang ts"),
            ("x.mjs", "rename it to `x.js`"),
            ("x.cjs", "in a file `x.js`"),
            ("near.WASM", "rename it to `near.wasm`"),
            ("near.Js", "rename it to `near.js`"),
            ("near.py", "--lang python"),
            ("near.wat", "assemble it to `near.wasm`"),
            ("near.wasm.gz", "unpack it"),
            ("geo.min.js", "rename it, to `geo-min.js` for example"),
            ("näher.wasm", "rename it, to `n-her.wasm` for example"),
            (" near.wasm", "rename it, to `-near.wasm` for example"),
            ("near", "NAME.wasm or NAME.js"),
            ("near.json", "NAME.wasm or NAME.js"),
        ] {
            fs::write(place(name), "").unwrap();
            let why = why_not(&place(name)).unwrap();
            assert!(why.contains(instead), "{name}: {why}");
        }
        fs::create_dir(place("near.d")).unwrap();
        assert!(why_not(&place("near.d")).unwrap().contains("move its files there"));
        std::os::unix::fs::symlink("nowhere.wasm", place("far.wasm")).unwrap();
        assert!(
            why_not(&place("far.wasm")).unwrap().contains("a link to nowhere.wasm, where there is nothing")
        );
    }

    #[test]
    fn of_what_is_a_plugin_or_incidental_nothing_is_said() {
        let directory = tempfile::tempdir().unwrap();
        for name in [
            "geo.wasm",
            "geo.js",
            ".geo.wasm.XyZ",
            "geo.wasm~",
            "#geo.js#",
            "geo.js.swp",
            "4913",
            "geo.wasm.tmp",
            "message-flow.d.ts",
            "jsconfig.json",
            "README.md",
            "..data",
        ] {
            let path = directory.path().join(name);
            fs::write(&path, "").unwrap();
            assert_eq!(why_not(&path), None, "{name}");
        }
    }
}
