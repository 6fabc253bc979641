//! One running copy of a component: its store and the functions that it exports.
//!
//! A trap, a missed deadline or a dropped future poisons a store and everything in it, so whoever
//! calls an instance keeps it only if [`Instance::can_serve_after`] says so.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use wasmtime::{
    Engine, InstancePre, Store, StoreContextMut, Trap, UpdateDeadline, WasmBacktrace,
    component::{
        Component, ComponentExportIndex, ComponentNamedList, Instance as Exports, Lift, Linker, Lower,
        TypedFunc,
    },
};
use wasmtime_wasi::I32Exit;

use super::{
    CallError, Message,
    bounds::NAME,
    cache::Held,
    call::{Cause, MissingFunction},
    component::{Language, OURS, Shape},
    direct,
    guest::{Guest, Plugin},
    meter::Meter,
    script,
    table::TableFunctions,
    ticker::Ticker,
    turn::Turn,
    types::{Decision, EventVerdict, Said, Verdict},
};
use crate::{
    text::{cut, one_line},
    units::Size,
};

/// A function of a guest.
pub(super) enum Function<P, R> {
    Component(TypedFunc<P, R>),
    /// It takes nothing.
    Direct(direct::Function<R>),
}

impl<P: Params, R: Answer> Function<P, R> {
    #[inline]
    pub(super) fn call(&self, store: &mut Store<Guest>, params: P) -> Result<R, wasmtime::Error> {
        match self {
            Self::Component(function) => function.call(store, params),
            Self::Direct(function) => function.call(store),
        }
    }

    /// On the async lane.
    pub(super) async fn call_async(&self, store: &mut Store<Guest>, params: P) -> Result<R, wasmtime::Error> {
        match self {
            Self::Component(function) => function.call_async(store, params).await,
            Self::Direct(function) => function.call(store),
        }
    }
}

type Decides<R> = Option<Function<(), (Result<R, Said>,)>>;

/// What a guest exports, as far as we know it.
pub(super) struct Functions {
    pub(super) resolve: Decides<Decision>,
    pub(super) on_request: Decides<Verdict>,
    pub(super) on_response: Decides<()>,
    pub(super) on_event: Decides<EventVerdict>,
    pub(super) start: Decides<()>,
    pub(super) table: Option<TableFunctions>,
    pub(super) load: Option<script::LoadFunction>,
}

/// A store with one instantiated component in it. On the async lane its deadline is kept outside
/// of it as well, and a guest that computes gives way.
pub(super) struct Instance {
    pub(super) store: Store<Guest>,
    pub(super) functions: Functions,
}

/// What is needed to make instances of one build.
pub(super) struct Template {
    pub(super) code: Code,
    pub(super) shape: Shape,
    pub(super) plugin: Arc<Plugin>,
    /// Its code stays compiled on disk.
    pub(super) _held: Held,
}

/// What instances are made of.
pub(super) enum Code {
    /// And what it may import.
    Component(Component, Arc<Linker<Guest>>),
    /// A core module that is called directly.
    Direct(InstancePre<Guest>),
}

impl Code {
    fn engine(&self) -> &Engine {
        match self {
            Self::Component(component, _) => component.engine(),
            Self::Direct(build) => build.module().engine(),
        }
    }

    /// Of its machine code, in bytes.
    pub(super) fn size(&self) -> usize {
        let range = match self {
            Self::Component(component, _) => component.image_range(),
            Self::Direct(build) => build.module().image_range(),
        };
        range.end as usize - range.start as usize
    }
}

impl Template {
    /// Makes an instance on its lane.
    pub(super) async fn new_instance(&self) -> Result<Instance, CallError> {
        match self.shape.waits {
            true => self.instantiate_async(&mut Meter::default()).await,
            false => self.instantiate(),
        }
    }

    /// Has a new instance read its script, and so finds out what this build is.
    pub(super) async fn read_script(&mut self) -> Result<Instance, CallError> {
        const LOAD: &str = "load";
        let mut instance = self.new_instance().await?;
        let mut message = Message::default();
        instance.begin(&mut message, Instant::now() + self.plugin.deadline);
        let answer = match &instance.functions.load {
            Some(load) => load.call(&mut instance.store, ()),
            None => Err(MissingFunction.into()),
        };
        let (functions,) = instance.end(&mut message, LOAD, answer)?;
        let functions = functions.map_err(|said| self.error(LOAD, Cause::Said(said.0.into())))?;
        let functions: Vec<_> = functions.into_iter().map(|name| name.0).collect();
        self.shape.kinds = script::kinds(&functions);
        self.shape.reads_body = script::reads_body(&functions);
        self.shape.waits = self.shape.reads_body;
        Ok(instance)
    }

