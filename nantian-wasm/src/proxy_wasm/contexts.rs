//! The stream contexts of an instance.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::lock::OwnedMutexGuard;

use super::state::Facts;
use crate::stream::{Exchange, SharedExchange};

/// How long an exchange is waited for that another thread has.
const PATIENCE: Duration = Duration::from_millis(2);

/// Stream contexts by their ids. Ids are given in ascending order, so a new one comes last; short streams leave from there, and
/// long ones often from the front: a map costs each of them several times as much.
#[derive(Default)]
pub(crate) struct Contexts(VecDeque<(u32, Registered)>);

/// A stream context.
pub(crate) struct Registered {
    pub(crate) exchange: SharedExchange,
    pub(crate) plugin_index: usize,
}

// === impl Contexts ===

impl Contexts {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Registered> {
        self.0.get(self.place(id).ok()?).map(|(_, registered)| registered)
    }

    pub(crate) fn contains(&self, id: u32) -> bool {
        self.place(id).is_ok()
    }

    /// Adds a context, in the place of one that has the same id.
    pub(crate) fn insert(&mut self, id: u32, registered: Registered) {
        self.remove(id);
        if let Err(place) = self.place(id) {
            self.0.insert(place, (id, registered));
        }
    }

    pub(crate) fn remove(&mut self, id: u32) {
        if let Ok(place) = self.place(id) {
            self.0.remove(place);
        }
    }

    /// Where a context is, or would be.
    fn place(&self, id: u32) -> Result<usize, usize> {
        self.0.binary_search_by_key(&id, |(id, _)| *id)
    }
}

// === impl Registered ===

impl Registered {
    /// The exchange, unless another thread works on it for long.
    ///
    /// A thread that only looks whether it can go on has it for a moment, in which what the guest wants must not get lost.
    /// Nobody waits for long: two threads may want each other's, and whoever waits here holds up all that its thread does.
    pub(super) fn borrow(&self, facts: &Facts) -> Option<OwnedMutexGuard<Exchange>> {
        let mut exchange = self.exchange.try_lock_owned().or_else(|| self.wait(facts))?;
        exchange.begin(self.plugin_index, facts.fails_open);
        Some(exchange)
    }

    fn wait(&self, facts: &Facts) -> Option<OwnedMutexGuard<Exchange>> {
        let until = facts.clock.monotonic() + PATIENCE;
        while facts.clock.monotonic() < until {
            std::thread::yield_now();
            if let Some(exchange) = self.exchange.try_lock_owned() {
                return Some(exchange);
            }
        }
        None
    }
}
