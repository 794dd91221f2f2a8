//! See [`nantian_fuzz::ai_hide`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nantian_fuzz::ai_hide(data));
