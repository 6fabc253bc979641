//! Brings what runs into agreement with the plugins directory and the configuration.
//!
//! One thread does it, since compiling blocks. It looks at the directory on every hint and every
//! few seconds, loads what is new, and publishes a set by swapping one pointer. Whatever is wrong
//! with a new build, the one before it keeps serving, and the reason is kept to be shown.

mod switch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::{Arc, Weak, mpsc},
    time::{Duration, Instant},
};

use super::{
    Generation, PluginSet, Settings,
    builtin::{self, Builtin},
    directory::{self, Content, File, Files, Format, passed_over::PassedOver},
    load::{Build, LoadError, Loader},
    published::Published,
    trial::Trial,
    watch::Watch,
};
pub use switch::SwitchError;
pub(super) use switch::{Reply, Switch};

/// Between a hint and the look: events come in bursts.
const SETTLE: Duration = Duration::from_millis(15);

/// Why the thread wakes up.
pub(super) enum Wake {
    /// Something may have changed in the directory.
    Look,
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
            match wakes.recv_timeout(self.interval) {
                Ok(Wake::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Ok(wake) => {
                    self.take(wake);
                    self.settle(wakes);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            self.reconcile();
        }
    }

    fn settle(&mut self, wakes: &mpsc::Receiver<Wake>) {
        let until = Instant::now() + SETTLE;
        while let Ok(wake) = wakes.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.take(wake);
        }
    }

    fn take(&mut self, wake: Wake) {
        match wake {
            Wake::Configure(settings) => self.settings = settings,
            Wake::Switch(name, switch, reply) => {
                let switched = self.switch(&name, switch);
                self.switched.push((reply, switched));
            }
            Wake::Look | Wake::Stop => {}
        }
    }

    /// Looks, loads what is new, and publishes if anything changed.
    pub(super) fn reconcile(&mut self) {
        self.watch.ensure(&self.directory);
        let files = self.look();
        let mut changed = self.roll_back();
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
        self.show(changed);
        for (reply, switched) in self.switched.drain(..) {
            let _ = reply.send(switched);
        }
    }

    /// Two looks that agree: what is half written or half replaced is left for the next one.
    fn look(&self) -> Files {
        let look = |before: &Files| {
            directory::look(&self.directory, before).unwrap_or_else(|error| {
                tracing::warn!(directory = %self.directory.display(), %error, "plugins directory cannot be read");
                before.clone()
            })
        };
        let hashes = |files: &Files| -> Vec<_> {
            let hash = |file: &directory::File| {
                file.content.as_ref().ok().map(|content| Arc::clone(&content.sha256))
            };
            files.iter().map(|(name, file)| (Arc::clone(name), hash(file))).collect()
        };
        let mut first = look(&self.files);
        if hashes(&first) == hashes(&self.files) {
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
        self.files.clone()
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
        if serves.is_some_and(|active| active.sha256 == content.sha256 && *active.settings() == settings)
            && tried == next.as_ref().map(|next| &next.sha256)
        {
            known.refused = None;
            return false;
        }
        let refused = known.refused.as_ref();
        if refused.is_some_and(|refused| refused.is_of(&content, &settings)) {
            return false;
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
                generation.trial = trial.filter(|trial| self.can_stand_in(name, trial, &generation));
                let kinds = generation.kinds();
                tracing::info!(plugin = &**name, generation = number, %sha256, ?kinds, took = ?began.elapsed(), "plugin loaded");
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

    /// Ends the trial of a next build that crashed at once; the look that follows does the rest.
    fn end_trials(&mut self) {
        let trials = self.known.iter().filter_map(|(name, known)| {
            let active = known.active.as_ref()?;
            let trial = active.trial.as_ref().filter(|trial| trial.next.is_unfit())?;
            Some((Arc::clone(name), trial.content.clone(), active.settings().clone()))
        });
        let unfit: Vec<_> = trials.collect();
        for (name, content, settings) in unfit {
            let reason = "its first calls trapped or exceeded a limit".to_owned();
            self.refuse_next(&name, &content, &settings, reason, true);
        }
    }

    /// Brings back what served before a build that crashed at once.
    fn roll_back(&mut self) -> bool {
        self.end_trials();
        let mut changed = false;
        for (name, known) in &mut self.known {
            let Some(unfit) = known.active.as_ref().filter(|active| active.is_unfit()).cloned() else {
                continue;
            };
            let Some(previous) = known.previous.take() else { continue };
            let (calls, crashes) = unfit.stats.calls_and_crashes();
            let reason =
                format!("rolled back: {crashes} of its first {calls} calls trapped or exceeded a limit");
            tracing::error!(
                plugin = &**name,
                generation = unfit.number(),
                back_to = previous.number(),
                reason,
                "plugin rolled back"
            );
            let settings = unfit.settings().clone();
            let sha256 = Some(Arc::clone(&unfit.sha256));
            known.refused = Some(Refused::new(sha256, settings, reason.into(), true));
            known.draining.push(Arc::downgrade(&unfit));
            known.active = Some(previous);
            self.published.note_rollback();
            changed = true;
        }
        changed
    }

    fn end_probation(&mut self) {
        for known in self.known.values_mut() {
            if known.active.as_ref().is_some_and(|active| active.has_proved_itself()) {
                known.previous = None;
            }
            known.draining.retain(|draining| draining.strong_count() > 0);
        }
    }

    fn show(&self, changed: bool) {
        let active =
            self.known.iter().filter_map(|(name, known)| Some((Arc::clone(name), known.active.clone()?)));
        let by_name: HashMap<_, _> = active.collect();
        self.published.show(PluginSet { by_name }, &self.known, changed);
    }
}

impl Refused {
    fn new(sha256: Option<Arc<str>>, settings: Settings, reason: Arc<str>, failed: bool) -> Self {
        Self { sha256, settings, reason, failed }
    }

    fn is_of(&self, content: &Content, settings: &Settings) -> bool {
        self.sha256.as_ref() == Some(&content.sha256) && self.settings == *settings
    }
}

impl Known {
    fn replace(&mut self, generation: Arc<Generation>) {
        if let Some(before) = self.active.replace(generation) {
            self.draining.push(Arc::downgrade(&before));
            self.previous = Some(before);
        }
        self.refused = None;
    }
}
