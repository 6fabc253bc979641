//! What is wrong with a configuration, and where: every problem with its line and its fix.
//! Knows texts and positions, nothing of what the keys mean.

use std::{cell::RefCell, fmt, ops::Range, path::Path};

/// One thing wrong, in one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where it stands.
    pub place: Place,
    /// The key, written as a path: `proxy.limits.body`. Empty where none is concerned.
    pub key: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

/// Where a [`Problem`] stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// On the command line.
    Argument(&'static str),
    /// In the file; line and column count from 1, the column in characters.
    File {
        /// As it was named.
        file: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// In a document that came over the API.
    Document,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Argument(name) => write!(f, "{name}: ")?,
            Place::Document => {}
            Place::File { file, line, column } => write!(f, "{file}:{line}:{column}: ")?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// A file's text and what was found wrong with it so far. A document of the API has no name.
pub(super) struct Source<'t> {
    name: String,
    /// Against which relative paths are resolved.
    pub(super) directory: &'t Path,
    text: &'t str,
    problems: RefCell<Vec<Problem>>,
}

impl<'t> Source<'t> {
    pub(super) fn new(name: String, directory: &'t Path, text: &'t str) -> Self {
        Self { name, directory, text, problems: RefCell::default() }
    }

    pub(super) fn refuse(&self, at: &Range<usize>, key: &str, message: impl Into<String>) {
        let place = self.place(at.start);
        self.problems.borrow_mut().push(Problem { place, key: key.to_owned(), message: message.into() });
    }

    pub(super) fn refuse_argument(&self, name: &'static str, message: impl Into<String>) {
        let problem = Problem { place: Place::Argument(name), key: String::new(), message: message.into() };
        self.problems.borrow_mut().push(problem);
    }

    pub(super) fn is_file(&self) -> bool {
        !self.name.is_empty()
    }

    pub(super) fn place(&self, offset: usize) -> Place {
        if !self.is_file() {
            return Place::Document;
        }
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Place::File { file: self.name.clone(), line, column }
    }

    /// In the order of the file, each once.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort();
        problems.dedup();
        problems
    }
}

/// Bytes of a word for which a near one is looked for.
const LONGEST_SLIP: usize = 64;

/// ``; did you mean `x`?`` if one of these is close enough to be a slip of the finger.
pub(super) fn did_you_mean(word: &str, known: &[&str]) -> String {
    // A longer one is no slip of the finger, and comparing takes its length times the candidate's in memory.
    let known_near = if word.len() <= LONGEST_SLIP { known } else { &[] };
    let near = known_near.iter().map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate));
    match near.min_by_key(|(distance, _)| *distance) {
        Some((distance, candidate)) if distance <= 2.max(word.chars().count() / 3) => {
            format!("; did you mean `{candidate}`?")
        }
        _ if known.is_empty() => String::new(),
        _ => format!("; known here: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let source = Source::new("a.toml".into(), Path::new("."), "é = 1\nb = 2\n");
        let at = |offset| match source.place(offset) {
            Place::File { line, column, .. } => (line, column),
            other => panic!("{other:?}"),
        };
        assert_eq!([at(0), at(2), at(6), at(7), at(999)], [(1, 1), (1, 2), (1, 6), (2, 1), (3, 1)]);
    }

    #[test]
    fn suggests_only_what_is_near() {
        let known = ["listen", "limits", "trusted"];
        assert_eq!(did_you_mean("lissten", &known), "; did you mean `listen`?");
        assert_eq!(did_you_mean("colour", &known), "; known here: listen, limits, trusted");
        assert_eq!(did_you_mean("x", &[]), "");
    }
}
