//! What one connection is doing, and for how long.

mod in_flight;
mod tunnel;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::OwnedSemaphorePermit;

pub(super) use self::in_flight::InFlight;
pub(crate) use self::tunnel::TunnelGuard;
use super::{tick::Wait, untaken::Untaken};
use crate::snapshot::StreamBinding;

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// To send the head of a request. Default: 10 s.
    pub(crate) header: Duration,
    /// Between two requests. Default: 75 s.
    pub(crate) idle: Duration,
    /// To send the next byte of a body, or to take the next byte of a response. Default: 60 s.
    pub(crate) stall: Duration,
    /// To say the next byte over a connection that is passed on as it is, or to hear one; `None` is no limit.
    /// Default: 1 h.
    pub(crate) silence: Option<Duration>,
}

/// How long a response may be silent to a client that has ended its side. Who is gone looks like who only has
/// nothing more to ask, until something is written; and a call that nobody waits for must end.
const HALF_CLOSED: Duration = Duration::from_secs(1);

/// How many requests a client may leave within [`ABANDONED_WITHIN`], before there is a response; Envoy's
/// default for resets that are premature.
const MOST_ABANDONED: u32 = 500;
/// Who leaves later has waited, as the clients of long polls do.
const ABANDONED_WITHIN: Duration = Duration::from_secs(1);

/// What one connection is doing.
///
/// Only its worker touches it; it is atomic because hyper wants connections that could move between threads.
#[derive(Debug)]
pub(super) struct State {
    clock: Arc<AtomicU32>,
    tunnels: Arc<AtomicUsize>,
    /// When the present wait began, or [`Wait::NONE`].
    head_since: AtomicU32,
    idle_since: AtomicU32,
    write_since: AtomicU32,
    /// When a piece of any response was taken last over HTTP/2.
    last_taken: AtomicU32,
    /// When a head began over HTTP/2, where requests that are under way do not keep the next one waiting.
    frames_since: AtomicU32,
    /// Whether a head has begun and not ended.
    in_head: AtomicBool,
    /// Requests that are not over, and responses.
    in_flight: AtomicU32,
    order: AtomicU8,
    /// What its task is told with the next tick, which wakes it.
    next_order: AtomicU8,
    /// Requests that have begun.
    requests: AtomicU32,
    /// Those of them whose client left soon, before there was a response.
    abandoned: AtomicU32,
    /// The number of the request that must be refused; 0 is none.
    refused: AtomicU32,
    /// When anything was last heard over a connection that is passed on as it is.
    last_activity: AtomicU32,
    /// Where such a connection is at home.
    stream: OnceLock<StreamBinding>,
    /// Whether something else than HTTP follows.
    leaves_http: AtomicBool,
    /// Whether nothing but the end of the connection tells where the content ends, which has yet to come.
    ends_content: AtomicBool,
    /// When the client ended its side in the middle of an exchange, or took something since.
    ended_since: AtomicU32,
    /// Among the connections that all workers may have. A tunnel keeps it, because it keeps the socket.
    _place: OwnedSemaphorePermit,
}

/// What the connection's task is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ConnectionCommand {
    Serve,
    /// Take what is on its way already.
    Drain,
    Finish,
    Abort,
}

// === impl State ===

impl State {
    /// A connection from which a head is expected from now on.
    pub(super) fn new(
        clock: Arc<AtomicU32>,
        tunnels: &Arc<AtomicUsize>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let now = clock.load(Relaxed);
        Self {
            clock,
            tunnels: Arc::clone(tunnels),
            head_since: now.into(),
            idle_since: Wait::NONE.0.into(),
            write_since: Wait::NONE.0.into(),
            last_taken: Wait::NONE.0.into(),
            frames_since: Wait::NONE.0.into(),
            in_head: false.into(),
            in_flight: 0.into(),
            order: (ConnectionCommand::Serve as u8).into(),
            next_order: (ConnectionCommand::Serve as u8).into(),
            requests: 0.into(),
            abandoned: 0.into(),
            refused: 0.into(),
            last_activity: Wait::NONE.0.into(),
            stream: OnceLock::new(),
            leaves_http: false.into(),
            ends_content: false.into(),
            ended_since: Wait::NONE.0.into(),
            _place: place,
        }
    }

    /// What its task is told from now on; an order is never taken back by a milder one.
    pub(super) fn give(&self, order: ConnectionCommand) {
        let before = self.order.fetch_max(order as u8, Relaxed);
        let is_told_to_finish = order == ConnectionCommand::Finish && before < order as u8;
        if is_told_to_finish && self.idle_since.load(Relaxed) != Wait::NONE.0 {
            // From now on it has the time to, however long it has been idle.
            self.idle_since.store(self.now(), Relaxed);
        }
    }

