//! Call-outs that are under way, and what of them is in memory: those of one plugin, of a space, and of all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::sync::take;

/// Most call-outs of a plugin at a time: as many requests as Envoy lets wait for a cluster by default.
const MAX_CALLS: usize = 1_024;

/// Bytes of their requests that are still to be sent, and of their responses that have been read.
const MAX_BYTES: usize = 64 << 20;

/// Longest body of one that ever finds room, with a head of a mebibyte.
pub(crate) const MAX_BODY: usize = MAX_BYTES - (1 << 20);

/// How many times as much the plugins of an engine have together: whoever writes many must not decide how
/// many sockets and how much memory that takes.
const PLUGINS: usize = 4;

/// How many times as much those of a space have, so that no tenant takes all of it.
const PLUGINS_OF_SPACE: usize = 2;

/// The call-outs of all instances of a plugin, those of its predecessors among them, of a space, or of all
/// plugins.
#[derive(Debug)]
pub(crate) struct CalloutLimits {
    calls: Bounded,
    bytes: Bounded,
    /// Those that these are among.
    outer: Option<Arc<Self>>,
}

#[derive(Debug)]
struct Bounded {
    present: AtomicUsize,
    most: usize,
}

/// The place of one call-out; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct CalloutPermit {
    callout_limits: Arc<CalloutLimits>,
    /// Bytes of its head.
    head: usize,
    /// Bytes of its response that are held.
    read: AtomicUsize,
}

/// Bytes that a call-out is to send, counted as long as anybody has them.
struct Counted {
    bytes: Vec<u8>,
    callout_limits: Arc<CalloutLimits>,
}

// === impl CalloutLimits ===

impl CalloutLimits {
    /// Those of all plugins together.
    pub(crate) fn of_engine() -> Arc<Self> {
        Arc::new(Self::of(PLUGINS, None))
    }

    /// Those of the plugins of a space, among these of all.
    pub(crate) fn of_space(engine: Arc<Self>) -> Arc<Self> {
        Arc::new(Self::of(PLUGINS_OF_SPACE, Some(engine)))
    }

    /// Those of one plugin, among these of its space.
    pub(crate) fn of_plugin(space: Arc<Self>) -> Arc<Self> {
        Arc::new(Self::of(1, Some(space)))
    }

    fn of(times: usize, outer: Option<Arc<Self>>) -> Self {
        let bounded = |most: usize| Bounded { present: AtomicUsize::new(0), most: most * times };
        Self { calls: bounded(MAX_CALLS), bytes: bounded(MAX_BYTES), outer }
    }

    /// A place for a call-out whose head takes so many bytes; none if there is no room for it.
    pub(crate) fn begin(self: &Arc<Self>, head: usize) -> Option<CalloutPermit> {
        if !self.take(1, |limits| &limits.calls) {
            return None;
        }
        let mut permit =
            CalloutPermit { callout_limits: Arc::clone(self), head: 0, read: AtomicUsize::new(0) };
        if !self.take_bytes(head) {
            return None;
        }
        permit.head = head;
        Some(permit)
    }

    /// Bytes to be sent; none if there is no room for them.
    pub(crate) fn count(self: &Arc<Self>, bytes: Vec<u8>) -> Option<Bytes> {
        if bytes.is_empty() {
            return Some(Bytes::new());
        }
        let has_room = self.take_bytes(bytes.len());
        has_room.then(|| Bytes::from_owner(Counted { bytes, callout_limits: Arc::clone(self) }))
    }

    fn take_bytes(&self, bytes: usize) -> bool {
        self.take(bytes, |limits| &limits.bytes)
    }

    fn give_bytes(&self, bytes: usize) {
        self.give(bytes, |limits| &limits.bytes);
    }

    /// Takes so much of these and of those that they are among; nothing, and false, if either is not there.
    fn take(&self, more: usize, of: fn(&Self) -> &Bounded) -> bool {
        let Bounded { present, most } = of(self);
        if !take(present, more, *most) {
            return false;
        }
        let has_room = self.outer.as_ref().is_none_or(|outer| outer.take(more, of));
        if !has_room {
            present.fetch_sub(more, Ordering::Relaxed);
        }
        has_room
    }

    fn give(&self, less: usize, of: fn(&Self) -> &Bounded) {
        of(self).present.fetch_sub(less, Ordering::Relaxed);
        if let Some(outer) = &self.outer {
            outer.give(less, of);
        }
    }
}

// === impl CalloutPermit ===

impl CalloutPermit {
    /// Notes how many bytes of its response the call holds now; false if there is no room for them.
    pub(crate) fn holds(&self, bytes: usize) -> bool {
        let before = self.read.load(Ordering::Relaxed);
        if bytes > before && !self.callout_limits.take_bytes(bytes - before) {
            return false;
        }
        if bytes < before {
            self.callout_limits.give_bytes(before - bytes);
        }
        self.read.store(bytes, Ordering::Relaxed);
        true
    }
}

