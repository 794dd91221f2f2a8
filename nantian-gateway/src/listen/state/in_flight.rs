//! Requests that are under way.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{ABANDONED_WITHIN, ConnectionCommand, State};
use crate::listen::tick::Wait;

/// The connection is busy while this lives.
pub(in crate::listen) struct InFlight {
    state: Arc<State>,
    /// Until there is a response.
    unanswered: Wait,
}

// === impl InFlight ===

impl InFlight {
    /// A request has begun.
    pub(in crate::listen) fn begin(state: &Arc<State>) -> Self {
        state.request_begins();
        Self { state: Arc::clone(state), unanswered: Wait(state.now()) }
    }

    /// The last request goes on, whether or not its response is over.
    pub(in crate::listen) fn resume(state: &Arc<State>) -> Self {
        state.request_goes_on();
        Self { state: Arc::clone(state), unanswered: Wait::NONE }
    }

    /// There is a response.
    pub(in crate::listen) fn answered(&mut self) {
        self.unanswered = Wait::NONE;
    }

    /// The protocol changes with the response.
    pub(in crate::listen) fn changes_protocol(&self) {
        self.state.leaves_http.store(true, Relaxed);
    }

    /// Nothing but the end of the connection will tell where the content of the response ends.
    pub(in crate::listen) fn ends_with_connection(&self) {
        self.state.ends_content.store(true, Relaxed);
    }

    /// Whether the client has not taken what was written last.
    pub(in crate::listen) fn is_writing(&self) -> bool {
        self.state.write_since.load(Relaxed) != Wait::NONE.0
    }

    /// Whether its connection is to end.
    pub(in crate::listen) fn is_draining(&self) -> bool {
        self.state.order() != ConnectionCommand::Serve
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let is_answered = self.unanswered == Wait::NONE;
        if !is_answered && !self.unanswered.is_over(self.state.now(), ABANDONED_WITHIN) {
            self.state.abandoned.store(self.state.abandoned.load(Relaxed).saturating_add(1), Relaxed);
        }
        self.state.response_ends();
    }
}
