//! The log of the process, where nobody takes it.

use crate::support::{Backend, Running, Wire, World, eventually, route, rule, soon, to};

/// Reads no more as long as the gateway runs.
const DEAF: &str = "while kill -0 $$; do sleep 0.1; done";

/// A gateway whose log is read until it serves; `then` is what its reader, a shell, does after that.
async fn read_no_more(then: &str) -> Running {
    let deaf = Backend::raw(|wire| async move { drop(wire) }).await;
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("log");
    let pipe = pipe.to_str().unwrap();
    let reader = format!("{{ sed -u '/\"reloaded\"/q' >&2; exec >&- 2>&-; {then}; }} <{pipe}");
    World::new()
        .prepared_by(&format!("mkfifo {pipe} && {{ {reader} & }} && exec 2>{pipe}"))
        .options(&["--log-level", "info,nantian_gateway::respond=debug", "--drain-timeout", "1h"])
        .service("a", &[&Backend::echo("a").await])
        .service("deaf", &[&deaf])
        .route("r", &[rule("/", &to("a")), rule("/deaf", &to("deaf"))])
        .start()
        .await
}

/// Has it write more lines than a pipe holds.
async fn fill(gateway: &Running) -> Wire {
    let mut wire = gateway.connect().await;
    for _ in 0..500 {
        assert!(wire.get("/deaf").await.status() >= 500);
    }
    wire
}

/// It goes on after more lines than a pipe holds, and ends when it is told to.
async fn goes_on(mut gateway: Running) {
    fill(&gateway).await;
    let reloads = "nantian_config_reloads_total{result=\"clean\"}";
    let before = gateway.metric(reloads).await;
    let rules = [rule("/", &to("a")), rule("/deaf", &to("deaf")), rule("/new", &to("a"))];
    gateway.write("route-r", &route("r", "", &rules));
    eventually("it reloads", async || gateway.metric(reloads).await > before).await;
    assert_eq!(gateway.get("/").await.status(), 200);
    gateway.signal("TERM");
    assert_eq!(soon(gateway.exit()).await.code(), Some(0));
}

#[tokio::test]
async fn a_log_whose_reader_is_gone_ends_nothing() {
    let gateway = read_no_more("true").await;
    fill(&gateway).await;
    let lost = "nantian_log_lost_lines_total";
    eventually("it tells so", async || gateway.metric(lost).await > Some(100.0)).await;
    goes_on(gateway).await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_nothing() {
    goes_on(read_no_more(DEAF).await).await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_no_end_with_an_error() {
    let mut gateway = read_no_more(DEAF).await;
    let mut hanging = gateway.connect().await;
    hanging.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nha").await;
    let in_flight = "nantian_http_requests_in_flight{route=\"demo/r\"}";
    eventually("it hangs", async || gateway.metric(in_flight).await == Some(1.0)).await;
    let mut idle = fill(&gateway).await;
    gateway.signal("TERM");
    assert!(idle.is_closed().await, "it drains");
    gateway.signal("TERM");
    assert_eq!(soon(gateway.exit()).await.code(), Some(1));
}
