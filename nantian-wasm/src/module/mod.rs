//! Compiled modules, shared by every plugin made of the same bytes.

mod cache;
mod digest;
mod inspect;
mod inventory;

use std::fmt;
use std::sync::Arc;

pub(crate) use self::cache::ModuleCache;
pub use self::digest::{Digest, ParseDigestError};
pub(crate) use self::inspect::Traits;
pub use self::inventory::Inventory;
use crate::engine::Engine;
use crate::error::ModuleError;
use crate::proxy_wasm::{Abi, LinkedModule};

/// A verified, compiled and linked module; a cheap handle.
///
/// Modules are cached by the digest of their bytes for as long as somebody holds one.
#[derive(Clone)]
pub struct Module {
    engine: Engine,
    inner: Arc<Inner>,
}

/// What the cache keeps weakly. It holds no [`Engine`], which owns the cache.
pub(crate) struct Inner {
    digest: Digest,
    traits: Traits,
    linked: LinkedModule,
}

// === impl Module ===

impl Module {
    /// Verifies, judges, compiles and links a module, or finds it compiled already.
    ///
    /// The digest is that of `bytes`, never the expected one. Compiling takes from milliseconds to seconds
    /// and blocks: call it from a thread that may.
    ///
    /// # Errors
    ///
    /// [`ModuleError::Digest`] when `expected` is given and differs; every other [`ModuleError`] when the
    /// bytes are no plugin that can run here. Nothing is compiled before size, digest and ABI are found good.
    pub fn compile(engine: &Engine, bytes: &[u8], expected: Option<Digest>) -> Result<Self, ModuleError> {
        inspect::check_size(bytes)?;
        let digest = Digest::of(bytes);
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(ModuleError::Digest { expected, actual: digest });
        }
        if let Some(inner) = engine.modules().get(&digest) {
            return Ok(Self { engine: engine.clone(), inner });
        }
        let traits = inspect::inspect(bytes)?;
        let compiled = wasmtime::Module::from_binary(engine.wasmtime(), bytes)
            .map_err(|error| ModuleError::Uncompilable { reason: format!("{error:#}") })?;
        let linked = engine.host_functions().link(compiled)?;
        let inner = engine.modules().insert(digest, Arc::new(Inner { digest, traits, linked }));
        Ok(Self { engine: engine.clone(), inner })
    }

    /// SHA-256 of the bytes that were compiled.
    pub fn digest(&self) -> Digest {
        self.inner.digest
    }

    /// The ABI the module announces.
    pub fn abi(&self) -> Abi {
        self.inner.traits.abi
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn traits(&self) -> Traits {
        self.inner.traits
    }

    pub(crate) fn linked(&self) -> &LinkedModule {
        &self.inner.linked
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module")
            .field("digest", &self.digest())
            .field("abi", &self.abi())
            .finish_non_exhaustive()
    }
}
