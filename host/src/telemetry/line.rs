//! One event is one line of the log, whatever is in it.
//!
//! Texts of plugins, clients, servers and files are in messages and fields alike. Here, where all of them
//! pass, what could end a line or tell a terminal to do something is escaped; nobody who logs has to
//! think of it.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{DefaultFields, Writer},
    },
    registry::LookupSpan,
};

use crate::text::{OneLine, is_unprintable};

/// The message and the fields of an event, for people.
#[derive(Default)]
pub(super) struct Fields(DefaultFields);

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        self.0.format_fields(Writer::new(&mut OneLine(&mut writer)), fields)
    }
}

/// An event in JSON, which escapes what ends a line, but not all that a terminal obeys.
pub(super) struct Json<E>(pub(super) E);

impl<S, N, E> FormatEvent<S, N> for Json<E>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
    E: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        for char in line.trim_end().chars() {
            match is_unprintable(char) {
                true => write!(writer, "\\u{:04x}", char as u32)?,
                false => writer.write_char(char)?,
            }
        }
        writer.write_char('\n')
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const FOREIGN: &str = "a\r\n2026-01-01T00:00:00Z ERROR forged\u{1b}[2J\u{9b}2J\u{202e}z\u{2028}\t\0";

    fn logged(log: impl FnOnce(Lines) -> tracing::Dispatch) -> String {
        let lines = Lines::default();
        tracing::dispatcher::with_default(&log(lines.clone()), || {
            let error = io::Error::other(FOREIGN);
            tracing::warn!(client = FOREIGN, server = %FOREIGN, debug = ?FOREIGN, %error, "{FOREIGN}");
            tracing::warn!(error = &error as &dyn std::error::Error, "plain");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn holds(log: &str) {
        assert_eq!(log.matches('\n').count(), 2, "{log:?}");
        assert!(!log.chars().any(|char| char != '\n' && is_unprintable(char)), "{log:?}");
        assert!(log.matches("ERROR forged").count() == 6, "{log:?}");
    }

    #[test]
    fn no_text_ends_its_line_for_people() {
        holds(&logged(|lines| {
            let log = tracing_subscriber::fmt().with_ansi(false).fmt_fields(Fields::default());
            log.with_writer(move || lines.clone()).finish().into()
        }));
    }

    #[test]
    fn no_text_ends_its_line_in_json() {
        let log = logged(|lines| {
            let log = tracing_subscriber::fmt().json().flatten_event(true).map_event_format(Json);
            log.with_writer(move || lines.clone()).finish().into()
        });
        holds(&log);
        for line in log.lines() {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(event["message"] == "plain" || event["message"] == FOREIGN, "{event}");
        }
    }
}
