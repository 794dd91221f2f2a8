//! The connections of one worker, and the clock that ends the slow ones.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use nantian_ai::BodyMemory;
use slab::Slab;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    stall_timer::{Patience, StallTimer, StallTimers},
    state::{ConnectionCommand, State, Timeouts, TunnelGuard},
    tick::TICK,
    untaken::{MOST_HELD, Untaken},
};
use crate::snapshot::StreamBinding;

/// The connections of one worker; its clones share them.
#[derive(Clone)]
pub(crate) struct Connections {
    inner: Rc<Inner>,
}

struct Inner {
    clock: Arc<AtomicU32>,
    entries: RefCell<Slab<Entry>>,
    /// Connections so far.
    count: Cell<u64>,
    timers: StallTimers,
    /// Connections that have left HTTP.
    tunnels: Arc<AtomicUsize>,
    untaken: Untaken,
    /// How many of them are this worker's, as they were told last.
    untaken_here: Cell<u32>,
    /// How long clients might take nothing in the last tick.
    patience: Cell<Duration>,
    body_memory: BodyMemory,
}

struct Entry {
    state: Arc<State>,
    waker: Waker,
    /// The tick from which on it drains.
    drains_at: u32,
}

// === impl Connections ===

impl Connections {
    /// None yet, of a worker that shares the rest with the others.
    pub(crate) fn new(untaken: Untaken, body_memory: BodyMemory) -> Self {
        let clock = Arc::<AtomicU32>::default();
        let timers = StallTimers::new(Arc::clone(&clock));
        Self {
            inner: Rc::new(Inner {
                clock,
                entries: RefCell::default(),
                count: Cell::new(0),
                timers,
                tunnels: Arc::default(),
                untaken,
                untaken_here: Cell::new(0),
                patience: Cell::new(Duration::MAX),
                body_memory,
            }),
        }
    }

    /// The number of a connection: one that no other has of those that one worker has seen.
    pub(super) fn number(&self) -> u64 {
        self.inner.count.set(self.inner.count.get().wrapping_add(1));
        self.inner.count.get()
    }

    /// Adds a connection from which a head is expected, and which drains when it is about as old as
    /// `max_age`.
    pub(super) fn add(&self, place: OwnedSemaphorePermit, max_age: Option<Duration>) -> Registration {
        let clock = Arc::clone(&self.inner.clock);
        let now = clock.load(Relaxed);
        let drains_at = max_age.map_or(u32::MAX, |age| now.saturating_add(ticks(spread(age))));
        let state = Arc::new(State::new(clock, &self.inner.tunnels, place));
        let entry = Entry { state: Arc::clone(&state), waker: Waker::noop().clone(), drains_at };
        let key = self.inner.entries.borrow_mut().insert(entry);
        Registration { connections: self.clone(), key, state }
    }

    /// The timer of a request that has begun.
    pub(super) fn timer(&self) -> Rc<StallTimer> {
        self.inner.timers.begin()
    }

    /// Counts one more for as long as the guard lives.
    pub(crate) fn hold(&self) -> TunnelGuard {
        TunnelGuard::new(&self.inner.tunnels)
    }

    /// How many are open, tunnels included.
    pub(crate) fn len(&self) -> usize {
        self.inner.entries.borrow().len() + self.inner.tunnels.load(Relaxed)
    }

    /// Whether none is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves the clock by one tick of 100 ms and ends the connections whose time is over.
    pub(crate) fn tick(&self, timeouts: &Timeouts) {
        let now = self.inner.clock.load(Relaxed).wrapping_add(1);
        self.inner.clock.store(now, Relaxed);
        let response = self.inner.untaken.next_patience(self.inner.patience.get(), timeouts.stall);
        let patience = Patience {
            upload: timeouts.stall,
            response,
            finish: response.max(timeouts.header),
            is_memory_scarce: self.inner.body_memory.is_scarce(),
        };
        self.inner.patience.set(patience.response);
        self.inner.timers.hurry(patience.response < timeouts.stall);
        let timeouts_of_connections = Timeouts { stall: patience.response, ..*timeouts };
        let mut untaken = 0;
        for (_, entry) in &*self.inner.entries.borrow() {
            untaken += u32::from(entry.state.is_untaken(now)) * MOST_HELD;
            match entry.state.verdict(now, &timeouts_of_connections) {
                ConnectionCommand::Serve if now >= entry.drains_at => {
                    if entry.state.order() == ConnectionCommand::Serve {
                        entry.give(ConnectionCommand::Drain);
                    }
                }
                ConnectionCommand::Serve => {}
                order => entry.give(order),
            }
        }
        untaken += self.inner.timers.tick(now, &patience);
        self.inner.untaken.tell(self.inner.untaken_here.replace(untaken), untaken);
    }

