//! The end of a stream for its plugins: each logs it, is asked whether it is done, and forgets it.

use std::sync::Arc;

use super::StreamContext;
use super::call::Call;
use super::seat::Seat;
use super::visit::Member;
use super::visiting::{Visited, Visiting};
use crate::pool::Slot;
use crate::running::{Begun, Outcome as _};

// === impl StreamContext ===

impl StreamContext {
    /// Ends the stream for every plugin that has seen it.
    pub(super) fn close(&mut self) {
        self.leave_running();
        let mut members = std::mem::take(&mut self.members);
        let mut exchange = self.exchange.take().filter(|_| members.len() == 1);
        // All of them log before the first one forgets the stream, as in Envoy.
        if members.len() > 1 {
            for (index, member) in members.iter_mut().enumerate() {
                self.log(index, member);
            }
        }
        for (index, member) in members.into_iter().enumerate() {
            let Member { lease: Some(lease), context, is_logged, .. } = member else { continue };
            let slot = lease.slot();
            let exchange = exchange.take().or_else(|| self.shared.try_lock_owned());
            let (Some(mut cell), Some(mut exchange)) = (slot.try_lock(), exchange) else {
                lease.orphan(context, Arc::clone(&self.shared), is_logged);
                slot.settle();
                continue;
            };
            if cell.instance_of(slot, lease.generation()).is_none() {
                note_cost(slot, exchange.seats.get(index));
                continue;
            }
            exchange.begin(index, false);
            let call = Call::Close { is_logged };
            let_end(slot, Visiting { cell, exchange, call, context }.begin(slot));
            slot.settle();
        }
    }

    /// Lets a plugin log the stream, if its instance and the exchange are free: otherwise it does when it is closed.
    fn log(&self, index: usize, member: &mut Member) {
        let Some(lease) = &member.lease else { return };
        let slot = lease.slot();
        let (Some(mut cell), Some(mut exchange)) = (slot.try_lock(), self.shared.try_lock_owned()) else {
            return;
        };
        if cell.instance_of(slot, lease.generation()).is_none() {
            return;
        }
        exchange.begin(index, false);
        let visiting = Visiting { cell, exchange, call: Call::Log, context: member.context };
        let_end(slot, visiting.begin(slot));
        member.is_logged = true;
    }
}

/// Notes what the stream has cost, and that its end was the instance's too: now, or when it has come.
fn let_end(slot: &Arc<Slot>, begun: Begun<Visited>) {
    let note = |slot: &Slot, mut visited: Visited| {
        note_cost(slot, visited.exchange.as_ref().and_then(|exchange| exchange.own_ref()));
        visited.let_go(slot);
    };
    match begun {
        Begun::Over(visited) => note(slot, visited),
        Begun::Running(running) => {
            let slot = Arc::downgrade(slot);
            running.leave(move |visited| {
                if let Some(slot) = slot.upgrade() {
                    note(&slot, visited);
                }
            });
        }
    }
}

fn note_cost(slot: &Slot, seat: Option<&Seat>) {
    if let Some(seat) = seat {
        slot.peaks().note(&seat.usage);
    }
}
