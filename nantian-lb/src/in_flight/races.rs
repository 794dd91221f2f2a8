//! Every interleaving of a few picks that race for the last places while handles go, explored by loom.
//!
//! `cargo rustc -p nantian-lb --lib --profile test -- --cfg loom`, then run what it built with `races`.

use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;

use super::{enter_below, without_handles};
use crate::sync::{AtomicUsize, Ordering};

/// The handles of an endpoint. Its other references are the requests in flight.
type State = AtomicUsize;

fn try_enter(state: &Arc<State>, max: usize) -> Option<Arc<State>> {
    enter_below(max, || without_handles(state, || Arc::strong_count(state)), || Arc::clone(state))
}

/// As a handle is dropped.
fn leave(state: Arc<State>) {
    state.fetch_sub(1, Ordering::AcqRel);
    drop(state);
}

/// Three threads with a handle each, of which `leaving` give theirs up when their request is over.
fn explore(max: usize, leaving: usize) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let state = Arc::new(State::new(3));
        let inside = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let visit = {
            let inside = std::sync::Arc::clone(&inside);
            move |state: Arc<State>, is_leaving: bool| {
                let guard = try_enter(&state, max);
                if guard.is_some() {
                    let before = inside.fetch_add(1, Ordering::SeqCst);
                    assert!(before < max, "more than {max} are inside");
                    thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
                drop(guard);
                if is_leaving {
                    leave(state);
                    return None;
                }
                // Not before all are through, so that the number of handles stays what it is.
                Some(state)
            }
        };
        let racing = [0, 1].map(|number| {
            let (state, visit) = (Arc::clone(&state), visit.clone());
            thread::spawn(move || visit(state, number < leaving))
        });
        let state = visit(state, false).unwrap();
        let others = racing.map(|thread| thread.join().unwrap());
        assert_eq!(without_handles(&state, || Arc::strong_count(&state)), 0, "no guard is lost");
        drop(others);
    });
}

#[test]
fn the_last_place_is_never_taken_twice() {
    explore(1, 0);
}

#[test]
fn the_last_two_places_are_never_taken_by_three() {
    explore(2, 0);
}

#[test]
fn a_seat_that_goes_makes_no_place() {
    explore(1, 1);
    explore(2, 1);
}
