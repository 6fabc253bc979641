//! The script plugin: JavaScript in place of a component.
//!
//! One component holds the engine (QuickJS) and is compiled once; each script is a plugin of its own, with
//! instances, limits and grants of its own, which gets its text from the host when an instance
//! starts. What it is follows from the functions that it exports: `resolve`, `onRequest`,
//! `onResponse`, `onEvent`. `sdk/script/message-flow.d.ts` is the manual of what it can call.
//!
//! What a script remembers in variables lasts as long as its instance; what must last goes to
//! `state`.

#![cfg(target_arch = "wasm32")]

mod answer;
mod engine;
mod fault;
mod globals;
mod source;

use message_flow_sdk::{
    Decision, EventFilter, EventVerdict, Registrar, RequestFilter, ResponseFilter, Verdict,
};

struct Script;

message_flow_sdk::export!(Script: Registrar + RequestFilter + ResponseFilter + EventFilter);

impl Registrar for Script {
    fn resolve() -> Result<Decision, String> {
        engine::call(engine::Function::Resolve, answer::decision)
    }
}

impl RequestFilter for Script {
    fn on_request() -> Result<Verdict, String> {
        engine::call(engine::Function::OnRequest, answer::verdict)
    }
}

impl ResponseFilter for Script {
    fn on_response() -> Result<(), String> {
        engine::call(engine::Function::OnResponse, answer::nothing)
    }
}

impl EventFilter for Script {
    fn on_event() -> Result<EventVerdict, String> {
        engine::call(engine::Function::OnEvent, answer::event_verdict)
    }
}