    /// Lets every connection close after the next response that begins, over HTTP/1.1, or announce its end.
    pub(crate) fn drain(&self) {
        for (_, entry) in &*self.inner.entries.borrow() {
            entry.give(ConnectionCommand::Drain);
        }
    }

    /// Ends the connections that are passed on as they are and that `stays` does not know any more.
    pub(crate) fn end_streams(&self, stays: impl Fn(&StreamBinding) -> bool) {
        for (_, entry) in &*self.inner.entries.borrow() {
            if entry.state.stream().is_some_and(|place| !stays(place)) {
                entry.give(ConnectionCommand::Abort);
            }
        }
    }

    /// Lets every connection finish the requests that it has begun, then close.
    pub(crate) fn finish(&self) {
        for (_, entry) in &*self.inner.entries.borrow() {
            entry.give(ConnectionCommand::Finish);
        }
    }
}

impl Entry {
    fn give(&self, order: ConnectionCommand) {
        self.state.give(order);
        self.waker.wake_by_ref();
    }
}

/// An age up to a tenth more or less, so that what was opened together does not end together (gRPC's A9).
fn spread(age: Duration) -> Duration {
    age.mul_f64(0.9 + 0.2 * fastrand::f64())
}

fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX)
}

/// One open connection; dropping it removes it.
pub(super) struct Registration {
    connections: Connections,
    key: usize,
    pub(super) state: Arc<State>,
}

impl Registration {
    /// What the connection is to do; the task is woken when that changes.
    pub(super) fn order(&self) -> ConnectionCommand {
        self.state.order()
    }

    /// What `future` gives, or nothing if the connection is to end before: one that begins while the process
    /// drains is given the time in which others may still have a request on its way.
    pub(super) async fn unless_ended<F: Future>(&self, future: F) -> Option<F::Output> {
        self.unless(ConnectionCommand::Finish, future).await
    }

    /// What `future` gives, or nothing if the connection is not to finish what it has begun.
    pub(super) async fn unless_aborted<F: Future>(&self, future: F) -> Option<F::Output> {
        self.unless(ConnectionCommand::Abort, future).await
    }

    async fn unless<F: Future>(&self, last: ConnectionCommand, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut registered = false;
        poll_fn(|cx| {
            if !registered {
                self.register(cx);
                registered = true;
            }
            match future.as_mut().poll(cx) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending if self.order() < last => Poll::Pending,
                Poll::Pending => Poll::Ready(None),
            }
        })
        .await
    }

    /// Makes `cx` the task to wake.
    pub(super) fn register(&self, cx: &Context<'_>) {
        if let Some(entry) = self.connections.inner.entries.borrow_mut().get_mut(self.key) {
            entry.waker.clone_from(cx.waker());
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.connections.inner.entries.borrow_mut().try_remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::listen::state::InFlight;

    const TIMEOUTS: Timeouts = Timeouts {
        header: Duration::from_secs(10),
        idle: Duration::from_secs(75),
        stall: Duration::from_secs(60),
        silence: None,
    };

    /// How many of so many clients, of two workers with room for what four of them hold, are still served
    /// when they have taken nothing for so many seconds.
    fn served_of(clients: usize, seconds: usize) -> usize {
        let untaken = Untaken::within(1 << 20);
        let memory = BodyMemory::new(1 << 20);
        let workers = [untaken.clone(), untaken].map(|untaken| Connections::new(untaken, memory.clone()));
        let places = Arc::new(Semaphore::new(clients));
        let begun = |connections: &Connections| {
            let place = Arc::clone(&places).try_acquire_owned().unwrap();
            let client = connections.add(place, None);
            let request = InFlight::begin(&client.state);
            client.state.write_waits();
            (client, request)
        };
        let clients: Vec<_> = workers.iter().cycle().take(clients).map(begun).collect();
        for _ in 0..10 * seconds {
            workers.iter().for_each(|connections| connections.tick(&TIMEOUTS));
        }
        clients.iter().filter(|(client, _)| client.order() == ConnectionCommand::Serve).count()
    }

    #[test]
    fn where_many_clients_take_nothing_each_has_less_time() {
        assert_eq!((served_of(2, 8), served_of(6, 8)), (2, 0));
        assert_eq!(served_of(6, 5), 6, "a pause of the network ends nobody");
    }
}
