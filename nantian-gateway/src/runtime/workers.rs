//! The threads of the data path.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    io,
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{mpsc, oneshot, watch},
    time::{Instant, interval, sleep},
};

use super::{Worker, WorkerConfig, busy_poll::busy_poll, spawn_local, worker::Capacity};
use crate::{
    kept,
    listen::{Listeners, PortKey, TICK, Unbound},
    metrics::Metrics,
    snapshot::Snapshot,
};

/// Ticks between two sweeps of the upstream pool.
const SWEEP: u32 = 10;

/// How long a request may still come over a connection that was idle at SIGTERM: it may have been on its way.
const GRACE: Duration = Duration::from_secs(1);

/// What a worker could not bind in a generation; empty when it serves all of it.
#[derive(Debug, Clone)]
pub(crate) struct BindReport {
    /// The generation.
    pub(crate) generation: u64,
    /// The sockets and why.
    pub(crate) failed: BTreeMap<PortKey, Unbound>,
}

/// The threads of the data path.
#[derive(Debug)]
pub(crate) struct Workers {
    snapshots: watch::Sender<Arc<Snapshot>>,
    drain: watch::Sender<bool>,
    reports: mpsc::UnboundedReceiver<BindReport>,
    threads: Vec<JoinHandle<()>>,
    /// Of each thread one that ends with it.
    ends: FuturesUnordered<oneshot::Receiver<Infallible>>,
}

impl Workers {
    /// Starts `count` threads that serve nothing yet.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made.
    pub(crate) fn start(count: usize, config: &WorkerConfig, metrics: &Arc<Metrics>) -> io::Result<Self> {
        let (config, capacity, metrics) = (config.clone(), Capacity::new(config), Arc::clone(metrics));
        Self::spawn(count, move |index| {
            kept::share_among(count);
            Worker::new(index, config.clone(), capacity.clone(), Arc::clone(&metrics))
        })
    }

    /// Starts `count` threads, each with what `worker` makes of its number there.
    fn spawn(count: usize, worker: impl Fn(usize) -> Worker + Clone + Send + 'static) -> io::Result<Self> {
        let (snapshots, snapshot) = watch::channel(Arc::default());
        let (drain, draining) = watch::channel(false);
        let (report, reports) = mpsc::unbounded_channel();
        let (mut threads, ends) = (Vec::new(), FuturesUnordered::new());
        for index in 0..count {
            let inbox =
                Inbox { snapshot: snapshot.clone(), draining: draining.clone(), report: report.clone() };
            let (alive, end) = oneshot::channel();
            let worker = worker.clone();
            let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                let _alive = alive;
                run(|| worker(index), inbox);
            });
            threads.push(thread?);
            ends.push(end);
        }
        Ok(Self { snapshots, drain, reports, threads, ends })
    }

    /// Done when a worker has ended before it was told to: nobody accepts on its sockets then, and every
    /// reload waits for it.
    pub(crate) fn failure(&mut self) -> impl Future<Output = ()> + use<> {
        std::mem::take(&mut self.ends).into_future().map(drop)
    }

    /// Serves `snapshot` from now on.
    pub(crate) fn install(&self, snapshot: Arc<Snapshot>) {
        self.snapshots.send_replace(snapshot);
    }

    /// Waits until every worker serves `generation`, and tells what could not be bound.
    ///
    /// # Cancellation
    /// Dropping the future loses reports that have come.
    pub(crate) async fn settled(&mut self, generation: u64) -> BTreeMap<PortKey, Unbound> {
        let mut failed = BTreeMap::new();
        let mut waiting = self.threads.len();
        while waiting > 0 {
            let Some(report) = self.reports.recv().await else { break };
            if report.generation >= generation {
                failed.extend(report.failed);
                waiting -= 1;
            }
        }
        failed
    }

    /// Stops accepting, lets requests finish within the drain timeout, and ends the threads.
    pub(crate) fn drain(self) {
        self.drain.send_replace(true);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker has panicked");
            }
        }
    }
}

/// What reaches a worker from outside.
struct Inbox {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    draining: watch::Receiver<bool>,
    report: mpsc::UnboundedSender<BindReport>,
}

/// Serves with what `worker` makes on this thread.
fn run(worker: impl FnOnce() -> Worker, inbox: Inbox) {
    match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime.block_on(serve(Rc::new(worker()), inbox)),
        Err(error) => tracing::error!(%error, "a worker has no runtime"),
    }
}

async fn serve(worker: Rc<Worker>, mut inbox: Inbox) {
    if let Some(span) = worker.config.busy_poll {
        spawn_local(busy_poll(span));
    }
    let mut listeners = Listeners::default();
    let mut tick = interval(TICK);
    let mut ticks = 0_u32;
    loop {
        tokio::select! {
            biased;
            _ = inbox.draining.changed() => break,
            changed = inbox.snapshot.changed() => {
                if changed.is_err() {
                    break;
                }
                let snapshot = Arc::clone(&inbox.snapshot.borrow_and_update());
                worker.install(Arc::clone(&snapshot));
                let failed = listeners.reconcile(&snapshot, &worker).into_iter();
                let failed = failed.map(|(key, error)| (key, error.into())).collect();
                let report = BindReport { generation: snapshot.generation, failed };
                if inbox.report.send(report).is_err() {
                    break;
                }
            }
            now = tick.tick() => {
                worker.tick();
                ticks = ticks.wrapping_add(1);
                if ticks.is_multiple_of(SWEEP) {
                    worker.sweep(now);
                }
            }
        }
    }
    listeners.close();
    drain(&worker).await;
}

async fn drain(worker: &Worker) {
    let begun = Instant::now();
    let deadline = begun + worker.config.drain_timeout;
    // An accept loop hands over what it has accepted before it ends.
    tokio::task::yield_now().await;
    while !worker.connections.is_empty() && Instant::now() < deadline {
        if begun.elapsed() < GRACE {
            worker.connections.drain();
        } else {
            worker.connections.finish();
        }
        sleep(TICK).await;
        worker.tick();
    }
    let left = worker.connections.len();
    if left > 0 {
        worker.cut_answers();
        // What clients are told then goes out.
        sleep(TICK).await;
        tracing::warn!(left, "connections were cut at the end of the drain timeout");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_that_panics_is_noticed_before_a_reload_waits_for_it() {
        let mut workers = Workers::spawn(2, |_| panic!("a bug")).unwrap();
        let failure = workers.failure();
        tokio::select! {
            biased;
            () = failure => {}
            _ = workers.settled(1) => panic!("nobody serves it"),
        }
        workers.drain();
    }
}
