//! Asking a server to decide, and following its keys through a cluster.

use std::time::Duration;

use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::time::{Instant, timeout};

use super::fault::StoreFault;
use super::node::{Link, Route};
use super::script::{Answer, Order};
use super::store::StoreState;
use super::url::Endpoint;

/// The resolution of the runtime's timers.
const TIMER_STEP: Duration = Duration::from_millis(1);
/// How often a decision follows its key to another node of a cluster.
const MAX_REDIRECTS: usize = 3;

/// The server did not decide.
#[derive(Debug)]
pub(super) struct NoAnswer;

// === impl StoreState ===

impl StoreState {
    /// Asks the server; whatever goes wrong is counted.
    ///
    /// # Cancellation
    ///
    /// Dropping it leaves open whether the order is carried out.
    pub(super) async fn ask(&self, mut route: Route, key: &str, order: &Order) -> Result<Answer, NoAnswer> {
        let begun = Instant::now();
        // Timers end up to two of their steps late.
        let limit = self.command_timeout.saturating_sub(TIMER_STEP).max(TIMER_STEP);
        let asked = timeout(limit, self.decide(&mut route, key, order)).await;
        // Who tells that the key is elsewhere is well.
        let is_elsewhere = matches!(&asked, Ok(Err(error)) if error.redirect_node().is_some());
        let answer = asked.ok().and_then(Result::ok).and_then(|bytes| Answer::read(&bytes, order.limits));
        match answer {
            Some(answer) => {
                route.node.breaker.succeeded();
                self.count_answer(begun.elapsed());
                Ok(answer)
            }
            None => {
                self.count_failure();
                // The failure of a connection that is gone says nothing of the one that is there now.
                if !is_elsewhere && route.is_current() && route.node.breaker.failed() {
                    route.node.tripped.notify_one();
                }
                Err(NoAnswer)
            }
        }
    }

    /// Has the script carry out `order`, by the node that has the key: `route` says which that was.
    pub(super) async fn decide(
        &self,
        route: &mut Route,
        key: &str,
        order: &Order,
    ) -> Result<Vec<u8>, RedisError> {
        let mut is_asking = false;
        for _ in 0..MAX_REDIRECTS {
            let result = self.decide_at(&route.link, is_asking, key, order).await;
            let Some(next) = result.as_ref().err().and_then(|error| self.redirected(error, route)) else {
                return result;
            };
            (*route, is_asking) = next;
        }
        self.decide_at(&route.link, is_asking, key, order).await
    }

    /// Whom to ask in place of `asked`, and whether the key is only about to be there.
    fn redirected(&self, error: &RedisError, asked: &Route) -> Option<(Route, bool)> {
        if StoreFault::from(error) != StoreFault::Cluster {
            return None;
        }
        let is_asking = error.kind() == ErrorKind::Server(ServerErrorKind::Ask);
        if !is_asking {
            self.moved.notify_one();
        }
        let (address, _) = error.redirect_node()?;
        let endpoint = Endpoint::of_redirect(address, &asked.node.endpoint)?;
        let layout = self.layout.load();
        let node = layout.nodes().iter().find(|node| node.endpoint == endpoint)?;
        Some((node.route()?, is_asking))
    }

    /// Has the script carry out `order`; a server that has lost the script is told it again.
    async fn decide_at(
        &self,
        link: &Link,
        is_asking: bool,
        key: &str,
        order: &Order,
    ) -> Result<Vec<u8>, RedisError> {
        match link.answer(link.command(key, order), is_asking).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                let text = order.limits.checked_sub(1).and_then(|position| self.scripts.get(position));
                let text = text.map(String::as_str).unwrap_or_default();
                link.answer(carry_out("EVAL", text, key, order), is_asking).await
            }
            result => result,
        }
    }
}

/// The command that has a script, by its text or its name, carry out `order`.
pub(super) fn carry_out(how: &str, script: &str, key: &str, order: &Order) -> Cmd {
    let mut command = Cmd::new();
    command.arg(how).arg(script).arg(1).arg(key).arg(&order.terms).arg(&order.corrections);
    command
}

/// The string that a command answered.
pub(super) fn bytes(result: Result<Value, RedisError>) -> Result<Vec<u8>, RedisError> {
    match result?.extract_error()? {
        Value::BulkString(bytes) => Ok(bytes),
        _ => Err((ErrorKind::UnexpectedReturnType, "not a string").into()),
    }
}

pub(super) fn unexpected_answer() -> RedisError {
    (ErrorKind::UnexpectedReturnType, "an answer of another form").into()
}
