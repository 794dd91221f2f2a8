//! Locks.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`; what it guards here stays consistent even if a holder panicked.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
