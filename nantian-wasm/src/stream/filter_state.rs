//! What the guests of a request leave for one another.

use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// Most bytes of properties that are kept of a request.
const MAX_KEPT: usize = 64 << 10;

/// What a property takes besides its path and value, in bytes: its place among the others.
const PROPERTY: usize = 64;

/// The properties that guests have set of one request (`proxy_set_property`); its clones are one.
///
/// A stream has its own, unless [`StreamInfo::filter_state`](crate::StreamInfo::filter_state) says which: for
/// a request that passes several layers or streams, whose plugins are to find what the others have set, as
/// the filters of a chain do in Envoy.
#[derive(Debug, Clone, Default)]
pub struct FilterState(Arc<Mutex<Vec<Property>>>);

/// A path and its value.
type Property = (Vec<u8>, Vec<u8>);

// === impl FilterState ===

impl FilterState {
    /// Keeps a value under its raw path. False if there is no room for it: a guest may come back to a stream
    /// in any number of callbacks, each with a budget of its own.
    pub(crate) fn set(&self, path: Vec<u8>, value: Vec<u8>) -> bool {
        let mut properties = lock(&self.0);
        let others = properties.iter().filter(|(known, _)| *known != path);
        let kept = others.map(|(path, value)| Self::weight(path, value)).sum::<usize>();
        if kept.saturating_add(Self::weight(&path, &value)) > MAX_KEPT {
            return false;
        }
        match properties.iter_mut().find(|(known, _)| *known == path) {
            Some((_, old)) => *old = value,
            None => properties.push((path, value)),
        }
        true
    }

    /// Puts what was set last under this path into `out`; false if nothing was.
    pub(crate) fn get(&self, path: &[u8], out: &mut Vec<u8>) -> bool {
        let properties = lock(&self.0);
        let known = properties.iter().find(|(known, _)| known == path);
        known.map(|(_, value)| out.extend_from_slice(value)).is_some()
    }

    /// What a property costs, in bytes.
    pub(crate) fn weight(path: &[u8], value: &[u8]) -> usize {
        path.len().saturating_add(value.len()).saturating_add(PROPERTY)
    }
}

impl PartialEq for FilterState {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for FilterState {}
