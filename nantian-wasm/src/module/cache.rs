//! Compiled modules by digest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use super::{Digest, Inner};
use crate::sync::lock;

/// Finds modules that somebody still holds; keeps none alive by itself.
#[derive(Default)]
pub(crate) struct ModuleCache {
    modules: Mutex<HashMap<Digest, Weak<Inner>>>,
}

// === impl ModuleCache ===

impl ModuleCache {
    pub(crate) fn get(&self, digest: &Digest) -> Option<Arc<Inner>> {
        lock(&self.modules).get(digest)?.upgrade()
    }

    /// Keeps a module, or gives back the one that another thread compiled meanwhile.
    pub(crate) fn insert(&self, digest: Digest, module: Arc<Inner>) -> Arc<Inner> {
        let mut modules = lock(&self.modules);
        modules.retain(|_, module| module.strong_count() > 0);
        if let Some(existing) = modules.get(&digest).and_then(Weak::upgrade) {
            return existing;
        }
        modules.insert(digest, Arc::downgrade(&module));
        module
    }

    pub(crate) fn len(&self) -> usize {
        let modules = lock(&self.modules);
        modules.values().filter(|module| module.strong_count() > 0).count()
    }
}
