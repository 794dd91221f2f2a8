//! The future that keeps a node connected.

use std::future::Future;
use std::iter;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, Value};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::ask::{bytes, carry_out, unexpected_answer};
use super::fault::StoreFault;
use super::layout::slot_of;
use super::node::{DriverTask, Link, Node, Route};
use super::script::{GREET, Order};
use super::settle::Correction;
use super::shared_key::name_of;
use super::store::Inner;
use super::url::Endpoint;
use crate::cost::Cost;
use crate::limit::Limit;

/// How often the server is greeted.
const GREETING_INTERVAL: Duration = Duration::from_secs(3);
/// How often one that answers is asked whether it still has all keys.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// How often a server that does not answer is greeted.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// This many vain greetings end a connection.
const MAX_FAILED_GREETINGS: u32 = 3;
/// Seconds after which a replica that has not greeted is gone.
const REPLICA_GONE: u32 = 10;
/// The shortest and the longest pause between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Tasks that are run together.
const BATCH: usize = 256;

/// Names among which a node of a cluster finds one of a key that it has.
const MOST_NAMES: u128 = 1 << 16;

/// Keys that are looked for: their names end in another digit each, which puts them into all quarters of the
/// slots of a cluster.
const LOOKS: usize = 16;

const SECRET_KEY: &str = "nrl:{store}:secret";
const REPLICAS_KEY: &str = "nrl:{store}:replicas";

/// Connects a node, keeps it connected, and sends what was settled there.
pub(super) struct NodeDriver {
    pub(super) store: Arc<Inner>,
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

/// What a greeting found.
struct Greeted {
    took: Duration,
    is_linked: bool,
}

impl NodeDriver {
    /// The driver of a server that has all keys.
    pub(super) fn alone(store: Arc<Inner>, node: Arc<Node>, tasks: mpsc::Receiver<DriverTask>) -> Self {
        Self { store, node, tasks, is_alone: true }
    }

    /// The driver of a node of a cluster.
    pub(super) fn of_cluster(store: Arc<Inner>, endpoint: Endpoint) -> Self {
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

    /// Agrees with the other replicas on the secret, counts them, and has the server decide as it does for
    /// requests: one that permits greetings alone is none to ask. Neither is one that took longer than
    /// decisions wait, as is said by how long it took.
    async fn greet(&self, connection: &MultiplexedConnection, looks: bool) -> Result<Greeted, RedisError> {
        let (store, node, begun) = (&self.store, &self.node, Instant::now());
        let mut commands = Pipeline::new();
        let is_home = self.is_home();
        if is_home {
            let greeting = commands.cmd("EVAL").arg(GREET).arg(2).arg(SECRET_KEY).arg(REPLICAS_KEY);
            // A server that has forgotten the secret is told the one that all replicas still know.
            greeting.arg(&store.agreed.load().bytes).arg(&store.name.to_le_bytes()[..]).arg(REPLICA_GONE);
        }
        self.rehearse(&mut commands);
        commands.cmd("INFO").arg("memory");
        let mut answers = self.answers(connection, &commands, commands.len()).await?.into_iter();
        let took = begun.elapsed();
        let mut next = || answers.next().ok_or_else(unexpected_answer);
        let greeted = if is_home { self.unless_elsewhere(next()?.extract_error())? } else { None };
        for rehearsed in [next()?, next()?] {
            self.unless_elsewhere(bytes(Ok(rehearsed)))?;
        }
        self.note_memory(next()?);
        if let Some(greeted) = greeted {
            store.learn(greeted)?;
        }
        if took > store.command_timeout {
            return Ok(Greeted { took, is_linked: false });
        }
        if looks {
            self.look(connection).await?;
        }
        let is_agreed = store.agreed.load().is_agreed;
        if is_agreed && node.link.load().is_none() {
            let scripts = self.load_scripts(connection).await?;
            node.link.store(Some(Arc::new(Link { connection: connection.clone(), scripts })));
        }
        Ok(Greeted { took, is_linked: is_agreed })
    }

    /// What a node of a cluster answers, if it has the key: one that a key has left is well.
    fn unless_elsewhere<T>(&self, answer: Result<T, RedisError>) -> Result<Option<T>, RedisError> {
        match answer {
            Err(error) if !self.is_alone && is_elsewhere(&error) => {
                self.store.moved.notify_one();
                Ok(None)
            }
            answer => answer.map(Some),
        }
    }

    /// Adds two decisions on a key of this replica's own that the node has: one makes the levels, the next
    /// one writes them in place.
    fn rehearse(&self, commands: &mut Pipeline) {
        let limit = Limit::tokens_per_minute(6000);
        let name = self.store.name;
        let mut names = (0..MOST_NAMES).map(|number| name_of(name.wrapping_add(number)));
        let key = names.find(|key| self.has(|| slot_of(key))).unwrap_or_else(|| name_of(name));
        let script = self.store.scripts.first().map(String::as_str).unwrap_or_default();
        // The second one needs fewer than the first has the levels kept for.
        for tokens in [2, 1] {
            let order = Order::new(iter::once(&limit), Cost { requests: 0, tokens }, |_| 0);
            commands.add_command(carry_out("EVAL", script, &key, &order));
        }
    }

    /// Looks whether the server has all keys, by some in every part of a cluster.
    async fn look(&self, connection: &MultiplexedConnection) -> Result<(), RedisError> {
        let mut commands = Pipeline::new();
        for levels in 0..LOOKS {
            commands.cmd("GET").arg(name_of(levels as u128));
        }
        let mut answers = self.answers(connection, &commands, LOOKS).await?.into_iter();
        answers.try_for_each(|answer| answer.extract_error().map(drop))
    }

    /// Notes whether the server keeps all keys, if it says so.
    fn note_memory(&self, memory: Value) {
        let memory = bytes(Ok(memory)).unwrap_or_default();
        let is_bounded = field(&memory, "maxmemory").is_some_and(|most| most != "0");
        let forgets = field(&memory, "maxmemory_policy").is_some_and(|policy| policy != "noeviction");
        self.node.may_evict.store(is_bounded && forgets, Ordering::Relaxed);
    }

    /// Tells the server the scripts; returns what it calls them.
    async fn load_scripts(&self, connection: &MultiplexedConnection) -> Result<Box<[String]>, RedisError> {
        let mut commands = Pipeline::new();
        for script in &self.store.scripts {
            commands.cmd("SCRIPT").arg("LOAD").arg(script);
        }
        let answers = self.answers(connection, &commands, self.store.scripts.len()).await?;
        let names = answers
            .into_iter()
            .map(|name| String::from_utf8(bytes(Ok(name))?).map_err(|_| unexpected_answer()));
        names.collect()
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
        let mut corrections = Vec::new();
        for task in tasks {
            match task {
                DriverTask::Correct(correction) => corrections.push(correction),
                // Those of one batch were sent at about the same time: they take one timeout together at
                // most.
                DriverTask::Finish(abandoned) => corrections.extend(abandoned.finish().await),
            }
        }
        if !corrections.is_empty() {
            self.send(corrections).await;
        }
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

/// Whether an error says that a node of a cluster does not have a key, or is giving it away.
fn is_elsewhere(error: &RedisError) -> bool {
    matches!(error.code(), Some("MOVED" | "ASK" | "TRYAGAIN"))
}

/// The value of a field of what a server says of itself.
fn field<'a>(text: &'a [u8], name: &str) -> Option<&'a str> {
    let mut lines = std::str::from_utf8(text).ok()?.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