    /// Makes an instance on the sync lane.
    pub(super) fn instantiate(&self) -> Result<Instance, CallError> {
        let mut store = self.store();
        start_clock(&mut store, Instant::now() + self.plugin.deadline, false);
        let functions = match &self.code {
            Code::Direct(build) => self.direct_functions(build, &mut store),
            Code::Component(component, linker) => {
                let made = linker.instantiate(&mut store, component);
                made.and_then(|exports| self.functions(&mut store, exports))
            }
        };
        self.finish(store, functions)
    }

    /// Makes an instance on the async lane.
    pub(super) async fn instantiate_async(&self, meter: &mut Meter) -> Result<Instance, CallError> {
        let Code::Component(component, linker) = &self.code else { return self.instantiate() };
        let mut store = self.store();
        let until = Instant::now() + self.plugin.deadline;
        start_clock(&mut store, until, true);
        let instantiate =
            watched(&self.plugin.ticker, meter, linker.instantiate_async(&mut store, component));
        let made = tokio::time::timeout_at(until.into(), instantiate).await;
        let made = made.unwrap_or_else(|_| Err(Trap::Interrupt.into()));
        let functions = made.and_then(|exports| self.functions(&mut store, exports));
        self.finish(store, functions)
    }

    /// How it is called.
    pub(super) fn lane(&self) -> &'static str {
        match (&self.code, self.shape.waits) {
            (Code::Direct(_), _) => "direct",
            (Code::Component(..), false) => "sync",
            (Code::Component(..), true) => "async",
        }
    }

    /// An error of this build.
    pub(super) fn error(&self, function: &'static str, cause: Cause) -> CallError {
        self.plugin.error(function, cause)
    }

    fn store(&self) -> Store<Guest> {
        let mut store = Store::new(self.code.engine(), Guest::new(Arc::clone(&self.plugin)));
        store.set_hostcall_fuel(self.plugin.passed);
        store.limiter(|guest| &mut guest.memory);
        store.epoch_deadline_callback(at_tick);
        store
    }

    fn finish(
        &self,
        mut store: Store<Guest>,
        functions: Result<Functions, wasmtime::Error>,
    ) -> Result<Instance, CallError> {
        match functions {
            Ok(functions) => Ok(Instance { store, functions }),
            Err(error) => {
                store.data_mut().print_written();
                Err(failure(store.data_mut(), "instantiate", &error))
            }
        }
    }

    fn functions(&self, store: &mut Store<Guest>, exports: Exports) -> Result<Functions, wasmtime::Error> {
        let load = script::find(store, exports)?;
        let mut lookup = Lookup { store, exports, shape: &self.shape };
        Ok(Functions {
            resolve: lookup.function("registrar", "resolve")?,
            on_request: lookup.function("request-filter", "on-request")?,
            on_response: lookup.function("response-filter", "on-response")?,
            on_event: lookup.function("event-filter", "on-event")?,
            start: lookup.function("lifecycle", "start")?,
            table: TableFunctions::find(&mut lookup)?,
            load,
        })
    }

    fn direct_functions(
        &self,
        build: &InstancePre<Guest>,
        store: &mut Store<Guest>,
    ) -> Result<Functions, wasmtime::Error> {
        let mut lookup = direct::Lookup::new(build, store, &self.shape)?;
        Ok(Functions {
            resolve: lookup.function("registrar", "resolve")?.map(Function::Direct),
            on_request: lookup.function("request-filter", "on-request")?.map(Function::Direct),
            on_response: lookup.function("response-filter", "on-response")?.map(Function::Direct),
            on_event: None,
            start: lookup.function("lifecycle", "start")?.map(Function::Direct),
            table: None,
            load: None,
        })
    }
}

/// Finds exported functions by interface and name.
pub(super) struct Lookup<'a> {
    store: &'a mut Store<Guest>,
    exports: Exports,
    shape: &'a Shape,
}

impl Lookup<'_> {
    /// None if the interface is not exported.
    pub(super) fn function<P, R>(
        &mut self,
        interface: &str,
        function: &str,
    ) -> Result<Option<Function<P, R>>, wasmtime::Error>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        let Some(name) = self.shape.export(interface) else { return Ok(None) };
        let missing = || wasmtime::Error::msg(format!("`{name}` has no function `{function}`"));
        let interface = self.exports.get_export_index(&mut *self.store, None, name).ok_or_else(missing)?;
        let index: ComponentExportIndex = self
            .exports
            .get_export_index(&mut *self.store, Some(&interface), function)
            .ok_or_else(missing)?;
        let typed = self.exports.get_typed_func(&mut *self.store, index);
        typed
            .map(Function::Component)
            .map(Some)
            .map_err(|error| error.context(format!("`{name}`: `{function}` has another type")))
    }
}

