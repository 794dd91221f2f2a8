//! The log of the process, where nobody takes it.

use crate::support::{Backend, Running, World, eventually, route, rule, soon, to};

/// A gateway whose log is read until it serves; `then` is what its reader, a shell, does after that.
async fn read_no_more(then: &str) -> Running {
    let deaf = Backend::raw(|wire| async move { drop(wire) }).await;
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("log");
    let pipe = pipe.to_str().unwrap();
    let reader = format!("{{ sed -u '/\"reloaded\"/q' >&2; exec >&- 2>&-; {then}; }} <{pipe}");
    World::new()
        .prepared_by(&format!("mkfifo {pipe} && {{ {reader} & }} && exec 2>{pipe}"))
        .options(&["--log-level", "info,nantian_gateway::respond=debug"])
        .service("a", &[&Backend::echo("a").await])
        .service("deaf", &[&deaf])
        .route("r", &[rule("/", &to("a")), rule("/deaf", &to("deaf"))])
        .start()
        .await
}

/// It goes on after more lines than a pipe holds, and ends when it is told to.
async fn goes_on(mut gateway: Running) {
    let mut wire = gateway.connect().await;
    for _ in 0..500 {
        assert!(wire.get("/deaf").await.status() >= 500);
    }
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
    goes_on(read_no_more("true").await).await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_nothing() {
    goes_on(read_no_more("while kill -0 $$; do sleep 0.1; done").await).await;
}
