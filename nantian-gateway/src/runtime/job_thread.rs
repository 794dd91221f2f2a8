//! A thread for work that takes long.

use std::{fmt, future::Future, io, thread};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
    task::AbortHandle,
};

/// Does work apart from reloads and requests: tasks that give way to one another, and on a second thread what
/// they have to block for ([`blocking`](super::blocking)), one piece after the other. Both threads end with
/// this handle, and so do the tasks.
pub(crate) struct JobThread {
    tasks: Handle,
    _stop: oneshot::Sender<()>,
}

impl JobThread {
    /// Starts a thread of the first name; the second is that of the one that may block.
    ///
    /// # Errors
    /// When there is no thread or no runtime to be had.
    pub(crate) fn start(name: &str, blocking: &str) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let mut runtime = Builder::new_current_thread();
        // What waited for the second thread has the next turn, however many wait for theirs here.
        let runtime =
            runtime.global_queue_interval(1).max_blocking_threads(1).thread_name(blocking).build()?;
        let tasks = runtime.handle().clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Self { tasks, _stop: stop })
    }

    /// Begins a task; the handle can end it.
    pub(crate) fn run(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.tasks.spawn(task).abort_handle()
    }
}

impl fmt::Debug for JobThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobThread").finish_non_exhaustive()
    }
}
