//! The future that keeps a node connected.

use std::future::Future;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, Value};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::ask::bytes;
use super::fault::StoreFault;
use super::layout::slot_of;
use super::node::{DriverTask, Node, Route};
use super::settle::Correction;
use super::store::StoreState;
use super::url::Endpoint;

mod greeting;

/// How often the server is greeted.
const GREETING_INTERVAL: Duration = Duration::from_secs(3);
/// How often one that answers is asked whether it still has all keys.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// How often a server that does not answer is greeted.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// This many vain greetings end a connection.
const MAX_FAILED_GREETINGS: u32 = 3;
/// The shortest and the longest pause between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Tasks that are run together.
const BATCH: usize = 256;

const SECRET_KEY: &str = "nrl:{store}:secret";

/// Connects a node, keeps it connected, and sends what was settled there.
pub(super) struct NodeDriver {
    pub(super) store: Arc<StoreState>,
    pub(super) node: Arc<Node>,
    tasks: mpsc::Receiver<DriverTask>,
    /// Whether the node is to have all keys.
    is_alone: bool,
}

/// Why a connection is given up.
#[derive(PartialEq)]
enum End {
    /// The node is silent for too long.
    Silent,
    /// Some keys are elsewhere.
    IsCluster,
}

impl NodeDriver {
    /// The driver of a server that has all keys.
    pub(super) fn alone(store: Arc<StoreState>, node: Arc<Node>, tasks: mpsc::Receiver<DriverTask>) -> Self {
        Self { store, node, tasks, is_alone: true }
    }

    /// The driver of a node of a cluster.
    pub(super) fn of_cluster(store: Arc<StoreState>, endpoint: Endpoint) -> Self {
        let (node, tasks) = Node::new(endpoint);
        Self { store, node, tasks, is_alone: false }
    }

