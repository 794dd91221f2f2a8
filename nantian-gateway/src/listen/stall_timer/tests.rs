use hyper::rt::Executor as _;
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::Semaphore,
    task::yield_now,
};

use super::*;
use crate::listen::Timeouts;

const STALL: Duration = Duration::from_secs(60);
const HEADER: Duration = Duration::from_secs(10);

const PATIENCE: Patience =
    Patience { upload: STALL, response: STALL, finish: HEADER, is_memory_scarce: false };

/// Whether a body comes to its end, of which `first` bytes come at once and then `rate` in each second to
/// `length`; it is held, or goes on as it comes.
fn comes((first, rate, length): (usize, usize, usize), is_held: bool, is_memory_scarce: bool) -> bool {
    let clock = Arc::<AtomicU32>::default();
    let timers = StallTimers::new(Arc::clone(&clock));
    let patience = Patience { is_memory_scarce, ..PATIENCE };
    let timer = timers.begin();
    let held = timer.held_upload();
    let come = |bytes| {
        timer.upload_came(bytes);
        held.set(is_held);
    };
    come(first);
    let mut received = first;
    while received < length && !timer.is_late() {
        timer.upload_waits(&Context::from_waker(Waker::noop()));
        pass(1, &clock, &timers, &patience);
        come(rate);
        received += rate;
    }
    !timer.is_late()
}

/// Moves `clock` on by so many seconds.
fn pass(seconds: u32, clock: &AtomicU32, timers: &StallTimers, patience: &Patience) {
    for _ in 0..10 * seconds {
        timers.tick(clock.fetch_add(1, Relaxed) + 1, patience);
    }
}

/// An HTTP/2 connection by `clock`.
fn connection(clock: &Arc<AtomicU32>) -> Arc<State> {
    let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    Arc::new(State::new(Arc::clone(clock), &Arc::default(), place))
}

#[test]
fn what_was_handed_over_before_clients_had_less_time_may_go_as_slowly_as_small_pieces() {
    let clock = Arc::<AtomicU32>::default();
    let timers = StallTimers::new(Arc::clone(&clock));
    let patience = Patience { response: LEAST, ..PATIENCE };
    let timer = timers.begin();
    let is_late_after = |seconds| {
        pass(seconds, &clock, &timers, &patience);
        timer.is_late()
    };
    for is_large in [true, true, true, false, false] {
        timer.piece_waits(is_large);
    }
    for _ in 0..3 {
        assert!(!is_late_after(7));
        timer.piece_goes(true);
    }
    assert!(!is_late_after(2));
    timer.piece_goes(false);
    assert!(is_late_after(3), "small ones have no more time than before");
}

#[test]
fn large_pieces_have_no_more_time_than_small_ones_where_that_is_enough_for_them() {
    let clock = Arc::<AtomicU32>::default();
    let timers = StallTimers::new(Arc::clone(&clock));
    let timer = timers.begin();
    timer.piece_waits(true);
    let patience = Patience { response: Duration::from_secs(20), ..PATIENCE };
    pass(21, &clock, &timers, &patience);
    assert!(timer.is_late());
}

#[test]
fn a_connection_finishes_what_else_it_has_begun_before_it_ends_for_a_response_that_is_not_taken() {
    let runtime = Builder::new_current_thread().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let clock = Arc::<AtomicU32>::default();
        let timers = StallTimers::new(Arc::clone(&clock));
        let state = connection(&clock);
        let (timer, _other) = (timers.begin(), InFlight::begin(&state));
        timer.response_begins(Some(InFlight::begin(&state)));
        let streams = StreamExecutor::new(Arc::clone(&state));
        streams.announce(Rc::clone(&timer));
        streams.execute(async {});
        yield_now().await;
        for (small, units) in [(1, 1), (8, 2), (4000, MOST_HELD)] {
            (0..small).for_each(|_| timer.piece_waits(false));
            assert_eq!(timer.holds(), units, "{small}");
            (0..small).for_each(|_| timer.piece_goes(false));
        }
        let order_after = |seconds, response| {
            let patience = Patience { response, ..PATIENCE };
            pass(seconds, &clock, &timers, &patience);
            let timeouts = Timeouts { header: HEADER, idle: STALL, stall: STALL, silence: None };
            state.verdict(clock.load(Relaxed), &timeouts)
        };
        timer.piece_waits(false);
        timer.piece_waits(false);
        timer.response_ends();
        assert_eq!(order_after(59, STALL), ConnectionCommand::Serve);
        assert_eq!(order_after(9, LEAST), ConnectionCommand::Finish);
        timer.piece_goes(false);
        assert_eq!(order_after(11, LEAST), ConnectionCommand::Finish, "its time begins anew");
        assert_eq!(order_after(2, LEAST), ConnectionCommand::Abort);
    });
}

#[test]
fn a_stream_may_wait_longer_for_its_turn_than_for_its_client() {
    let runtime = Builder::new_current_thread().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let clock = Arc::<AtomicU32>::default();
        let timers = StallTimers::new(Arc::clone(&clock));
        let state = connection(&clock);
        let streams = StreamExecutor::new(Arc::clone(&state));
        let [waiting, other] = [(); 2].map(|()| {
            let timer = timers.begin();
            streams.announce(Rc::clone(&timer));
            streams.execute(std::future::pending::<()>());
            timer.piece_waits(true);
            timer
        });
        let is_late_after = |seconds| {
            pass(seconds, &clock, &timers, &PATIENCE);
            waiting.is_late()
        };
        for _ in 0..3 {
            assert!(!is_late_after(50));
            other.piece_waits(true);
            other.note_taken();
            other.piece_goes(true);
        }
        assert!(!is_late_after(30));
        other.piece_goes(true); // Its stream is reset.
        assert!(!is_late_after(29));
        assert!(is_late_after(2), "nothing is taken any more");
    });
}

#[test]
fn bodies_that_are_held_are_to_come_with_some_speed_while_memory_is_scarce() {
    for (body, is_served) in [
        ((0, 20 << 10, 64 << 20), true),
        ((0, 9 << 10, 1 << 20), true),
        ((0, 7 << 10, 1 << 20), false),
        ((0, 2 << 10, 100 << 10), true),
        (((1 << 20) - 200, 1, 1 << 20), false),
        (((96 << 20) - 200, 1, 96 << 20), false),
    ] {
        assert!(comes(body, true, false), "{body:?}");
        assert!(comes(body, false, true), "{body:?}");
        assert_eq!(comes(body, true, true), is_served, "{body:?}");
    }
}
