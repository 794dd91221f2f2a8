//! Threads that call out, apart from the data path.

use std::{fmt, future::Future, io, num::NonZeroUsize, pin::Pin, sync::Arc, thread, time::Duration};

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

/// Several of them. The first that has the fewest calls under way makes the next, so that rare calls find the
/// connections of those before. One that has ended has none.
#[derive(Debug, Clone)]
pub(crate) struct CallThreads {
    /// Each with what all of its calls hold, by which they are counted.
    threads: Arc<[(CallThread, Arc<()>)]>,
}

// === impl CallThread ===

impl CallThread {
    /// Starts a thread of this name. It ends at once if there is no runtime to be had.
    ///
    /// # Errors
    /// When there is no thread to be had.
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
        let start = |number| {
            let thread = CallThread::start(&format!("{name}-{number}"), config.clone())?;
            Ok((thread, Arc::default()))
        };
        Ok(Self { threads: (0..count.get()).map(start).collect::<io::Result<_>>()? })
    }

    /// Makes a call-out on the thread that has the fewest.
    pub(crate) fn run<F>(&self, call: impl FnOnce(Client) -> F + Send + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let alive = self.threads.iter().filter(|(thread, _)| !thread.calls.is_closed());
        let fewest = alive.min_by_key(|(_, calls)| Arc::strong_count(calls));
        if let Some((thread, calls)) = fewest {
            let held = Arc::clone(calls);
            thread.run(move |client| async move {
                call(client).await;
                drop(held);
            });
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

    #[test]
    fn thread_that_has_ended_attracts_no_calls() {
        let (ended, _) = tokio::sync::mpsc::unbounded_channel();
        let lives = CallThread::start("calls", ClientConfig::bare().unwrap()).unwrap();
        let threads = [CallThread { calls: ended }, lives].map(|thread| (thread, Arc::new(())));
        let threads = CallThreads { threads: Arc::new(threads) };
        let (made, calls) = mpsc::channel();
        threads.run(|_| async move { made.send(()).unwrap() });
        calls.recv_timeout(Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn calls_one_after_the_other_are_made_on_one_thread() {
        let config = ClientConfig::bare().unwrap();
        let threads = CallThreads::start("calls", NonZeroUsize::new(2).unwrap(), &config).unwrap();
        let thread_of_next = || {
            let (made, calls) = mpsc::channel();
            threads.run(|_| async move { made.send(thread::current().id()).unwrap() });
            let id = calls.recv_timeout(Duration::from_secs(60)).unwrap();
            while threads.threads.iter().any(|(_, calls)| Arc::strong_count(calls) > 1) {
                thread::yield_now();
            }
            id
        };
        assert_eq!(thread_of_next(), thread_of_next());
    }
}
