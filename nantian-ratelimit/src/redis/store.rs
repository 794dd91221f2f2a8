//! The connection to the server, and what all limiters on it have in common.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};

use super::agreed_secret::AgreedSecret;
use super::breaker::Breaker;
use super::driver::RedisDriver;
use super::fault::StoreFault;
use super::pending_decision::AbandonedDecision;
use super::script::{self, Answer, Order};
use super::settle::Correction;
use super::shared::{OnOutage, SharedLimiter};
use super::transport::Transport;
use super::unreported::UnreportedKeys;
use super::url::RedisUrl;
use crate::policy::{MAX_LIMITS, Policy};

/// Tasks that may wait for the driver; more corrections are counted as if the server were away.
const MAX_TASKS: usize = 1 << 14;

/// The resolution of the runtime's timers.
const TIMER_STEP: Duration = Duration::from_millis(1);

/// Upper bounds of the latencies that are counted apart.
const LATENCIES: [Duration; 7] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
];

/// A connection to Redis or Valkey that limiters share.
///
/// Clones are the same connection. It is there as long as the [`RedisDriver`] that came with it is polled.
#[derive(Clone)]
pub struct RedisStore(pub(super) Arc<Inner>);

/// Makes a [`RedisStore`] with other than default settings.
#[derive(Clone)]
#[must_use]
pub struct RedisStoreBuilder {
    url: RedisUrl,
    transport: Transport,
    command_timeout: Duration,
    connect_timeout: Duration,
    on_outage: OnOutage,
    replicas: Option<u32>,
}

/// How the server is doing, and what was asked of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StoreStatus {
    /// Whether decisions ask the server at present.
    pub is_reachable: bool,
    /// Why the last attempt to reach it failed; `None` once one has succeeded.
    pub fault: Option<StoreFault>,
    /// Whether the server makes room for new keys by forgetting others (`maxmemory-policy` other than
    /// `noeviction`), if it says so: limits are then forgotten as well.
    pub may_evict: bool,
    /// Processes that share the limits, this one included; `None` until the server or
    /// [`RedisStoreBuilder::replicas`] has told.
    pub replicas: Option<u32>,
    /// Decisions of the server.
    pub answers: u64,
    /// Decisions that the server was asked for in vain.
    pub failures: u64,
    /// Decisions for which nobody asked, because the server was away.
    pub unasked: u64,
    /// Denials that were still known.
    pub remembered: u64,
    /// Answers by latency: the upper bound, and how many took no longer. The rest took longer.
    pub latencies: Vec<(Duration, u64)>,
    /// The latencies of all answers together.
    pub latency: Duration,
}

pub(super) struct Inner {
    pub(super) url: RedisUrl,
    pub(super) transport: Transport,
    pub(super) command_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) on_outage: OnOutage,
    fixed_replicas: Option<u32>,
    /// As many as the server has counted; 0 until it has.
    pub(super) replicas: AtomicU32,
    /// The text of the script for each number of limits, from 1.
    pub(super) scripts: Box<[String]>,
    /// What keys are hashed under; what this process proposes until it hears from the server.
    pub(super) agreed: ArcSwap<AgreedSecret>,
    /// What the driver has connected.
    pub(super) link: ArcSwapOption<Link>,
    /// Why the driver has not.
    pub(super) fault: ArcSwapOption<StoreFault>,
    /// Whether it has said of a key that another node has it, since it was last looked over.
    pub(super) has_moved: AtomicBool,
    pub(super) may_evict: AtomicBool,
    pub(super) breaker: Breaker,
    /// Wakes the driver when the breaker has opened.
    pub(super) tripped: Notify,
    tasks: mpsc::Sender<DriverTask>,
    /// Keys whose use the server has not been told of.
    pub(super) unreported: UnreportedKeys,
    counts: Counts,
}

/// A connection that has been greeted.
pub(super) struct Link {
    pub(super) connection: MultiplexedConnection,
    pub(super) agreed: Arc<AgreedSecret>,
    /// The names of [`Inner::scripts`] on the server.
    pub(super) scripts: Box<[String]>,
}

/// What the driver does for a limiter.
#[derive(Debug)]
pub(super) enum DriverTask {
    /// Tells the server of a correction.
    Correct(Correction),
    /// Waits for an answer that nobody else waits for.
    Finish(AbandonedDecision),
}

#[derive(Default)]
struct Counts {
    failures: AtomicU64,
    unasked: AtomicU64,
    remembered: AtomicU64,
    latencies: [AtomicU64; LATENCIES.len() + 1],
    latency_micros: AtomicU64,
}

