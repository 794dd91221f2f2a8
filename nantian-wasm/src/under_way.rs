//! Call-outs of one plugin that are under way, and what of them is in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// Most call-outs of a plugin at a time: as many requests as Envoy lets wait for a cluster by default.
const MAX_CALLS: usize = 1_024;

/// Bytes of their requests that are still to be sent, and of their responses that have been read.
const MAX_BYTES: usize = 64 << 20;

/// Longest body of one that ever finds room, with a head of a mebibyte.
pub(crate) const MAX_BODY: usize = MAX_BYTES - (1 << 20);

/// The call-outs of all instances of a plugin, those of its predecessors among them.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    calls: AtomicUsize,
    bytes: AtomicUsize,
}

/// The place of one call-out; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    under_way: Arc<UnderWay>,
    /// Bytes of its head.
    head: usize,
    /// Bytes of its response that are held.
    read: AtomicUsize,
}

/// Bytes that a call-out is to send, counted as long as anybody has them.
struct Counted {
    bytes: Vec<u8>,
    under_way: Arc<UnderWay>,
}

// === impl UnderWay ===

impl UnderWay {
    /// A place for a call-out whose head takes so many bytes; none if there is no room for it.
    pub(crate) fn begin(self: &Arc<Self>, head: usize) -> Option<Place> {
        if !take(&self.calls, 1, MAX_CALLS) {
            return None;
        }
        let mut place = Place { under_way: Arc::clone(self), head: 0, read: AtomicUsize::new(0) };
        if !take(&self.bytes, head, MAX_BYTES) {
            return None;
        }
        place.head = head;
        Some(place)
    }

    /// Bytes to be sent; none if there is no room for them.
    pub(crate) fn count(self: &Arc<Self>, bytes: Vec<u8>) -> Option<Bytes> {
        if bytes.is_empty() {
            return Some(Bytes::new());
        }
        let has_room = take(&self.bytes, bytes.len(), MAX_BYTES);
        has_room.then(|| Bytes::from_owner(Counted { bytes, under_way: Arc::clone(self) }))
    }
}

/// Adds to a number that may not grow beyond this; false if it would.
fn take(number: &AtomicUsize, more: usize, most: usize) -> bool {
    let sum = |present: usize| present.checked_add(more).filter(|sum| *sum <= most);
    number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok()
}

// === impl Place ===

impl Place {
    /// Notes how many bytes of its response the call holds now; false if there is no room for them.
    pub(crate) fn holds(&self, bytes: usize) -> bool {
        let before = self.read.load(Ordering::Relaxed);
        if bytes > before && !take(&self.under_way.bytes, bytes - before, MAX_BYTES) {
            return false;
        }
        if bytes < before {
            self.under_way.bytes.fetch_sub(before - bytes, Ordering::Relaxed);
        }
        self.read.store(bytes, Ordering::Relaxed);
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let held = self.head + *self.read.get_mut();
        self.under_way.bytes.fetch_sub(held, Ordering::Relaxed);
        self.under_way.calls.fetch_sub(1, Ordering::Relaxed);
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
        self.under_way.bytes.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn place_is_had_by_so_many_calls_and_is_free_again_after_each() {
        let under_way = Arc::<UnderWay>::default();
        let mut places: Vec<_> = (0..MAX_CALLS).map(|_| under_way.begin(100).unwrap()).collect();
        assert!(under_way.begin(0).is_none());
        places.pop();
        assert!(under_way.begin(MAX_BYTES).is_none(), "there is no room for its head");
        assert!(under_way.begin(100).is_some(), "and that has cost no place");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn bytes_are_counted_while_they_are_there(
            steps in prop::collection::vec((0..4_u8, 0..30_usize << 20), 0..60),
        ) {
            let under_way = Arc::<UnderWay>::default();
            let (mut bodies, mut places) = (Vec::new(), Vec::new());
            for (step, bytes) in steps {
                let held = |places: &[(Place, usize, usize)]| {
                    places.iter().map(|(_, head, read)| head + read).sum::<usize>()
                };
                let present = bodies.iter().map(Bytes::len).sum::<usize>() + held(&places);
                match step {
                    0 => bodies.extend(under_way.count(vec![0; bytes / 1024]).map(|body| body.slice(..))),
                    1 => places.extend(under_way.begin(bytes).map(|place| (place, bytes, 0))),
                    2 => if let Some((place, _, read)) = places.last_mut() {
                        let fits = present - *read + bytes <= MAX_BYTES;
                        prop_assert_eq!(place.holds(bytes), fits);
                        *read = if fits { bytes } else { *read };
                    },
                    _ => drop((bodies.pop(), places.pop())),
                }
                let present = bodies.iter().map(Bytes::len).sum::<usize>() + held(&places);
                prop_assert_eq!(under_way.bytes.load(Ordering::Relaxed), present);
                prop_assert!(present <= MAX_BYTES);
                prop_assert_eq!(under_way.calls.load(Ordering::Relaxed), places.len());
            }
        }
    }
}
