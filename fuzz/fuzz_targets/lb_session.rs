//! See [`nantian_fuzz::lb_session`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nantian_fuzz::lb_session(data));