/// The server did not decide.
#[derive(Debug)]
pub(super) struct NoAnswer;

// === impl RedisStore ===

impl RedisStore {
    /// Starts a store at `url`. Nothing is connected before the driver is polled.
    pub fn builder(url: RedisUrl) -> RedisStoreBuilder {
        RedisStoreBuilder {
            url,
            transport: Transport::default(),
            command_timeout: Duration::from_millis(20),
            connect_timeout: Duration::from_secs(1),
            on_outage: OnOutage::default(),
            replicas: None,
        }
    }

    /// A limiter for `policy` whose levels are those of all limiters with the same `id` on the same server.
    ///
    /// `id` is what the policy is called by all replicas. It must survive edits of the policy, and no other
    /// policy may have it.
    pub fn limiter(&self, id: &str, policy: Policy) -> SharedLimiter {
        SharedLimiter::new(self.clone(), id, policy)
    }

    /// The address, for messages.
    pub fn url(&self) -> &RedisUrl {
        &self.0.url
    }

    /// How the server is doing.
    pub fn status(&self) -> StoreStatus {
        let counts = &self.0.counts;
        let mut answers = 0;
        let latencies = LATENCIES.iter().zip(&counts.latencies).map(|(bound, count)| {
            answers += count.load(Ordering::Relaxed);
            (*bound, answers)
        });
        let latencies = latencies.collect();
        let slow = counts.latencies.last().map_or(0, |slow| slow.load(Ordering::Relaxed));
        StoreStatus {
            is_reachable: self.0.link().is_some(),
            fault: self.0.fault.load().as_deref().copied(),
            may_evict: self.0.may_evict.load(Ordering::Relaxed),
            replicas: self.0.known_replicas(),
            answers: answers + slow,
            failures: counts.failures.load(Ordering::Relaxed),
            unasked: counts.unasked.load(Ordering::Relaxed),
            remembered: counts.remembered.load(Ordering::Relaxed),
            latencies,
            latency: Duration::from_micros(counts.latency_micros.load(Ordering::Relaxed)),
        }
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("url", &self.0.url).finish_non_exhaustive()
    }
}

// === impl RedisStoreBuilder ===

impl RedisStoreBuilder {
    /// Sets how long a decision waits for the server, give or take the millisecond that timers are exact to.
    /// Range: 1 ms to 10 s. Default: 20 ms.
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.command_timeout = timeout.clamp(Duration::from_millis(1), Duration::from_secs(10));
        self
    }

    /// Sets how long the driver waits for a connection to one of the server's addresses, TLS and login
    /// included, and for the answer to a greeting. Range: 1 ms to 60 s. Default: 1 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout.clamp(Duration::from_millis(1), Duration::from_secs(60));
        self
    }

    /// Sets who decides while the server does not. Default: [`OnOutage::Local`].
    pub fn on_outage(mut self, on_outage: OnOutage) -> Self {
        self.on_outage = on_outage;
        self
    }

    /// Sets how many processes share the limits, this one included. Range: from 1. Default: as many as greet
    /// the server.
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = Some(replicas.max(1));
        self
    }

    /// Sets whom to trust, and whom to be, where the address begins with `rediss://`. The server must prove
    /// to be its host. Without it such a server is never reached, and [`StoreStatus::fault`] says so.
    #[cfg(feature = "redis-tls")]
    pub fn tls(mut self, config: Arc<tokio_rustls::rustls::ClientConfig>) -> Self {
        self.transport.tls = Some(config);
        self
    }

    /// The store, and the future that connects it.
    pub fn build(self) -> (RedisStore, RedisDriver) {
        let (sender, tasks) = mpsc::channel(MAX_TASKS);
        let store = RedisStore(Arc::new(Inner {
            url: self.url,
            transport: self.transport,
            command_timeout: self.command_timeout,
            connect_timeout: self.connect_timeout,
            on_outage: self.on_outage,
            fixed_replicas: self.replicas,
            replicas: AtomicU32::new(0),
            scripts: (1..=MAX_LIMITS).map(script::decide).collect(),
            agreed: ArcSwap::from_pointee(AgreedSecret::proposed()),
            link: ArcSwapOption::empty(),
            fault: ArcSwapOption::empty(),
            may_evict: AtomicBool::new(false),
            has_moved: AtomicBool::new(false),
            breaker: Breaker::default(),
            tripped: Notify::new(),
            tasks: sender,
            unreported: UnreportedKeys::default(),
            counts: Counts::default(),
        }));
        (store.clone(), RedisDriver::new(store.0, tasks))
    }
}

impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder").field("url", &self.url).finish_non_exhaustive()
    }
}

// === impl Inner ===

impl Inner {
    /// The connection, if decisions are to ask.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        if self.breaker.is_open() {
            return None;
        }
        self.link.load_full()
    }

    fn known_replicas(&self) -> Option<u32> {
        self.fixed_replicas.or(Some(self.replicas.load(Ordering::Relaxed)).filter(|counted| *counted > 0))
    }

    pub(super) fn replicas(&self) -> u32 {
        self.known_replicas().unwrap_or(1)
    }

    /// Asks the server; whatever goes wrong is counted.
    ///
    /// # Cancellation
    ///
    /// Dropping it leaves open whether the order is carried out.
    pub(super) async fn ask(&self, link: &Arc<Link>, key: &str, order: &Order) -> Result<Answer, NoAnswer> {
        let begun = Instant::now();
        // Timers end up to two of their steps late.
        let limit = self.command_timeout.saturating_sub(TIMER_STEP).max(TIMER_STEP);
        let asked = timeout(limit, self.decide(link, key, order)).await;
        if let Ok(Err(error)) = &asked
            && StoreFault::from(error) == StoreFault::Cluster
        {
            self.has_moved.store(true, Ordering::Relaxed);
        }
        let answer = asked.ok().and_then(Result::ok).and_then(|bytes| Answer::read(&bytes, order.limits));
        match answer {
            Some(answer) => {
                self.breaker.succeeded();
                self.counts.answered(begun.elapsed());
                Ok(answer)
            }
            None => {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
                // The failure of a connection that is gone says nothing of the one that is there now.
                let is_current = self.link.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, link));
                if is_current && self.breaker.failed() {
                    self.tripped.notify_one();
                }
                Err(NoAnswer)
            }
        }
    }

    /// Hands a task to the driver; it comes back if the server is away, or there is no room.
    pub(super) fn hand_over(&self, task: DriverTask) -> Result<(), DriverTask> {
        if self.link().is_none() {
            return Err(task);
        }
        self.tasks.try_send(task).map_err(mpsc::error::TrySendError::into_inner)
    }

    pub(super) fn count_unasked(&self) {
        self.counts.unasked.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_remembered(&self) {
        self.counts.remembered.fetch_add(1, Ordering::Relaxed);
    }
}

// === impl Link ===

impl Link {
    /// The command that has a script carry out `order`, by the name of the script.
    pub(super) fn command(&self, key: &str, order: &Order) -> Cmd {
        let name = order.limits.checked_sub(1).and_then(|position| self.scripts.get(position));
        carry_out("EVALSHA", name.map(String::as_str).unwrap_or_default(), key, order)
    }
}

impl Inner {
    /// Has the script carry out `order`; a server that has lost the script is told it again.
    pub(super) async fn decide(&self, link: &Link, key: &str, order: &Order) -> Result<Vec<u8>, RedisError> {
        let mut connection = link.connection.clone();
        match bytes(connection.send_packed_command(&link.command(key, order)).await) {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                let text = order.limits.checked_sub(1).and_then(|position| self.scripts.get(position));
                let text = text.map(String::as_str).unwrap_or_default();
                bytes(connection.send_packed_command(&carry_out("EVAL", text, key, order)).await)
            }
            result => result,
        }
    }
}

/// The command that has a script, by its text or its name, carry out `order`.
pub(super) fn carry_out(how: &str, script: &str, key: &str, order: &Order) -> Cmd {
    let mut command = Cmd::new();
    command.arg(how).arg(script).arg(1).arg(key).arg(&order.terms).arg(&order.corrections);
    command
}

/// The string that a command answered.
pub(super) fn bytes(result: Result<Value, RedisError>) -> Result<Vec<u8>, RedisError> {
    match result?.extract_error()? {
        Value::BulkString(bytes) => Ok(bytes),
        _ => Err((ErrorKind::UnexpectedReturnType, "not a string").into()),
    }
}

// === impl Counts ===

impl Counts {
    fn answered(&self, latency: Duration) {
        let bucket = LATENCIES.iter().position(|bound| latency <= *bound).unwrap_or(LATENCIES.len());
        if let Some(count) = self.latencies.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency_micros.fetch_add(micros, Ordering::Relaxed);
    }
}
