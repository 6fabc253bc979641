//! `message-flow plugin new`: a project that builds with one command and passes its own scenarios.
//!
//! Its sources are the examples of the repository, and what it builds against (the WIT, and the
//! SDK of its language) is written beside them: a project needs its language's toolchain and this
//! binary, and no checkout of Message Flow.

mod sources;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::plugin::wit;

/// In what a plugin is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// Rust
    Rust,
    /// C
    C,
    /// JavaScript
    #[value(alias = "javascript")]
    Js,
    /// TypeScript
    #[value(alias = "typescript")]
    Ts,
    /// Python
    Python,
    /// Go
    Go,
}

/// What a plugin is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum NewKind {
    /// Asked which server a client's messages go to.
    Registrar,
    /// Sees requests and responses.
    Filter,
    /// A routing-table adapter; in Rust.
    Table,
}

/// A project to be made.
#[derive(Clone, Debug)]
pub struct Project {
    name: String,
    language: Language,
    kind: NewKind,
}

/// Why there is no project.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// The name does not do.
    #[error(
        "`{0}` is no name for a plugin: write a letter, then letters, digits and underscores, at most 64 in all"
    )]
    Name(String),
    /// A kind that is not offered in a language.
    #[error(
        "a routing-table adapter can be begun in Rust only: write `--lang rust`; {0:?} can export \
         `routing-table` as well, from bindings made of wit/ for a world of your own"
    )]
    NotOffered(Language),
    /// Something is there already.
    #[error("{0} is there already: choose another name, or move it out of the way")]
    Exists(PathBuf),
    /// A file cannot be written.
    #[error("{0}")]
    Write(PathBuf, #[source] io::Error),
}

/// A file of a project: its path in it, and its text.
pub(super) type File = (String, String);

