//! Brings what runs into agreement with the plugins directory and the configuration.
//!
//! One thread does it, since compiling blocks. It looks at the directory on every hint and every
//! few seconds, loads what is new, and publishes a set by swapping one pointer. Whatever is wrong
//! with a new build, the one before it keeps serving, and the reason is kept to be shown.

mod presence;
mod probation;
mod replaced;
mod switch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, OnceLock, Weak, mpsc},
    time::{Duration, Instant},
};

use super::{
    Generation, Kind, PluginSet, Settings, Uses,
    bounds::REASON,
    builtin::{self, Builtin},
    directory::{self, Content, File, Files, Format, passed_over::PassedOver},
    load::{Build, LoadError, Loader},
    published::Published,
    trial::Trial,
    watch::Watch,
};
use crate::text::cut;
pub(super) use presence::Presence;
pub use switch::SwitchError;
pub(super) use switch::{Reply, Switch};

/// Between a hint and the look: events come in bursts.
const SETTLE: Duration = Duration::from_millis(15);

/// Why the thread wakes up.
pub(super) enum Wake {
    /// Something may have changed in the directory.
    Look,
    /// A build crashed or missed its deadline too often.
    Judge,
    /// These are the settings from now on.
    Configure(BTreeMap<String, Settings>),
    /// Promote the next build of a plugin, or roll it back.
    Switch(String, Switch, Reply),
    /// Nobody is interested any more.
    Stop,
}

/// What is known of one plugin.
#[derive(Default)]
pub(super) struct Known {
    /// What serves.
    pub(super) active: Option<Arc<Generation>>,
    /// What served before it, for as long as it may have to come back.
    pub(super) previous: Option<Arc<Generation>>,
    /// Builds that were replaced and may still serve messages that began with them.
    pub(super) draining: Vec<Weak<Generation>>,
    /// An operator wants `previous` back.
    taken_back: bool,
    /// Why what serves would have been rolled back, if it were not for what it is.
    pub(super) unfit: Option<Arc<str>>,
    /// The newest build that could not be published, and why.
    pub(super) refused: Option<Refused>,
    /// Why the next build is not tried out.
    pub(super) next_refused: Option<Refused>,
    /// The file of the next build, as last seen.
    next_file: Option<File>,
}

/// A build that is not served.
#[derive(Clone)]
pub(super) struct Refused {
    pub(super) sha256: Option<Arc<str>>,
    pub(super) settings: Settings,
    pub(super) reason: Arc<str>,
    /// It may be a plugin, but it failed when it was tried out.
    pub(super) failed: bool,
    /// What it is not any more, and is used as.
    lacks: Vec<Kind>,
}

/// The reconciler's thread.
pub(super) struct Reconciler {
    pub(super) loader: Arc<Loader>,
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) directory: PathBuf,
    pub(super) data: PathBuf,
    pub(super) interval: Duration,
    pub(super) settings: BTreeMap<String, Settings>,
    pub(super) published: Arc<Published>,
    pub(super) known: BTreeMap<Arc<str>, Known>,
    pub(super) files: Files,
    pub(super) presence: Presence,
    pub(super) uses: Arc<OnceLock<Uses>>,
    pub(super) watch: Watch,
    pub(super) passed_over: PassedOver,
    /// Names of `[plugin.NAME]` without a plugin, of which the log has been told.
    pub(super) unknown: BTreeSet<String>,
    pub(super) next_number: u64,
    pub(super) switched: Vec<(Reply, Result<(), SwitchError>)>,
}

impl Reconciler {
    /// Runs until told to stop.
    pub(super) fn run(&mut self, wakes: &mpsc::Receiver<Wake>) {
        loop {
            let told = match wakes.recv_timeout(self.presence.next_look(self.interval)) {
                Err(mpsc::RecvTimeoutError::Disconnected) => ControlFlow::Break(()),
                Err(mpsc::RecvTimeoutError::Timeout) => ControlFlow::Continue(()),
                Ok(wake) => self.settle(wake, wakes),
            };
            if told.is_break() {
                return;
            }
            self.reconcile();
        }
    }

