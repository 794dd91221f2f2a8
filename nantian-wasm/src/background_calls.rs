//! What upkeep goes on with when whoever began it does not: calls, and streams that wait.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Waker};

use crate::pool::Slot;
use crate::running::{Resumable, RunningCall, Started};
use crate::stream::{Exchange, SharedExchange};
use crate::sync::lock;

/// Beats of the clock for which a call that has used up a slice is not polled before upkeep goes on with it.
const PATIENCE: u64 = 10;

/// A call that nobody polls.
type DetachedCall = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What one slot has for upkeep.
#[derive(Default)]
pub(crate) struct BackgroundCalls {
    /// Calls under way whose stream is gone.
    left: Mutex<Vec<DetachedCall>>,
    /// The call under way that whoever waits for it may not poll.
    watched: Mutex<Option<Weak<dyn Resumable>>>,
    /// Streams that wait for the instance, also those that have been woken and did not come, by what a waker
    /// is made of.
    waiting: Mutex<HashMap<(usize, usize), Waker>>,
    /// Streams this instance holds, and until when, by the address of their exchange.
    paused: Mutex<HashMap<usize, Paused>>,
}

struct Paused {
    generation: u64,
    until: u64,
    exchange: Weak<futures_util::lock::Mutex<Exchange>>,
}

// === impl Slot ===

impl Slot {
    /// Takes over a call that nobody polls any more.
    pub(crate) fn adopt(&self, call: DetachedCall) {
        lock(&self.background_calls().left).push(call);
    }

    /// Whether there are calls that nobody polls.
    pub(crate) fn has_left(&self) -> bool {
        !lock(&self.background_calls().left).is_empty()
    }

    /// Gives each call that nobody polls a slice, then makes the calls that waited for it; whether some go
    /// on.
    pub(crate) fn give_turns(self: &Arc<Self>) -> bool {
        let mut left = std::mem::take(&mut *lock(&self.background_calls().left));
        left.retain_mut(|call| {
            self.resume();
            call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
        });
        lock(&self.background_calls().left).append(&mut left);
        self.settle();
        self.has_left()
    }

    /// Begins a call of nobody's.
    pub(crate) fn set_off(self: &Arc<Self>, call: impl Future<Output = ()> + Send + 'static) {
        if let Started::Running(running) = RunningCall::begin(self, call) {
            running.leave(|()| {});
        }
    }

    /// Notes the call under way, for upkeep to go on with it should its stream be polled no more: a client
    /// that does not read must not keep the instance.
    pub(crate) fn watch(&self, call: Weak<dyn Resumable>) {
        *lock(&self.background_calls().watched) = Some(call);
    }

    /// Takes over the call under way if nobody has polled it for long; whoever waits for it finds it further
    /// on, or over.
    pub(crate) fn adopt_stalled(self: &Arc<Self>) {
        if self.clock().beats().saturating_sub(self.resumed_at()) < PATIENCE {
            return;
        }
        if let Some(call) = lock(&self.background_calls().watched).take().as_ref().and_then(Weak::upgrade) {
            let slot = Arc::downgrade(self);
            self.adopt(Box::pin(std::future::poll_fn(move |cx| call.resume(&slot, cx))));
        }
    }

    /// Notes who waits for the instance. The lock wakes one of them at a time, who may not come.
    pub(crate) fn note_waiting(&self, waker: &Waker) {
        let parts = (waker.data().addr(), std::ptr::from_ref(waker.vtable()).addr());
        lock(&self.background_calls().waiting).entry(parts).or_insert_with(|| waker.clone());
    }

    /// Wakes all who wait for the instance, if nobody has it.
    pub(crate) fn wake_waiting(&self) {
        let is_waited_for = !lock(&self.background_calls().waiting).is_empty();
        if is_waited_for && self.try_lock().is_some() {
            std::mem::take(&mut *lock(&self.background_calls().waiting)).into_values().for_each(Waker::wake);
        }
    }

    /// Notes a stream that its guest holds. One that is woken too early, because it holds both messages or
    /// its time was prolonged, notes itself again.
    pub(crate) fn note_pause(&self, exchange: &SharedExchange, until: u64) {
        let mut all = lock(&self.background_calls().paused);
        // What is noted keeps its address, whether the stream lives or not.
        let noted = all.entry(Arc::as_ptr(exchange).addr());
        noted.and_modify(|known| known.until = known.until.min(until)).or_insert_with(|| Paused {
            generation: self.generation(),
            until,
            exchange: Arc::downgrade(exchange),
        });
    }

    /// Wakes held streams whose time is over or whose instance has ended.
    pub(crate) fn wake_at(&self, now: u64) {
        let generation = self.generation();
        lock(&self.background_calls().paused).retain(|_, paused| {
            let Some(exchange) = paused.exchange.upgrade() else { return false };
            if paused.until > now && paused.generation == generation {
                return true;
            }
            // Somebody who has the exchange is awake; should another wait, it is woken in the next round.
            exchange.try_lock().map(|mut exchange| exchange.wake()).is_none()
        });
    }
}
