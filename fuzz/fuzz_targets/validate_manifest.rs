//! See [`nantian_fuzz::validate_manifest`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nantian_fuzz::validate_manifest(data));
