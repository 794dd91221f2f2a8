//! See [`nantian_fuzz::wasm_module`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nantian_fuzz::wasm_module(data));
