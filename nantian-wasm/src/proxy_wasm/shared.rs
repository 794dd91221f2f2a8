//! What all instances of a plugin share: key-value data, metrics and queues.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use wasmtime::Caller;

use super::abi::Status;
use super::memory::{Stop, Wanted, hand_over, put_u32, put_u64, read, scratch};
use super::queues::Queues;
use super::state::State;
use crate::observe::{Metric, MetricKind};
use crate::sandbox::HostTrap;

const MAX_KEYS: usize = 1_000;
const MAX_KEY_BYTES: usize = 4 << 10;
const MAX_VALUE_BYTES: usize = 256 << 10;
const MAX_DATA_BYTES: usize = 4 << 20;
const MAX_METRICS: usize = 1_000;
const MAX_METRIC_NAME: usize = 256;
/// Most definitions of one instance, repeated ones included.
const MAX_DEFINITIONS: usize = 16_000;
/// Distance of the ids of one kind of metric: as in Envoy.
const METRIC_STEP: usize = 4;

/// Shared state of one plugin. Its locks are held for a map access, never while a guest runs.
#[derive(Default)]
pub(crate) struct Shared {
    data: Mutex<Data>,
    metrics: Mutex<Vec<Metric>>,
    pub(super) queues: Mutex<Queues>,
}

#[derive(Default)]
struct Data {
    entries: HashMap<Vec<u8>, Entry>,
    bytes: usize,
    last_cas: u32,
}

struct Entry {
    value: Vec<u8>,
    cas: u32,
}

// === impl Shared ===

impl Shared {
    /// The metrics the guest defined, in the order of their definition.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        locked(&self.metrics).clone()
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Data ===

impl Data {
    /// Writes a value; a token of zero writes always, another only over the version it names.
    fn set(&mut self, key: Vec<u8>, value: Vec<u8>, cas: u32) -> Result<(), Stop> {
        let old = self.entries.get(&key);
        if old.is_some_and(|old| cas != 0 && cas != old.cas) {
            return Err(Status::CasMismatch.into());
        }
        let replaced = old.map_or(0, |old| key.len() + old.value.len());
        let bytes = self.bytes - replaced + key.len() + value.len();
        let too_large = key.len() > MAX_KEY_BYTES || value.len() > MAX_VALUE_BYTES || bytes > MAX_DATA_BYTES;
        if too_large || (old.is_none() && self.entries.len() >= MAX_KEYS) {
            return Err(HostTrap::Budget("shared data").into());
        }
        self.bytes = bytes;
        self.last_cas = self.last_cas.checked_add(1).unwrap_or(1);
        self.entries.insert(key, Entry { value, cas: self.last_cas });
        Ok(())
    }
}

pub(super) fn get_data(
    caller: &mut Caller<'_, State>,
    key: u32,
    key_length: u32,
    return_pointer: u32,
    return_length: u32,
    return_cas: u32,
) -> Result<Wanted, Stop> {
    let key = read(caller, key, key_length)?;
    let mut value = scratch(caller);
    let cas = {
        let data = locked(&caller.data().facts.shared.data);
        let entry = data.entries.get(&key).ok_or(Status::NotFound)?;
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
) -> Result<(), Stop> {
    let key = read(caller, key, key_length)?;
    let value = read(caller, value, value_length)?;
    locked(&caller.data().facts.shared.data).set(key, value, cas)
}

/// Each definition gets an id of its own, also of a metric that was there.
pub(super) fn define_metric(
    caller: &mut Caller<'_, State>,
    kind: u32,
    name: u32,
    name_length: u32,
    return_id: u32,
) -> Result<(), Stop> {
    let (code, kind) = match kind {
        0 => (0, MetricKind::Counter),
        1 => (1, MetricKind::Gauge),
        2 => (2, MetricKind::Histogram),
        _ => return Err(Status::BadArgument.into()),
    };
    let name = String::from_utf8_lossy(&read(caller, name, name_length)?).into_owned();
    let state = caller.data_mut();
    let index = {
        let mut metrics = locked(&state.facts.shared.metrics);
        match metrics.iter().position(|metric| metric.kind == kind && metric.name == name) {
            Some(index) => index,
            None if metrics.len() >= MAX_METRICS || name.len() > MAX_METRIC_NAME => {
                return Err(HostTrap::Budget("metrics").into());
            }
            None => {
                metrics.push(Metric { name, kind, value: 0, observations: 0 });
                metrics.len() - 1
            }
        }
    };
    let known: &mut Vec<usize> = state.metrics.get_mut(code).ok_or(Status::BadArgument)?;
    if known.len() >= MAX_DEFINITIONS {
        return Err(HostTrap::Budget("metrics").into());
    }
    known.push(index);
    let id = known.len() * METRIC_STEP + code;
    put_u32(caller, return_id, u32::try_from(id).unwrap_or(u32::MAX))
}

/// Sets a gauge, adds to a counter, observes a value in a histogram.
pub(super) fn record_metric(caller: &mut Caller<'_, State>, id: u32, value: u64) -> Result<(), Stop> {
    with_metric(caller, id, |metric| {
        metric.observations = metric.observations.wrapping_add(1);
        metric.value = match metric.kind {
            MetricKind::Gauge => value,
            MetricKind::Counter | MetricKind::Histogram => metric.value.wrapping_add(value),
        };
        Ok(())
    })
}

pub(super) fn increment_metric(caller: &mut Caller<'_, State>, id: u32, offset: i64) -> Result<(), Stop> {
    scalar(id)?;
    with_metric(caller, id, |metric| {
        if metric.kind == MetricKind::Counter && offset <= 0 {
            return Err(Status::BadArgument);
        }
        metric.observations = metric.observations.wrapping_add(1);
        metric.value = metric.value.wrapping_add_signed(offset);
        Ok(())
    })
}

pub(super) fn get_metric(caller: &mut Caller<'_, State>, id: u32, return_value: u32) -> Result<(), Stop> {
    scalar(id)?;
    let mut value = 0;
    with_metric(caller, id, |metric| {
        value = metric.value;
        Ok(())
    })?;
    put_u64(caller, return_value, value)
}

/// Refuses ids of metrics that have no one value.
fn scalar(id: u32) -> Result<(), Status> {
    if id % 4 < 2 { Ok(()) } else { Err(Status::BadArgument) }
}

fn with_metric(
    caller: &Caller<'_, State>,
    id: u32,
    change: impl FnOnce(&mut Metric) -> Result<(), Status>,
) -> Result<(), Stop> {
    let state = caller.data();
    let id = usize::try_from(id).unwrap_or(usize::MAX);
    let known = state.metrics.get(id % METRIC_STEP);
    let index = (id / METRIC_STEP).checked_sub(1).and_then(|place| known?.get(place).copied());
    let mut metrics = locked(&state.facts.shared.metrics);
    let metric = index.and_then(|index| metrics.get_mut(index)).ok_or(Status::NotFound)?;
    Ok(change(metric)?)
}
