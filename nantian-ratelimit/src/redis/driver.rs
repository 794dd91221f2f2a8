//! The future that keeps a store connected.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{AbortHandle, Abortable, abortable};
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value};
use tokio::time::{Instant, sleep, timeout};

use super::fault::StoreFault;
use super::layout::{Layout, Share};
use super::node::Node;
use super::node_driver::NodeDriver;
use super::store::StoreState;
use super::url::Endpoint;

/// How often a cluster is asked who has which keys, and how often while some have nobody who answers.
const LOOK_INTERVALS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(1));
/// The shortest pause between two such looks: while keys move, many say so.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Connects a [`RedisStore`](super::RedisStore), keeps it connected, and sends what was settled.
///
/// Spawn [`RedisDriver::run`]; this crate does not.
#[must_use = "the server is never asked unless the driver runs"]
pub struct RedisDriver {
    store: Arc<StoreState>,
    /// Of the server at the address, as long as that is no cluster.
    alone: NodeDriver,
}

/// The nodes of a cluster.
struct Cluster<'a> {
    store: &'a Arc<StoreState>,
    nodes: Vec<(Arc<Node>, AbortHandle)>,
    drivers: FuturesUnordered<Abortable<Driving>>,
}

type Driving = Pin<Box<dyn Future<Output = ()> + Send>>;

impl RedisDriver {
    pub(super) fn new(alone: NodeDriver) -> Self {
        Self { store: Arc::clone(&alone.store), alone }
    }

    /// Connects, again and again, until it is dropped.
    ///
    /// # Cancellation
    ///
    /// Dropping it closes the connection: the store is unreachable from then on.
    pub async fn run(mut self) {
        let store = Arc::clone(&self.store);
        loop {
            self.alone.run().await;
            let cluster = Cluster { store: &store, nodes: Vec::new(), drivers: FuturesUnordered::new() };
            let fault = self.alone.unconnected(cluster.follow()).await;
            self.alone.note(fault);
            store.layout.store(Arc::new(Layout::alone(Arc::clone(&self.alone.node))));
            store.fault.store(None);
            self.alone.unconnected(sleep(LOOK_INTERVALS.1)).await;
        }
    }
}

impl Drop for RedisDriver {
    fn drop(&mut self) {
        self.store.fault.store(Some(Arc::new(StoreFault::NoDriver)));
        self.store.layout.load().nodes().iter().for_each(|node| node.link.store(None));
    }
}

impl fmt::Debug for RedisDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisDriver").field("url", &self.store.url).finish_non_exhaustive()
    }
}

// === impl Cluster ===

impl Cluster<'_> {
    /// Asks who has which keys, again and again, until there is no cluster at the address; tells what there
    /// is.
    async fn follow(mut self) -> StoreFault {
        let mut turn = 0_usize;
        loop {
            let fault = match self.drive(look(self.store, turn)).await {
                Ok(shares) => {
                    self.arrange(shares);
                    Some(StoreFault::Cluster).filter(|_| !self.store.layout.load().is_complete())
                }
                Err(fault) => Some(fault),
            };
            let is_asked = self.nodes.iter().any(|(node, _)| node.link().is_some());
            let is_none =
                matches!(fault, Some(StoreFault::Credentials | StoreFault::Database | StoreFault::Strange));
            if let Some(fault) = fault.filter(|_| is_none && !is_asked) {
                return fault;
            }
            let store = Arc::clone(self.store);
            store.fault.store(fault.map(Arc::new));
            self.drive(async {
                sleep(LOOK_PAUSE).await;
                let due = Instant::now() + LOOK_INTERVALS.0;
                // A node may go away at any time, and another one take its place.
                while timeout(LOOK_INTERVALS.1, store.moved.notified()).await.is_err()
                    && fault.is_none()
                    && store.layout.load().is_reachable()
                    && Instant::now() < due
                {}
            })
            .await;
            turn = turn.wrapping_add(1);
        }
    }

    /// Waits for `future` while the nodes are driven.
    async fn drive<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                output = &mut future => return output,
                Some(_) = self.drivers.next() => {}
            }
        }
    }

    /// Has the masters driven that have slots, and no others.
    fn arrange(&mut self, shares: Vec<Share>) {
        let layout = Arc::new(Layout::of_cluster(shares, |endpoint| self.node(endpoint)));
        self.store.layout.store(Arc::clone(&layout));
        self.nodes.retain(|(node, driving)| {
            let stays = layout.nodes().iter().any(|other| Arc::ptr_eq(node, other));
            if !stays {
                driving.abort();
                node.link.store(None);
            }
            stays
        });
    }

    /// The node there, which is driven from now on.
    fn node(&mut self, endpoint: Endpoint) -> Arc<Node> {
        if let Some((node, _)) = self.nodes.iter().find(|(node, _)| node.endpoint == endpoint) {
            return Arc::clone(node);
        }
        let mut driver = NodeDriver::of_cluster(Arc::clone(self.store), endpoint);
        let node = Arc::clone(&driver.node);
        let driving: Driving = Box::pin(async move { driver.run().await });
        let (driving, handle) = abortable(driving);
        self.drivers.push(driving);
        self.nodes.push((Arc::clone(&node), handle));
        node
    }
}

/// Who has which keys, as some node that is connected says, each time another one; as long as none is, that
/// at the address.
async fn look(store: &StoreState, turn: usize) -> Result<Vec<Share>, StoreFault> {
    let layout = store.layout.load_full();
    let linked = layout.nodes().iter().filter_map(|node| Some((node, node.link()?)));
    let linked: Vec<_> = linked.collect();
    let position = turn.checked_rem(linked.len()).unwrap_or_default();
    let (asked, answer) = if let Some((node, link)) = linked.get(position) {
        (&node.endpoint, timeout(store.connect_timeout, slots(link.connection.clone())).await)
    } else {
        let endpoint = &store.url.endpoint;
        let (connection, io) = store.connect(endpoint, turn).await?;
        tokio::select! {
            () = io => return Err(StoreFault::Broken),
            answer = timeout(store.connect_timeout, slots(connection)) => (endpoint, answer),
        }
    };
    let answer = answer.map_err(|_| StoreFault::Timeout)?.map_err(|error| StoreFault::from(&error))?;
    Share::read_all(&answer, &asked.host).ok_or(StoreFault::Strange)
}

async fn slots(mut connection: MultiplexedConnection) -> Result<Value, RedisError> {
    let mut command = Cmd::new();
    command.arg("CLUSTER").arg("SLOTS");
    connection.send_packed_command(&command).await?.extract_error()
}
