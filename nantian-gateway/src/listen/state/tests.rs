use std::net::Ipv4Addr;

use tokio::sync::Semaphore;

use super::*;
use crate::{
    ir::{ObjectName, RouteId, RouteKind, Transport},
    listen::PortKey,
};

const TIMEOUTS: Timeouts = Timeouts {
    header: Duration::from_secs(10),
    idle: Duration::from_secs(75),
    stall: Duration::from_secs(60),
    silence: None,
};

/// A connection and its clock.
fn connection() -> (Arc<State>, Arc<AtomicU32>) {
    let clock = Arc::<AtomicU32>::default();
    let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    (Arc::new(State::new(Arc::clone(&clock), &Arc::default(), place)), clock)
}

/// What is said `seconds` later.
fn after(seconds: u32, (state, clock): &(Arc<State>, Arc<AtomicU32>)) -> ConnectionCommand {
    let now = clock.load(Relaxed) + 10 * seconds;
    clock.store(now, Relaxed);
    state.verdict(now, &TIMEOUTS)
}

#[test]
fn a_client_that_went_on_reading_has_not_stalled() {
    let connection = connection();
    let request = InFlight::begin(&connection.0);
    connection.0.write_waits();
    assert_eq!(after(59, &connection), ConnectionCommand::Serve);
    connection.0.write_goes_on();
    assert_eq!(after(1000, &connection), ConnectionCommand::Serve, "it is the backend that takes its time");
    connection.0.write_waits();
    assert_eq!(after(61, &connection), ConnectionCommand::Abort);
    drop(request);
}

#[test]
fn a_client_that_leaves_most_of_what_it_asks_is_ended() {
    let (fickle, busy, patient) = (connection(), connection(), connection());
    let waits: Vec<_> = (0..=MOST_ABANDONED).map(|_| InFlight::begin(&patient.0)).collect();
    after(2, &patient);
    drop(waits);
    assert_eq!(after(0, &patient), ConnectionCommand::Serve);
    for _ in 0..MOST_ABANDONED {
        drop(InFlight::begin(&fickle.0));
        drop(InFlight::begin(&busy.0));
        for _ in 0..2 {
            InFlight::begin(&busy.0).answered();
        }
    }
    assert_eq!(after(0, &fickle), ConnectionCommand::Serve);
    drop(InFlight::begin(&fickle.0));
    drop(InFlight::begin(&busy.0));
    assert_eq!((after(0, &fickle), after(0, &busy)), (ConnectionCommand::Abort, ConnectionCommand::Serve));
}

#[test]
fn a_head_that_has_begun_behind_a_request_has_the_time_of_a_head() {
    let connection = connection();
    let request = InFlight::begin(&connection.0);
    connection.0.note_head(true);
    assert_eq!(after(1000, &connection), ConnectionCommand::Serve, "it is the backend that takes its time");
    drop(request);
    assert_eq!(after(9, &connection), ConnectionCommand::Serve);
    assert_eq!(after(2, &connection), ConnectionCommand::Abort);
}

#[test]
fn a_head_over_http2_has_its_time_unless_its_client_is_not_read() {
    let connection = connection();
    connection.0.begins_http2();
    connection.0.note_frames(true, false);
    let request = InFlight::begin(&connection.0);
    assert_eq!(after(1000, &connection), ConnectionCommand::Serve);
    connection.0.note_frames(false, true);
    for _ in 0..3 {
        assert_eq!(after(9, &connection), ConnectionCommand::Serve);
        // One ends where the next one begins.
        connection.0.note_frames(true, true);
    }
    connection.0.write_waits();
    assert_eq!(after(50, &connection), ConnectionCommand::Serve, "nothing is read before it takes this");
    connection.0.write_goes_on();
    connection.0.note_frames(false, true);
    assert_eq!(after(0, &connection), ConnectionCommand::Abort);
    drop(request);
}

#[test]
fn a_head_has_its_time_when_the_last_response_was_taken() {
    let connection = connection();
    let request = InFlight::begin(&connection.0);
    connection.0.note_head(true);
    connection.0.write_waits();
    drop(request);
    for _ in 0..3 {
        assert_eq!(after(50, &connection), ConnectionCommand::Serve, "it is still being written");
        connection.0.write_goes_on();
        assert_eq!(after(9, &connection), ConnectionCommand::Serve);
        connection.0.write_waits();
    }
    connection.0.write_goes_on();
    assert_eq!(after(11, &connection), ConnectionCommand::Abort);
}

#[test]
fn a_connection_is_idle_when_its_last_response_was_taken_whatever_is_written_from_then_on() {
    let connection = connection();
    let request = InFlight::begin(&connection.0);
    connection.0.write_waits();
    drop(request);
    assert_eq!(after(50, &connection), ConnectionCommand::Serve);
    connection.0.write_goes_on();
    assert_eq!(after(50, &connection), ConnectionCommand::Serve, "its last bytes have left 50 seconds ago");
    connection.0.write_goes_on();
    assert_eq!(after(26, &connection), ConnectionCommand::Finish, "that was a ping");
}

#[test]
fn who_is_told_to_finish_has_time_to_however_long_it_was_idle() {
    let connection = connection();
    connection.0.begins_http2();
    connection.0.note_frames(true, false);
    assert_eq!(after(70, &connection), ConnectionCommand::Serve);
    for _ in 0..2 {
        connection.0.give(ConnectionCommand::Finish);
        assert_ne!(after(9, &connection), ConnectionCommand::Abort);
        let request = InFlight::begin(&connection.0);
        assert_ne!(after(1000, &connection), ConnectionCommand::Abort, "it was on its way");
        drop(request);
    }
    connection.0.write_waits();
    assert_ne!(after(50, &connection), ConnectionCommand::Abort, "it is still being written");
    connection.0.write_goes_on();
    assert_ne!(after(59, &connection), ConnectionCommand::Abort, "its end may be in the kernel");
    connection.0.give(ConnectionCommand::Finish);
    assert_eq!(after(2, &connection), ConnectionCommand::Abort);
}

#[test]
fn of_a_connection_that_is_passed_on_only_silence_counts() {
    let connection = connection();
    connection.0.write_waits();
    let name = ObjectName::new("demo", "r");
    let route = RouteId { kind: RouteKind::Tcp, name };
    let key = PortKey { address: None, port: 1, transport: Transport::Tcp };
    connection.0.becomes_stream(StreamBinding { key, local: Ipv4Addr::LOCALHOST.into(), route });
    connection.0.write_waits();
    assert_eq!(after(100_000, &connection), ConnectionCommand::Serve);
}