impl Drop for CalloutPermit {
    fn drop(&mut self) {
        let held = self.head + *self.read.get_mut();
        self.callout_limits.give_bytes(held);
        self.callout_limits.give(1, |limits| &limits.calls);
    }
}

// === impl Counted ===

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.callout_limits.give_bytes(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of_one_plugin() -> Arc<CalloutLimits> {
        of_plugin_alone(&CalloutLimits::of_engine())
    }

    /// One in a space of its own.
    fn of_plugin_alone(engine: &Arc<CalloutLimits>) -> Arc<CalloutLimits> {
        CalloutLimits::of_plugin(CalloutLimits::of_space(Arc::clone(engine)))
    }

    #[test]
    fn place_is_had_by_so_many_calls_and_is_free_again_after_each() {
        let callout_limits = of_one_plugin();
        let mut permits: Vec<_> = (0..MAX_CALLS).map(|_| callout_limits.begin(100).unwrap()).collect();
        assert!(callout_limits.begin(0).is_none());
        permits.pop();
        assert!(callout_limits.begin(MAX_BYTES).is_none(), "there is no room for its head");
        assert!(callout_limits.begin(100).is_some(), "and that has cost no place");
    }

    #[test]
    fn plugins_have_four_times_as_much_together_and_what_finds_no_room_costs_none() {
        let engine = CalloutLimits::of_engine();
        let plugins: Vec<_> = (0..5).map(|_| of_plugin_alone(&engine)).collect();
        let mut bodies: Vec<_> = plugins.iter().map(|plugin| plugin.count(vec![0; MAX_BYTES])).collect();
        assert_eq!(bodies.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, true, true, false]);
        assert!(plugins[4].begin(1).is_none(), "there is no room for its head");
        bodies.remove(0);
        let permits: Vec<_> = (0..MAX_CALLS).map_while(|_| plugins[4].begin(1)).collect();
        assert_eq!(permits.len(), MAX_CALLS);
        assert!(permits[0].holds(MAX_BYTES - MAX_CALLS) && !permits[1].holds(1));
        drop((bodies, permits));
        let left = [&engine].into_iter().chain(&plugins).map(|limits| {
            (limits.calls.present.load(Ordering::Relaxed), limits.bytes.present.load(Ordering::Relaxed))
        });
        assert_eq!(left.collect::<Vec<_>>(), [(0, 0); 6]);
    }

    #[test]
    fn plugins_of_a_space_have_twice_as_much_together_and_leave_as_much_to_those_of_others() {
        let engine = CalloutLimits::of_engine();
        let space = CalloutLimits::of_space(Arc::clone(&engine));
        let plugins: Vec<_> = (0..3).map(|_| CalloutLimits::of_plugin(Arc::clone(&space))).collect();
        let bodies: Vec<_> = plugins.iter().map(|plugin| plugin.count(vec![0; MAX_BYTES])).collect();
        assert_eq!(bodies.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false]);
        let other = of_plugin_alone(&engine);
        assert!(other.count(vec![0; MAX_BYTES]).is_some());
        drop(bodies);
        assert!(plugins[2].count(vec![0; MAX_BYTES]).is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn bytes_are_counted_while_they_are_there(
            steps in prop::collection::vec((0..4_u8, 0..30_usize << 20), 0..60),
        ) {
            let callout_limits = of_one_plugin();
            let (mut bodies, mut permits) = (Vec::new(), Vec::new());
            for (step, bytes) in steps {
                let held = |permits: &[(CalloutPermit, usize, usize)]| {
                    permits.iter().map(|(_, head, read)| head + read).sum::<usize>()
                };
                let present = bodies.iter().map(Bytes::len).sum::<usize>() + held(&permits);
                match step {
                    0 => bodies.extend(callout_limits.count(vec![0; bytes / 1024]).map(|body| body.slice(..))),
                    1 => permits.extend(callout_limits.begin(bytes).map(|permit| (permit, bytes, 0))),
                    2 => if let Some((permit, _, read)) = permits.last_mut() {
                        let fits = present - *read + bytes <= MAX_BYTES;
                        prop_assert_eq!(permit.holds(bytes), fits);
                        *read = if fits { bytes } else { *read };
                    },
                    _ => drop((bodies.pop(), permits.pop())),
                }
                let present = bodies.iter().map(Bytes::len).sum::<usize>() + held(&permits);
                prop_assert_eq!(callout_limits.bytes.present.load(Ordering::Relaxed), present);
                prop_assert!(present <= MAX_BYTES);
                prop_assert_eq!(callout_limits.calls.present.load(Ordering::Relaxed), permits.len());
            }
        }
    }
}
