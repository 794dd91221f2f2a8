//! The end of the process.

use std::{sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    sync::Notify,
    time::{Instant, timeout},
};

use crate::support::{Backend, Running, Wire, World, eventually, rule, soon, to};

/// A backend that answers when it is told to, and the gateway before it.
async fn world(options: &[&str]) -> (Arc<Notify>, Backend, Running) {
    let answer = Arc::new(Notify::new());
    let told = Arc::clone(&answer);
    let backend = Backend::raw(move |mut wire| {
        let told = Arc::clone(&told);
        async move {
            while wire.message().await.is_ok() {
                told.notified().await;
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await;
            }
        }
    })
    .await;
    let gateway = World::new()
        .service("a", &[&backend])
        .route("r", &[rule("/", &to("a"))])
        .options(options)
        .start()
        .await;
    (answer, backend, gateway)
}

/// A request that the backend has and has not answered.
async fn in_flight(gateway: &Running, backend: &Backend) -> Wire {
    let known = backend.connections();
    let mut wire = gateway.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    eventually("the backend is asked", async || backend.connections() > known).await;
    wire
}

#[tokio::test]
async fn requests_in_flight_are_finished_and_nothing_new_is_taken() {
    let (answer, backend, mut gateway) = world(&[]).await;
    let mut asking = in_flight(&gateway, &backend).await;
    let mut uploading = gateway.connect().await;
    uploading.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nha").await;
    eventually("the upload has begun", async || backend.connections() == 2).await;
    let (mut idle, mut fresh) = (gateway.connect().await, gateway.connect().await);
    answer.notify_one();
    assert_eq!(soon(idle.get("/idle")).await.status(), 200);
    fresh.send("").await;

    gateway.signal("TERM");
    assert!(idle.is_closed().await, "who asks nothing is let go");
    assert!(fresh.is_closed().await, "and so is who has never asked");
    eventually("nobody listens", async || TcpStream::connect(gateway.address()).await.is_err()).await;
    assert_eq!(gateway.admin("/healthz").await.status(), 200, "it can be watched while it drains");

    uploading.send("lf").await;
    answer.notify_waiters();
    for wire in [&mut asking, &mut uploading] {
        let reply = wire.reply().await;
        assert_eq!((reply.status(), reply.text().as_str()), (200, "done"));
        assert!(wire.is_closed().await);
    }
    assert_eq!(gateway.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_request_that_hangs_is_cut_when_the_time_is_over() {
    let (_answer, backend, mut gateway) = world(&["--drain-timeout", "1s"]).await;
    let mut hanging = in_flight(&gateway, &backend).await;
    let begun = Instant::now();
    gateway.signal("TERM");
    assert!(hanging.is_closed().await);
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?} is too early");
    let exit = timeout(Duration::from_secs(3), gateway.exit()).await.expect("it ends in time");
    assert_eq!(exit.code(), Some(0));
}
