//! The stream contexts of an instance.

use std::collections::VecDeque;

use futures_util::lock::OwnedMutexGuard;

use crate::stream::{Exchange, SharedExchange};

/// How often an exchange is asked for that another thread has: some milliseconds' worth.
const ATTEMPTS: usize = 10_000;

/// Stream contexts by their ids. Ids are given in ascending order, so a new one comes last; short streams leave from there, and
/// long ones often from the front: a map costs each of them several times as much.
#[derive(Default)]
pub(crate) struct Contexts(VecDeque<(u32, Registered)>);

/// A stream context.
pub(crate) struct Registered {
    pub(crate) exchange: SharedExchange,
    pub(crate) seat: usize,
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
    /// Nobody waits for ever: two threads may want each other's.
    pub(super) fn borrow(&self) -> Option<OwnedMutexGuard<Exchange>> {
        let mut exchange = (0..ATTEMPTS).find_map(|_| {
            let exchange = self.exchange.try_lock_owned();
            if exchange.is_none() {
                std::thread::yield_now();
            }
            exchange
        })?;
        exchange.begin(self.seat, false);
        Some(exchange)
    }
}
