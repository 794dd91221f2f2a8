//! How many retries there may be, so that they are no second load on a backend that is failing under the
//! first.

use std::{fmt, time::Duration};

use tower::retry::budget::{Budget as _, TpsBudget};

/// Retries are at most this share of the requests of the last [`WINDOW`], besides [`FLOOR`].
const SHARE: f32 = 0.2;
const WINDOW: Duration = Duration::from_secs(10);
/// Retries a second that are always allowed.
const FLOOR: u32 = 10;

/// The retries of a route to one of its backends; each worker has its own.
pub(crate) struct RetryBudget(Box<[TpsBudget]>);

// === impl RetryBudget ===

impl RetryBudget {
    /// For so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| TpsBudget::new(WINDOW, FLOOR, SHARE)).collect())
    }

    /// Counts a request of `worker`.
    pub(crate) fn deposit(&self, worker: usize) {
        if let Some(budget) = self.0.get(worker) {
            budget.deposit();
        }
    }

    /// Takes a retry of `worker`, if there may be one more.
    pub(crate) fn withdraw(&self, worker: usize) -> bool {
        self.0.get(worker).is_some_and(TpsBudget::withdraw)
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RetryBudget").field(&self.0.len()).finish()
    }
}
