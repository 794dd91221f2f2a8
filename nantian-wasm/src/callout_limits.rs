//! Call-outs of one plugin that are under way, and what of them is in memory.

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

/// The call-outs of all instances of a plugin, those of its predecessors among them.
#[derive(Debug, Default)]
pub(crate) struct CalloutLimits {
    calls: AtomicUsize,
    bytes: AtomicUsize,
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
    /// A place for a call-out whose head takes so many bytes; none if there is no room for it.
    pub(crate) fn begin(self: &Arc<Self>, head: usize) -> Option<CalloutPermit> {
        if !take(&self.calls, 1, MAX_CALLS) {
            return None;
        }
        let mut permit =
            CalloutPermit { callout_limits: Arc::clone(self), head: 0, read: AtomicUsize::new(0) };
        if !take(&self.bytes, head, MAX_BYTES) {
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
        let has_room = take(&self.bytes, bytes.len(), MAX_BYTES);
        has_room.then(|| Bytes::from_owner(Counted { bytes, callout_limits: Arc::clone(self) }))
    }
}

// === impl CalloutPermit ===

impl CalloutPermit {
    /// Notes how many bytes of its response the call holds now; false if there is no room for them.
    pub(crate) fn holds(&self, bytes: usize) -> bool {
        let before = self.read.load(Ordering::Relaxed);
        if bytes > before && !take(&self.callout_limits.bytes, bytes - before, MAX_BYTES) {
            return false;
        }
        if bytes < before {
            self.callout_limits.bytes.fetch_sub(before - bytes, Ordering::Relaxed);
        }
        self.read.store(bytes, Ordering::Relaxed);
        true
    }
}

impl Drop for CalloutPermit {
    fn drop(&mut self) {
        let held = self.head + *self.read.get_mut();
        self.callout_limits.bytes.fetch_sub(held, Ordering::Relaxed);
        self.callout_limits.calls.fetch_sub(1, Ordering::Relaxed);
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
        self.callout_limits.bytes.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn place_is_had_by_so_many_calls_and_is_free_again_after_each() {
        let callout_limits = Arc::<CalloutLimits>::default();
        let mut permits: Vec<_> = (0..MAX_CALLS).map(|_| callout_limits.begin(100).unwrap()).collect();
        assert!(callout_limits.begin(0).is_none());
        permits.pop();
        assert!(callout_limits.begin(MAX_BYTES).is_none(), "there is no room for its head");
        assert!(callout_limits.begin(100).is_some(), "and that has cost no place");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn bytes_are_counted_while_they_are_there(
            steps in prop::collection::vec((0..4_u8, 0..30_usize << 20), 0..60),
        ) {
            let callout_limits = Arc::<CalloutLimits>::default();
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
                prop_assert_eq!(callout_limits.bytes.load(Ordering::Relaxed), present);
                prop_assert!(present <= MAX_BYTES);
                prop_assert_eq!(callout_limits.calls.load(Ordering::Relaxed), permits.len());
            }
        }
    }
}
