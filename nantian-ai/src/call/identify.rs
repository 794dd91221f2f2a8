//! Waiting for the token that an attempt has to show.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use super::Call;
use crate::call::attempt::Failed;
use crate::call::timeout::Watch;
use crate::error::Error;
use crate::target::Target;
use crate::token::{Source, TokenError};
use crate::usage::UsageSink;

// === impl Call ===

impl<K: UsageSink> Call<K> {
    /// What has to be waited for before the next attempt, from now on.
    pub(crate) fn awaited(&mut self, target: &Target) -> Option<Arc<Source>> {
        let source = target.awaited_at(SystemTime::now(), self.turn)?;
        self.watch = Watch::new(target.config().timeouts, self.deadline, self.streaming);
        Some(source)
    }

    /// There is no token, or it has not come in time.
    pub(crate) fn poll_no_token(
        &mut self,
        target: &Target,
        token: Poll<TokenError>,
        cx: &mut Context<'_>,
    ) -> Poll<Failed> {
        let source = match token {
            Poll::Ready(error) => error,
            Poll::Pending => TokenError::Late { after: ready!(self.watch.poll_late(cx, false)).1 },
        };
        Poll::Ready(Failed::from(Error::Token { target: target.name().to_owned(), source }))
    }
}
