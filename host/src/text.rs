//! Texts of others, as logs and errors show them: bounded, and without characters that could make
//! one line look like two or tell a terminal to do something. A leaf that every module may use.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

/// So much of a text is shown where a line is about something else.
const SHOWN: usize = 200;

/// The beginning of a text, at most so many bytes, ending between characters.
pub fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// A text to name in an error or a line of the log: its beginning, on one line.
pub fn shown(text: &str) -> Cow<'_, str> {
    let start = cut(text, SHOWN);
    let line = one_line(start);
    if start.len() < text.len() { Cow::Owned(line.into_owned() + "…") } else { line }
}

/// A text with every character escaped that is not to be printed as it is.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 8);
    // Writing to a string does not fail.
    let _ = OneLine(&mut line).write_str(text);
    Cow::Owned(line)
}

/// Writes what it is given as one line.
pub struct OneLine<W>(pub W);

impl<W: fmt::Write> fmt::Write for OneLine<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, found)) = rest.char_indices().find(|(_, char)| is_unprintable(*char)) {
            self.0.write_str(&rest[..at])?;
            write!(self.0, "{}", found.escape_default())?;
            rest = &rest[at + found.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// Control characters (C0, DEL, C1), the separators of lines and paragraphs, and what turns the
/// direction of the text that follows: by these alone a text can look like another.
pub fn is_unprintable(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_ends_its_line() {
        for (text, line) in [
            ("plain ü 🙂 text", "plain ü 🙂 text"),
            ("a\nb\r\nc", "a\\nb\\r\\nc"),
            ("\u{1b}[31mred\u{7}\u{7f}\0", "\\u{1b}[31mred\\u{7}\\u{7f}\\u{0}"),
            ("\u{85}\u{9b}2J", "\\u{85}\\u{9b}2J"),
            ("\u{202e}txt\u{2066}\u{2028}", "\\u{202e}txt\\u{2066}\\u{2028}"),
            ("tab\there", "tab\\there"),
        ] {
            assert_eq!(one_line(text), line);
        }
    }

    #[test]
    fn what_is_shown_is_short_and_says_that_there_is_more() {
        assert_eq!(shown("chat"), "chat");
        assert_eq!(shown("a\nb"), "a\\nb");
        assert_eq!(shown("/a\n\u{1b}[31m"), "/a\\n\\u{1b}[31m");
        let one_more = shown(&"x".repeat(SHOWN + 1)).into_owned();
        assert!(one_more.ends_with("x…") && one_more.chars().count() == SHOWN + 1, "{one_more}");
        let long = "ü".repeat(SHOWN);
        assert_eq!(shown(&long), "ü".repeat(SHOWN / 2) + "…");
        assert_eq!(cut("aü", 2), "a");
    }
}
