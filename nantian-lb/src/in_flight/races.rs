//! Every interleaving of a few picks that race for the last places, explored by loom.
//!
//! `cargo rustc -p nantian-lb --lib --profile test -- --cfg loom`, then run what it built with `races`.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;

use super::enter_below;

/// The state of an endpoint, whose references but one are the requests in flight.
fn try_enter(state: &Arc<()>, max: usize) -> Option<Arc<()>> {
    enter_below(max, || Arc::strong_count(state) - SEATS, || Arc::clone(state))
}

/// In this model each thread needs a reference of its own to the seat.
const SEATS: usize = 3;

fn explore(max: usize) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let state = Arc::new(());
        let inside = std::sync::Arc::new(AtomicUsize::new(0));
        let visit = {
            let inside = std::sync::Arc::clone(&inside);
            move |state: Arc<()>| {
                let guard = try_enter(&state, max);
                if guard.is_some() {
                    assert!(inside.fetch_add(1, SeqCst) < max, "more than {max} are inside");
                    thread::yield_now();
                    inside.fetch_sub(1, SeqCst);
                }
                drop(guard);
                // Not before all are through, so that the number of seats stays what it is.
                state
            }
        };
        let racing = [Arc::clone(&state), Arc::clone(&state)].map(|state| {
            let visit = visit.clone();
            thread::spawn(move || visit(state))
        });
        let state = visit(state);
        let others = racing.map(|thread| thread.join().unwrap());
        assert_eq!(Arc::strong_count(&state), SEATS, "no guard is lost");
        drop(others);
    });
}

#[test]
fn the_last_place_is_never_taken_twice() {
    explore(1);
}

#[test]
fn the_last_two_places_are_never_taken_by_three() {
    explore(2);
}
