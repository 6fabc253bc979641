//! Core modules without a `component-type` section, as Go's linker and plain C compilers leave
//! them: which world such a module implements is read off the names of its exports and imports.
//!
//! A core module says `message-flow:plugin/registrar@0.1.0#resolve` for what it exports, and names
//! the module `message-flow:plugin/request@0.1.0` for what it imports. That is the world; whether
//! the functions have the right types is found out by the componentizer, which knows both sides.

use std::{borrow::Cow, collections::BTreeSet, fmt::Write};

use wasmparser::{BinaryReaderError, Parser, Payload};
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, SourceMap, WorldId};

use super::{
    component::{OURS, Refusal, check_version},
    link::VERSION,
    wit,
};

/// A module that says what it implements: as it is, or with the section that was missing.
pub(super) fn described(module: &[u8]) -> Result<Cow<'_, [u8]>, Refusal> {
    let names = Names::of(module).map_err(|error| Refusal::NotWasm(error.message().to_owned()))?;
    if names.described {
        return Ok(module.into());
    }
    if names.exports.is_empty() {
        return Err(Refusal::NoKind);
    }
    let not_component = |error: anyhow::Error| Refusal::NotComponent(format!("{error:#}"));
    let (resolve, world) = names.world(names.version()?).map_err(not_component)?;
    let mut described = module.to_vec();
    embed_component_metadata(&mut described, &resolve, world, StringEncoding::UTF8).map_err(not_component)?;
    Ok(described.into())
}

/// Whether a `component-type` section says that texts are UTF-8.
fn is_utf8(section: &[u8]) -> bool {
    const UTF8: u8 = 0;
    Parser::new(0).parse_all(section).any(|payload| match payload {
        Ok(Payload::CustomSection(section)) if section.name() == "wit-component-encoding" => {
            section.data().get(1) == Some(&UTF8)
        }
        _ => false,
    })
}

/// The interfaces of ours that a core module names, and what else it says of itself.
#[derive(Default)]
pub(super) struct Names {
    pub(super) imports: BTreeSet<String>,
    pub(super) exports: BTreeSet<String>,
    /// Whatever it imports, by module and name.
    pub(super) functions: BTreeSet<(String, String)>,
    /// It does something before it is called.
    pub(super) starts: bool,
    /// It has a section that says more.
    described: bool,
    /// Of its texts, where that is said: anything but UTF-8.
    pub(super) other_encoding: bool,
}

impl Names {
    pub(super) fn of(module: &[u8]) -> Result<Self, BinaryReaderError> {
        let mut names = Self::default();
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::CustomSection(section) if section.name().starts_with("component-type") => {
                    names.described = true;
                    names.other_encoding |= !is_utf8(section.data());
                }
                Payload::StartSection { .. } => names.starts = true,
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        names.import(import.module);
                        names.functions.insert((import.module.to_owned(), import.name.to_owned()));
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        names.export(export?.name);
                    }
                }
                _ => {}
            }
        }
        Ok(names)
    }

    fn import(&mut self, module: &str) {
        if module.starts_with(OURS) {
            self.imports.insert(module.to_owned());
        }
    }

    fn export(&mut self, name: &str) {
        // `cabi_post_` names a function that frees what another returned.
        let name = name.strip_prefix("cabi_post_").unwrap_or(name);
        if let Some((interface, _)) = name.split_once('#').filter(|_| name.starts_with(OURS)) {
            self.exports.insert(interface.to_owned());
        }
    }

    /// Of the package that it was built for; all of its names carry the same.
    fn version(&self) -> Result<&str, Refusal> {
        for name in self.exports.iter().chain(&self.imports) {
            check_version(name)?;
        }
        let versions = self.exports.iter().filter_map(|name| name.split_once('@'));
        Ok(versions.map(|(_, version)| version).next().unwrap_or(VERSION))
    }

    /// The world of exactly what it names, over the package as of its version.
    fn world(&self, version: &str) -> anyhow::Result<(Resolve, WorldId)> {
        let mut sources = SourceMap::new();
        for (name, text) in wit::FILES {
            let of_version = text.replacen(&format!("@{VERSION};"), &format!("@{version};"), 1);
            sources.push_str(name, of_version);
        }
        let mut resolve = Resolve::default();
        let package = sources.parse().map_err(|(_, error)| anyhow::Error::from(error))?;
        resolve.push_group(package)?;
        let world = resolve.push_source("module.wit", &self.text())?;
        let world = resolve.select_world(&[world], Some("module"))?;
        Ok((resolve, world))
    }

    fn text(&self) -> String {
        let mut text = String::from("package core:module;\nworld module {\n");
        for (direction, interfaces) in [("import", &self.imports), ("export", &self.exports)] {
            for interface in interfaces {
                let _ = writeln!(text, "{direction} {interface};");
            }
        }
        text + "}\n"
    }
}
