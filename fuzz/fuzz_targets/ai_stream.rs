//! See [`nantian_fuzz::ai_stream`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nantian_fuzz::ai_stream(data));
