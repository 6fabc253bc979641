//! Reads a document key by key and goes on after an error, so that all of them are found at once.
//! A [`Section`] is a table whose unknown keys are refused; a [`Value`] is what a key holds.
//! Knows strings, numbers and tables, not what the keys mean.

use std::{cell::RefCell, fmt::Display, ops::Range, path::PathBuf, str::FromStr, time::Duration};

use super::{
    diagnose::{Source, did_you_mean},
    tree::{Key, Node, Tree},
};
use crate::units::{Size, Span};

/// A table whose keys are taken one after the other; what is left over in the end is unknown.
pub(super) struct Section<'s> {
    source: &'s Source<'s>,
    path: String,
    at: Range<usize>,
    table: Option<&'s Node>,
    known: RefCell<Vec<&'static str>>,
    shown: RefCell<Vec<&'static str>>,
}

/// What a key holds. Its readers report what is wrong and then return `None`.
#[derive(Clone)]
pub(super) struct Value<'s> {
    source: &'s Source<'s>,
    path: String,
    at: Range<usize>,
    node: &'s Node,
}

impl<'s> Section<'s> {
    fn new(source: &'s Source<'s>, path: String, at: Range<usize>, table: Option<&'s Node>) -> Self {
        Self { source, path, at, table, known: RefCell::default(), shown: RefCell::default() }
    }

    /// A path as it would be read if it were written here: relative to the file's directory.
    pub(super) fn beside(&self, path: &str) -> PathBuf {
        self.source.directory.join(path)
    }

    /// The value of a key, if it is there.
    pub(super) fn value(&self, key: &'static str) -> Option<Value<'s>> {
        if !self.known.borrow().contains(&key) {
            self.known.borrow_mut().push(key);
        }
        let (key, tree) = self.table?.get(key)?;
        Some(self.child(key, tree))
    }

    /// A key read by `read`; `None` if it is not there or not valid.
    pub(super) fn get<T>(&self, key: &'static str, read: impl FnOnce(&Value<'s>) -> Option<T>) -> Option<T> {
        self.value(key).and_then(|value| read(&value))
    }

