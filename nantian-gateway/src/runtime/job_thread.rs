//! A thread for work that takes long.

use std::{fmt, io, sync::mpsc, thread};

/// Work for the thread.
type Work = Box<dyn FnOnce() + Send>;

/// Does work apart from reloads and requests, one piece after the other. The thread ends with the last
/// handle.
#[derive(Clone)]
pub(crate) struct JobThread {
    work: mpsc::Sender<Work>,
}

impl JobThread {
    /// Starts a thread of this name.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        let (work, inbox) = mpsc::channel::<Work>();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || inbox.into_iter().for_each(|work| work()))?;
        Ok(Self { work })
    }

    /// Does this when all that came before is done.
    pub(crate) fn run(&self, work: impl FnOnce() + Send + 'static) {
        // The thread lives as long as a handle does.
        drop(self.work.send(Box::new(work)));
    }
}

impl fmt::Debug for JobThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobThread").finish_non_exhaustive()
    }
}
