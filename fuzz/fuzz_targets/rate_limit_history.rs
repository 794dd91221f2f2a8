//! See [`nantian_fuzz::rate_limit_history`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nantian_fuzz::rate_limit_history(data));