impl Project {
    /// A plugin of this name.
    pub fn new(name: &str, language: Language, kind: NewKind) -> Result<Self, NewError> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let starts = name.bytes().next().is_some_and(|first| first.is_ascii_alphabetic());
        if !(starts && name.len() <= 64 && name.bytes().all(is_word)) {
            return Err(NewError::Name(name.to_owned()));
        }
        if kind == NewKind::Table && language != Language::Rust {
            return Err(NewError::NotOffered(language));
        }
        Ok(Self { name: name.to_owned(), language, kind })
    }

    /// Writes it into a new directory of its name, in `parent`.
    pub fn write(&self, parent: &Path) -> Result<(), NewError> {
        let directory = parent.join(&self.name);
        if directory.exists() {
            return Err(NewError::Exists(directory));
        }
        for (name, text) in self.files() {
            let path = directory.join(name);
            let made = path.parent().map_or(Ok(()), fs::create_dir_all);
            made.and_then(|()| fs::write(&path, text)).map_err(|error| NewError::Write(path, error))?;
        }
        Ok(())
    }

    /// What builds it, given in the directory in which it was made.
    pub fn build(&self) -> String {
        let name = &self.name;
        match self.language {
            Language::Rust => {
                format!(
                    "cargo build --release --target wasm32-unknown-unknown --manifest-path {name}/Cargo.toml"
                )
            }
            Language::Js | Language::Ts => format!("npm --prefix {name} install"),
            Language::C | Language::Python | Language::Go => format!("make -C {name}"),
        }
    }

    /// Where it then is.
    pub fn built(&self) -> String {
        let name = &self.name;
        match self.language {
            Language::Rust => format!("{name}/target/wasm32-unknown-unknown/release/{name}.wasm"),
            _ => format!("{name}/build/{name}.wasm"),
        }
    }

    fn files(&self) -> Vec<File> {
        let mut files = sources::of(self);
        files.extend(wit::FILES.map(|(name, text)| (format!("wit/{name}"), text.to_owned())));
        files.extend(self.scenarios());
        files.push(("README.md".to_owned(), self.readme()));
        let ignored =
            if self.language == Language::Rust { "/target\n" } else { "/build\nnode_modules\n__pycache__\n" };
        files.push((".gitignore".to_owned(), ignored.to_owned()));
        files
    }

    fn scenarios(&self) -> Option<File> {
        let text = match self.kind {
            NewKind::Registrar => include_str!("new/resolve.json"),
            NewKind::Filter => include_str!("new/on-request.json"),
            NewKind::Table => return None,
        };
        Some(("scenarios/first.json".to_owned(), text.to_owned()))
    }

    /// The world of `wit/` that it implements.
    fn world(&self) -> &'static str {
        match self.kind {
            NewKind::Registrar => "registrar-plugin",
            NewKind::Filter => "filter-plugin",
            NewKind::Table => "routing-table-plugin",
        }
    }

    fn readme(&self) -> String {
        let (name, what) = (&self.name, self.what());
        let (build, built) = (self.build(), self.built());
        let tested = match self.kind {
            NewKind::Table => "what every routing-table adapter promises",
            _ => "`scenarios/*.json`: a message, and what the plugin should make of it",
        };
        format!(
            "# {name}\n\n{what}, for Message Flow. From the directory above:\n\n```sh\n{build}\n\
             message-flow plugin test {name}\ncp {built} plugins/\n```\n\nThe second holds it against {tested}. \
             [`wit/`](wit) is the reference of what a plugin can see and do.\n"
        )
    }

    /// For people.
    pub fn what(&self) -> String {
        let kind = match self.kind {
            NewKind::Registrar => "A registrar",
            NewKind::Filter => "A filter",
            NewKind::Table => "A routing-table adapter",
        };
        let language = match self.language {
            Language::Rust => "Rust",
            Language::C => "C",
            Language::Js => "JavaScript",
            Language::Ts => "TypeScript",
            Language::Python => "Python",
            Language::Go => "Go",
        };
        format!("{kind} in {language}")
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn names_are_words() {
        for name in ["geo", "Geo_2"] {
            assert!(Project::new(name, Language::Js, NewKind::Filter).is_ok(), "{name}");
        }
        for name in ["", "2geo", "geo-2", "../geo", "geo.js", &"g".repeat(65)] {
            assert!(matches!(Project::new(name, Language::Js, NewKind::Filter), Err(NewError::Name(_))));
        }
    }

    #[test]
    fn a_table_is_begun_in_rust() {
        for &language in Language::value_variants() {
            let offered = Project::new("geo", language, NewKind::Table).is_ok();
            assert_eq!(offered, language == Language::Rust);
        }
    }

    #[test]
    fn nothing_in_a_project_leads_out_of_it() {
        for &language in Language::value_variants() {
            for kind in [NewKind::Registrar, NewKind::Filter] {
                let files = Project::new("geo", language, kind).unwrap().files();
                let leads = |(name, text): &&File| {
                    !name.starts_with("sdk/src/") && text.contains("../") || text.contains("workspace = true")
                };
                let out: Vec<_> = files.iter().filter(leads).map(|(name, _)| name).collect();
                assert!(out.is_empty(), "{language:?}: {out:?}");
            }
        }
    }

    #[test]
    fn what_is_there_stays() {
        let parent = tempfile::tempdir().unwrap();
        let project = Project::new("geo", Language::C, NewKind::Filter).unwrap();
        project.write(parent.path()).unwrap();
        assert!(
            parent.path().join("geo/geo.c").is_file() && parent.path().join("geo/wit/types.wit").is_file()
        );
        assert!(matches!(project.write(parent.path()), Err(NewError::Exists(_))));
    }

    #[test]
    fn scenarios_are_scenarios() {
        for kind in [NewKind::Registrar, NewKind::Filter] {
            let (_, text) = Project::new("geo", Language::C, kind).unwrap().scenarios().unwrap();
            assert!(crate::workbench::scenario::Scenario::read_all(&text).unwrap().len() > 1);
        }
    }
}
