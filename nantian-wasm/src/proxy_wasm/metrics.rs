//! Metrics that guests define and write.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use wasmtime::Caller;

use super::abi::Status;
use super::memory::{HostCallError, put_u32, put_u64, read_text};
use super::state::State;
use crate::observe::{Metric, MetricKind};
use crate::sync::lock;

const MAX_METRICS: usize = 1_000;
/// Longest name, in bytes; the rest is cut off.
const MAX_NAME: usize = 256;
/// Most definitions of one kind by one instance, repeated ones included.
const MAX_DEFINITIONS: usize = 16_000;
/// Distance of the ids of one kind of metric: as in Envoy.
const METRIC_STEP: usize = 4;

/// The metrics of one plugin and of those that follow it. Names may be made of what clients send: those for
/// which there is no room are all one metric of their kind, which nobody is shown.
pub(super) struct Metrics {
    named: Vec<Named>,
    others: [Metric; 3],
}

struct Named {
    metric: Metric,
    /// The lives of the plugins that have defined it.
    definers: Vec<Weak<()>>,
}

// === impl Metrics ===

impl Metrics {
    /// The metrics that have names, in the order of their definition.
    pub(super) fn named(&self) -> impl Iterator<Item = &Metric> {
        self.named.iter().map(|named| &named.metric)
    }

    /// The place of a metric; where there is no room for another one, that of one whose definers are gone.
    fn place(&mut self, kind: MetricKind, name: &str, definer: &Arc<()>) -> usize {
        let is_meant = |metric: &Metric| metric.kind == kind && metric.name == name;
        let mut places = self.named.iter_mut().enumerate();
        if let Some((place, named)) = places.find(|(_, named)| is_meant(&named.metric)) {
            named.note(definer);
            return place;
        }
        let metric = Metric::new(name, kind);
        let new = Named { metric, definers: vec![Arc::downgrade(definer)] };
        if self.named.len() < MAX_METRICS {
            self.named.push(new);
            return self.named.len() - 1;
        }
        let left = self.named.iter_mut().enumerate().find(|(_, named)| named.is_left());
        left.map_or(place_of_others(kind), |(place, left)| {
            *left = new;
            place
        })
    }

    fn at(&mut self, place: usize) -> Option<&mut Metric> {
        match place.checked_sub(MAX_METRICS) {
            Some(code) => self.others.get_mut(code),
            None => self.named.get_mut(place).map(|named| &mut named.metric),
        }
    }
}

// === impl Named ===

impl Named {
    fn note(&mut self, definer: &Arc<()>) {
        self.definers.retain(|known| known.strong_count() > 0);
        let definer = Arc::downgrade(definer);
        if !self.definers.iter().any(|known| known.ptr_eq(&definer)) {
            self.definers.push(definer);
        }
    }

    fn is_left(&self) -> bool {
        self.definers.iter().all(|definer| definer.strong_count() == 0)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let other = |kind| Metric::new("", kind);
        let others = [MetricKind::Counter, MetricKind::Gauge, MetricKind::Histogram].map(other);
        Self { named: Vec::new(), others }
    }
}

fn place_of_others(kind: MetricKind) -> usize {
    MAX_METRICS + code(kind)
}

fn code(kind: MetricKind) -> usize {
    match kind {
        MetricKind::Counter => 0,
        MetricKind::Gauge => 1,
        MetricKind::Histogram => 2,
    }
}

/// Each definition gets an id of its own, also of a metric that was there; beyond so many, one that was given
/// out.
pub(super) fn define_metric(
    caller: &mut Caller<'_, State>,
    kind: u32,
    name: u32,
    name_length: u32,
    return_id: u32,
) -> Result<(), HostCallError> {
    let kind = match kind {
        0 => MetricKind::Counter,
        1 => MetricKind::Gauge,
        2 => MetricKind::Histogram,
        _ => return Err(Status::BadArgument.into()),
    };
    let name = read_text(caller, name, name_length, MAX_NAME)?;
    let state = caller.data_mut();
    let place = lock(&state.plugin.shared.metrics).place(kind, &name, &state.plugin.life);
    let known: &mut Vec<usize> = state.metrics.get_mut(code(kind)).ok_or(Status::BadArgument)?;
    let (index, place) = defined(known, place, place_of_others(kind));
    if place == place_of_others(kind) {
        state.plugin.shared.counters.dropped_metrics.fetch_add(1, Ordering::Relaxed);
    }
    let id = (index + 1) * METRIC_STEP + code(kind);
    put_u32(caller, return_id, u32::try_from(id).unwrap_or(u32::MAX))
}

