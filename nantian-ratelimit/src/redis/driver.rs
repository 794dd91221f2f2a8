//! The future that keeps a store connected.

use std::fmt;
use std::future::Future;
use std::iter;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, Pipeline, RedisError, Value};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::agreed_secret::AgreedSecret;
use super::fault::StoreFault;
use super::replica_count::ReplicaCount;
use super::script::{GREET, Order};
use super::settle::Correction;
use super::shared::name_of;
use super::store::{DriverTask, Inner, Link, bytes, carry_out};
use crate::cost::Cost;
use crate::key::SharedSecret;
use crate::limit::Limit;

/// How often the server is greeted.
const GREETING_INTERVAL: Duration = Duration::from_secs(3);
/// How often one that answers is asked whether it still has all keys; one that says of a
/// key that it has moved is asked with the next greeting.
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

/// Keys that are looked for: their names end in another digit each, which puts them into all quarters of the
/// slots of a cluster.
const LOOKS: usize = 16;

const SECRET_KEY: &str = "nrl:{store}:secret";
const REPLICAS_KEY: &str = "nrl:{store}:replicas";

/// Connects a [`RedisStore`](super::RedisStore), keeps it connected, and sends what was settled.
///
/// Spawn [`RedisDriver::run`]; this crate does not.
#[must_use = "the server is never asked unless the driver runs"]
pub struct RedisDriver {
    store: Arc<Inner>,
    tasks: mpsc::Receiver<DriverTask>,
    /// What this process is called.
    name: u128,
    replica_count: ReplicaCount,
}

impl RedisDriver {
    pub(super) fn new(store: Arc<Inner>, tasks: mpsc::Receiver<DriverTask>) -> Self {
        Self {
            store,
            tasks,
            name: u128::from_le_bytes(SharedSecret::random_bytes()),
            replica_count: ReplicaCount::default(),
        }
    }

