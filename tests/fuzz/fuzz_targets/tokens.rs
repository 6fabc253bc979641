//! Hands `tokens` over to libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| message_flow_fuzz::tokens(bytes));
