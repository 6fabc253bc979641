//! What a guest's store holds: the message at hand, the plugin that it belongs to, and the
//! account of what the guest used.

use std::{
    sync::{Arc, atomic::Ordering, mpsc},
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use wasmtime::ResourceLimiter;

use super::{
    Message, OnError,
    bounds::{CHANGES, WRITTEN},
    capability::Capabilities,
    component::Language,
    direct::Access,
    message::Event,
    reconcile::Wake,
    script::Script,
    settings::Settings,
    state::imagined::Imagined,
    stats::Use,
    ticker::Ticker,
    trail::Mark,
    turn::Turn,
    wasi::{Wasi, output::Output},
};

/// What all instances of one generation share.
pub(super) struct Plugin {
    /// The file's stem.
    pub(super) name: Arc<str>,
    /// As configured.
    pub(super) settings: Settings,
    /// What it may use beyond the message.
    pub(super) capabilities: Capabilities,
    /// How long a call may take.
    pub(super) deadline: Duration,
    /// How much it may pass to the host at once, in bytes.
    pub(super) passed: usize,
    /// What it was written in.
    pub(super) language: Language,
    /// What it runs, if it is a script.
    pub(super) script: Option<Script>,
    /// What its requests carry.
    pub(super) mark: Mark,
    /// What drives its deadlines.
    pub(super) ticker: Arc<Ticker>,
    /// What its instances use together.
    pub(super) use_of: Arc<Use>,
    /// Has this build looked at soon.
    pub(super) nudge: Option<mpsc::SyncSender<Wake>>,
}

/// The data of one store. Between calls nothing of the last message is left in it.
pub(super) struct Guest {
    /// The message at hand, moved in for the time of a call.
    pub(super) message: Message,
    /// To whom it belongs.
    pub(super) plugin: Arc<Plugin>,
    /// When the call at hand is to be over.
    pub(super) until: Instant,
    /// Whether others may go on meanwhile, each time that it is asked.
    pub(super) gives_way: bool,
    /// The first thing that a host function could not do as told; fails the call once it returns.
    pub(super) fault: Option<Box<str>>,
    /// Of the headers that it changes.
    pub(super) names: Names,
    /// What to put back if the call fails and the message goes on.
    undo: Vec<Undo>,
    /// Changes of the message during this call, and bytes that were written into it.
    changes: (u32, usize),
    /// Log lines written during this call.
    pub(super) lines: u32,
    /// The last of them that was an error: it may explain a trap.
    pub(super) last_error: Option<Box<str>>,
    /// Where its deadline found it, if it can say.
    pub(super) overrun: Option<Box<str>>,
    /// What it wrote to standard output and error during this call.
    pub(super) output: Output,
    /// Linear memory and tables in use.
    pub(super) memory: Memory,
    /// How its memory is reached if it is called directly.
    pub(super) access: Option<Access>,
    /// What WASI needs, made when the guest first calls it.
    pub(super) wasi: Option<Box<Wasi>>,
    /// What it would have changed in its state, if the call at hand is to change nothing.
    pub(super) imagined: Option<Box<Imagined>>,
    /// Its place among the calls under way, on the async lane.
    pub(super) turn: Option<Turn>,
    /// Its memory as last told to the account of its generation.
    told: usize,
}

/// The most lines of one call that are kept.
const LINES: u32 = 64;

/// Names of headers that a guest asks for and may change, as it writes them: parsed once, as it will ask
/// for the same ones of the next message.
#[derive(Default)]
pub(super) struct Names(Vec<(Box<str>, HeaderName)>);

/// So many names are kept.
const NAMES: usize = 8;

impl Names {
    pub(super) fn get(&self, text: &str) -> Option<&HeaderName> {
        self.0.iter().find(|(written, _)| **written == *text).map(|(_, name)| name)
    }

    /// Whether another one would be kept.
    pub(super) fn have_room(&self) -> bool {
        self.0.len() < NAMES
    }

    pub(super) fn keep(&mut self, text: &str, name: &HeaderName) {
        if self.have_room() {
            self.0.push((text.into(), name.clone()));
        }
    }
}

/// Part of a message as it was before the call changed it for the first time.
enum Undo {
    Request(HeaderName, Vec<HeaderValue>),
    Response(HeaderName, Vec<HeaderValue>),
    Target(Uri, usize),
    Status(StatusCode),
    Event(Box<Event>),
}

impl Undo {
    fn is_of(&self, head: Head, name: &HeaderName) -> bool {
        match (self, head) {
            (Self::Request(saved, _), Head::Request) | (Self::Response(saved, _), Head::Response) => {
                saved == name
            }
            _ => false,
        }
    }
}

/// Which of a message's two heads.
#[derive(Clone, Copy)]
pub(super) enum Head {
    Request,
    Response,
}

impl Guest {
    pub(super) fn new(plugin: Arc<Plugin>) -> Self {
        plugin.use_of.instances.fetch_add(1, Ordering::Relaxed);
        let memory = Memory { used: 0, limit: plugin.settings.memory as usize, refused: false };
        let message = Message::default();
        Self {
            message,
            plugin,
            until: Instant::now(),
            gives_way: false,
            fault: None,
            names: Names::default(),
            undo: Vec::new(),
            changes: (0, 0),
            lines: 0,
            last_error: None,
            overrun: None,
            output: Output::default(),
            memory,
            access: None,
            wasi: None,
            imagined: None,
            turn: None,
            told: 0,
        }
    }

    /// Tells the account of its generation how much memory it uses.
    pub(super) fn tell_memory(&mut self) {
        if self.memory.used != self.told {
            let more = self.memory.used as i64 - self.told as i64;
            self.plugin.use_of.memory.fetch_add(more, Ordering::Relaxed);
            self.told = self.memory.used;
        }
    }

    /// More of a body is waited for: the time until [`Self::go_on`] is its sender's.
    pub(super) fn wait_for_sender(&mut self) -> Instant {
        self.turn.as_mut().map_or_else(Instant::now, Turn::wait)
    }

    /// See [`Self::wait_for_sender`].
    pub(super) fn go_on(&mut self, since: Instant) {
        if let Some(turn) = &mut self.turn {
            self.until += turn.go_on(since);
        }
    }

    /// Counts a line of this call for the log, and says whether it is to be written.
    pub(super) fn may_log(&mut self) -> bool {
        self.lines += 1;
        self.lines <= LINES
    }

    /// Forgets what was said during the call.
    pub(super) fn forget_lines(&mut self) {
        (self.lines, self.last_error, self.output) = (0, None, Output::default());
    }

    /// Notes the first thing that went wrong in a host function.
    pub(super) fn fail(&mut self, what: impl FnOnce() -> String) {
        self.fault.get_or_insert_with(|| what().into());
    }

    /// Why the response's body, which the guest asked for, was not read. Whatever the guest makes of
    /// that, what it has not seen is not sent on in its name.
    #[inline]
    pub(super) fn unread_response(&self) -> Option<Box<str>> {
        self.message.response.as_ref()?;
        self.message.unread().map(|why| format!("response-body.read: {why}").into())
    }

    /// The headers of a head; none for a response before there is one.
    pub(super) fn headers(&self, head: Head) -> Option<&HeaderMap> {
        match head {
            Head::Request => Some(&self.message.headers),
            Head::Response => self.message.response.as_ref().map(|response| &response.headers),
        }
    }

    /// The headers of a head, to change this one of them.
    pub(super) fn change(&mut self, head: Head, name: &HeaderName) -> Option<&mut HeaderMap> {
        let about_response = self.message.response.is_some();
        if let Some(body) = &mut self.message.body
            && about_response == matches!(head, Head::Response)
        {
            body.describe(name);
        }
        if self.undoes() && !self.undo.iter().any(|undo| undo.is_of(head, name)) {
            let before = self.headers(head)?.get_all(name).iter().cloned().collect();
            self.undo.push(match head {
                Head::Request => Undo::Request(name.clone(), before),
                Head::Response => Undo::Response(name.clone(), before),
            });
        }
        match head {
            Head::Request => Some(&mut self.message.headers),
            Head::Response => self.message.response.as_mut().map(|response| &mut response.headers),
        }
    }

    /// Counts a change of the message, and says whether it is to be made: not any more once something
    /// failed, nor beyond what one call may change.
    #[inline]
    pub(super) fn may_change(&mut self, function: &str, bytes: usize) -> bool {
        let (changes, written) = &mut self.changes;
        *changes += 1;
        *written += bytes;
        if *changes > CHANGES || *written > WRITTEN {
            self.fail(|| {
                format!(
                    "{function}: a call changes a message {CHANGES} times at most, and by {WRITTEN} bytes"
                )
            });
        }
        self.fault.is_none()
    }

    pub(super) fn set_uri(&mut self, uri: Uri) {
        let before = std::mem::replace(&mut self.message.uri, uri);
        let cut = std::mem::take(&mut self.message.cut);
        if self.undoes() && !self.undo.iter().any(|undo| matches!(undo, Undo::Target(..))) {
            self.undo.push(Undo::Target(before, cut));
        }
    }

    pub(super) fn set_status(&mut self, status: StatusCode) {
        let Some(response) = &mut self.message.response else { return };
        let before = std::mem::replace(&mut response.status, status);
        if self.undoes() && !self.undo.iter().any(|undo| matches!(undo, Undo::Status(_))) {
            self.undo.push(Undo::Status(before));
        }
    }

    /// The event at hand, to change it.
    pub(super) fn change_event(&mut self) -> Option<&mut Event> {
        if self.undoes() && self.undo.is_empty() {
            self.undo.extend(self.message.event.clone().map(Undo::Event));
        }
        self.message.event.as_deref_mut()
    }

    fn undoes(&self) -> bool {
        self.message.again || self.plugin.settings.on_error == Some(OnError::Open)
    }

    /// Forgets how to undo the call: it succeeded.
    pub(super) fn keep_changes(&mut self) {
        self.undo.clear();
        self.changes = (0, 0);
    }

    /// Makes the message what it was before the call.
    pub(super) fn undo_changes(&mut self) {
        self.changes = (0, 0);
        while let Some(undo) = self.undo.pop() {
            match (undo, &mut self.message.response) {
                (Undo::Request(name, values), _) => restore(&mut self.message.headers, name, values),
                (Undo::Target(uri, cut), _) => (self.message.uri, self.message.cut) = (uri, cut),
                (Undo::Event(event), _) => self.message.event = Some(event),
                (Undo::Response(name, values), Some(head)) => restore(&mut head.headers, name, values),
                (Undo::Status(status), Some(head)) => head.status = status,
                (Undo::Response(..) | Undo::Status(_), None) => {}
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.plugin.use_of.instances.fetch_sub(1, Ordering::Relaxed);
        self.plugin.use_of.memory.fetch_sub(self.told as i64, Ordering::Relaxed);
    }
}

fn restore(headers: &mut HeaderMap, name: HeaderName, values: Vec<HeaderValue>) {
    headers.remove(&name);
    for value in values {
        headers.append(name.clone(), value);
    }
}

/// Bounds the linear memory of a store, and remembers whether the bound was felt.
pub(super) struct Memory {
    /// Bytes in all linear memories of the store.
    pub(super) used: usize,
    limit: usize,
    /// A growth was refused since this was last cleared.
    pub(super) refused: bool,
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool, wasmtime::Error> {
        let used = self.used + (desired - current);
        if used > self.limit {
            self.refused = true;
            return Ok(false);
        }
        self.used = used;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool, wasmtime::Error> {
        Ok(desired <= 40_000)
    }
}