    /// Connects, again and again, until it is dropped.
    ///
    /// # Cancellation
    ///
    /// Dropping it closes the connection: the store is unreachable from then on.
    pub async fn run(mut self) {
        let mut pause = BACKOFF.0;
        // Which of the server's addresses is asked first.
        let mut first = 0_usize;
        let store = Arc::clone(&self.store);
        loop {
            match self.unconnected(store.connect(first)).await {
                Ok((connection, io)) => {
                    let begun = Instant::now();
                    tokio::select! {
                        () = io => self.note(StoreFault::Broken),
                        () = self.serve(connection) => {}
                    }
                    // One to which nobody was sent may be a replica: another address may be the master's.
                    if self.store.link.swap(None).is_none() {
                        first = first.wrapping_add(1);
                    }
                    self.replica_count.interrupted();
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
    fn note(&self, fault: StoreFault) {
        self.store.fault.store(Some(Arc::new(fault)));
    }

    /// Waits for `future` while nothing is connected: what is to be done for a limiter is not done.
    async fn unconnected<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                output = &mut future => return output,
                Some(task) = self.tasks.recv() => drop(task),
            }
        }
    }

    /// Greets the server now and then and sends corrections, until it is silent for too long.
    async fn serve(&mut self, connection: MultiplexedConnection) {
        let store = Arc::clone(&self.store);
        let (mut next, mut silent) = (Instant::now(), 0);
        let mut look_due = next;
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                () = sleep_until(next) => {}
                () = store.tripped.notified() => look_due = Instant::now(),
                _ = self.tasks.recv_many(&mut batch, BATCH) => {
                    self.run_tasks(mem::take(&mut batch)).await;
                    continue;
                }
            }
            let looks = store.has_moved.swap(false, Ordering::Relaxed) || look_due <= Instant::now();
            match self.greet(&connection, looks).await {
                Ok(took) if took > store.command_timeout => {
                    self.note(StoreFault::Timeout);
                    (next, silent) = (Instant::now() + PROBE_INTERVAL, 0);
                }
                Ok(_) => {
                    if looks {
                        look_due = Instant::now() + LOOK_INTERVAL;
                    }
                    store.breaker.close();
                    store.fault.store(None);
                    (next, silent) = (Instant::now() + GREETING_INTERVAL, 0);
                    self.report().await;
                }
                Err(error) => {
                    self.note(StoreFault::from(&error));
                    look_due = Instant::now();
                    (next, silent) = (look_due + PROBE_INTERVAL, silent + 1);
                    if silent == MAX_FAILED_GREETINGS {
                        return;
                    }
                }
            }
        }
    }

    /// Agrees with the other replicas on the secret, counts them, and has the server decide as it does for
    /// requests: one that permits greetings alone is none to ask. Neither is one that took longer than
    /// decisions wait, as is said by how long it took.
    async fn greet(
        &mut self,
        connection: &MultiplexedConnection,
        looks: bool,
    ) -> Result<Duration, RedisError> {
        let (store, begun) = (Arc::clone(&self.store), Instant::now());
        let mut commands = Pipeline::new();
        let greeting = commands.cmd("EVAL").arg(GREET).arg(2).arg(SECRET_KEY).arg(REPLICAS_KEY);
        // A server that has forgotten the secret is told the one that all replicas still know.
        greeting.arg(&store.agreed.load().bytes).arg(&self.name.to_le_bytes()[..]).arg(REPLICA_GONE);
        self.rehearse(&mut commands);
        commands.cmd("INFO").arg("memory");
        let answers = self.answers(connection, &commands, 4).await?;
        let took = begun.elapsed();
        let [greeted, made, rewritten, memory] =
            <[Value; 4]>::try_from(answers).map_err(|_| unexpected_answer())?;
        self.note_memory(memory);
        let Value::Array(greeted) = greeted.extract_error()? else { return Err(unexpected_answer()) };
        for rehearsed in [made, rewritten] {
            bytes(Ok(rehearsed))?;
        }
        let [secret, replicas] = <[Value; 2]>::try_from(greeted).map_err(|_| unexpected_answer())?;
        let secret = bytes(Ok(secret))?;
        if let Value::Int(replicas) = replicas {
            let told = u32::try_from(replicas).unwrap_or(1).max(1);
            store.replicas.store(self.replica_count.told(Instant::now(), told), Ordering::Relaxed);
        }
        let mut agreed = store.agreed.load_full();
        if agreed.bytes != secret {
            agreed = Arc::new(AgreedSecret::from_bytes(secret).ok_or_else(unexpected_answer)?);
            store.agreed.store(Arc::clone(&agreed));
        }
        if took > store.command_timeout {
            return Ok(took);
        }
        if looks {
            self.look(connection).await?;
        }
        let known = store.link.load();
        if known.as_ref().is_none_or(|known| known.agreed.bytes != agreed.bytes) {
            let scripts = self.load_scripts(connection).await?;
            store.link.store(Some(Arc::new(Link { connection: connection.clone(), agreed, scripts })));
        }
        Ok(took)
    }

    /// Adds two decisions on a key of this replica's own: one makes the levels, the next one writes them in
    /// place.
    fn rehearse(&self, commands: &mut Pipeline) {
        let limit = Limit::tokens_per_minute(6000);
        let key = name_of(self.name);
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
        self.store.may_evict.store(is_bounded && forgets, Ordering::Relaxed);
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
        let limit = match self.store.link.load().is_some() {
            true => self.store.command_timeout,
            false => self.store.connect_timeout.max(self.store.command_timeout),
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

    /// Tells the server what was used without it.
    pub(super) async fn report(&self) {
        let mut corrections = self.store.unreported.drain().filter_map(|(group, key)| {
            let group = group.upgrade()?;
            // What is sent in vain may arrive all the same: not while answers fail to come.
            if !self.store.breaker.is_clean() {
                self.store.unreported.note(&group, &key);
                return None;
            }
            let items = group.report(group.now(), &key)?.into_items();
            Some(Correction::new(group, key, items))
        });
        loop {
            let batch: Vec<_> = corrections.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return;
            }
            self.send(batch).await;
        }
    }

    /// Sends corrections in one go; what the server does not take is reported later.
    async fn send(&self, batch: Vec<Correction>) {
        let Some(link) = self.store.link() else { return };
        let batch: Vec<_> = batch.into_iter().filter(|correction| correction.is_known_by(&link)).collect();
        let mut commands = Pipeline::new();
        for correction in &batch {
            commands.add_command(link.command(&correction.name(), &correction.order()));
        }
        let mut connection = link.connection.clone();
        let answers = connection.send_packed_commands(&commands, 0, batch.len());
        let Ok(Ok(answers)) = timeout(self.store.command_timeout, answers).await else { return };
        for (correction, answer) in batch.into_iter().zip(answers) {
            if bytes(Ok(answer)).is_ok() {
                correction.done();
                continue;
            }
            // It may have lost the script.
            let (name, order) = (correction.name(), correction.order());
            let answer = timeout(self.store.command_timeout, self.store.decide(&link, &name, &order)).await;
            if matches!(answer, Ok(Ok(_))) {
                correction.done();
            }
        }
    }
}

impl Drop for RedisDriver {
    fn drop(&mut self) {
        self.store.link.store(None);
        self.note(StoreFault::NoDriver);
    }
}

impl fmt::Debug for RedisDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisDriver").field("url", &self.store.url).finish_non_exhaustive()
    }
}

/// The value of a field of what a server says of itself.
fn field<'a>(text: &'a [u8], name: &str) -> Option<&'a str> {
    let mut lines = std::str::from_utf8(text).ok()?.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

fn unexpected_answer() -> RedisError {
    (ErrorKind::UnexpectedReturnType, "an answer of another form").into()
}
