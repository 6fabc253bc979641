//! The records and variants of `wit/` as they cross into and out of guests.

#![allow(unsafe_code, reason = "the derives of the component model write unsafe impls")]

use std::sync::Arc;

use wasmtime::component::{ComponentType, Lift, Lower};

use super::bounds::{Cut, NAME, REASON, VALUE, Whole};

/// What a guest says when it fails.
pub(super) type Said = Cut<REASON>;

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
pub(super) struct ServiceId {
    pub(super) name: String,
    pub(super) version: Option<String>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct Server {
    pub(super) id: Arc<str>,
    pub(super) uri: String,
    pub(super) weight: u32,
    pub(super) healthy: bool,
    #[component(name = "in-flight")]
    pub(super) in_flight: u32,
    pub(super) metadata: Vec<(String, String)>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct Rejection {
    pub(super) status: u16,
    pub(super) reason: Cut<REASON>,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub(super) enum Decision {
    #[component(name = "server")]
    Server(Whole<VALUE>),
    #[component(name = "pass")]
    Pass,
    #[component(name = "reject")]
    Reject(Rejection),
    #[component(name = "other")]
    Other(Cut<NAME>),
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub(super) enum Verdict {
    #[component(name = "forward")]
    Forward,
    #[component(name = "respond")]
    Respond(Rejection),
    #[component(name = "other")]
    Other(Cut<NAME>),
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub(super) enum EventVerdict {
    #[component(name = "accept")]
    Accept,
    #[component(name = "drop")]
    Drop,
    #[component(name = "redirect")]
    Redirect(Whole<NAME>),
    #[component(name = "reject")]
    Reject(Cut<REASON>),
    #[component(name = "other")]
    Other(Cut<NAME>),
}

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
pub(super) enum BodyError {
    #[component(name = "too-large")]
    TooLarge(u64),
    #[component(name = "incomplete")]
    Incomplete(String),
    #[component(name = "unavailable")]
    Unavailable,
    #[component(name = "other")]
    Other(String),
}

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
pub(super) enum StateError {
    #[component(name = "full")]
    Full(u64),
    #[component(name = "not-a-number")]
    NotANumber,
    #[component(name = "other")]
    Other(String),
}

#[derive(ComponentType, Lift, Clone, Copy)]
#[allow(dead_code, reason = "lifting makes them out of numbers")]
#[component(enum)]
#[repr(u8)]
pub(super) enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}
