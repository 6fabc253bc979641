//! Hands `heads` over to libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| message_flow_fuzz::heads(bytes));
