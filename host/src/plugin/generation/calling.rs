//! Calls: in place as a rule, and with more care where there is a reason.
//!
//! A build that took more of the workers' time than its share is called on threads of its own. One that is new
//! has the build before it stand in: a message on which it crashed is shown to that one as it was, if the call
//! had no effect that anybody else could see.

use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use futures_util::future::BoxFuture;

use super::{Generation, first_moments::Crash};
use crate::plugin::{
    CallError, Message,
    call::Cause,
    conduct::{End, LONG, Standing},
    instance::{Answer, Params},
    message::Place,
    meter::Meter,
    pool::{Call, Pick},
};

impl Generation {
    /// Calls a function that decides, within the plugin's deadline.
    pub(super) async fn call<R: Answer>(
        &self,
        message: &mut Message,
        name: &'static str,
        pick: Pick<(), R>,
    ) -> Result<R, CallError> {
        let call = Call { name, pick, deadline: self.template.plugin.deadline };
        if self.care.is_needed() && message.place != Place::Elsewhere {
            return self.call_with_care(message, call).await;
        }
        self.call_within(message, &call, ()).await
    }

    /// Calls a function. What it changed in a durable `state` is on disk before this returns.
    pub(in crate::plugin) async fn call_within<P, R>(
        &self,
        message: &mut Message,
        call: &Call<P, R>,
        params: P,
    ) -> Result<R, CallError>
    where
        P: Params,
        R: Answer,
    {
        let (began, seen, mut meter) = (Instant::now(), self.seen(), Meter::default());
        let result = self.pool.call(&self.template, message, call, params, (began, &mut meter)).await;
        self.finish(message, call.name, result, (began, seen, meter)).await
    }

    /// Counts a call and what became of it.
    async fn finish<R>(
        &self,
        message: &mut Message,
        function: &'static str,
        result: Result<R, CallError>,
        (began, seen, meter): (Instant, u64, Meter),
    ) -> Result<R, CallError> {
        let result = match message.lacks_body() {
            // Whatever it made of that, it is not to blame.
            true => result.map_err(|_| self.template.error(function, Cause::Sender)),
            false => result,
        };
        if message.dry {
            return result;
        }
        let took = began.elapsed();
        self.stats.count(took, &result);
        // A call in place that nobody measured held its thread all the time; one that waits is measured in parts.
        let held = if meter.is_exact() || self.template.shape.waits { meter.held() } else { took };
        if (held >= LONG || meter.is_exact()) && message.place != Place::Elsewhere {
            let late = matches!(&result, Err(CallError { cause: Cause::Deadline(..), .. }));
            self.charge(held, if late { End::Late } else { End::OfItself });
        }
        let result = result.inspect_err(|error| self.trouble(error, message));
        if self.settings().durable_state {
            self.wait_durable(function, seen).await?;
        }
        result
    }

    /// How far its state had come before a call: what the call sees may not be on disk yet.
    fn seen(&self) -> u64 {
        self.template.plugin.capabilities.state.commit_sequence()
    }

    async fn wait_durable(&self, function: &'static str, seen: u64) -> Result<(), CallError> {
        let state = &self.template.plugin.capabilities.state;
        let durable = state.wait_durable(seen, state.commit_sequence()).await;
        durable.map_err(|error| self.template.error(function, Cause::Host(error.to_string().into())))
    }

    /// Boxed, to keep the future of an ordinary call small.
    fn call_with_care<'a, R: Answer>(
        &'a self,
        message: &'a mut Message,
        call: Call<(), R>,
    ) -> BoxFuture<'a, Result<R, CallError>> {
        Box::pin(async move {
            let earlier = self.stand_in(message);
            if let Some(earlier) = earlier.as_ref().filter(|_| self.is_unfit()) {
                // It was rolled back by its crashes; the plans of messages follow.
                return earlier.call(message, call.name, call.pick).await;
            }
            message.again = earlier.is_some();
            let result = self.call_alone(message, &call).await;
            message.again = false;
            if !result.as_ref().is_err_and(|error| error.cause.is_crash()) {
                return result;
            }
            let earlier = match earlier {
                Some(earlier) if !self.acted(message) => earlier,
                other => {
                    self.judge(if other.is_some() { Crash::Acted } else { Crash::Alone }, message);
                    return result;
                }
            };
            message.renew_body();
            let answer = earlier.call(message, call.name, call.pick).await;
            if matches!(&answer, Err(error) if error.cause.is_crash()) {
                self.judge(Crash::Alone, message);
                return result;
            }
            self.judge(Crash::Answered, message);
            answer
        })
    }

    /// Calls it as it stands.
    async fn call_alone<R: Answer>(&self, message: &mut Message, call: &Call<(), R>) -> Result<R, CallError> {
        if self.is_confined_now() && message.place == Place::Worker {
            return self.call_aside(message, call).await;
        }
        let mut meter = match self.care.standing() {
            Standing::InPlace => Meter::default(),
            Standing::Measured | Standing::Confined => Meter::exact(),
        };
        let (began, seen) = (Instant::now(), self.seen());
        let result = self.measured(&mut meter, message, call, began).await;
        self.finish(message, call.name, result, (began, seen, meter)).await
    }

    async fn measured<R: Answer>(
        &self,
        meter: &mut Meter,
        message: &mut Message,
        call: &Call<(), R>,
        began: Instant,
    ) -> Result<R, CallError> {
        if self.template.shape.waits {
            return self.pool.call(&self.template, message, call, (), (began, meter)).await;
        }
        let part = meter.begin();
        let result = self.pool.call(&self.template, message, call, (), (began, meter)).await;
        meter.end(part);
        result
    }

    async fn call_aside<R: Answer>(&self, message: &mut Message, call: &Call<(), R>) -> Result<R, CallError> {
        let Some(turn) = self.ward.turn(Instant::now() + call.deadline).await else {
            let error = self.template.error(call.name, Cause::Confined);
            self.stats.count_failure(&error.cause);
            self.trouble(&error, message);
            return Err(error);
        };
        let (pool, template, call) = (Arc::clone(&self.pool), Arc::clone(&self.template), call.clone());
        let mut shown = std::mem::take(message);
        let (name, seen) = (call.name, self.seen());
        let (result, shown, (began, meter)) = turn
            .run(async move {
                let (began, mut meter) = (Instant::now(), Meter::exact());
                let result = pool.call_aside(&template, &mut shown, &call, (began, &mut meter)).await;
                (result, shown, (began, meter))
            })
            .await;
        *message = shown;
        self.finish(message, name, result, (began, seen, meter)).await
    }

    /// The build that stands in for this one if it crashes on this message.
    fn stand_in(&self, message: &Message) -> Option<Arc<Self>> {
        if !self.care.is_watched() {
            return None;
        }
        let earlier = self.earlier.get().and_then(Weak::upgrade);
        if earlier.is_none() {
            self.care.stop_watching();
        }
        earlier.filter(|earlier| {
            let waits = message.place != Place::Worker && earlier.may_wait();
            let lacks_body = earlier.reads_body() && message.body.is_none();
            !waits && !lacks_body && !earlier.led_to(&message.headers)
        })
    }

    /// Whether the last call may have had an effect beyond the message.
    fn acted(&self, message: &Message) -> bool {
        message.acted || self.template.shape.reaches_out()
    }
}
