//! What plugins share: key-value data, and with versions of themselves metrics, counters and places for
//! call-outs.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use wasmtime::Caller;

use super::abi::Status;
use super::memory::{AllocationSize, HostCallError, hand_over, put_u32, read, scratch};
use super::metrics::Metrics;
use super::state::State;
use crate::callout_limits::CalloutLimits;
use crate::observe::{Counters, Metric};
use crate::sync::lock;
use crate::tally::Tallies;

const MAX_KEYS: usize = 1_000;
/// Longest key and value together, in bytes.
const MAX_ENTRY_BYTES: usize = 260 << 10;
const MAX_DATA_BYTES: usize = 4 << 20;

/// What one plugin has in common with those that take its place. Its locks are held for an access each, never
/// while a guest runs.
pub(crate) struct SharedStore {
    pub(crate) counters: Counters,
    pub(crate) tallies: Tallies,
    pub(super) metrics: Mutex<Metrics>,
    pub(super) callout_limits: Arc<CalloutLimits>,
}

/// Values by key. Keys may be made of what clients send, and guests cannot delete one: those that were
/// written longest ago make room for others.
#[derive(Default)]
pub(crate) struct Data {
    entries: HashMap<Arc<[u8]>, Entry>,
    /// All keys in the order in which they were written last.
    order: BTreeMap<u64, Arc<[u8]>>,
    /// Of all keys and values.
    bytes: usize,
    last_cas: u32,
    writes: u64,
}

struct Entry {
    value: Vec<u8>,
    cas: u32,
    written: u64,
}

// === impl SharedStore ===

impl SharedStore {
    /// That of a plugin which begins, whose call-outs are among these of its space.
    pub(crate) fn new(of_space: Arc<CalloutLimits>) -> Self {
        Self {
            counters: Counters::default(),
            tallies: Tallies::default(),
            metrics: Mutex::default(),
            callout_limits: CalloutLimits::of_plugin(of_space),
        }
    }

    /// The metrics the guest defined, in the order of their definition.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        lock(&self.metrics).named().cloned().collect()
    }
}

// === impl Data ===

impl Data {
    /// Writes a value; a token of zero writes always, another only over the version it names. How many values
    /// that cost, this one included where it is too large.
    fn set(&mut self, key: Vec<u8>, value: Vec<u8>, cas: u32) -> Result<u64, Status> {
        if self.entries.get(key.as_slice()).is_some_and(|old| cas != 0 && cas != old.cas) {
            return Err(Status::CasMismatch);
        }
        self.remove(&key);
        let bytes = key.len().saturating_add(value.len());
        if bytes > MAX_ENTRY_BYTES {
            return Ok(1);
        }
        let mut lost = 0;
        while self.entries.len() >= MAX_KEYS || self.bytes.saturating_add(bytes) > MAX_DATA_BYTES {
            let Some(oldest) = self.order.first_key_value().map(|(_, key)| Arc::clone(key)) else { break };
            self.remove(&oldest);
            lost += 1;
        }
        self.bytes += bytes;
        self.writes += 1;
        self.last_cas = self.last_cas.checked_add(1).unwrap_or(1);
        let key: Arc<[u8]> = key.into();
        self.order.insert(self.writes, Arc::clone(&key));
        self.entries.insert(key, Entry { value, cas: self.last_cas, written: self.writes });
        Ok(lost)
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(old) = self.entries.remove(key) {
            self.order.remove(&old.written);
            self.bytes -= key.len() + old.value.len();
        }
    }
}

pub(super) fn get_data(
    caller: &mut Caller<'_, State>,
    key: u32,
    key_length: u32,
    return_pointer: u32,
    return_length: u32,
    return_cas: u32,
) -> Result<AllocationSize, HostCallError> {
    let key = read(caller, key, key_length)?;
    let mut value = scratch(caller);
    let cas = {
        let data = lock(&caller.data().plugin.vm.data);
        let entry = data.entries.get(key.as_slice()).ok_or(Status::NotFound)?;
        value.extend_from_slice(&entry.value);
        entry.cas
    };
    put_u32(caller, return_cas, cas)?;
    hand_over(caller, value, return_pointer, return_length)
}

pub(super) fn set_data(
    caller: &mut Caller<'_, State>,
    key: u32,
    key_length: u32,
    value: u32,
    value_length: u32,
    cas: u32,
) -> Result<(), HostCallError> {
    let key = read(caller, key, key_length)?;
    let value = read(caller, value, value_length)?;
    let plugin = &caller.data().plugin;
    let lost = lock(&plugin.vm.data).set(key, value, cas)?;
    plugin.shared.counters.dropped_shared_data.fetch_add(lost, Ordering::Relaxed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(data: &Data) -> Vec<&[u8]> {
        data.order.values().map(|key| &**key).collect()
    }

    #[test]
    fn value_that_was_written_longest_ago_makes_room() {
        let mut data = Data::default();
        for number in 0..MAX_KEYS {
            assert_eq!(data.set(number.to_be_bytes().into(), vec![1], 0), Ok(0));
        }
        assert_eq!(data.set(0_usize.to_be_bytes().into(), vec![2], 0), Ok(0), "it was there");
        assert_eq!(data.set(b"new".into(), vec![3], 0), Ok(1));
        let second = 1_usize.to_be_bytes();
        assert!(!data.entries.contains_key(&second[..]), "the oldest by now");
        assert_eq!(keys(&data).last(), Some(&&b"new"[..]));
        assert_eq!(data.set(second.into(), vec![4], 7), Ok(1), "a key that is gone is a new one");
    }

    #[test]
    fn value_that_is_too_large_is_left_out_and_replaces_none() {
        let mut data = Data::default();
        assert_eq!(data.set(b"a".into(), vec![0; 1_000], 0), Ok(0));
        assert_eq!(data.set(b"a".into(), vec![0; MAX_ENTRY_BYTES], 0), Ok(1));
        assert_eq!((data.entries.len(), data.bytes), (0, 0), "an older value does not stand for it");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn data_stays_within_its_bounds_whatever_is_written(
            writes in prop::collection::vec((0..40_u8, 0..300_000_usize, any::<bool>()), 0..80),
        ) {
            let mut data = Data::default();
            for (key, length, is_stale) in writes {
                let _ = data.set(vec![key; 9], vec![0; length], u32::from(is_stale) * u32::MAX);
                let bytes: usize = data.entries.iter().map(|(key, entry)| key.len() + entry.value.len()).sum();
                prop_assert_eq!(data.bytes, bytes);
                prop_assert!(bytes <= MAX_DATA_BYTES && data.entries.len() <= MAX_KEYS);
                prop_assert_eq!(data.order.len(), data.entries.len());
                prop_assert!(data.order.iter().all(|(written, key)| data.entries[key].written == *written));
            }
        }
    }
}
