//! What is set on HTTP/2 connections, of clients and to servers, and why. Nothing is left to the
//! defaults of the library, which are chosen for a client or a server and not for who is both.

use std::time::Duration;

/// What one stream may have on its way to this router that nobody has read yet. It is the memory that
/// one slow reader costs, and with the round trip the fastest that one stream can be: 256 KiB are 40
/// Mbit/s over 50 ms, and more than a local network needs.
pub(crate) const STREAM_WINDOW: u32 = 256 << 10;

/// So many streams of a client may be unread to their full window before others have to wait. It
/// bounds what one connection of a client can have in memory to 16 MiB.
const UNREAD_STREAMS: u32 = 64;

/// For a connection to a server: no bound of its own, so that clients that read slowly never stop
/// others. What is unread is bounded by the windows of its streams, of which there are few.
const SERVER_WINDOW: u32 = 1 << 30;

/// The least that is allowed: a larger frame of one stream only delays the others.
const FRAME: u32 = 16 << 10;

/// The dynamic table of header compression, in both directions. The protocol's own default; more pays
/// for nothing in requests that go to many servers.
const HEADER_TABLE: u32 = 4 << 10;

/// What one stream may have handed over that is not written to the socket. A stream that has the window
/// to send needs no more than keeps the socket busy; the library's 400 KiB a stream are 100 MiB a
/// connection.
const SEND_BUFFER: usize = 64 << 10;

/// For how long, and of how many streams, is remembered that they were reset here, so that what the
/// other end sent before it knew is ignored. What comes later counts as [`LOCAL_ERRORS`]. An upload
/// that was answered early still arrives for a round trip; ten seconds are many of them.
const RESET_MEMORY: Duration = Duration::from_secs(10);
const RESET_STREAMS: usize = 512;

/// Errors of streams that this router finds before the connection is closed. They are counted for its
/// whole life, and each cost the work of a request ("MadeYouReset", CVE-2025-8671), so there is an end;
/// a proxy with many users in front of this router reaches it with one wrong message in thousands.
const LOCAL_ERRORS: usize = 1024;

/// Streams that a client opened and cancelled before they were looked at, in one turn. Twice as many as
/// it may have open: a browser that leaves a page cancels all it has, at once. Cancelling on and on is
/// bounded by time, see `listener::http2`.
fn pending_resets(max_streams: u32) -> usize {
    max_streams.max(128) as usize * 2
}

/// What is announced, and left to the library, as the largest head. This router refuses what is longer
/// than `max_head` itself, with an answer that says why; the library's has no body.
fn header_list(max_head: usize) -> u32 {
    u32::try_from(max_head.saturating_mul(2)).unwrap_or(u32::MAX)
}

/// The window of a client's connection.
fn client_window(max_streams: u32) -> u32 {
    max_streams.clamp(2, UNREAD_STREAMS) * STREAM_WINDOW
}

/// For connections of clients.
pub(crate) fn of_clients(max_streams: u32, max_head: usize) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(client_window(max_streams))
        .max_frame_size(FRAME)
        .header_table_size(HEADER_TABLE)
        .max_header_list_size(header_list(max_head))
        .max_concurrent_streams(max_streams)
        .max_send_buffer_size(SEND_BUFFER)
        .reset_stream_duration(RESET_MEMORY)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .max_local_error_reset_streams(Some(LOCAL_ERRORS))
        .max_pending_accept_reset_streams(pending_resets(max_streams))
        // WebSockets (RFC 8441).
        .enable_connect_protocol();
    // Small DATA frames that nobody has read are bounded by half the connection's window, which the
    // library derives from the above.
    builder
}

/// For connections to servers.
pub(crate) fn to_servers(max_head: usize) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(SERVER_WINDOW)
        .max_frame_size(FRAME)
        .header_table_size(HEADER_TABLE)
        .max_header_list_size(u32::try_from(max_head).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .reset_stream_duration(RESET_MEMORY)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .max_local_error_reset_streams(Some(LOCAL_ERRORS))
        // Nobody would take what is pushed; resets of it therefore cannot pile up either.
        .enable_push(false)
        .max_concurrent_streams(0)
        .max_pending_accept_reset_streams(0)
        // None before the server has said how many it takes.
        .initial_max_send_streams(0);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unread_stream_never_takes_the_whole_window() {
        for streams in [1, 2, 64, 256, u32::MAX] {
            assert!(client_window(streams) >= 2 * STREAM_WINDOW, "{streams}");
            assert!(client_window(streams) <= 16 << 20, "{streams}");
        }
    }

    #[test]
    fn as_many_cancels_as_streams() {
        for streams in [1, 100, 256, 1000] {
            assert!(pending_resets(streams) > streams as usize, "{streams}");
        }
    }
}
