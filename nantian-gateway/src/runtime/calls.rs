//! Threads that call out, apart from the data path.

use std::{
    fmt,
    future::Future,
    io,
    num::NonZeroUsize,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::mpsc,
    time::{Instant, interval},
};

use crate::upstream::{Client, ClientConfig};

/// How often idle connections are looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// A call-out, to be made with the client of the thread.
type Call = Box<dyn FnOnce(Client) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// A thread with a client of its own: plugins' guests call out from whichever thread they run on, and
/// collectors are told of calls beside the workers. It ends with the last handle.
#[derive(Clone)]
pub(crate) struct CallThread {
    calls: mpsc::UnboundedSender<Call>,
}

/// Several of them, which call out in turn.
#[derive(Debug, Clone)]
pub(crate) struct CallThreads {
    threads: Arc<[CallThread]>,
    turn: Arc<AtomicUsize>,
}

// === impl CallThread ===

impl CallThread {
    /// Starts a thread of this name.
    ///
    /// # Errors
    /// When there is no thread or no runtime to be had.
    pub(crate) fn start(name: &str, config: ClientConfig) -> io::Result<Self> {
        let (calls, inbox) = mpsc::unbounded_channel();
        let runtime = move || Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        thread::Builder::new().name(name.to_owned()).spawn(move || match runtime() {
            Ok(runtime) => runtime.block_on(serve(Client::new(config), inbox)),
            Err(error) => tracing::error!(%error, "a thread cannot call out"),
        })?;
        Ok(Self { calls })
    }

    /// Makes a call-out on the thread.
    pub(crate) fn run<F>(&self, call: impl FnOnce(Client) -> F + Send + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        // A thread that has ended answers nothing: what the call holds is dropped, and tells the guest.
        drop(self.calls.send(Box::new(|client| Box::pin(call(client)))));
    }
}

impl fmt::Debug for CallThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallThread").finish_non_exhaustive()
    }
}

// === impl CallThreads ===

impl CallThreads {
    /// Starts so many threads of this name and a number.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(crate) fn start(name: &str, count: NonZeroUsize, config: &ClientConfig) -> io::Result<Self> {
        let thread = |number| CallThread::start(&format!("{name}-{number}"), config.clone());
        Ok(Self { threads: (0..count.get()).map(thread).collect::<io::Result<_>>()?, turn: Arc::default() })
    }

    /// Makes a call-out on the thread whose turn it is.
    pub(crate) fn run<F>(&self, call: impl FnOnce(Client) -> F + Send + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        if let Some(thread) = self.threads.get(turn) {
            thread.run(call);
        }
    }
}

async fn serve(client: Client, mut inbox: mpsc::UnboundedReceiver<Call>) {
    let mut sweep = interval(SWEEP);
    loop {
        tokio::select! {
            call = inbox.recv() => match call {
                Some(call) => drop(super::spawn_local(call(client.clone()))),
                None => return,
            },
            _ = sweep.tick() => client.sweep(Instant::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn thread_that_is_busy_holds_up_no_call_of_another() {
        let config = ClientConfig::bare().unwrap();
        let threads = CallThreads::start("calls", NonZeroUsize::new(2).unwrap(), &config).unwrap();
        let (free, busy) = mpsc::channel::<()>();
        threads.run(|_| async move {
            let _ = busy.recv();
        });
        let (made, calls) = mpsc::channel();
        threads.run(|_| async move { made.send(()).unwrap() });
        calls.recv_timeout(Duration::from_secs(60)).unwrap();
        drop(free);
    }
}