/// Notes that a metric is defined; what stands for its definition, and for which metric. The last one is that
/// of all others.
fn defined(known: &mut Vec<usize>, place: usize, others: usize) -> (usize, usize) {
    if known.len() < MAX_DEFINITIONS - 1 {
        known.push(place);
        return (known.len() - 1, place);
    }
    if let Some(index) = known.iter().position(|defined| *defined == place) {
        return (index, place);
    }
    known.resize(MAX_DEFINITIONS, others);
    (MAX_DEFINITIONS - 1, others)
}

/// Sets a gauge, adds to a counter, observes a value in a histogram.
pub(super) fn record_metric(
    caller: &mut Caller<'_, State>,
    id: u32,
    value: u64,
) -> Result<(), HostCallError> {
    with_metric(caller, id, |metric| {
        metric.observations = metric.observations.wrapping_add(1);
        metric.value = match metric.kind {
            MetricKind::Gauge => value,
            MetricKind::Counter | MetricKind::Histogram => metric.value.wrapping_add(value),
        };
        Ok(())
    })
}

pub(super) fn increment_metric(
    caller: &mut Caller<'_, State>,
    id: u32,
    offset: i64,
) -> Result<(), HostCallError> {
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

pub(super) fn get_metric(
    caller: &mut Caller<'_, State>,
    id: u32,
    return_value: u32,
) -> Result<(), HostCallError> {
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
) -> Result<(), HostCallError> {
    let state = caller.data();
    let id = usize::try_from(id).unwrap_or(usize::MAX);
    let known = state.metrics.get(id % METRIC_STEP);
    let place = (id / METRIC_STEP).checked_sub(1).and_then(|index| known?.get(index).copied());
    let mut metrics = lock(&state.plugin.shared.metrics);
    let metric = place.and_then(|place| metrics.at(place)).ok_or(Status::NotFound)?;
    Ok(change(metric)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_for_which_there_is_no_room_are_one_metric_of_their_kind() {
        let (mut metrics, plugin) = (Metrics::default(), Arc::default());
        for number in 0..MAX_METRICS {
            assert_eq!(metrics.place(MetricKind::Counter, &number.to_string(), &plugin), number);
        }
        let one = metrics.place(MetricKind::Counter, "one more", &plugin);
        let two = metrics.place(MetricKind::Counter, "and another", &plugin);
        let gauge = metrics.place(MetricKind::Gauge, "7", &plugin);
        assert_eq!((one, two), (place_of_others(MetricKind::Counter), one));
        assert_ne!(gauge, one);
        assert_eq!(metrics.place(MetricKind::Counter, "7", &plugin), 7, "it was there");
        assert_eq!(
            (metrics.at(one).unwrap().kind, metrics.at(gauge).unwrap().kind),
            (MetricKind::Counter, MetricKind::Gauge)
        );
        assert_eq!(metrics.named().count(), MAX_METRICS);
    }

    #[test]
    fn metric_that_is_defined_again_and_again_stays_what_it_is() {
        let mut known = Vec::new();
        for index in 0..MAX_DEFINITIONS - 1 {
            assert_eq!(defined(&mut known, 3, 1_000), (index, 3));
        }
        assert_eq!(defined(&mut known, 3, 1_000), (0, 3));
        assert_eq!(defined(&mut known, 4, 1_000), (MAX_DEFINITIONS - 1, 1_000));
        assert_eq!((known.len(), known[MAX_DEFINITIONS - 1]), (MAX_DEFINITIONS, 1_000));
    }
}