    /// What its task is told from the next tick on.
    pub(super) fn give_later(&self, order: ConnectionCommand) {
        self.next_order.fetch_max(order as u8, Relaxed);
    }

    /// Where it is at home, if it is passed on as it is.
    pub(super) fn stream(&self) -> Option<&StreamBinding> {
        self.stream.get()
    }

    fn now(&self) -> u32 {
        self.clock.load(Relaxed)
    }

    pub(super) fn order(&self) -> ConnectionCommand {
        match self.order.load(Relaxed) {
            order if order == ConnectionCommand::Abort as u8 => ConnectionCommand::Abort,
            order if order == ConnectionCommand::Finish as u8 => ConnectionCommand::Finish,
            order if order == ConnectionCommand::Drain as u8 => ConnectionCommand::Drain,
            _ => ConnectionCommand::Serve,
        }
    }

    pub(super) fn verdict(&self, now: u32, timeouts: &Timeouts) -> ConnectionCommand {
        let over = |since: &AtomicU32, limit| Wait(since.load(Relaxed)).is_over(now, limit);
        let is_writing = self.write_since.load(Relaxed) != Wait::NONE.0;
        let is_next = |order: ConnectionCommand| self.next_order.load(Relaxed) == order as u8;
        if over(&self.head_since, timeouts.header)
            // A client that does not take what is written is not read either.
            || !is_writing && over(&self.frames_since, timeouts.header)
            || over(&self.write_since, timeouts.stall)
            || over(&self.ended_since, HALF_CLOSED)
            || timeouts.silence.is_some_and(|limit| over(&self.last_activity, limit))
            // It does not do what it was told, and not because the end of a response has yet to be taken:
            // that may be in the kernel still, before the question that a client answers first.
            || !is_writing
                && self.order() == ConnectionCommand::Finish
                && over(&self.idle_since, timeouts.header.max(timeouts.stall))
            || self.resets_most_requests()
            || is_next(ConnectionCommand::Abort)
        {
            ConnectionCommand::Abort
        } else if over(&self.idle_since, timeouts.idle) || is_next(ConnectionCommand::Finish) {
            ConnectionCommand::Finish
        } else {
            ConnectionCommand::Serve
        }
    }

    /// A piece of a response was taken.
    pub(super) fn note_taken(&self) {
        self.last_taken.store(self.now(), Relaxed);
    }

    /// Whether one was, not longer ago than `limit`.
    pub(super) fn was_taken_from(&self, now: u32, limit: Duration) -> bool {
        let last = Wait(self.last_taken.load(Relaxed));
        last != Wait::NONE && !last.is_over(now, limit)
    }

    /// Whether its client does not take what is written.
    pub(super) fn is_untaken(&self, now: u32) -> bool {
        Untaken::counts(Wait(self.write_since.load(Relaxed)), now)
    }

    /// Whether most requests are abandoned, which costs the client nothing and backends much.
    fn resets_most_requests(&self) -> bool {
        let abandoned = self.abandoned.load(Relaxed);
        abandoned > MOST_ABANDONED && abandoned > self.requests.load(Relaxed) / 2
    }

    /// Nothing but the preface is owed until the first request: an HTTP/2 client may connect ahead of need.
    pub(super) fn begins_http2(&self) {
        self.head_since.store(Wait::NONE.0, Relaxed);
        self.idle_since.store(self.now(), Relaxed);
        self.note_frames(false, true);
    }

    /// Bytes came in over HTTP/2: whether a head has ended in them, and whether one has not.
    pub(super) fn note_frames(&self, has_ended: bool, in_head: bool) {
        if has_ended || !in_head {
            self.frames_since.store(Wait::NONE.0, Relaxed);
        }
        if in_head && self.frames_since.load(Relaxed) == Wait::NONE.0 {
            self.frames_since.store(self.now(), Relaxed);
        }
    }

    /// From now on bytes are passed on as they are, for the route of `place`.
    pub(super) fn becomes_stream(&self, place: StreamBinding) {
        // A connection becomes one once.
        let _ = self.stream.set(place);
        self.leaves_http.store(true, Relaxed);
        for since in [&self.head_since, &self.idle_since, &self.write_since] {
            since.store(Wait::NONE.0, Relaxed);
        }
        self.note_activity();
    }

