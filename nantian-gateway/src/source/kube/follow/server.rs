//! Whether the API server is there, and what is said about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use kube::{Client, Error};
use tokio::{
    sync::{Notify, watch},
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
    /// Whether all that it serves is followed.
    is_up: watch::Sender<bool>,
    /// What is still to be read for the first time, and why it is not.
    unread: watch::Sender<String>,
}

#[derive(Debug, Default)]
struct Seen {
    is_lost: bool,
    /// When it was last found after it had been lost.
    found: Option<Instant>,
    /// The kinds that cannot be watched, as has been said.
    unwatched: BTreeSet<String>,
    /// What is still to be read for the first time, and the last error about it, or nothing.
    unread: BTreeMap<String, String>,
}

impl Seen {
    fn is_coming_back(&self) -> bool {
        self.found.is_some_and(|found| found.elapsed() < COMING_BACK)
    }
}

impl Server {
    /// Tells `is_up` whether all is followed, and `unread` what is still to be read for the first time.
    pub(super) fn new(is_up: watch::Sender<bool>, unread: watch::Sender<String>) -> Self {
        Self { is_up, unread, ..Self::default() }
    }

    /// Something is to be read for the first time.
    pub(super) fn expect(&self, what: &str) {
        let mut seen = self.seen();
        seen.unread.entry(what.to_owned()).or_default();
        self.show_unread(&seen);
    }

    /// It could not be read.
    pub(super) fn miss(&self, what: &str, error: &str) {
        let mut seen = self.seen();
        if let Some(last) = seen.unread.get_mut(what) {
            error.clone_into(last);
            self.show_unread(&seen);
        }
    }

    /// It was read, or need not be.
    pub(super) fn read(&self, what: &str) {
        let mut seen = self.seen();
        if seen.unread.remove(what).is_some() {
            self.show_unread(&seen);
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.seen().is_lost
    }

    /// Says once that the server is away; what fails while it comes back is no news.
    pub(super) fn lost(&self, pause: &Pause, error: &(dyn std::error::Error + 'static)) {
        let mut seen = self.seen();
        if pause.is_repeated() && !seen.is_coming_back() && !seen.is_lost {
            seen.is_lost = true;
            self.show(&seen);
            tracing::warn!(
                error = said(error),
                "the API server cannot be reached; what it said last is served on"
            );
        }
    }

    /// The server is there: nothing has to wait for it any longer.
    pub(super) fn find(&self) {
        let mut seen = self.seen();
        if mem::take(&mut seen.is_lost) {
            seen.found = Some(Instant::now());
            tracing::info!("the API server is reached again");
            self.is_back.notify_waiters();
        }
        self.show(&seen);
    }

    /// Says once that something is wrong with a kind, of which the server has just answered something.
    pub(super) fn tell(&self, pause: &mut Pause, kind: &str, error: &(dyn std::error::Error + 'static)) {
        self.find();
        let mut seen = self.seen();
        if !seen.is_coming_back() && pause.tell(kind, error) {
            seen.unwatched.insert(kind.to_owned());
            self.show(&seen);
        }
    }

    /// Nothing is wrong with a kind any more.
    pub(super) fn over(&self, pause: &mut Pause, kind: &str) {
        if mem::take(pause).is_told {
            tracing::info!(kind, "kind is watched again");
            self.forget(kind);
        }
    }

    /// Nothing is to be watched of a kind for now, which is nothing wrong.
    pub(super) fn spare(&self, pause: &mut Pause, kind: &str) {
        self.find();
        if mem::take(&mut pause.is_told) {
            tracing::info!(kind, "the namespace is not there; its objects are forgotten");
        }
        self.forget(kind);
    }

    /// A kind is not watched any more, or in another version.
    pub(super) fn forget(&self, kind: &str) {
        let mut seen = self.seen();
        seen.unwatched.remove(kind);
        self.show(&seen);
    }

    fn show(&self, seen: &Seen) {
        let is_up = !seen.is_lost && seen.unwatched.is_empty();
        self.is_up.send_if_modified(|shown| mem::replace(shown, is_up) != is_up);
    }

    /// It is a long text while much is unread.
    fn show_unread(&self, seen: &Seen) {
        let unread = seen.unread.iter().map(|(what, error)| match error.as_str() {
            "" => what.clone(),
            error => format!("{what} ({error})"),
        });
        self.unread.send_replace(unread.collect::<Vec<_>>().join(", "));
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    /// Waits for a pause, or until the server is back: from then on pauses are short again.
    pub(super) async fn wait(&self, pause: &mut Pause) {
        if timeout(pause.next(), self.is_back.notified()).await.is_ok() {
            pause.next = SHORTEST_PAUSE;
        }
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

    /// Whether there was a failure before: one interruption is how a watch ends when the server restarts.
    fn is_repeated(&self) -> bool {
        self.next > SHORTEST_PAUSE
    }

    /// Says once that something is wrong with a kind. Returns whether it did.
    fn tell(&mut self, kind: &str, error: &(dyn std::error::Error + 'static)) -> bool {
        let is_news = self.is_repeated() && !self.is_told;
        if is_news {
            self.is_told = true;
            tracing::warn!(
                error = said(error),
                kind,
                "kind cannot be watched; its objects stay as they were"
            );
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_is_up_while_it_is_there_and_every_kind_is_watched() {
        let (is_up, shown) = watch::channel(false);
        let server = Server::new(is_up, watch::Sender::default());
        server.find();
        assert!(*shown.borrow());
        let error = std::io::Error::other("forbidden");
        let mut pause = Pause::default();
        server.tell(&mut pause, "Secret", &error);
        assert!(*shown.borrow(), "it may pass");
        pause.next();
        server.tell(&mut pause, "Secret", &error);
        assert!(!*shown.borrow());
        server.find();
        assert!(!*shown.borrow(), "other kinds change nothing about that");
        server.over(&mut pause, "Secret");
        assert!(*shown.borrow());
        pause.next();
        server.lost(&pause, &error);
        assert!(!*shown.borrow());
        server.find();
        assert!(*shown.borrow());
    }

    #[test]
    fn what_is_not_read_yet_is_told_with_the_last_error() {
        let ((is_up, shown), (unread, mut told)) = (watch::channel(false), watch::channel(String::new()));
        let server = Server::new(is_up, unread);
        for kind in ["ConfigMap", "Secret"] {
            server.expect(kind);
        }
        server.miss("Secret", "away");
        server.miss("Secret", "forbidden");
        assert_eq!(*told.borrow_and_update(), "ConfigMap, Secret (forbidden)");
        assert!(!*shown.borrow(), "the server was not found yet");
        server.find();
        assert!(*shown.borrow() && !told.has_changed().unwrap(), "each event finds it");
        server.read("ConfigMap");
        server.read("Secret");
        server.miss("Secret", "away");
        assert_eq!(*told.borrow(), "", "what is read again later is not in the way");
    }
}
