//! One server, and whether it is worth asking.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError};
use tokio::sync::{Notify, mpsc, oneshot};

use super::ask::{bytes, carry_out, unexpected_answer};
use super::breaker::Breaker;
use super::fault::StoreFault;
use super::pending_decision::AbandonedDecision;
use super::script::Order;
use super::settle::Correction;
use super::url::Endpoint;

/// Tasks that may wait for a driver; more corrections are counted as if the server were away.
const MAX_TASKS: usize = 1 << 14;

/// A server that has some of the keys, or all of them.
pub(super) struct Node {
    pub(super) endpoint: Endpoint,
    /// What its driver has connected.
    pub(super) link: ArcSwapOption<Link>,
    /// Why its driver has not.
    pub(super) fault: ArcSwapOption<StoreFault>,
    pub(super) may_evict: AtomicBool,
    pub(super) breaker: Breaker,
    /// Wakes its driver when the breaker has opened.
    pub(super) tripped: Notify,
    tasks: mpsc::Sender<DriverTask>,
}

/// A connection that has been greeted.
pub(super) struct Link {
    pub(super) connection: MultiplexedConnection,
    /// What the server calls the scripts of the store.
    pub(super) scripts: Box<[String]>,
}

/// Whom to ask about a key.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) node: Arc<Node>,
    pub(super) link: Arc<Link>,
}

/// What a driver does for a limiter.
#[derive(Debug)]
pub(super) enum DriverTask {
    /// Tells the server of a correction.
    Correct(Correction),
    /// Waits for an answer that nobody else waits for.
    Finish(AbandonedDecision),
    /// Drops this when it is done with all that came before.
    Flush(oneshot::Sender<()>),
}

// === impl Node ===

impl Node {
    /// A server that nobody has connected yet, and what its driver is to do.
    pub(super) fn new(endpoint: Endpoint) -> (Arc<Self>, mpsc::Receiver<DriverTask>) {
        let (sender, tasks) = mpsc::channel(MAX_TASKS);
        let node = Self {
            endpoint,
            link: ArcSwapOption::empty(),
            fault: ArcSwapOption::empty(),
            may_evict: AtomicBool::new(false),
            breaker: Breaker::default(),
            tripped: Notify::new(),
            tasks: sender,
        };
        (Arc::new(node), tasks)
    }

    /// The connection, if decisions are to ask.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        if self.breaker.is_open() {
            return None;
        }
        self.link.load_full()
    }

    /// Whom to ask, if decisions are to ask.
    pub(super) fn route(self: &Arc<Self>) -> Option<Route> {
        self.link().map(|link| Route { node: Arc::clone(self), link })
    }

    /// Hands a task to the driver; it comes back if the server is away, or there is no room.
    pub(super) fn hand_over(&self, task: DriverTask) -> Result<(), DriverTask> {
        if self.link().is_none() {
            return Err(task);
        }
        self.tasks.try_send(task).map_err(mpsc::error::TrySendError::into_inner)
    }

    /// Waits until the driver is done with all tasks that it was handed, or is gone.
    pub(super) async fn flush(&self) {
        let (done, is_done) = oneshot::channel();
        if self.tasks.send(DriverTask::Flush(done)).await.is_ok() {
            let _ = is_done.await;
        }
    }
}

// === impl Link ===

impl Link {
    /// The command that has a script carry out `order`, by the name of the script.
    pub(super) fn command(&self, key: &str, order: &Order) -> Cmd {
        let name = order.limits.checked_sub(1).and_then(|position| self.scripts.get(position));
        carry_out("EVALSHA", name.map(String::as_str).unwrap_or_default(), key, order)
    }

    /// The string that the server answers. `is_asking` is for a key that it is about to get from another one.
    pub(super) async fn answer(&self, command: Cmd, is_asking: bool) -> Result<Vec<u8>, RedisError> {
        let mut connection = self.connection.clone();
        if !is_asking {
            return bytes(connection.send_packed_command(&command).await);
        }
        let mut commands = Pipeline::with_capacity(2);
        commands.cmd("ASKING").add_command(command);
        let answers = connection.send_packed_commands(&commands, 1, 1).await?;
        bytes(answers.into_iter().next().ok_or_else(unexpected_answer))
    }
}

// === impl Route ===

impl Route {
    /// Whether its connection is the present one.
    pub(super) fn is_current(&self) -> bool {
        self.node.link.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, &self.link))
    }
}