    /// Takes what comes in one burst; breaks off when told to stop.
    fn settle(&mut self, first: Wake, wakes: &mpsc::Receiver<Wake>) -> ControlFlow<()> {
        self.take(first)?;
        let until = Instant::now() + SETTLE;
        while let Ok(wake) = wakes.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.take(wake)?;
        }
        ControlFlow::Continue(())
    }

    fn take(&mut self, wake: Wake) -> ControlFlow<()> {
        match wake {
            Wake::Configure(settings) => self.settings = settings,
            Wake::Switch(name, switch, reply) => {
                let switched = self.switch(&name, switch);
                self.switched.push((reply, switched));
            }
            Wake::Judge => self.judge(),
            Wake::Look => {}
            Wake::Stop => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    /// Looks, loads what is new, and publishes if anything changed.
    pub(super) fn reconcile(&mut self) {
        self.watch.ensure(&self.directory);
        self.judge();
        let files = self.look();
        let mut changed = false;
        let names: Vec<Arc<str>> = self.wanted(&files);
        for name in &names {
            changed |= self.reconcile_one(name, files.get(name).map(|file| &file.content));
        }
        let gone: Vec<_> = self.known.keys().filter(|name| !names.contains(name)).cloned().collect();
        for name in gone {
            tracing::info!(plugin = &*name, "plugin removed");
            self.known.remove(&name);
            changed = true;
        }
        self.files = files;
        self.passed_over.tell(&self.directory);
        self.tell_of_unknown(&names);
        self.end_probation();
        self.loader.prune_compiled();
        self.show(changed);
        for (reply, switched) in self.switched.drain(..) {
            let _ = reply.send(switched);
        }
    }

    /// What counts as there.
    fn look(&mut self) -> Files {
        let found = self.stable_look();
        self.presence.settle(&self.directory, &self.files, found, Instant::now())
    }

    /// Two looks that agree: what is half written or half replaced is left for the next one.
    fn stable_look(&self) -> io::Result<Files> {
        let look = |before: &io::Result<Files>| {
            directory::look(&self.directory, before.as_ref().unwrap_or(&self.files))
        };
        let known = Ok(self.files.clone());
        let mut first = look(&known);
        if hashes(&first) == hashes(&known) {
            return first;
        }
        for _ in 0..200 {
            std::thread::sleep(SETTLE);
            let second = look(&first);
            if hashes(&first) == hashes(&second) {
                return second;
            }
            first = second;
        }
        known
    }

    fn wanted(&self, files: &Files) -> Vec<Arc<str>> {
        let wanted = |builtin: &&Builtin| !builtin.on_mention || self.settings.contains_key(builtin.name);
        let builtins = builtin::ALL.iter().filter(wanted).map(|builtin| Arc::from(builtin.name));
        let files = files.keys().filter(|name| !self.is_next_build(name)).cloned();
        let mut names: Vec<Arc<str>> = builtins.chain(files).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Tells the log, once, of sections of the configuration that are for no plugin.
    fn tell_of_unknown(&mut self, names: &[Arc<str>]) {
        let without = |name: &&String| !names.iter().any(|known| **known == ***name);
        let unknown: BTreeSet<_> = self.settings.keys().filter(without).cloned().collect();
        for name in unknown.difference(&self.unknown) {
            let close = names.iter().max_by(|one, other| {
                strsim::jaro_winkler(one, name).total_cmp(&strsim::jaro_winkler(other, name))
            });
            let close = close.filter(|close| strsim::jaro_winkler(close, name) > 0.8);
            let meant = close.map(|close| format!("; did you mean [plugin.{close}]?")).unwrap_or_default();
            let directory = self.directory.display();
            tracing::warn!(
                plugin = &**name,
                "[plugin.{name}] is for no plugin: there is no {name}.wasm or {name}.js in {directory}{meant}"
            );
        }
        self.unknown = unknown;
    }

    /// Whether this file of the directory is there only to be tried out.
    fn is_next_build(&self, name: &str) -> bool {
        let absolute = |path: &std::path::Path| std::path::absolute(path).ok();
        let own = Format::ALL.map(|format| absolute(&self.file(name, format)));
        let mut next = self.settings.values().filter_map(|settings| settings.next.as_ref());
        next.any(|next| own.contains(&absolute(&next.file)))
    }

    /// Returns whether another build serves now.
    fn reconcile_one(&mut self, name: &Arc<str>, file: Option<&Result<Content, Arc<str>>>) -> bool {
        let builtin = builtin::ALL.iter().find(|builtin| *builtin.name == **name);
        let settings = self.settings_of(name, builtin);
        let content = match (file, builtin) {
            (Some(Ok(content)), _) => content.clone(),
            (Some(Err(reason)), _) => {
                return self.refuse(name, Refused::new(None, settings, Arc::clone(reason), false));
            }
            (None, Some(builtin)) => self.embedded(builtin),
            (None, None) => return false,
        };
        let next = self.next_build(name, &settings, &content);
        let known = self.known.entry(Arc::clone(name)).or_default();
        let serves = known.active.as_ref();
        let tried = serves.and_then(|active| active.trial.as_ref()).map(|trial| &trial.content.sha256);
        let same =
            |active: &Arc<Generation>| active.sha256 == content.sha256 && *active.settings() == settings;
        if serves.is_some_and(same) && tried == next.as_ref().map(|next| &next.sha256) {
            known.refused = None;
            return false;
        }
        let refused = known.refused.as_ref();
        if let Some(refused) = refused.filter(|refused| refused.is_of(&content, &settings)) {
            // What uses it may have changed meanwhile.
            let lacks = refused.lacks.clone();
            if lacks.is_empty() || self.user(name, &lacks).is_some() {
                return false;
            }
        }
        self.load(name, &content, settings, next)
    }

    /// The build to try out beside this one, if there is one that was not refused or rolled back.
    fn next_build(&mut self, name: &Arc<str>, settings: &Settings, active: &Content) -> Option<Content> {
        let known = self.known.entry(Arc::clone(name)).or_default();
        let Some(next) = &settings.next else {
            (known.next_refused, known.next_file) = (None, None);
            return None;
        };
        known.next_file = directory::look_at(&next.file, known.next_file.as_ref());
        let missing = || format!("there is no file {}", next.file.display()).into();
        let read = known.next_file.as_ref().map_or_else(|| Err(missing()), |file| file.content.clone());
        let content = match read {
            Ok(content) => content,
            Err(reason) => {
                known.next_refused = Some(Refused::new(None, settings.clone(), reason, false));
                return None;
            }
        };
        let refused = known.next_refused.as_ref();
        if refused.is_some_and(|refused| refused.is_of(&content, settings)) {
            return None;
        }
        known.next_refused = None;
        let same = content.sha256 == active.sha256 && content.format == active.format;
        (!same && !self.is_rejected(name, &content.sha256)).then_some(content)
    }

    fn embedded(&self, builtin: &Builtin) -> Content {
        let sha256 = super::load::sha256(builtin.bytes);
        Content { bytes: builtin.bytes.into(), sha256, format: Format::Wasm }
    }

    fn settings_of(&self, name: &str, builtin: Option<&Builtin>) -> Settings {
        let mut settings = self.settings.get(name).cloned().unwrap_or_default();
        for grant in builtin.map_or(&[][..], |builtin| builtin.grant) {
            if !settings.grant.contains(grant) {
                settings.grant.push(grant.clone());
            }
        }
        for (key, value) in builtin.map_or(&[][..], |builtin| builtin.config) {
            settings.config.entry((*key).to_owned()).or_insert_with(|| (*value).to_owned());
        }
        settings
    }

    fn load(
        &mut self,
        name: &Arc<str>,
        content: &Content,
        settings: Settings,
        next: Option<Content>,
    ) -> bool {
        let trial = next.and_then(|next| self.load_next(name, &next, &settings));
        let began = Instant::now();
        let number = self.next_number;
        let sha256 = Arc::clone(&content.sha256);
        let build = Build { name, content, settings: settings.clone(), number };
        match self.runtime.block_on(self.loader.load(build)) {
            Ok(mut generation) => {
                self.next_number += 1;
                if let Some(refused) = self.lacks_what_is_used(name, &generation) {
                    return self.refuse(name, refused);
                }
                generation.trial = trial.filter(|trial| self.can_stand_in(name, trial, &generation));
                let kinds = generation.kinds();
                let lane = generation.lane();
                tracing::info!(plugin = &**name, generation = number, %sha256, ?kinds, lane, took = ?began.elapsed(), "plugin loaded");
                self.known.entry(Arc::clone(name)).or_default().replace(Arc::new(generation));
                true
            }
            Err(error) => {
                let failed = !matches!(error, LoadError::Refused(_));
                self.refuse(name, Refused::new(Some(sha256), settings, error.to_string().into(), failed))
            }
        }
    }

    fn load_next(&mut self, name: &Arc<str>, next: &Content, settings: &Settings) -> Option<Trial> {
        let own = Arc::<str>::from(format!("{name}@next"));
        let canary = settings.next.as_ref().map_or(0, |next| next.canary);
        let number = self.next_number;
        let alone = Settings { next: None, ..settings.clone() };
        let build = Build { name: &own, content: next, settings: alone, number };
        match self.runtime.block_on(self.loader.load_next(name, build, canary)) {
            Ok(trial) => {
                self.next_number += 1;
                tracing::info!(
                    plugin = &**name,
                    generation = number,
                    sha256 = &*next.sha256,
                    canary,
                    "next build tried out"
                );
                Some(trial)
            }
            Err(error) => {
                let failed = !matches!(error, LoadError::Refused(_));
                self.refuse_next(name, next, settings, error.to_string(), failed);
                None
            }
        }
    }

    /// A build stands in only for one that has no kind beyond its own.
    fn can_stand_in(&mut self, name: &Arc<str>, trial: &Trial, active: &Generation) -> bool {
        let missing: Vec<_> = active.kinds().iter().filter(|kind| !trial.next.is(**kind)).collect();
        if !missing.is_empty() {
            let reason = format!("it is not all that the build that serves is: {missing:?} are missing");
            self.refuse_next(name, &trial.content, active.settings(), reason, false);
        }
        missing.is_empty()
    }

    fn refuse_next(
        &mut self,
        name: &Arc<str>,
        next: &Content,
        settings: &Settings,
        reason: String,
        failed: bool,
    ) {
        tracing::warn!(plugin = &**name, reason, "next build not tried out");
        let sha256 = Some(Arc::clone(&next.sha256));
        let known = self.known.entry(Arc::clone(name)).or_default();
        known.next_refused = Some(Refused::new(sha256, settings.clone(), reason.into(), failed));
    }

    fn refuse(&mut self, name: &Arc<str>, refused: Refused) -> bool {
        let known = self.known.entry(Arc::clone(name)).or_default();
        let before = known.refused.as_ref();
        let same = |before: &Refused| before.reason == refused.reason && before.sha256 == refused.sha256;
        if !before.is_some_and(same) {
            let serving = known.active.as_ref().map(|active| active.number());
            let reason = &*refused.reason;
            tracing::warn!(plugin = &**name, reason, serving, "plugin refused; what served before goes on");
            self.published.note_refusal();
        }
        known.refused = Some(refused);
        false
    }

    /// A build does not take the place of one whose users it could not serve.
    fn lacks_what_is_used(&self, name: &str, new: &Generation) -> Option<Refused> {
        let active = self.known.get(name)?.active.as_ref()?;
        let filters = [Kind::RequestFilter, Kind::ResponseFilter];
        let is = |kind: Kind| match filters.contains(&kind) {
            // A service names a filter, of whichever kind.
            true => filters.iter().any(|kind| new.is(*kind)),
            false => new.is(kind),
        };
        let lacks: Vec<Kind> = active.kinds().iter().copied().filter(|kind| !is(*kind)).collect();
        let (kind, user) = self.user(name, &lacks)?;
        let reason = format!("it is no {kind} any more, and {user} uses it as one: change that first");
        let (sha256, settings) = (Some(Arc::clone(&new.sha256)), new.settings().clone());
        Some(Refused { lacks, ..Refused::new(sha256, settings, reason.into(), false) })
    }

    /// Who uses a plugin as one of these.
    fn user(&self, name: &str, kinds: &[Kind]) -> Option<(Kind, String)> {
        let uses = self.uses.get()?;
        kinds.iter().find_map(|kind| uses(name, *kind).map(|user| (*kind, user)))
    }

    fn show(&self, changed: bool) {
        let active =
            self.known.iter().filter_map(|(name, known)| Some((Arc::clone(name), known.active.clone()?)));
        let by_name: HashMap<_, _> = active.collect();
        self.published.show(PluginSet { by_name }, &self.known, changed);
    }
}

/// What two looks are compared by: the hashes of files by name.
type Hashes = Vec<(Arc<str>, Option<Arc<str>>)>;

fn hashes(files: &io::Result<Files>) -> Result<Hashes, io::ErrorKind> {
    let hash = |file: &File| file.content.as_ref().ok().map(|content| Arc::clone(&content.sha256));
    let files = files.as_ref().map_err(io::Error::kind)?;
    Ok(files.iter().map(|(name, file)| (Arc::clone(name), hash(file))).collect())
}

impl Refused {
    fn new(sha256: Option<Arc<str>>, settings: Settings, reason: Arc<str>, failed: bool) -> Self {
        // What is wrong with a file may be told in words out of it.
        let reason = if reason.len() > REASON { cut(&reason, REASON).into() } else { reason };
        Self { sha256, settings, reason, failed, lacks: Vec::new() }
    }

    fn is_of(&self, content: &Content, settings: &Settings) -> bool {
        self.sha256.as_ref() == Some(&content.sha256) && self.settings == *settings
    }
}

impl Known {
    fn replace(&mut self, generation: Arc<Generation>) {
        if let Some(trial) = &generation.trial {
            trial.next.succeed(&generation);
        }
        if let Some(before) = self.active.replace(Arc::clone(&generation)) {
            if generation.may_roll_back() {
                generation.succeed(&before);
            }
            self.draining.push(Arc::downgrade(&before));
            self.previous = Some(before);
        }
        self.unfit = None;
        self.refused = None;
    }
}