    /// Connects, again and again, until it is dropped, or until a server that was to have all keys has not.
    ///
    /// # Cancellation
    ///
    /// Dropping it closes the connection.
    pub(super) async fn run(&mut self) {
        let mut pause = BACKOFF.0;
        // Which of the node's addresses is asked first.
        let mut first = 0_usize;
        let (store, node) = (Arc::clone(&self.store), Arc::clone(&self.node));
        loop {
            match self.unconnected(store.connect(&node.endpoint, first)).await {
                Ok((connection, io)) => {
                    let begun = Instant::now();
                    let end = tokio::select! {
                        () = io => {
                            self.note(StoreFault::Broken);
                            End::Silent
                        }
                        end = self.serve(connection) => end,
                    };
                    // One to which nobody was sent may be a replica: another address may be the master's.
                    if node.link.swap(None).is_none() {
                        first = first.wrapping_add(1);
                    }
                    if end == End::IsCluster {
                        return;
                    }
                    if self.is_home() {
                        store.interrupt_replica_count();
                    }
                    // One that held was no failure.
                    if begun.elapsed() > BACKOFF.1 {
                        pause = BACKOFF.0;
                    }
                }
                Err(fault) => self.note(fault),
            }
            self.unconnected(sleep(pause)).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// Remembers why the server cannot be asked.
    pub(super) fn note(&self, fault: StoreFault) {
        self.node.fault.store(Some(Arc::new(fault)));
    }

    /// Whether this is where replicas agree and are counted.
    fn is_home(&self) -> bool {
        self.has(|| slot_of(SECRET_KEY))
    }

    /// Whether this is where the keys of a slot are, as far as is known.
    fn has(&self, slot: impl FnOnce() -> u16) -> bool {
        self.store.layout.load().node_at(slot).is_some_and(|node| Arc::ptr_eq(node, &self.node))
    }

    /// Waits for `future` while nothing is connected: what is to be done for a limiter is not done.
    pub(super) async fn unconnected<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                output = &mut future => return output,
                Some(task) = self.tasks.recv() => drop(task),
            }
        }
    }

    /// Greets the server now and then and sends corrections, until it is silent for too long.
    async fn serve(&mut self, connection: MultiplexedConnection) -> End {
        let (store, node) = (Arc::clone(&self.store), Arc::clone(&self.node));
        let (mut next, mut silent) = (Instant::now(), 0);
        let mut look_due = next;
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                // A greeting that is due comes first: each batch for a silent server takes its time, too.
                biased;
                () = sleep_until(next) => {}
                () = node.tripped.notified() => look_due = Instant::now(),
                () = store.moved.notified(), if self.is_alone => return End::IsCluster,
                _ = self.tasks.recv_many(&mut batch, BATCH) => {
                    self.run_tasks(mem::take(&mut batch)).await;
                    continue;
                }
            }
            let looks = self.is_alone && look_due <= Instant::now();
            match self.greet(&connection, looks).await {
                Ok(greeted) if greeted.took > store.command_timeout => {
                    self.note(StoreFault::Timeout);
                    (next, silent) = (Instant::now() + PROBE_INTERVAL, 0);
                }
                Ok(greeted) => {
                    if looks {
                        look_due = Instant::now() + LOOK_INTERVAL;
                    }
                    node.breaker.close();
                    node.fault.store(None);
                    let pause = if greeted.is_linked { GREETING_INTERVAL } else { PROBE_INTERVAL };
                    (next, silent) = (Instant::now() + pause, 0);
                    store.report();
                }
                Err(error) => {
                    let fault = StoreFault::from(&error);
                    if self.is_alone && fault == StoreFault::Cluster {
                        return End::IsCluster;
                    }
                    self.note(fault);
                    look_due = Instant::now();
                    (next, silent) = (look_due + PROBE_INTERVAL, silent + 1);
                    if silent == MAX_FAILED_GREETINGS {
                        return End::Silent;
                    }
                }
            }
        }
    }

    /// The answers to so many commands, for which nobody else waits.
    async fn answers(
        &self,
        connection: &MultiplexedConnection,
        commands: &Pipeline,
        count: usize,
    ) -> Result<Vec<Value>, RedisError> {
        let mut connection = connection.clone();
        // One that decisions ask is known by answering them in time; one that is too far away is to tell how
        // many replicas there are.
        let limit = match self.node.link.load().is_some() {
            true => self.store.command_timeout,
            false => self.store.patience(),
        };
        let answers = timeout(limit, connection.send_packed_commands(commands, 0, count));
        answers.await.map_err(|_| timed_out())?
    }

    async fn run_tasks(&self, tasks: Vec<DriverTask>) {
        let (mut corrections, mut flushes) = (Vec::new(), Vec::new());
        for task in tasks {
            match task {
                DriverTask::Correct(correction) => corrections.push(correction),
                // Those of one batch were sent at about the same time: they take one timeout together at
                // most.
                DriverTask::Finish(abandoned) => corrections.extend(abandoned.finish().await),
                DriverTask::Flush(done) => flushes.push(done),
            }
        }
        if !corrections.is_empty() {
            self.send(corrections).await;
        }
        drop(flushes);
    }

    /// Sends corrections in one go; what the server does not take is reported later.
    async fn send(&self, batch: Vec<Correction>) {
        let Some(route) = self.node.route() else { return };
        let known = batch.into_iter().filter(|correction| correction.is_known_by(&self.store));
        let batch: Vec<_> = known.collect();
        let mut commands = Pipeline::new();
        for correction in &batch {
            commands.add_command(route.link.command(&correction.name(), &correction.order()));
        }
        let mut connection = route.link.connection.clone();
        let answers = connection.send_packed_commands(&commands, 0, batch.len());
        // What is carried out and not heard of would be told once more: nobody waits for this.
        let Ok(Ok(answers)) = timeout(self.store.patience(), answers).await else { return };
        let mut refused = Vec::new();
        for (correction, answer) in batch.into_iter().zip(answers) {
            match bytes(Ok(answer)) {
                Ok(_) => correction.done(),
                Err(_) => refused.push(correction),
            }
        }
        // They have one time together: a server that is silent now has greetings to miss.
        let _ = timeout(self.store.patience(), self.send_again(&route, refused)).await;
    }

    /// Sends each correction by itself to a server that may have lost the script, or their keys; all at once,
    /// so that one that is far away is told of as many as one that is near.
    async fn send_again(&self, route: &Route, refused: Vec<Correction>) {
        let sent = refused.into_iter().map(async |correction| {
            let (name, order, mut route) = (correction.name(), correction.order(), route.clone());
            if self.store.decide(&mut route, &name, &order).await.is_ok() {
                correction.done();
            }
        });
        join_all(sent).await;
    }
}

fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
