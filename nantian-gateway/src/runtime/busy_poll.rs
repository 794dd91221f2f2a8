//! A worker that asks its sockets again and again instead of resting, where latency is worth a core.

use std::{cell::OnceCell, rc::Rc, time::Duration};

use futures_util::FutureExt as _;
use tokio::{sync::Notify, task::yield_now, time::Instant};

thread_local! {
    /// Told of what this worker has read, if it polls busily.
    static READ: OnceCell<Rc<Notify>> = const { OnceCell::new() };
}

/// Notes that this worker has read from a connection, or a datagram.
pub(crate) fn note_read() {
    READ.with(|read| {
        if let Some(read) = read.get() {
            read.notify_one();
        }
    });
}

/// Keeps this worker from resting until nothing has been read for `span`.
pub(super) async fn busy_poll(span: Duration) {
    let read = READ.with(|read| Rc::clone(read.get_or_init(Rc::default)));
    loop {
        read.notified().await;
        let mut last = Instant::now();
        while last.elapsed() < span {
            // The sockets and the other tasks have their turn.
            yield_now().await;
            if read.notified().now_or_never().is_some() {
                last = Instant::now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        runtime::{Builder, Handle, LocalOptions},
        time::sleep,
    };

    use super::*;
    use crate::runtime::spawn_local;

    const PAUSE: Duration = Duration::from_millis(2);

    /// Runs `test` on a worker that polls busily for `span` and has just read.
    fn having_read<R>(span: Duration, test: impl AsyncFnOnce() -> R) -> R {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        runtime.unwrap().block_on(async {
            spawn_local(busy_poll(span));
            yield_now().await;
            note_read();
            yield_now().await;
            test().await
        })
    }

    fn rests() -> u64 {
        Handle::current().metrics().worker_park_count(0)
    }

    #[test]
    fn a_worker_that_has_read_looks_for_more_instead_of_resting() {
        let rested = having_read(Duration::from_secs(3600), async || {
            let before = rests();
            sleep(PAUSE).await;
            rests() - before
        });
        assert_eq!(rested, 0);
    }

    #[test]
    fn it_rests_once_nothing_has_been_read_for_the_span() {
        having_read(PAUSE, async || {
            let before = rests();
            while rests() == before {
                sleep(PAUSE).await;
            }
        });
    }
}
