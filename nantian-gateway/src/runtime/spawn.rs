//! Tasks of a worker.

use std::future::Future;

use tokio::task::{AbortHandle, JoinError, JoinHandle};

/// Starts `future` on the worker that calls; the handle can end it.
pub(crate) fn spawn_local<F>(future: F) -> AbortHandle
where
    F: Future<Output = ()> + 'static,
{
    tokio::task::spawn_local(future).abort_handle()
}

/// Starts `future` on the control runtime.
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    tokio::spawn(future)
}

/// Runs `work` on a thread that may block.
///
/// # Errors
/// When `work` panics.
pub(crate) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, JoinError> {
    tokio::task::spawn_blocking(work).await
}
