//! See [`nantian_fuzz::ai_frames`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nantian_fuzz::ai_frames(data));