impl Instance {
    /// Puts the message in the guest's hands and starts the clock.
    #[inline]
    pub(super) fn begin(&mut self, message: &mut Message, until: Instant) {
        self.hand_over(message);
        start_clock(&mut self.store, until, false);
    }

    /// As [`Self::begin`] on the async lane, where a guest has to be [watched].
    pub(super) fn begin_waiting(&mut self, message: &mut Message, until: Instant, turn: Turn) {
        self.hand_over(message);
        self.store.data_mut().turn = Some(turn);
        start_clock(&mut self.store, until, true);
    }

    #[inline]
    fn hand_over(&mut self, message: &mut Message) {
        let guest = self.store.data_mut();
        std::mem::swap(&mut guest.message, message);
        guest.imagined = guest.message.dry.then(Box::default);
        guest.memory.refused = false;
        guest.message.acted = false;
    }

    /// Whether another call may follow one that came to this. A guest that asked for more memory than
    /// it may have got over it, perhaps, but has nothing to spare for the next message.
    pub(super) fn can_serve_after<R>(&self, result: &Result<R, CallError>) -> bool {
        !self.store.data().memory.refused && result.as_ref().err().is_none_or(CallError::spares_instance)
    }

    /// Takes the message back, and says what became of the call.
    #[inline]
    pub(super) fn end<R: Answer>(
        &mut self,
        message: &mut Message,
        function: &'static str,
        result: Result<R, wasmtime::Error>,
    ) -> Result<R, CallError> {
        let guest = self.store.data_mut();
        guest.print_written();
        let result = match (result, guest.fault.take().or_else(|| guest.unread_response())) {
            (Ok(value), None) => Ok(value),
            (Ok(_), Some(fault)) => Err(guest.error(function, Cause::Fault(fault))),
            (Err(error), _) => Err(failure(guest, function, &error)),
        };
        guest.turn = None;
        match &result {
            Ok(answer) if !answer.is_error() => guest.keep_changes(),
            Ok(_) | Err(_) => guest.undo_changes(),
        }
        guest.print_rest();
        guest.forget_lines();
        guest.tell_memory();
        std::mem::swap(&mut guest.message, message);
        result
    }
}

/// What an exported function takes.
pub(super) trait Params: ComponentNamedList + Lower + Send + Sync + 'static {}

impl<P: ComponentNamedList + Lower + Send + Sync + 'static> Params for P {}

/// What an exported function returns: every one of ours returns a result.
pub(super) trait Answer: ComponentNamedList + Lift + Send + Sync + 'static {
    /// Whether the guest says that it failed.
    fn is_error(&self) -> bool;
}

impl<T, E> Answer for (Result<T, E>,)
where
    (Result<T, E>,): ComponentNamedList + Lift + Send + Sync + 'static,
{
    fn is_error(&self) -> bool {
        self.0.is_err()
    }
}

/// Sets a deadline, and has the ticker look at it.
#[inline]
fn start_clock(store: &mut Store<Guest>, until: Instant, gives_way: bool) {
    store.set_epoch_deadline(1);
    let guest = store.data_mut();
    (guest.until, guest.gives_way) = (until, gives_way);
    guest.plugin.ticker.watch(guest.plugin.deadline);
}

/// What becomes of a guest that still runs when the epoch advances.
fn at_tick(store: StoreContextMut<'_, Guest>) -> Result<UpdateDeadline, wasmtime::Error> {
    let guest = store.data();
    let left = guest.until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok(UpdateDeadline::Interrupt);
    }
    guest.plugin.ticker.still_runs(left);
    Ok(if guest.gives_way { UpdateDeadline::Yield(1) } else { UpdateDeadline::Continue(1) })
}

/// A future in which a guest runs on the async lane: each time that it goes on, it is for one tick at
/// most. It does not run while it waits for something.
pub(super) async fn watched<F: Future>(ticker: &Ticker, meter: &mut Meter, guest: F) -> F::Output {
    let mut guest = pin!(guest);
    std::future::poll_fn(|cx| {
        ticker.watch(Duration::ZERO);
        let part = meter.begin();
        let polled = guest.as_mut().poll(cx);
        meter.end(part);
        polled
    })
    .await
}

