use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use super::*;
use crate::{Module, Plugin, PluginConfig};

#[test]
fn places_of_plugins_that_were_replaced_are_free_again() {
    let engine = Engine::new().unwrap();
    let metrics = engine.wasmtime().pooling_allocator_metrics().unwrap();
    let taken = || (metrics.core_instances(), metrics.memories(), metrics.tables(), metrics.stacks());
    let guest = wat::parse_str(include_str!("../../tests/guests/add_header.wat")).unwrap();
    let module = Module::compile(&engine, &guest, None).unwrap();
    let mut config = PluginConfig::new("probe");
    config.instances = NonZeroUsize::new(2);
    let mut present = Plugin::new(&module, config.clone()).unwrap();
    let one = taken();
    assert_eq!((one.0, one.1), (4, 2), "two guests with a shim each");
    for _ in 0..1_000 {
        present = present.successor(&module, config.clone(), None).unwrap();
    }
    assert_eq!(taken(), one);
    drop((present, module));
    assert_eq!(taken(), (0, 0, 0, 0));
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn clock_may_rest_until_a_beat_meets_a_guest() {
    let clock = Clock::default();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let cx = Context::from_waker(&waker);
    assert_eq!(clock.poll_hurry(&cx), Poll::Pending);
    clock.leap(4);
    assert_eq!((clock.ticks(), clock.beats()), (4, 1));
    clock.hurry(false);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert_eq!(clock.poll_hurry(&cx), Poll::Ready(()), "the guest gives way at the next beat");
    clock.leap(1);
    assert_eq!(clock.poll_hurry(&cx), Poll::Pending, "it has ended before");
    clock.hurry(true);
    for _ in 0..10 {
        assert_eq!(clock.poll_hurry(&cx), Poll::Ready(()), "it may wait for its next slice");
        clock.leap(1);
    }
    assert_eq!(clock.poll_hurry(&cx), Poll::Pending);
    assert_eq!(woken.0.load(Ordering::Relaxed), 2);
}