    /// As [`Self::get`], but the key must be there; `fix` says what to write.
    pub(super) fn need<T>(
        &self,
        key: &'static str,
        fix: &str,
        read: impl FnOnce(&Value<'s>) -> Option<T>,
    ) -> Option<T> {
        match self.value(key) {
            Some(value) => read(&value),
            None => {
                self.refuse(format!("`{key}` is missing: write {fix}"));
                None
            }
        }
    }

    /// A table within this one; empty if it is not there.
    pub(super) fn section(&self, key: &'static str) -> Section<'s> {
        let found = self.get(key, Value::section);
        found.unwrap_or_else(|| Self::new(self.source, self.join(key), self.at.clone(), None))
    }

    /// Every key with its value: for tables whose keys are names.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'s str, Value<'s>)> {
        let entries = self.table.into_iter().flat_map(Node::entries);
        entries.map(|(key, tree)| (key.name.as_str(), self.child(key, tree)))
    }

    /// Keys that the API shows and takes no notice of when they come back; in a file they are unknown.
    pub(super) fn shown(&self, keys: &[&'static str]) {
        if !self.source.is_file() {
            self.shown.borrow_mut().extend(keys);
        }
    }

    /// Reports the keys that were not asked for.
    pub(super) fn end(self) {
        let known = self.known.borrow();
        for (key, _) in self.table.into_iter().flat_map(Node::entries) {
            let name = key.name.as_str();
            if !known.contains(&name) && !self.shown.borrow().contains(&name) {
                let message = format!("unknown key{}", did_you_mean(&key.name, &known));
                self.source.refuse(&key.at, &self.join(&key.name), message);
            }
        }
    }

    /// Reports something about the table as a whole.
    pub(super) fn refuse(&self, message: impl Into<String>) {
        self.source.refuse(&self.at, &self.path, message);
    }

    /// Reports something that the command line said about a key of this table.
    pub(super) fn argument(&self, name: &'static str, message: impl Into<String>) {
        self.source.refuse_argument(name, message);
    }

    fn child(&self, key: &Key, tree: &'s Tree) -> Value<'s> {
        let path = self.join(&key.name);
        Value { source: self.source, path, at: key.at.clone(), node: &tree.node }
    }

    fn join(&self, key: &str) -> String {
        let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let key = if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { format!("{key:?}") };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }
}

impl<'s> Value<'s> {
    /// The whole document.
    pub(super) fn root(source: &'s Source<'s>, tree: &'s Tree) -> Self {
        Self { source, path: String::new(), at: 0..0, node: &tree.node }
    }

    /// Reports something about this value.
    pub(super) fn complain(&self, message: impl Into<String>) {
        self.source.refuse(&self.at, &self.path, message);
    }

    /// Reports something about this value, which is none then.
    pub(super) fn refuse<T>(&self, message: impl Into<String>) -> Option<T> {
        self.complain(message);
        None
    }

    fn expected<T>(&self, what: &str) -> Option<T> {
        self.refuse(format!("expected {what}, found {}", self.node.describe()))
    }

    /// A string.
    pub(super) fn text(&self) -> Option<&'s str> {
        if let Node::Text(text) = self.node { Some(text) } else { self.expected("a string") }
    }

    /// A string that is not empty.
    pub(super) fn word(&self) -> Option<String> {
        let text = self.text()?;
        if text.is_empty() { self.refuse("must not be empty") } else { Some(text.to_owned()) }
    }

    /// A string that its type reads.
    pub(super) fn parse<T: FromStr<Err: Display>>(&self) -> Option<T> {
        self.text()?.parse().map_err(|error| self.refuse::<()>(format!("{error}"))).ok()
    }

    /// `true` or `false`.
    pub(super) fn switch(&self) -> Option<bool> {
        self.as_switch().or_else(|| self.expected("true or false"))
    }

    /// `true` or `false`, if it is one; nothing is reported otherwise.
    pub(super) fn as_switch(&self) -> Option<bool> {
        if let Node::Switch(switch) = self.node { Some(*switch) } else { None }
    }

    /// Whether it is a string.
    pub(super) fn is_text(&self) -> bool {
        matches!(self.node, Node::Text(_))
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, bounds: Range<u64>) -> Option<u64> {
        let Node::Integer { digits, radix } = self.node else { return self.expected("a whole number") };
        let number = u64::from_str_radix(digits, *radix).ok();
        let within = number.filter(|number| bounds.contains(number));
        within.or_else(|| {
            self.refuse(format!("`{digits}` is out of bounds: write {} to {}", bounds.start, bounds.end - 1))
        })
    }

    /// A count of things of which at least one is needed.
    pub(super) fn count(&self) -> Option<usize> {
        self.number(1..1 + (1 << 32)).and_then(|number| usize::try_from(number).ok())
    }

    /// A duration longer than zero, such as `30s`.
    pub(super) fn span(&self) -> Option<Duration> {
        let Span(span) =
            if self.is_text() { self.parse()? } else { self.expected("a duration such as \"30s\"")? };
        if span.is_zero() { self.refuse("must be longer than 0") } else { Some(span) }
    }

    /// A size larger than zero, such as `64MiB`, or a number of bytes.
    pub(super) fn size(&self) -> Option<u64> {
        match self.node {
            Node::Integer { .. } => self.number(1..u64::MAX),
            Node::Text(_) => match self.parse()? {
                Size(0) => self.refuse("must be larger than 0"),
                Size(size) => Some(size),
            },
            _ => self.expected("a size such as \"64MiB\""),
        }
    }

    /// A path, relative to the file's directory.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.word().map(|text| self.source.directory.join(text))
    }

    /// One of these words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = choices.iter().find(|(word, _)| *word == text);
        found.map(|(_, choice)| *choice).or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.refuse(format!("`{text}` is not one of {}", quoted(&words)))
        })
    }

    /// An array, element by element; elements that are not valid are left out after being reported.
    pub(super) fn list<T>(&self, read: impl Fn(&Value<'s>) -> Option<T>) -> Option<Vec<T>> {
        let Node::List(list) = self.node else {
            let several = matches!(self.node, Node::Table(_)) && !self.path.contains('.');
            let fix = if several { format!(" (write [[{}]])", self.path) } else { String::new() };
            return self.expected(&format!("an array{fix}"));
        };
        let element = |(number, tree): (usize, &'s Tree)| {
            let path = format!("{}[{number}]", self.path);
            read(&Value { source: self.source, path, at: tree.at.clone(), node: &tree.node })
        };
        Some(list.iter().enumerate().filter_map(element).collect())
    }

    /// A table.
    pub(super) fn section(&self) -> Option<Section<'s>> {
        self.as_section().or_else(|| self.expected("a table"))
    }

    /// A table, if it is one; nothing is reported otherwise.
    pub(super) fn as_section(&self) -> Option<Section<'s>> {
        let table = matches!(self.node, Node::Table(_));
        table.then(|| Section::new(self.source, self.path.clone(), self.at.clone(), Some(self.node)))
    }

    /// A string, number or switch, as text.
    pub(super) fn scalar(&self) -> Option<String> {
        match self.node {
            Node::Text(text) => Some(text.clone()),
            Node::Integer { digits, radix: 10 } => Some(digits.clone()),
            Node::Float(number) => Some(number.clone()),
            Node::Switch(switch) => Some(switch.to_string()),
            _ => self.expected("a string, a number, true or false"),
        }
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}