    /// Something was said over a connection that is passed on as it is.
    pub(super) fn note_activity(&self) {
        self.last_activity.store(self.now(), Relaxed);
    }

    /// Counts a tunnel for as long as the guard lives.
    pub(super) fn tunnel(&self) -> TunnelGuard {
        TunnelGuard::new(&self.tunnels)
    }

    /// Whether something else than HTTP follows: the bytes of a tunnel, or of a connection that is passed on
    /// as it is.
    pub(super) fn leaves_http(&self) -> bool {
        self.leaves_http.load(Relaxed)
    }

    /// Bytes came in while no request was being served: a head has begun.
    pub(super) fn head_bytes(&self) {
        if self.idle_since.swap(Wait::NONE.0, Relaxed) != Wait::NONE.0 {
            self.head_since.store(self.now(), Relaxed);
        }
    }

    /// Whether what has come in ends in the middle of a head.
    pub(super) fn note_head(&self, in_head: bool) {
        self.in_head.store(in_head, Relaxed);
    }

    /// Whether the next bytes are those of a head.
    pub(super) fn expects_head(&self) -> bool {
        self.in_flight.load(Relaxed) == 0
    }

    /// The request of this number, from 1 on, is ambiguous.
    pub(super) fn refuse(&self, request: u32) {
        self.refused.store(request, Relaxed);
    }

    /// Whether the request that has begun last must be refused.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.load(Relaxed) == self.requests.load(Relaxed)
    }

    fn request_begins(&self) {
        self.requests.store(self.requests.load(Relaxed).wrapping_add(1), Relaxed);
        self.request_goes_on();
    }

    fn request_goes_on(&self) {
        self.head_since.store(Wait::NONE.0, Relaxed);
        self.idle_since.store(Wait::NONE.0, Relaxed);
        self.in_flight.store(self.in_flight.load(Relaxed).saturating_add(1), Relaxed);
    }

    fn response_ends(&self) {
        let left = self.in_flight.load(Relaxed).saturating_sub(1);
        self.in_flight.store(left, Relaxed);
        if left == 0 {
            self.awaits_request();
        }
    }

    /// Nothing is in flight. A head that has begun behind the last request has the time of a head from now
    /// on, unless the end of a response has yet to be taken, before which nothing is read.
    fn awaits_request(&self) {
        let awaits_rest = self.in_head.load(Relaxed) && self.write_since.load(Relaxed) == Wait::NONE.0;
        let since = |awaits: bool| if awaits { self.now() } else { Wait::NONE.0 };
        self.head_since.store(since(awaits_rest), Relaxed);
        self.idle_since.store(since(!awaits_rest), Relaxed);
    }

    /// The client has ended its side and waits for a response, or is gone: nothing tells which.
    pub(super) fn client_ended(&self) {
        if self.ended_since.load(Relaxed) == Wait::NONE.0 {
            self.ended_since.store(self.now(), Relaxed);
        }
    }

    /// The client does not take what is written. Over a connection that is passed on as it is only silence
    /// counts.
    pub(super) fn write_waits(&self) {
        if self.write_since.load(Relaxed) == Wait::NONE.0 && self.stream.get().is_none() {
            self.write_since.store(self.now(), Relaxed);
            if self.in_head.load(Relaxed) && self.expects_head() {
                self.awaits_request();
            }
        }
    }

    /// Whether the connection, closed now, is to end as one that breaks: because the client does not take
    /// what is written, or would take for whole what has come.
    pub(super) fn is_broken(&self) -> bool {
        let is_given_up =
            self.write_since.load(Relaxed) != Wait::NONE.0 && self.order() == ConnectionCommand::Abort;
        is_given_up || self.ends_content.load(Relaxed)
    }

    /// This side of the connection ends as it should: all has been written.
    pub(super) fn finishes(&self) {
        self.ends_content.store(false, Relaxed);
    }

    /// The client takes what is written.
    pub(super) fn write_goes_on(&self) {
        if self.ended_since.load(Relaxed) != Wait::NONE.0 {
            self.ended_since.store(self.now(), Relaxed);
        }
        let has_waited = self.write_since.swap(Wait::NONE.0, Relaxed) != Wait::NONE.0;
        // The end of a response was still on its way: the connection has not been idle yet. What is written
        // at once, such as a ping of HTTP/2, is no use of the connection.
        if has_waited && self.idle_since.load(Relaxed) != Wait::NONE.0 {
            self.awaits_request();
        }
    }
}

#[cfg(test)]
mod tests;
