//! A wasmtime sandbox for Proxy-Wasm plugins as a tower Layer.
