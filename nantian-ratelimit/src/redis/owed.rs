//! Keys whose use the server has not been told of, so that it hears of them though nobody asks for them again.

use std::collections::{HashMap, hash_map};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::family::Family;
use super::shared::SharedKey;

/// Most keys that are remembered; what the others owe is told with the next decision on them.
const MOST: usize = 4096;

/// The keys, and whose they are.
#[derive(Default)]
pub(super) struct Owed(Mutex<HashMap<u128, Owing>>);

/// A key, and the levels that it is of; these may be gone.
pub(super) type Owing = (Weak<Family>, SharedKey);

/// What was taken to be told. Of what is left of it when it is dropped, nobody has been told.
pub(super) struct Taken<'a> {
    owed: &'a Owed,
    keys: hash_map::IntoValues<u128, Owing>,
}

impl Owed {
    /// Remembers that the use of a key is to be told.
    pub(super) fn note(&self, family: &Arc<Family>, key: &SharedKey) {
        self.remember((Arc::downgrade(family), key.clone()));
    }

    /// Takes all that is remembered.
    pub(super) fn take(&self) -> Taken<'_> {
        Taken { owed: self, keys: std::mem::take(&mut *self.lock()).into_values() }
    }

    fn remember(&self, owing: Owing) {
        let mut owed = self.lock();
        let remote = owing.1.remote();
        if owed.len() < MOST || owed.contains_key(&remote) {
            owed.insert(remote, owing);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u128, Owing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Owed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owed").field("keys", &self.lock().len()).finish()
    }
}

// === impl Taken ===

impl Iterator for Taken<'_> {
    type Item = Owing;

    fn next(&mut self) -> Option<Owing> {
        self.keys.next()
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.keys.by_ref().for_each(|owing| self.owed.remember(owing));
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use crate::policy::{Limit, Policy};
    use crate::redis::RedisStore;

    #[test]
    fn what_was_taken_and_not_told_is_remembered_through_edits_of_the_policy() {
        let (store, _driver) = RedisStore::builder("redis://127.0.0.1:1/0".parse().unwrap()).build();
        let policy = |max| Policy::builder().limit(Limit::requests_per_minute(max)).build().unwrap();
        let limiter = store.limiter("quota", policy(10));
        let owed = &store.0.owed;
        for name in 0..10u8 {
            owed.note(limiter.family(), &limiter.key(&[name]));
        }
        let edited = limiter.with_policy(policy(20));
        drop(limiter);
        assert!(owed.take().take(4).all(|(family, _)| family.upgrade().is_some()));
        assert_eq!(owed.take().count(), 6);
        assert_eq!(owed.take().count(), 0);
        owed.note(edited.family(), &edited.key(b"alice"));
        drop(edited);
        assert!(owed.take().all(|(family, _)| family.upgrade().is_none()));
    }
}
