//! The next build of a plugin, tried out beside the one that serves: `[plugin.NAME] shadow` and
//! `canary`.
//!
//! For clients whose share it is, the next build decides. Of everything else it gets a copy, later
//! and on a thread of its own, and what it would have done is compared and forgotten. It keeps its
//! `state` to itself. Messages that come faster than it can keep up with are skipped, and counted.

mod mirror;

use std::sync::{Arc, mpsc};

use prometheus::IntCounter;

use super::{
    CallError, Decision, Generation, Message, Verdict, candidates::Listed, directory::Content,
    message::ResponseHead, stats::Families,
};
use crate::table::hash;
use mirror::{Function, Job, Outcome};

/// Copies that wait to be compared.
const WAITING: usize = 256;

/// What is counted of a trial.
#[derive(Clone)]
pub(super) struct Counts {
    families: Families,
    plugin: Arc<str>,
    /// Decisions of both builds that were the same.
    pub(super) same: IntCounter,
    /// Decisions that were not.
    pub(super) different: IntCounter,
    /// Messages of which the next build got no copy.
    pub(super) skipped: IntCounter,
    /// Messages that the next build decided about.
    pub(super) decided: IntCounter,
}

impl Counts {
    fn new(families: &Families, plugin: &Arc<str>) -> Self {
        let count = |outcome: &str| families.next.with_label_values(&[&**plugin, outcome]);
        Self {
            same: count("same"),
            different: count("different"),
            skipped: count("skipped"),
            decided: count("decided"),
            families: families.clone(),
            plugin: Arc::clone(plugin),
        }
    }

    fn forget(&self) {
        for outcome in ["same", "different", "skipped", "decided"] {
            let _ = self.families.next.remove_label_values(&[&*self.plugin, outcome]);
        }
    }
}

/// A next build that is tried out.
pub(super) struct Trial {
    pub(super) next: Arc<Generation>,
    pub(super) content: Content,
    /// Percent of the clients for whom it decides.
    pub(super) canary: u8,
    pub(super) counts: Counts,
    pub(super) differences: Arc<mirror::Differences>,
    plugin: Arc<str>,
    copies: mpsc::SyncSender<Box<Job>>,
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.counts.forget();
    }
}

impl Trial {
    /// Begins one. Its thread ends with it.
    pub(super) fn begin(
        plugin: &Arc<str>,
        next: Generation,
        content: Content,
        canary: u8,
        families: &Families,
    ) -> std::io::Result<Self> {
        let (copies, jobs) = mpsc::sync_channel(WAITING);
        let (next, counts) = (Arc::new(next), Counts::new(families, plugin));
        let differences = Arc::new(mirror::Differences::default());
        let mirror = mirror::Mirror {
            plugin: Arc::clone(plugin),
            next: Arc::clone(&next),
            counts: counts.clone(),
            differences: Arc::clone(&differences),
        };
        std::thread::Builder::new().name("plugin-shadow".into()).spawn(move || mirror.run(&jobs))?;
        Ok(Self { next, content, canary, counts, differences, plugin: Arc::clone(plugin), copies })
    }

    pub(super) async fn resolve(
        &self,
        active: &Generation,
        message: &mut Message,
    ) -> Result<Decision, CallError> {
        if message.dry {
            let next = share(&self.plugin, message.client.as_str()) < self.canary;
            return if next { &self.next } else { active }.resolve_alone(message).await;
        }
        if self.decides(message.client.as_str()) {
            return self.next.resolve_alone(message).await;
        }
        hold_candidates(message);
        let copy = self.copy(message);
        let answer = active.resolve_alone(message).await;
        self.compare(Function::Resolve, copy, || Outcome::of_decision(&answer));
        answer
    }

    pub(super) async fn on_request(
        &self,
        active: &Generation,
        message: &mut Message,
    ) -> Result<Verdict, CallError> {
        if self.decides(message.client.as_str()) {
            return self.next.on_request_alone(message).await;
        }
        let copy = self.copy(message);
        let answer = active.on_request_alone(message).await;
        self.compare(Function::OnRequest, copy, || Outcome::of_verdict(&answer, message));
        answer
    }

    pub(super) async fn on_response(
        &self,
        active: &Generation,
        message: &mut Message,
    ) -> Result<(), CallError> {
        if self.decides(message.client.as_str()) {
            return self.next.on_response_alone(message).await;
        }
        let copy = self.copy(message);
        let answer = active.on_response_alone(message).await;
        self.compare(Function::OnResponse, copy, || Outcome::of_response(&answer, message));
        answer
    }

    /// The same for a client at every router and after every restart.
    fn decides(&self, client: &str) -> bool {
        let decides = share(&self.plugin, client) < self.canary;
        if decides {
            self.counts.decided.inc();
        }
        decides
    }

    /// None: the next build reads bodies, of which there is only one.
    fn copy(&self, message: &Message) -> Option<Message> {
        (!self.next.reads_body()).then(|| Message {
            method: message.method.clone(),
            uri: message.uri.clone(),
            cut: message.cut,
            authority: message.authority.clone(),
            headers: message.headers.clone(),
            client: message.client.clone(),
            peer: message.peer,
            service: message.service.clone(),
            server: message.server.clone(),
            candidates: message.candidates.clone(),
            response: message
                .response
                .as_ref()
                .map(|head| Box::new(ResponseHead { status: head.status, headers: head.headers.clone() })),
            event: message.event.clone(),
            body: None,
            ..Message::default()
        })
    }

    fn compare(&self, function: Function, copy: Option<Message>, expected: impl FnOnce() -> Outcome) {
        let sent = copy.is_some_and(|message| {
            let job = Box::new(Job { function, message, expected: expected() });
            self.copies.try_send(job).is_ok()
        });
        if !sent {
            self.counts.skipped.inc();
        }
    }
}

/// Both builds choose among the same servers, with the same load.
fn hold_candidates(message: &mut Message) {
    if let Some(candidates) = &message.candidates {
        message.candidates = Some(Arc::new(Listed(candidates.servers())));
    }
}

/// From 0 to 99.
fn share(plugin: &str, client: &str) -> u8 {
    (hash::affinity(hash::stable(client), hash::stable(plugin)) % 100) as u8
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn shares_are_even_and_stay() {
        let below = (0..10_000).filter(|number| share("geo", &format!("client-{number}")) < 5).count();
        assert!((400..600).contains(&below), "{below}");
        assert_eq!(share("geo", "ann"), share("geo", "ann"));
    }
}
