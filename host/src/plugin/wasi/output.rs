//! What guests print, in the router's log: line by line, and bounded.

use std::{mem, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

use crate::plugin::{
    bounds::{OUTPUT, REASON},
    guest::Guest,
};

/// What a guest wrote and how it ended, in one call.
#[derive(Default)]
pub(in crate::plugin) struct Output {
    /// The lines that are not ended yet, of standard output and standard error.
    lines: [Vec<u8>; 2],
    /// The first line that was written to standard error.
    first_error: Option<Box<str>>,
    /// The line in which its runtime said why it ends.
    reason: Option<Box<str>>,
    /// Bytes that were looked at.
    written: usize,
    /// What the next line of standard error is.
    next: Next,
    /// It ended itself, with this status.
    pub(in crate::plugin) exit: Option<u32>,
}

/// Standard error, as guests number it.
const ERROR: u32 = 2;

/// How the runtimes of languages say why they end.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Anything,
    /// Rust's, in which the runtimes of JavaScript and Python are written too: below where it was.
    Reason,
    /// Python's: in the line after those that are indented.
    Trace,
    /// It has been said, unless another trace follows.
    Traced,
    /// It has been said.
    Nothing,
}

impl Output {
    /// Why its runtime ended, in the words of that.
    pub(in crate::plugin) fn reason(&self) -> Option<Box<str>> {
        self.reason.clone()
    }

    /// What it said when it failed.
    pub(in crate::plugin) fn said(&self) -> Option<Box<str>> {
        let unended = || self.lines.iter().rev().find_map(|line| text(line)).map(Into::into);
        self.first_error.clone().or_else(unended)
    }

    /// How many of so many bytes are still looked at.
    fn take(&mut self, bytes: usize) -> usize {
        let taken = bytes.min(OUTPUT - self.written);
        self.written += taken;
        taken
    }

    /// A line, once it is ended.
    fn write(&mut self, file: u32, byte: u8) -> Option<String> {
        let line = &mut self.lines[usize::from(file == ERROR)];
        if byte != b'\n' {
            if line.len() < REASON {
                line.push(byte);
            }
            return None;
        }
        text(&mem::take(line))
    }

    fn note_error(&mut self, line: &str) {
        self.first_error.get_or_insert_with(|| line.into());
        let is_trace = line.starts_with("Traceback (most recent call last)");
        match self.next {
            Next::Anything | Next::Traced if is_trace => self.next = Next::Trace,
            Next::Anything if line.starts_with("thread '") && line.contains("panicked at") => {
                self.next = Next::Reason;
            }
            Next::Anything if line.starts_with("panic: ") || line.starts_with("fatal error: ") => {
                (self.reason, self.next) = (Some(line.into()), Next::Nothing);
            }
            Next::Reason => (self.reason, self.next) = (Some(line.into()), Next::Nothing),
            Next::Trace if !line.starts_with(' ') => {
                (self.reason, self.next) = (Some(line.into()), Next::Traced);
            }
            Next::Trace | Next::Traced | Next::Anything | Next::Nothing => {}
        }
    }
}

fn text(line: &[u8]) -> Option<String> {
    Some(String::from_utf8_lossy(line).trim_end().to_owned()).filter(|line| !line.is_empty())
}

impl Guest {
    /// Prints what was written to standard output (1) or standard error (2).
    pub(super) fn write(&mut self, file: u32, text: &[u8]) {
        let taken = self.output.take(text.len());
        for byte in &text[..taken] {
            if let Some(line) = self.output.write(file, *byte) {
                self.print(file, &line);
            }
        }
    }

    fn print(&mut self, file: u32, line: &str) {
        if file == ERROR {
            self.output.note_error(line);
        }
        if !self.may_log() {
            return;
        }
        let (plugin, client) = (&*self.plugin.name, self.message.client.as_str());
        match file {
            ERROR => tracing::warn!(plugin, client, "{line}"),
            _ => tracing::info!(plugin, client, "{line}"),
        }
    }

    /// Prints what WASI's streams were given.
    pub(in crate::plugin) fn print_written(&mut self) {
        let Some(wasi) = &self.wasi else { return };
        let written = mem::take(&mut *wasi.written.lock());
        for (file, text) in written.pieces {
            self.write(file, &text);
        }
    }

