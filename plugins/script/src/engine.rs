//! One QuickJS with one script in it, made at the first call of an instance.

use std::cell::{Cell, RefCell};

use message_flow_sdk::clock;
use rquickjs::{Context, Function as Js, Module, Object, Persistent, Runtime, Value};

use crate::{fault, globals, source};

/// The functions that a script may export.
#[derive(Clone, Copy)]
pub(crate) enum Function {
    Resolve,
    OnRequest,
    OnResponse,
    OnEvent,
}

/// What a script exports, beside functions, that reads bodies.
const READS_BODY: &str = "readsBody";

const NAMES: [&str; 4] = ["resolve", "onRequest", "onResponse", "onEvent"];

struct Engine {
    // Before the context, which must outlive what it holds.
    functions: [Option<Persistent<Js<'static>>>; 4],
    context: Context,
    file: String,
    deadline: u64,
}

/// How deep a script may call, in bytes of the engine's stack (`host/build.rs` sets its size).
const STACK: usize = 128 << 10;

thread_local! {
    static ENGINE: RefCell<Option<Engine>> = const { RefCell::new(None) };
    /// When the call under way must give up, by `clock.monotonic`.
    static UNTIL: Cell<u64> = const { Cell::new(u64::MAX) };
    static READS: Cell<bool> = const { Cell::new(false) };
}

/// Whether the script says that it reads bodies.
pub(crate) fn reads_body() -> bool {
    READS.get()
}

/// Reads the script anew and says what it exports.
pub(crate) fn load() -> Result<Vec<String>, String> {
    ENGINE.with_borrow_mut(|engine| {
        let loaded = engine.insert(Engine::new()?);
        let present = NAMES.iter().zip(&loaded.functions).filter(|(_, function)| function.is_some());
        let names = present.map(|(name, _)| *name).chain(reads_body().then_some(READS_BODY));
        Ok(names.map(str::to_owned).collect())
    })
}

/// Calls one of the script's functions and reads its answer.
pub(crate) fn call<T>(
    function: Function,
    read: impl FnOnce(&Value<'_>) -> Result<T, String>,
) -> Result<T, String> {
    ENGINE.with_borrow_mut(|engine| {
        let engine = match engine {
            Some(engine) => engine,
            None => engine.insert(Engine::new()?),
        };
        engine.call(function, read)
    })
}

/// An export that is none of ours but for how it is written, and which one it is.
fn misspelt(exports: &Object<'_>) -> Option<(String, &'static str)> {
    let bare = |name: &str| name.replace(['_', '-'], "").to_ascii_lowercase();
    let known = || NAMES.into_iter().chain([READS_BODY]);
    let mut written = exports.keys::<String>().filter_map(Result::ok);
    written.find_map(|written| {
        let meant = known().find(|meant| bare(meant) == bare(&written))?;
        (meant != written).then_some((written, meant))
    })
}

impl Engine {
    fn new() -> Result<Self, String> {
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        runtime.set_max_stack_size(STACK);
        runtime.set_interrupt_handler(Some(Box::new(|| clock::monotonic() > UNTIL.get())));
        let context = Context::full(&runtime).map_err(|error| error.to_string())?;
        let deadline = source::deadline();
        let mut engine = Self { functions: [const { None }; 4], context, file: source::name(), deadline };
        engine.begin();
        engine.read(&source::text())?;
        Ok(engine)
    }

    /// A tenth before the host ends the call, the script is stopped where it is: so the host can be
    /// told where.
    fn begin(&self) {
        UNTIL.set(clock::monotonic().saturating_add(self.deadline / 10 * 9));
    }

    fn read(&mut self, text: &str) -> Result<(), String> {
        let file = self.file.as_str();
        let found = self.context.with(|ctx| {
            let read = || {
                globals::define(&ctx)?;
                let (module, done) = Module::declare(ctx.clone(), file, text)?.eval()?;
                done.finish::<()>()?;
                let mut found = [const { None }; 4];
                for (name, found) in NAMES.iter().zip(&mut found) {
                    let exported: Value<'_> = module.get(*name)?;
                    if let Some(function) = exported.as_function() {
                        *found = Some(Persistent::save(&ctx, function.clone()));
                    } else if !exported.is_undefined() {
                        return Ok(Err(format!("{file}: `{name}` is no function")));
                    }
                }
                if let Some((written, meant)) = misspelt(&module.namespace()?) {
                    return Ok(Err(format!("{file}: nobody looks for `{written}`: write `{meant}`")));
                }
                let reads: Value<'_> = module.get(READS_BODY)?;
                READS.set(reads.as_bool().unwrap_or(false));
                if !reads.is_bool() && !reads.is_undefined() {
                    return Ok(Err(format!("{file}: `{READS_BODY}` is neither true nor false")));
                }
                Ok(Ok(found))
            };
            read().unwrap_or_else(|error| Err(fault::describe(&ctx, file, error)))
        })?;
        if found.iter().all(Option::is_none) {
            return Err(format!(
                "{file}: it exports none of {}: write `export function resolve() {{ … }}`",
                NAMES.join(", ")
            ));
        }
        self.functions = found;
        Ok(())
    }

    fn call<T>(
        &self,
        function: Function,
        read: impl FnOnce(&Value<'_>) -> Result<T, String>,
    ) -> Result<T, String> {
        let (name, exported) = (NAMES[function as usize], &self.functions[function as usize]);
        let Some(exported) = exported else {
            return Err(format!("{}: it does not export {name}", self.file));
        };
        self.begin();
        self.context.with(|ctx| {
            let called =
                exported.clone().restore(&ctx).and_then(|function| function.call::<_, Value<'_>>(()));
            match called {
                Ok(answer) => read(&answer).map_err(|wrong| format!("{}: {name} {wrong}", self.file)),
                Err(error) => Err(fault::describe(&ctx, &self.file, error)),
            }
        })
    }
}
