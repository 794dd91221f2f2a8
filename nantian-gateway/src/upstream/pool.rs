//! Idle HTTP/1.1 connections and shared HTTP/2 connections of one worker.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt,
    rc::{Rc, Weak},
    time::Duration,
};

use foldhash::fast::RandomState;
use tokio::time::Instant;

use super::{
    Destination,
    http1::Http1,
    http2::{Http2, MAX_STREAMS},
    pending_connection::{ConnectionTicket, PendingConnection},
};
use crate::ir::Address;

/// Idle connections kept for one destination.
const MAX_IDLE_PER_DESTINATION: usize = 1024;

/// How long the connections to a name are used: one that is moved is followed, as old servers may answer for
/// long.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(300);

/// The connections that one worker can use again.
#[derive(Default)]
pub(super) struct Pool {
    slots: RefCell<HashMap<Destination, Slot, RandomState>>,
}

#[derive(Default)]
struct Slot {
    /// The one used last is on top, so that the others can grow old.
    idle: Vec<Idle>,
    shared: Vec<Shared>,
    opening: Vec<Weak<PendingConnection>>,
}

struct Shared {
    connection: Http2,
    opened: Instant,
    /// Since when it was seen without a stream.
    idle_since: Option<Instant>,
}

struct Idle {
    connection: Box<Http1>,
    since: Instant,
}

impl Pool {
    /// The connection used last, if one is open.
    pub(super) fn take(&self, destination: &Destination) -> Option<Box<Http1>> {
        let mut slots = self.slots.borrow_mut();
        let idle = &mut slots.get_mut(destination)?.idle;
        while let Some(Idle { mut connection, since }) = idle.pop() {
            let is_old = has_aged(destination, connection.opened);
            if !is_old && connection.is_kept(since) && connection.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose exchange is over, unless it cannot be used again.
    pub(super) fn put(&self, mut connection: Box<Http1>) {
        if !connection.rest() || has_aged(&connection.destination, connection.opened) {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        let slot = match slots.get_mut(&connection.destination) {
            Some(slot) => slot,
            None => slots.entry(connection.destination.clone()).or_default(),
        };
        if slot.idle.len() < MAX_IDLE_PER_DESTINATION {
            slot.idle.push(Idle { connection, since: Instant::now() });
        }
    }

    /// An HTTP/2 connection, other than `except`, that has room for another stream.
    pub(super) fn shared(&self, destination: &Destination, except: Option<&Http2>) -> Option<Http2> {
        let slots = self.slots.borrow();
        let shared = slots.get(destination)?.shared.iter();
        let mut connections =
            shared.filter(|shared| !has_aged(destination, shared.opened)).map(|shared| &shared.connection);
        connections.find(|known| known.has_room() && except.is_none_or(|except| !known.is(except))).cloned()
    }

    /// A place with an HTTP/2 connection that is being opened, if one is left.
    pub(super) fn ticket(&self, destination: &Destination) -> Option<ConnectionTicket> {
        let slots = self.slots.borrow();
        slots.get(destination)?.opening.iter().filter_map(Weak::upgrade).find_map(|opening| opening.ticket())
    }

    /// Lets further requests wait for an HTTP/2 connection that somebody begins to open: as many as the
    /// backend allows streams on others.
    pub(super) fn open(&self, destination: &Destination) -> Rc<PendingConnection> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(destination.clone()).or_default();
        let allowed = slot.shared.iter().filter_map(|shared| shared.connection.allowed()).min();
        let opening = Rc::new(PendingConnection::new(allowed.unwrap_or(MAX_STREAMS).saturating_sub(1)));
        slot.opening.retain(|known| known.strong_count() > 0);
        slot.opening.push(Rc::downgrade(&opening));
        opening
    }

    /// Lets further requests share `connection`.
    pub(super) fn share(&self, destination: &Destination, connection: Http2) {
        let shared = Shared { connection, opened: Instant::now(), idle_since: None };
        self.slots.borrow_mut().entry(destination.clone()).or_default().shared.push(shared);
    }

    /// Closes what was idle for `limit` and forgets what is closed.
    pub(super) fn sweep(&self, now: Instant, limit: Duration) {
        self.slots.borrow_mut().retain(|_, slot| {
            slot.idle.retain_mut(|Idle { connection, since }| {
                now - *since < limit && connection.is_kept(*since) && connection.is_ready()
            });
            slot.shared.retain_mut(|shared| shared.is_wanted_at(now, limit));
            slot.opening.retain(|opening| opening.strong_count() > 0);
            !slot.idle.is_empty() || !slot.shared.is_empty() || !slot.opening.is_empty()
        });
    }
}

/// Whether a name may have been moved since a connection to it was opened.
fn has_aged(destination: &Destination, opened: Instant) -> bool {
    matches!(destination.address, Address::Dns(..)) && opened.elapsed() >= FOLLOWED_WITHIN
}

impl Shared {
    /// Whether it is open, and used or not unused for long.
    fn is_wanted_at(&mut self, now: Instant, limit: Duration) -> bool {
        if !self.connection.is_idle() {
            self.idle_since = None;
        }
        let idle_since = *self.idle_since.get_or_insert(now);
        !self.connection.is_closed() && now - idle_since < limit
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("destinations", &self.slots.borrow().len()).finish()
    }
}
