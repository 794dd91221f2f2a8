//! What is logged when there is not enough of something, which clients may meet thousands of times a second.

use std::{
    io,
    sync::{
        Mutex, TryLockError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::PortKey;
use crate::socket::{EMFILE, ENFILE};

/// What there may not be enough of, in the whole process.
#[derive(Debug, Default)]
pub(crate) struct Shortages {
    /// Open files, and what else a socket needs of the system.
    pub(crate) files: Shortage,
    /// Places for client connections.
    pub(crate) connections: Shortage,
    /// Places for sessions of datagrams.
    pub(crate) sessions: Shortage,
}

/// One of them: the log tells when it begins, at most once a minute that there is one, and when it is over.
#[derive(Debug, Default)]
pub(crate) struct Shortage {
    /// The log has told of it, and not of its end.
    is_open: AtomicBool,
    times: Mutex<Times>,
}

#[derive(Debug, Default)]
struct Times {
    /// When it was told of last.
    told: Option<Instant>,
    /// When it was met last.
    met: Option<Instant>,
}

/// From one line about it to the next.
const PAUSE: Duration = Duration::from_secs(60);
/// It is over when it was not met for so long: of places that come and go one at a time there are not enough.
const QUIET: Duration = Duration::from_secs(1);

// === impl Shortages ===

impl Shortages {
    /// Logs that there is no socket for a client of `port`, if it is time to.
    pub(crate) fn no_socket(&self, error: &io::Error, port: PortKey) {
        if !self.files.note_at(Instant::now()) {
            return;
        }
        let advice = match error.raw_os_error() {
            Some(EMFILE) => {
                Some("let the process have more files open (ulimit -n), or set --max-connections")
            }
            Some(ENFILE) => Some("let the system have more files open (fs.file-max)"),
            _ => None,
        };
        tracing::warn!(%error, %port, advice, "there is no socket for a client");
    }

    /// Logs that there are sockets again, if there were none.
    pub(crate) fn socket(&self, port: PortKey) {
        if self.files.end_at(Instant::now()) {
            tracing::info!(%port, "there are sockets for clients again");
        }
    }
}

// === impl Shortage ===

impl Shortage {
    /// Notes that it is met; whether that is to be told.
    pub(crate) fn note_at(&self, now: Instant) -> bool {
        self.change(|times| {
            times.met = Some(now);
            let is_news = times.told.is_none_or(|told| now.saturating_duration_since(told) >= PAUSE);
            if is_news {
                times.told = Some(now);
                self.is_open.store(true, Relaxed);
            }
            is_news
        })
    }

    /// Notes that there is enough; whether it is to be told that it is over.
    pub(crate) fn end_at(&self, now: Instant) -> bool {
        self.is_open.load(Relaxed)
            && self.change(|times| {
                let is_over = times.met.is_none_or(|met| now.saturating_duration_since(met) >= QUIET);
                is_over && self.is_open.swap(false, Relaxed)
            })
    }

    /// Nobody waits for another worker: what that one notes is as good.
    fn change(&self, change: impl FnOnce(&mut Times) -> bool) -> bool {
        match self.times.try_lock() {
            Ok(mut times) => change(&mut times),
            Err(TryLockError::Poisoned(poisoned)) => change(&mut poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_when_it_begins_once_a_minute_and_when_it_is_over() {
        let (shortage, begun) = (Shortage::default(), Instant::now());
        let at = |millis| begun + Duration::from_millis(millis);
        assert!(!shortage.end_at(begun), "there was none");
        let told: Vec<_> = (0..150_000).step_by(10).filter(|&millis| shortage.note_at(at(millis))).collect();
        assert_eq!(told, [0, 60_000, 120_000]);
        assert!(!shortage.end_at(at(150_500)), "it may be met again");
        assert!(shortage.end_at(at(151_000)));
        assert!(!shortage.end_at(at(152_000)), "it was told");
    }

    #[test]
    fn what_comes_and_goes_is_told_no_more_often() {
        let (shortage, begun) = (Shortage::default(), Instant::now());
        let at = |millis| begun + Duration::from_millis(millis);
        let (mut begins, mut ends) = (0, 0);
        // For ten minutes every two seconds, and in between there is enough.
        for millis in (0..600_000).step_by(10) {
            begins += u32::from(millis % 2000 == 0 && shortage.note_at(at(millis)));
            ends += u32::from(millis % 2000 != 0 && shortage.end_at(at(millis)));
        }
        assert_eq!((begins, ends), (10, 10));
    }
}
