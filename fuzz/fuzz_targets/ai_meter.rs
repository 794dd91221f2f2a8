//! See [`nantian_fuzz::ai_meter`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nantian_fuzz::ai_meter(data));
