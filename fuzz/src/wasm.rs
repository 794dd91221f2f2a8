//! What is read of plugins.

use std::sync::LazyLock;

use nantian_wasm::{Digest, Engine, Module};

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new().expect("this machine runs WebAssembly").0);

/// Whatever bytes it is given, compiling answers, and what was compiled is named by the digest of its bytes.
pub fn wasm_module(bytes: &[u8]) {
    match Module::compile(&ENGINE, bytes, None) {
        Ok(module) => assert_eq!(module.digest(), Digest::of(bytes)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
