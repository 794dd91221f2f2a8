//! The reservation of a request that is on its way, for whoever learns what it used.

use std::sync::Arc;

use crate::decide::Charge;
use crate::layer::Settings;
use crate::levels::Levels;
use crate::reservation::Settlement;
use crate::sync::{AtomicBool, Ordering};

/// Settles the tokens of the request in whose extensions it is found.
///
/// Clones settle the same reservation, which is settled once: the first settlement holds, later ones do nothing. If
/// nobody settles, the end of the response does:
///
/// - a 5xx response other than 504 as [`Settlement::NotServed`]: whoever fails does not bill,
/// - everything else as [`Settlement::AsReserved`]: served responses, requests that are given up, 504, and calls that end in
///   an error. Behind a timeout somebody has the prompt and may have used the tokens, and an error does not tell whether it
///   is one. Whoever knows that nothing was sent, as when no connection was made, settles as [`Settlement::NotServed`].
///
/// Under several limiters it settles the reservations of all of them.
#[derive(Debug, Clone)]
pub struct ReservationHandle(Arc<Handle>);

/// Settles a reservation when the response ends, however it ends.
#[derive(Debug)]
pub(crate) struct Ticket {
    handle: ReservationHandle,
    end: Settlement,
}

#[derive(Debug)]
struct Handle {
    charge: Charge,
    is_settled: AtomicBool,
    settings: Arc<Settings>,
    /// The handle of the limiter around this one.
    outer: Option<ReservationHandle>,
}

// === impl ReservationHandle ===

impl ReservationHandle {
    pub(crate) fn new(charge: Charge, settings: Arc<Settings>, outer: Option<Self>) -> Self {
        Self(Arc::new(Handle { charge, is_settled: AtomicBool::new(false), settings, outer }))
    }

    /// Settles the request's tokens now, unless they are settled.
    pub fn settle(&self, settlement: Settlement) {
        self.outwards().for_each(|handle| handle.settle_own(settlement));
    }

    /// Settles only what was reserved for this attempt at the request, by the limiters that are
    /// [`of_attempt`](crate::RateLimitLayer::of_attempt), up to the first that is not: for an attempt that failed where
    /// another one follows. The reservations around it are settled by that one.
    pub fn settle_attempt(&self, settlement: Settlement) {
        let of_attempt = self.outwards().take_while(|handle| handle.0.settings.of_attempt);
        of_attempt.for_each(|handle| handle.settle_own(settlement));
    }

    /// Tokens that were estimated for the request.
    pub fn reserved_tokens(&self) -> u64 {
        self.0.charge.cost().tokens
    }

    pub(crate) fn levels(&self) -> &Levels {
        self.0.charge.levels()
    }

    /// This handle, then that of the limiter around it, and so on.
    fn outwards(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |handle| handle.0.outer.as_ref())
    }

    fn settle_own(&self, settlement: Settlement) {
        let settings = &self.0.settings;
        if self.take() && settings.counts_tokens() {
            let settled = self.0.charge.settle_once(settlement);
            settings.observe.settled(&settled);
        }
    }

    fn cancel_own(&self) {
        if self.take() {
            self.0.charge.cancel_once();
        }
    }

    /// Whether the reservation is the caller's to settle.
    fn take(&self) -> bool {
        !self.0.is_settled.swap(true, Ordering::AcqRel)
    }
}

// === impl Ticket ===

impl Ticket {
    pub(crate) fn new(handle: ReservationHandle) -> Self {
        Self { handle, end: Settlement::AsReserved }
    }

    /// The request was not served: its end refunds the tokens, unless somebody settled otherwise.
    pub(crate) fn fail(&mut self) {
        self.end = Settlement::NotServed;
    }

    /// The request was refused further in: it costs nothing.
    pub(crate) fn cancel(self) {
        self.handle.cancel_own();
    }

    pub(crate) fn levels(&self) -> &Levels {
        self.handle.levels()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.handle.settle_own(self.end);
    }
}
