//! The token of one credential: kept, renewed ahead of its end, asked for once whoever waits.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use super::issued::{Issued, Token};
use super::{Exchange, Form, Identity, TokenClient, TokenError};
use crate::credential::stamp::Stamp;

/// How long a failure is the answer, the first time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// And at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The token of one credential, and who asks for it.
pub(crate) struct Source {
    identity: Identity,
    form: Form,
    client: Arc<dyn TokenClient>,
    state: Mutex<State>,
    told: Notify,
}

#[derive(Debug, Default)]
struct State {
    token: Option<Token>,
    is_asking: bool,
    failed: Option<Failed>,
}

#[derive(Debug)]
struct Failed {
    error: TokenError,
    in_a_row: u32,
    at: SystemTime,
}

/// What there is of a token.
#[derive(Debug)]
pub(crate) enum Look {
    Ready(Arc<Stamp>),
    /// Who is told when to look again has to be [noted](Source::token) before.
    Waiting,
    Failed(TokenError),
}

// === impl Source ===

impl Source {
    pub(crate) fn new(identity: Identity, form: Form, client: Arc<dyn TokenClient>) -> Self {
        Self { identity, form, client, state: Mutex::default(), told: Notify::new() }
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The token, if there is one; asks for another one when it is time to.
    pub(crate) fn look_at(self: &Arc<Self>, now: SystemTime) -> Look {
        let mut state = self.state();
        let good = state.token.as_ref().filter(|token| token.is_good_at(now));
        let is_due = good.is_none_or(|token| token.is_due_at(now));
        let good = good.map(|token| Arc::clone(token.stamp()));
        let asks = is_due && !state.is_asking && state.may_ask_at(now);
        state.is_asking |= asks;
        let look = match (good, &state.failed) {
            (Some(stamp), _) => Look::Ready(stamp),
            (None, Some(failed)) if !state.is_asking => Look::Failed(failed.error.clone()),
            (None, _) => Look::Waiting,
        };
        drop(state);
        if asks {
            // The client may end the exchange at once.
            self.client.begin(Exchange::of(Arc::clone(self)));
        }
        look
    }

    /// Waits for the token.
    ///
    /// # Cancellation
    /// Dropping the future leaves the exchange to others.
    pub(crate) async fn token(self: Arc<Self>) -> Result<Arc<Stamp>, TokenError> {
        loop {
            // From here on nothing is missed.
            let told = self.told.notified();
            match self.look_at(SystemTime::now()) {
                Look::Ready(stamp) => return Ok(stamp),
                Look::Failed(error) => return Err(error),
                Look::Waiting => told.await,
            }
        }
    }

    /// An exchange has come to an end.
    pub(super) fn settle_at(&self, now: SystemTime, result: Result<Issued, TokenError>) {
        let token = result.and_then(|Issued { secret, life }| {
            let stamp = self.form.stamp(&secret).ok_or(TokenError::Unreadable)?;
            Ok(Token::issued_at(now, stamp, life))
        });
        let mut state = self.state();
        state.is_asking = false;
        match token {
            Ok(token) => {
                state.token = Some(token);
                state.failed = None;
            }
            Err(error) => {
                tracing::warn!(identity = ?self.identity, %error, "a credential got no token");
                let in_a_row = state.failed.as_ref().map_or(1, |failed| failed.in_a_row.saturating_add(1));
                state.failed = Some(Failed { error, in_a_row, at: now });
            }
        }
        drop(state);
        self.told.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("identity", &self.identity).finish_non_exhaustive()
    }
}

// === impl State ===

impl State {
    /// Whether the last failure is long enough ago. A clock that was set back holds nothing up.
    fn may_ask_at(&self, now: SystemTime) -> bool {
        self.failed.as_ref().is_none_or(|failed| {
            let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failed.in_a_row - 1));
            now.duration_since(failed.at).map_or(true, |since| since >= pause.min(LONGEST_PAUSE))
        })
    }
}

#[cfg(test)]
mod tests;
