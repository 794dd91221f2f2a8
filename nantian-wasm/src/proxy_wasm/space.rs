//! Where plugins find shared data and queues by VM id.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use super::queues::Queues;
use super::shared::Data;
use crate::callout_limits::CalloutLimits;
use crate::engine::Engine;
use crate::sandbox::HostTrap;
use crate::sync::lock;

/// Where plugins find shared data and queues of one another, by VM id: one for each tenant.
///
/// Plugins of one [`vm_id`](crate::PluginConfig::vm_id) in a space have the same data and queues, as in
/// Envoy, and so do those that come after them while one of them is there: a queue that is registered twice
/// tells the instance that was last to register it of its items. A plugin resolves the queues of other VM
/// ids, puts items in and takes them out; their data it does not see. What a plugin without a VM id has is
/// its own. Metrics are a plugin's own in any case, and the limits of data and queues are those of each VM
/// id. The plugins of a space have half of the call-outs that all have; how much memory they have together
/// the [engine](crate::EngineBuilder::max_memory_of_space) limits.
///
/// A cheap handle; its clones are the same space.
///
/// ```
/// use nantian_wasm::{PluginConfig, SharedSpace};
///
/// let tenant = SharedSpace::new();
/// let sender = PluginConfig::new("sender").with_vm_id("sender").with_shared_space(tenant.clone());
/// let receiver = PluginConfig::new("receiver").with_vm_id("receiver").with_shared_space(tenant);
/// ```
#[derive(Clone, Default)]
pub struct SharedSpace {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Those that plugins have, by VM id.
    stores: Mutex<HashMap<Vec<u8>, Weak<VmStore>>>,
    /// The token that was given out last: none is given out twice.
    last_token: AtomicU32,
    /// Bytes of linear memory that instances have.
    memory: Arc<AtomicUsize>,
    /// Call-outs of its plugins, once it has one.
    callout_limits: OnceLock<Arc<CalloutLimits>>,
}

/// Data and queues of a VM id, or of one plugin that has none. Its locks are held for an access, never while
/// a guest runs.
#[derive(Default)]
pub(crate) struct VmStore {
    pub(super) data: Mutex<Data>,
    pub(super) queues: Mutex<Queues>,
}

// === impl SharedSpace ===

impl SharedSpace {
    /// A space in which nothing is.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether anybody has another handle of it: a plugin, or an instance of one that is gone.
    pub fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.inner) > 1
    }

    /// What the plugins of a VM id have; something new for one without, and for the first of its id.
    pub(crate) fn join(&self, vm_id: &str) -> Arc<VmStore> {
        if vm_id.is_empty() {
            return Arc::default();
        }
        let mut stores = lock(&self.inner.stores);
        stores.retain(|_, store| store.strong_count() > 0);
        if let Some(store) = stores.get(vm_id.as_bytes()).and_then(Weak::upgrade) {
            return store;
        }
        let store = Arc::default();
        stores.insert(vm_id.into(), Arc::downgrade(&store));
        store
    }

    pub(super) fn of_vm(&self, vm_id: &[u8]) -> Option<Arc<VmStore>> {
        lock(&self.inner.stores).get(vm_id).and_then(Weak::upgrade)
    }

    /// The store that has the queue of this token: this one, or that of another VM id.
    pub(super) fn having(&self, token: u32, own: &Arc<VmStore>) -> Option<Arc<VmStore>> {
        let has = |store: &Arc<VmStore>| lock(&store.queues).has(token);
        if has(own) {
            return Some(Arc::clone(own));
        }
        lock(&self.inner.stores).values().filter_map(Weak::upgrade).find(has)
    }

    /// Bytes of linear memory that instances of its plugins have.
    pub(crate) fn memory(&self) -> &Arc<AtomicUsize> {
        &self.inner.memory
    }

    /// Call-outs of its plugins, among those of all; the same where spaces have no part of what there is.
    pub(crate) fn callout_limits(&self, engine: &Engine) -> Arc<CalloutLimits> {
        let all = Arc::clone(engine.callout_limits());
        let begin = || if engine.linear_memory().is_divided() { CalloutLimits::of_space(all) } else { all };
        Arc::clone(self.inner.callout_limits.get_or_init(begin))
    }

    pub(super) fn next_token(&self) -> Result<u32, HostTrap> {
        let next = |last: u32| last.checked_add(1);
        let last = self.inner.last_token.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        last.map(|last| last + 1).map_err(|_| HostTrap::Budget("queues"))
    }
}

/// Whether both are the same space.
impl PartialEq for SharedSpace {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for SharedSpace {}

impl fmt::Debug for SharedSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSpace").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_of_a_vm_id_is_there_for_as_long_as_somebody_has_it() {
        let space = SharedSpace::new();
        let (first, second) = (space.join("v"), space.join("v"));
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &space.join("w")));
        assert!(!Arc::ptr_eq(&space.join(""), &space.join("")), "that of one plugin alone");
        drop((first, second));
        assert!(space.of_vm(b"v").is_none() && space.of_vm(b"").is_none());
        let _ = space.join("x");
        assert_eq!(lock(&space.inner.stores).len(), 1, "those that are gone take no room");
    }

    #[test]
    fn space_is_in_use_for_as_long_as_somebody_else_has_it() {
        let space = SharedSpace::new();
        let other = space.clone();
        assert!(space.is_in_use());
        drop(other);
        assert!(!space.is_in_use());
    }

    #[test]
    fn token_is_that_of_one_queue_in_a_space() {
        let space = SharedSpace::new();
        let tokens: Vec<_> = (0..3).map(|_| space.clone().next_token().unwrap()).collect();
        assert_eq!(tokens, [1, 2, 3]);
        assert_eq!(SharedSpace::new().next_token().unwrap(), 1);
        space.inner.last_token.store(u32::MAX, Ordering::Relaxed);
        assert!(space.next_token().is_err() && space.next_token().is_err());
    }
}