    /// Prints the lines that the call left without an end.
    pub(in crate::plugin) fn print_rest(&mut self) {
        if self.output.lines.iter().all(Vec::is_empty) {
            return;
        }
        for file in [1, ERROR] {
            if let Some(line) = self.output.write(file, b'\n') {
                self.print(file, &line);
            }
        }
    }
}

/// What was written to WASI's streams since it was last printed. A stream knows no message, so that it
/// keeps what it gets until the call ends.
#[derive(Default)]
pub(in crate::plugin) struct Written {
    pieces: Vec<(u32, Vec<u8>)>,
    length: usize,
}

/// The most that is kept; what a call writes beyond that is thrown away.
const KEPT: usize = 64 << 10;

impl Written {
    fn add(&mut self, file: u32, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(KEPT.saturating_sub(self.length))];
        if bytes.is_empty() {
            return;
        }
        // A piece costs something, however short it is.
        self.length += bytes.len().max(64);
        match self.pieces.last_mut() {
            Some((last, text)) if *last == file => text.extend_from_slice(bytes),
            _ => self.pieces.push((file, bytes.to_vec())),
        }
    }
}

/// One of WASI's two standard streams for output. It takes everything at once.
#[derive(Clone)]
pub(super) struct Printer {
    pub(super) file: u32,
    pub(super) written: Arc<Mutex<Written>>,
}

impl IsTerminal for Printer {
    /// A terminal is given each line when it is ended, where a file is given blocks. Standard error is
    /// given everything at once in any case, and a terminal might get colours.
    fn is_terminal(&self) -> bool {
        self.file != ERROR
    }
}

impl StdoutStream for Printer {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Printer {
    async fn ready(&mut self) {}
}

impl OutputStream for Printer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.written.lock().add(self.file, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(KEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_cut_into_lines() {
        let mut output = Output::default();
        let text = b"one\n\n  two\r\nthree";
        let lines: Vec<_> = text.iter().filter_map(|byte| output.write(1, *byte)).collect();
        assert_eq!(lines, ["one", "  two"]);
        assert_eq!(output.write(ERROR, b'x'), None);
        assert_eq!(output.said().as_deref(), Some("x"), "what went to standard error goes before");
        assert_eq!(output.write(1, b'\n').as_deref(), Some("three"));
        assert_eq!((output.take(OUTPUT - 1), output.take(OUTPUT), output.take(1)), (OUTPUT - 1, 1, 0));
    }

    #[test]
    fn runtimes_say_why_they_end() {
        for (lines, reason) in [
            (
                &[
                    "mine",
                    "Traceback (most recent call last):",
                    "  File \"a.py\", line 3",
                    "KeyError: 'a'",
                    "During handling of the above exception, another exception occurred:",
                    "Traceback (most recent call last):",
                    "  File \"a.py\", line 5",
                    "ValueError: no",
                    "thread '<unnamed>' (1) panicked at runtime/src/lib.rs:1293:29:",
                    "Python function threw an unexpected exception",
                ][..],
                "ValueError: no",
            ),
            (&["mine", "panic: first", "goroutine 1"], "panic: first"),
            (
                &["thread '<unnamed>' (1) panicked at a.rs:3:5:", "no such thing", "note: run with"],
                "no such thing",
            ),
        ] {
            let mut output = Output::default();
            lines.iter().for_each(|line| output.note_error(line));
            assert_eq!(output.reason().as_deref(), Some(reason));
            assert_eq!(output.said().as_deref(), Some(lines[0]));
        }
    }

    #[test]
    fn what_is_written_is_bounded() {
        let mut written = Written::default();
        for _ in 0..100 {
            written.add(1, &[b'x'; 1000]);
            written.add(2, &[b'y'; 1000]);
        }
        let length = |written: &Written| written.pieces.iter().map(|(_, text)| text.len()).sum::<usize>();
        assert_eq!(length(&written), KEPT);
        let mut written = Written::default();
        (0..10_000).for_each(|at| written.add(1 + at % 2, b"x"));
        assert_eq!(written.pieces.len(), KEPT / 64);
    }
}
