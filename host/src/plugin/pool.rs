//! Instances that wait for work.
//!
//! On the sync lane a call never suspends, so each thread needs one instance: slots, one for each
//! thread that calls, so that threads do not meet; for calls on threads of their own ([`super::aside`]), which
//! come and go, a stack. On the async lane calls overlap: a stack of
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
    meter::Meter,
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

impl<P, R> Clone for Call<P, R> {
    fn clone(&self) -> Self {
        Self { name: self.name, pick: self.pick, deadline: self.deadline }
    }
}

/// The instances of one generation.
pub(super) enum Pool {
    Sync(Slots),
    Waiting(Waiting),
}

/// Instances whose calls never suspend.
pub(super) struct Slots {
    /// Boxed, as an instance is taken out and put back for every call.
    by_thread: Box<[Slot]>,
    #[allow(clippy::vec_box, reason = "as in `by_thread`; what is moved for every call is a pointer")]
    aside: Mutex<Vec<Box<Instance>>>,
}

type Slot = Mutex<Option<Box<Instance>>>;

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
        if template.shape.waits {
            let semaphore = || Arc::new(Semaphore::new(instances));
            return Self::Waiting(Waiting {
                permits: semaphore(),
                senders: semaphore(),
                idle: Mutex::default(),
            });
        }
        let by_thread = (0..instances.min(threads + 4)).map(|_| Mutex::default()).collect();
        Self::Sync(Slots { by_thread, aside: Mutex::default() })
    }

    /// Puts an instance where a call will find it.
    pub(super) fn keep(&self, instance: Instance) {
        match self {
            Self::Sync(slots) => *slots.own().lock() = Some(Box::new(instance)),
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
        clock: (Instant, &mut Meter),
    ) -> Result<R, CallError>
    where
        P: Params,
        R: Answer,
    {
        match self {
            Self::Sync(slots) => slots.call(template, message, call, params, clock.0),
            Self::Waiting(waiting) => Box::pin(waiting.call(template, message, call, params, clock)).await,
        }
    }

    /// As [`Self::call`], on a thread that makes no other call meanwhile.
    pub(super) async fn call_aside<R: Answer>(
        &self,
        template: &Template,
        message: &mut Message,
        call: &Call<(), R>,
        (began, meter): (Instant, &mut Meter),
    ) -> Result<R, CallError> {
        let Self::Sync(slots) = self else {
            return self.call(template, message, call, (), (began, meter)).await;
        };
        let part = meter.begin();
        let result = slots.call_aside(template, message, call);
        meter.end(part);
        result
    }

    /// No more calls are made aside for now.
    pub(super) fn empty_aside(&self) {
        if let Self::Sync(slots) = self {
            slots.aside.lock().clear();
        }
    }
}

impl Slots {
    #[inline]
    fn own(&self) -> &Slot {
        &self.by_thread[thread_number() % self.by_thread.len()]
    }

    #[inline]
    fn call<P, R>(
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
        let busy = || template.error(call.name, Cause::Instances(template.plugin.settings.instances));
        let slot = self.own();
        let mut began = began;
        let mut slot = match slot.try_lock() {
            Some(slot) => slot,
            None => {
                let slot = slot.try_lock_for(call.deadline).ok_or_else(busy)?;
                began = Instant::now();
                slot
            }
        };
        let instance = match slot.take() {
            Some(instance) => instance,
            None => {
                let instance = Box::new(template.instantiate()?);
                began = Instant::now();
                instance
            }
        };
        let (result, instance) = call_once(instance, message, call, params, began);
        *slot = instance;
        result
    }

    fn call_aside<R: Answer>(
        &self,
        template: &Template,
        message: &mut Message,
        call: &Call<(), R>,
    ) -> Result<R, CallError> {
        let ready = self.aside.lock().pop();
        let instance = match ready {
            Some(instance) => instance,
            None => Box::new(template.instantiate()?),
        };
        let (result, instance) = call_once(instance, message, call, (), Instant::now());
        self.aside.lock().extend(instance);
        result
    }
}

/// Makes one call; the instance, if it is fit for another.
#[inline]
fn call_once<P, R>(
    mut instance: Box<Instance>,
    message: &mut Message,
    call: &Call<P, R>,
    params: P,
    began: Instant,
) -> (Result<R, CallError>, Option<Box<Instance>>)
where
    P: Params,
    R: Answer,
{
    instance.begin(message, began + call.deadline);
    let result = match (call.pick)(&instance.functions) {
        Some(function) => function.call(&mut instance.store, params),
        None => Err(super::call::MissingFunction.into()),
    };
    let result = instance.end(message, call.name, result);
    let fit = instance.can_serve_after(&result).then_some(instance);
    (result, fit)
}

impl Waiting {
    async fn call<P, R>(
        &self,
        template: &Template,
        message: &mut Message,
        call: &Call<P, R>,
        params: P,
        (began, meter): (Instant, &mut Meter),
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
            None => template.instantiate_async(meter).await?,
        };
        instance.begin_waiting(message, until, turn);
        let ticker = &template.plugin.ticker;
        let Instance { store, functions, .. } = &mut instance;
        let result = match (call.pick)(functions) {
            Some(function) => {
                let called = watched(ticker, meter, function.call_async(store, params));
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