fn failure(guest: &mut Guest, function: &'static str, error: &wasmtime::Error) -> CallError {
    let memory_refused = std::mem::take(&mut guest.memory.refused);
    let cause = match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) if guest.plugin.script.is_some() => Cause::Depth,
        Some(Trap::Interrupt) if guest.turn.as_ref().is_some_and(|turn| turn.clock.waits()) => Cause::Sender,
        Some(Trap::Interrupt) => Cause::Deadline(guest.plugin.deadline, guest.overrun.take()),
        _ if memory_refused => Cause::Memory(guest.plugin.settings.memory),
        Some(_) if let Some(status) = guest.output.exit => exit(status, said(guest)),
        Some(trap) => match said(guest) {
            Some(said) => {
                let hint = said_hint(&said, function, guest.plugin.language);
                Cause::Trap(format!("{}; it last logged: {said}{hint}", plain(trap)).into())
            }
            None => Cause::Trap(describe(trap, function, guest.plugin.language, error)),
        },
        None if let Some(I32Exit(status)) = error.downcast_ref() => exit(*status as u32, said(guest)),
        None if error.is::<MissingFunction>() => Cause::Missing,
        None if passes_too_much(error) => {
            let most = guest.plugin.passed as u64;
            Cause::Trap(format!("it passed more than {} to the host at once", Size(most)).into())
        }
        None if error.is::<wasmtime::PoolConcurrencyLimitError>() => Cause::Pool,
        None if error.is::<WasmBacktrace>() => {
            Cause::Host(format!("{}{}", error.root_cause(), place(&functions(error))).into())
        }
        None => Cause::Host(format!("{error:#}").into()),
    };
    guest.error(function, cause)
}

/// The engine's own type for this cannot be named.
fn passes_too_much(error: &wasmtime::Error) -> bool {
    error.root_cause().to_string().contains("fuel allocated for hostcalls")
}

fn exit(status: u32, said: Option<Box<str>>) -> Cause {
    let said = said.map(|said| format!(", saying: {said}"));
    Cause::Exit { status, said: said.unwrap_or_default().into() }
}

/// What the guest said just before it failed.
fn said(guest: &Guest) -> Option<Box<str>> {
    let (reason, logged) = (guest.output.reason(), guest.last_error.clone());
    match (reason, logged) {
        // The same, and where.
        (Some(reason), Some(logged)) if logged.starts_with(&*reason) => Some(logged),
        (reason, logged) => reason.or(logged).or_else(|| guest.output.said()),
    }
}

/// The functions of the guest in which it happened, innermost first.
fn functions(error: &wasmtime::Error) -> Vec<String> {
    let frames = error.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames);
    let names = frames.unwrap_or_default().iter().filter_map(|frame| frame.func_name());
    // They come from the plugin's file, which may hold any.
    let names =
        names.map(|name| one_line(&format!("{:#}", rustc_demangle::demangle(cut(name, NAME)))).into_owned());
    names.filter(|name| !is_of_panicking(name)).take(3).collect()
}

fn place(functions: &[String]) -> String {
    if functions.is_empty() { String::new() } else { format!(" in {}", functions.join(", called by ")) }
}

/// The trap and where it happened.
fn describe(trap: &Trap, function: &str, language: Language, error: &wasmtime::Error) -> Box<str> {
    let names = functions(error);
    let is_export = |name: &String| name.starts_with(OURS);
    let hint = match (trap, language, answer_of(function)) {
        (Trap::UnreachableCodeReached, Language::JavaScript, Some(answer)) if names.iter().all(is_export) => {
            returns_another(answer)
        }
        _ => String::new(),
    };
    format!("{}{}{hint}", plain(trap), place(&names)).into()
}

/// What QuickJS's runtime says when the types of `wit/` do not fit, in the words of an author.
fn said_hint(said: &str, function: &str, language: Language) -> String {
    let is_of_types = said.starts_with("invalid ") || said.contains("FromJs");
    if language != Language::JavaScript || !is_of_types {
        return String::new();
    }
    let missing = said.split_once("interface '").and_then(|(_, rest)| rest.split(['@', '\'']).next());
    if let Some(interface) = missing.and_then(|name| name.strip_prefix(OURS)) {
        let name = camel_case(interface);
        return format!("; the module does not export `{name}`, which the world that it was built for has");
    }
    answer_of(function).map(returns_another).unwrap_or_default()
}

/// `request-filter` as JavaScript writes it.
fn camel_case(name: &str) -> String {
    let mut words = name.split('-');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.extend(letters);
    }
    camel
}

fn returns_another(answer: &str) -> String {
    format!("; so ends a plugin in JavaScript that returns anything but a `{answer}` of wit/")
}

/// The type of what a function answers, for whom the language lets return another.
fn answer_of(function: &str) -> Option<&'static str> {
    match function {
        "resolve" => Some("registrar.decision"),
        "on-request" => Some("request-filter.verdict"),
        "on-event" => Some("event-filter.verdict"),
        _ => None,
    }
}

fn plain(trap: &Trap) -> String {
    let trap = trap.to_string();
    trap.strip_prefix("wasm trap: ").unwrap_or(&trap).to_owned()
}

/// Between a panic and its trap lie functions of the language that say nothing about it.
fn is_of_panicking(name: &str) -> bool {
    ["panic", "__rust", "abort", "unwind"].iter().any(|part| name.contains(part))
}
