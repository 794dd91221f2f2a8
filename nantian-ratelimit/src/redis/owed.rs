//! Keys whose use the server has not been told of, so that it hears of them though nobody asks for them again.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::shared::{SharedKey, SharedLimiter, WeakLimiter};

/// Most keys that are remembered; what the others owe is told with the next decision on them.
const MOST: usize = 4096;

/// The keys, and whose they are.
#[derive(Default)]
pub(super) struct Owed(Mutex<HashMap<u128, (WeakLimiter, SharedKey)>>);

impl Owed {
    /// Remembers that the use of a key is to be told.
    pub(super) fn note(&self, limiter: &SharedLimiter, key: &SharedKey) {
        let mut owed = self.lock();
        if owed.len() < MOST || owed.contains_key(&key.remote()) {
            owed.entry(key.remote()).or_insert_with(|| (limiter.downgrade(), key.clone()));
        }
    }

    /// Takes all that is remembered.
    pub(super) fn take(&self) -> Vec<(WeakLimiter, SharedKey)> {
        std::mem::take(&mut *self.lock()).into_values().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u128, (WeakLimiter, SharedKey)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Owed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owed").field("keys", &self.lock().len()).finish()
    }
}
