//! Whether the API server is there, and what is said about it.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use kube::{Client, Error};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use crate::{source::kube::said, sync::lock};

/// How long a server that is there again may take until it answers for every kind.
const COMING_BACK: Duration = Duration::from_secs(10);
/// The first pause after a failure; it doubles
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// until it is this long.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Whether the server has started, as far as it lets us know.
pub(super) async fn is_ready(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
    match client.request_text(request).await {
        Ok(_) => true,
        Err(Error::Api(status)) => status.code < 500,
        Err(_) => false,
    }
}

/// Whether the API server is there, which concerns all kinds at once.
#[derive(Debug, Default)]
pub(super) struct Server {
    seen: Mutex<Seen>,
    is_back: Notify,
}

#[derive(Debug, Default)]
struct Seen {
    is_lost: bool,
    /// When it was last found after it had been lost.
    found: Option<Instant>,
}

impl Seen {
    fn is_coming_back(&self) -> bool {
        self.found.is_some_and(|found| found.elapsed() < COMING_BACK)
    }
}

impl Server {
    pub(super) fn is_lost(&self) -> bool {
        self.seen().is_lost
    }

    /// Says once that the server is away; what fails while it comes back is no news.
    pub(super) fn lost(&self, pause: &Pause, error: &(dyn std::error::Error + 'static)) {
        let mut seen = self.seen();
        if pause.is_repeated() && !seen.is_coming_back() && !seen.is_lost {
            seen.is_lost = true;
            tracing::warn!(
                error = said(error),
                "the API server cannot be reached; what it said last is served on"
            );
        }
    }

    /// The server is there: nothing has to wait for it any longer.
    pub(super) fn find(&self) {
        let mut seen = self.seen();
        if seen.is_lost {
            *seen = Seen { is_lost: false, found: Some(Instant::now()) };
            tracing::info!("the API server is reached again");
            self.is_back.notify_waiters();
        }
    }

    /// Says once that something is wrong with a kind, of which the server has just answered something.
    pub(super) fn tell(&self, pause: &mut Pause, kind: &str, error: &(dyn std::error::Error + 'static)) {
        self.find();
        if !self.seen().is_coming_back() {
            pause.tell(kind, error);
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    /// Waits for this long, or until the server is back. Returns whether it came back.
    pub(super) async fn wait(&self, time: Duration) -> bool {
        timeout(time, self.is_back.notified()).await.is_ok()
    }
}

/// Pauses that grow, and what is said about them.
#[derive(Debug)]
pub(super) struct Pause {
    next: Duration,
    is_told: bool,
}

impl Default for Pause {
    fn default() -> Self {
        Self { next: SHORTEST_PAUSE, is_told: false }
    }
}

impl Pause {
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST_PAUSE);
        // Replicas that lost the server together do not come back together.
        pause.mul_f64(0.5 + fastrand::f64())
    }

    /// The next pause is a short one again.
    pub(super) fn restart(&mut self) {
        self.next = SHORTEST_PAUSE;
    }

    /// Whether there was a failure before: one interruption is how a watch ends when the server restarts.
    fn is_repeated(&self) -> bool {
        self.next > SHORTEST_PAUSE
    }

    /// Says once that something is wrong with a kind.
    pub(super) fn tell(&mut self, kind: &str, error: &(dyn std::error::Error + 'static)) {
        if self.is_repeated() && !self.is_told {
            self.is_told = true;
            tracing::warn!(
                error = said(error),
                kind,
                "kind cannot be watched; its objects stay as they were"
            );
        }
    }

    /// Nothing is wrong any more.
    pub(super) fn over(&mut self, kind: &str) {
        if self.is_told {
            tracing::info!(kind, "kind is watched again");
        }
        *self = Self::default();
    }
}
