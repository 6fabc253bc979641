//! Instances that wait for work.
//!
//! On the sync lane a call never suspends, so each thread needs one instance: slots, one for each
//! thread that calls, so that threads do not meet. On the async lane calls overlap: a stack of
//! idle instances behind a semaphore ([`super::turn`]). Both are bounded by the limit `instances`.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{
    CallError, Message,
    call::Cause,
    instance::{Answer, Function, Functions, Instance, Params, Template, watched},
    turn::{Turn, within},
};

/// Picks the function that is called.
pub(super) type Pick<P, R> = fn(&Functions) -> Option<&Function<P, R>>;

/// Which function is called, and until when.
pub(super) struct Call<P, R> {
    pub(super) name: &'static str,
    pub(super) pick: Pick<P, R>,
    pub(super) deadline: std::time::Duration,
}

/// The instances of one generation.
pub(super) enum Pool {
    /// Boxed, as an instance is taken out and put back for every call.
    Sync(Box<[Mutex<Option<Box<Instance>>>]>),
    Waiting(Waiting),
}

/// Instances whose calls overlap.
pub(super) struct Waiting {
    /// Of calls that run.
    permits: Arc<Semaphore>,
    /// Of calls that wait for the sender of a body; as many again.
    senders: Arc<Semaphore>,
    idle: Mutex<Vec<Instance>>,
}

/// Numbers the threads that call plugins, so that each has a slot of its own.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) });
    let number = NUMBER.get();
    if number != usize::MAX {
        return number;
    }
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    NUMBER.set(number);
    number
}

impl Pool {
    pub(super) fn new(template: &Template) -> Self {
        let instances = template.plugin.settings.instances.max(1) as usize;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        // Of those that only give way, more at once would have others wait for each of them.
        let instances = if template.shape.gives_way { instances.min(threads) } else { instances };
        if template.shape.waits {
            let semaphore = || Arc::new(Semaphore::new(instances));
            return Self::Waiting(Waiting {
                permits: semaphore(),
                senders: semaphore(),
                idle: Mutex::default(),
            });
        }
        Self::Sync((0..instances.min(threads + 4)).map(|_| Mutex::default()).collect())
    }

    /// Puts an instance where a call will find it.
    pub(super) fn keep(&self, instance: Instance) {
        match self {
            Self::Sync(slots) => *slots[thread_number() % slots.len()].lock() = Some(Box::new(instance)),
            Self::Waiting(waiting) => waiting.idle.lock().push(instance),
        }
    }

    /// Calls a function of an idle instance, or of a new one.
    #[inline]
    pub(super) async fn call<P, R>(
        &self,
        template: &Template,
        message: &mut Message,
        call: &Call<P, R>,
        params: P,
        began: Instant,
    ) -> Result<R, CallError>
    where
        P: Params,
        R: Answer,
    {
        match self {
            Self::Sync(slots) => call_sync(slots, template, message, call, params, began),
            Self::Waiting(waiting) => Box::pin(waiting.call(template, message, call, params, began)).await,
        }
    }
}

#[inline]
fn call_sync<P, R>(
    slots: &[Mutex<Option<Box<Instance>>>],
    template: &Template,
    message: &mut Message,
    call: &Call<P, R>,
    params: P,
    began: Instant,
) -> Result<R, CallError>
where
    P: Params,
    R: Answer,
{
    let slot = &slots[thread_number() % slots.len()];
    let busy = || template.error(call.name, Cause::Instances(template.plugin.settings.instances));
    let mut began = began;
    let mut slot = match slot.try_lock() {
        Some(slot) => slot,
        None => {
            let slot = slot.try_lock_for(call.deadline).ok_or_else(busy)?;
            began = Instant::now();
            slot
        }
    };
    let mut instance = match slot.take() {
        Some(instance) => instance,
        None => {
            let instance = Box::new(template.instantiate()?);
            began = Instant::now();
            instance
        }
    };
    instance.begin(message, began + call.deadline);
    let result = match (call.pick)(&instance.functions) {
        Some(function) => function.call(&mut instance.store, params),
        None => Err(super::call::MissingFunction.into()),
    };
    let result = instance.end(message, call.name, result);
    if instance.can_serve_after(&result) {
        *slot = Some(instance);
    }
    result
}

impl Waiting {
    async fn call<P, R>(
        &self,
        template: &Template,
        message: &mut Message,
        call: &Call<P, R>,
        params: P,
        began: Instant,
    ) -> Result<R, CallError>
    where
        P: Params,
        R: Answer,
    {
        let until = began + call.deadline;
        let busy = |_| template.error(call.name, Cause::Instances(template.plugin.settings.instances));
        let permit = Arc::clone(&self.permits).acquire_owned();
        let permit = tokio::time::timeout_at(until.into(), permit).await.map_err(busy)?;
        let turn = Turn::new(permit.expect("the semaphore is never closed"), Arc::clone(&self.senders));
        let clock = Arc::clone(&turn.clock);
        let ready = self.idle.lock().pop();
        let mut instance = match ready {
            Some(instance) => instance,
            None => template.instantiate_async().await?,
        };
        instance.begin_waiting(message, until, turn);
        let ticker = &template.plugin.ticker;
        let Instance { store, functions, .. } = &mut instance;
        let result = match (call.pick)(functions) {
            Some(function) => {
                let called = watched(ticker, function.call_async(store, params));
                within(until, &clock, called).await.unwrap_or_else(|| Err(wasmtime::Trap::Interrupt.into()))
            }
            None => Err(super::call::MissingFunction.into()),
        };
        let result = instance.end(message, call.name, result);
        if instance.can_serve_after(&result) {
            self.idle.lock().push(instance);
        }
        result
    }
}
