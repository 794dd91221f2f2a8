//! Keys whose use the server has not been told of, so that it hears of them though nobody asks for them
//! again.

use std::collections::{HashMap, hash_map};
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::policy_group::PolicyGroup;
use super::settle::Correction;
use super::shared_key::SharedKey;
use super::store::StoreState;

/// Most keys that are remembered; what the others owe is told with the next decision on them.
const MOST: usize = 4096;

/// The keys, and whose they are.
#[derive(Default)]
pub(super) struct UnreportedKeys(Mutex<HashMap<u128, UnreportedKey>>);

/// A key, and the levels that it is of; these may be gone.
pub(super) type UnreportedKey = (Weak<PolicyGroup>, SharedKey);

/// What the server knows of what was used without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flushed {
    /// All of it.
    Told,
    /// Not all of it yet: it does not take the rest at present.
    Pending,
    /// All that can be told; but since this was last said something was lost that only limiters knew that are
    /// gone, or that was used of keys that the server knows by another name.
    Lost,
}

/// What was taken to be told. Of what is left of it when it is dropped, nobody has been told.
pub(super) struct Drain<'a> {
    unreported: &'a UnreportedKeys,
    keys: hash_map::IntoValues<u128, UnreportedKey>,
}

impl UnreportedKeys {
    /// Remembers that the use of a key is to be told.
    pub(super) fn note(&self, group: &Arc<PolicyGroup>, key: &SharedKey) {
        self.remember((Arc::downgrade(group), key.clone()));
    }

    /// Takes all that is remembered.
    pub(super) fn drain(&self) -> Drain<'_> {
        Drain { unreported: self, keys: std::mem::take(&mut *self.lock()).into_values() }
    }

    /// Whether nothing is to be told.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn remember(&self, unreported: UnreportedKey) {
        let mut keys = self.lock();
        let remote = unreported.1.remote();
        if keys.len() < MOST || keys.contains_key(&remote) {
            keys.insert(remote, unreported);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u128, UnreportedKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for UnreportedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnreportedKeys").field("keys", &self.lock().len()).finish()
    }
}

// === impl Drain ===

impl Iterator for Drain<'_> {
    type Item = UnreportedKey;

    fn next(&mut self) -> Option<UnreportedKey> {
        self.keys.next()
    }
}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        self.keys.by_ref().for_each(|unreported| self.unreported.remember(unreported));
    }
}

// === impl StoreState ===

impl StoreState {
    /// Has the server told what was used without it, and notes what cannot be told: what limiters knew that
    /// are gone, and of keys that the server knows by another name.
    pub(super) fn report(&self) {
        let layout = self.layout.load();
        for (group, key) in self.unreported.drain() {
            let Some(group) = group.upgrade().filter(|_| key.is_known_by(self)) else {
                self.has_lost.store(true, Ordering::Relaxed);
                continue;
            };
            let node = layout.node_at(|| key.slot()).filter(|node| node.link().is_some());
            // What is sent in vain may arrive all the same: not while answers fail to come.
            if node.is_none_or(|node| !node.breaker.is_clean()) {
                self.unreported.note(&group, &key);
            } else if let Some(report) = group.report(group.now(), &key) {
                Correction::new(group, key, report.into_items()).hand_over();
            }
        }
    }

    /// What the server knows now; that something was lost is said once, when nothing else is left to be told.
    pub(super) fn flushed(&self) -> Flushed {
        if !self.unreported.is_empty() {
            Flushed::Pending
        } else if self.has_lost.swap(false, Ordering::Relaxed) {
            Flushed::Lost
        } else {
            Flushed::Told
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::Arc;

    use super::Flushed;
    use crate::limit::Limit;
    use crate::policy::Policy;
    use crate::redis::RedisStore;
    use crate::redis::agreed_secret::AgreedSecret;

    /// A store that is flushed at once: it has no driver.
    fn store() -> RedisStore {
        let (store, driver) = RedisStore::builder("redis://127.0.0.1:1/0".parse().unwrap()).build();
        drop(driver);
        store
    }

    #[tokio::test]
    async fn what_was_taken_and_not_told_is_remembered_through_edits_of_the_policy() {
        let store = store();
        let policy = |max| Policy::builder().limit(Limit::requests_per_minute(max)).build().unwrap();
        let limiter = store.limiter("quota", policy(10));
        let keys = &store.0.unreported;
        for name in 0..10u8 {
            keys.note(limiter.group(), &limiter.key(&[name]));
        }
        let edited = limiter.successor(policy(20));
        drop(limiter);
        assert!(keys.drain().take(4).all(|(group, _)| group.upgrade().is_some()));
        assert_eq!(keys.drain().count(), 6);
        assert_eq!(keys.drain().count(), 0);
        keys.note(edited.group(), &edited.key(b"alice"));
        drop(edited);
        // As the driver does with each greeting.
        store.0.report();
        assert_eq!(store.flush().await, Flushed::Lost, "nobody knows any more what was used");
        assert_eq!(store.flush().await, Flushed::Told, "that is said once");
    }

    #[tokio::test]
    async fn what_the_server_would_know_by_another_name_is_not_waited_for() {
        let store = store();
        let policy = Policy::builder().limit(Limit::requests_per_minute(10)).build().unwrap();
        let limiter = store.limiter("quota", policy);
        let (key, group) = (limiter.key(b"alice"), limiter.group());
        group.remember_unreported(group.now(), &key);
        assert_eq!(store.flush().await, Flushed::Pending, "nobody is there who could be told");
        store.0.agreed.store(Arc::new(AgreedSecret::proposed()));
        assert_eq!(store.flush().await, Flushed::Lost);
        group.remember_unreported(group.now(), &key);
        assert!(store.0.unreported.is_empty());
    }
}
