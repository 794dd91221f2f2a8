//! See [`nantian_fuzz::ai_embed`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nantian_fuzz::ai_embed(data));
