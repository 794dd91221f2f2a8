//! A thread for one task that must not wait for others.

use std::{future::Future, io, thread};

use tokio::{runtime::Builder, sync::oneshot};

/// A thread that does nothing but one task, and ends with it or with this handle.
pub(crate) struct TaskThread {
    _stop: oneshot::Sender<()>,
}

impl TaskThread {
    /// Starts `task` on a thread of this name.
    ///
    /// # Errors
    /// When there is no thread or no runtime to be had.
    pub(crate) fn start(name: &str, task: impl Future<Output = ()> + Send + 'static) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = task => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { _stop: stop })
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::mpsc, time::Duration};

    use super::*;

    /// Tells when it is dropped.
    struct Held(mpsc::Sender<()>);

    impl Drop for Held {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }

    #[test]
    fn task_ends_with_its_handle() {
        let (ended, end) = mpsc::channel();
        let held = Held(ended);
        let thread = TaskThread::start("task", async move {
            let _held = held;
            pending::<()>().await;
        });
        assert_eq!(end.try_recv(), Err(mpsc::TryRecvError::Empty));
        drop(thread.unwrap());
        end.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}
