//! See [`nantian_fuzz::ai_token`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nantian_fuzz::ai_token(data));
