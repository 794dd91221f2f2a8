//! The stream contexts of an instance.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::lock::OwnedMutexGuard;

use super::state::SharedPlugin;
use crate::stream::{Exchange, SharedExchange};

/// How long an exchange is waited for that another thread has.
const PATIENCE: Duration = Duration::from_millis(2);
/// How often it is looked for at least: while this thread or the other one has no core, time goes on.
const TURNS: usize = 20;

/// Stream contexts by their ids. Ids are given in ascending order, so a new one comes last; short streams
/// leave from there, and long ones often from the front: a map costs each of them several times as much.
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
    /// A thread that only looks whether it can go on has it for a moment, in which what the guest wants must
    /// not get lost. Nobody waits for long: two threads may want each other's, and whoever waits here holds
    /// up all that its thread does.
    pub(super) fn borrow(&self, plugin: &SharedPlugin) -> Option<OwnedMutexGuard<Exchange>> {
        let mut exchange = self.exchange.try_lock_owned().or_else(|| self.wait(plugin))?;
        exchange.begin(self.plugin_index, plugin.fails_open);
        Some(exchange)
    }

    fn wait(&self, plugin: &SharedPlugin) -> Option<OwnedMutexGuard<Exchange>> {
        look_for(
            || plugin.clock.monotonic(),
            || {
                std::thread::yield_now();
                self.exchange.try_lock_owned()
            },
        )
    }
}

fn look_for<T>(now: impl Fn() -> Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let until = now() + PATIENCE;
    let mut turns = 0;
    while turns < TURNS || now() < until {
        turns += 1;
        if let Some(found) = look() {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Whether it is found that is there at the look `last`, and after how many looks, of which each costs
    /// the rest of a quota.
    fn found_at(last: usize) -> (bool, usize) {
        let (time, mut looks) = (Cell::new(Duration::ZERO), 0);
        let now = || time.replace(time.get() + Duration::from_millis(90));
        let found = look_for(now, || {
            looks += 1;
            (looks == last).then_some(())
        });
        (found.is_some(), looks)
    }

    #[test]
    fn exchange_is_looked_for_some_times_though_time_runs_away() {
        assert_eq!(found_at(10), (true, 10));
        assert_eq!(found_at(usize::MAX), (false, TURNS));
    }
}
