//! Locks, and numbers with a limit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`; what it guards here stays consistent even if a holder panicked.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds to a number that may not grow beyond this; false if it would.
pub(crate) fn take(number: &AtomicUsize, more: usize, most: usize) -> bool {
    let sum = |present: usize| present.checked_add(more).filter(|sum| *sum <= most);
    number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok()
}
