//! TCPRoute: connections that are passed on as they are.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    Backend, Port, Running, Wire, World, after, eventually, lb_policy, soon, stream_route, stream_service,
    stream_world,
};

/// A Gateway with one TCP listener, and Services.
fn world(services: &[(&str, &[SocketAddr])]) -> World {
    stream_world("TCP", services)
}

/// A TCPRoute with these backends.
fn route(backends: &str) -> String {
    stream_route("TCPRoute", "r", "", "", backends)
}

const TO_A: &str = "{name: a, port: 80}";

/// Whether a connection is reset, as opposed to ended.
async fn is_reset(gateway: &Running) -> bool {
    // The reset may be met at any of these.
    let met = async {
        let mut stream = TcpStream::connect(gateway.address()).await?;
        stream.write_all(b"hello").await?;
        stream.read(&mut [0; 16]).await
    };
    soon(met).await.is_err_and(|error| {
        [std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::BrokenPipe].contains(&error.kind())
    })
}

/// The first byte that a connection says, which is the name of its backend.
async fn name(gateway: &Running) -> u8 {
    soon(gateway.connect().await.exactly(1)).await.unwrap()[0]
}

async fn in_flight(gateway: &Running) -> Value {
    gateway.config().await["endpoints"]["demo/a:80"][0]["inFlight"].clone()
}

#[tokio::test]
async fn a_hundred_megabytes_pass_both_ways_at_once() {
    const LENGTH: usize = 100 * 1024 * 1024;
    let backend = Backend::greeting("").await;
    let gateway = world(&[("a", &[backend.address])]).manifest("route", &route(TO_A)).start().await;
    let (mut read, mut write) = TcpStream::connect(gateway.address()).await.unwrap().into_split();
    let pattern: Vec<u8> =
        (0..1_000_003_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let sent = pattern.clone();
    let writer = tokio::spawn(async move {
        let mut left = LENGTH;
        while left > 0 {
            let part = left.min(sent.len());
            write.write_all(&sent[..part]).await.unwrap();
            left -= part;
        }
        write.shutdown().await.unwrap();
    });
    let mut buffer = vec![0; pattern.len()];
    let mut left = LENGTH;
    while left > 0 {
        let part = left.min(buffer.len());
        soon(read.read_exact(&mut buffer[..part])).await.unwrap();
        assert!(buffer[..part] == pattern[..part], "differs {} bytes before the end", left);
        left -= part;
    }
    writer.await.unwrap();
    let mut rest = Vec::new();
    soon(read.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"end", "what is said after the client has ended arrives, and then the end");
    let series = |direction: &str| {
        format!("nantian_stream_bytes_total{{route=\"TCPRoute/demo/r\",direction=\"{direction}\"}}")
    };
    assert_eq!(gateway.metric(&series("in")).await, Some(LENGTH as f64));
    assert_eq!(gateway.metric(&series("out")).await, Some((LENGTH + 3) as f64));
}

#[tokio::test]
async fn the_end_of_either_side_leaves_the_other_way_open() {
    let backend = Backend::raw(|mut wire| async move {
        wire.send("first").await;
        wire.finish().await;
        let heard = wire.rest().await;
        assert_eq!(heard, b"later");
    })
    .await;
    let gateway = world(&[("a", &[backend.address])])
        .manifest("route", &route(TO_A))
        .options(&["--access-log", "json"])
        .start()
        .await;
    let mut client = gateway.connect().await;
    assert_eq!(client.rest().await, b"first", "the backend has ended");
    client.send("later").await;
    client.finish().await;
    let line = gateway.output.more("TCPRoute/demo/r", 0).await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        [&line["protocol"], &line["bytes"], &line["received_bytes"], &line["error"], &line["client"]],
        [&Value::from("TCP"), &5.into(), &5.into(), &Value::Null, &"127.0.0.1".into()]
    );
    assert_eq!(line["endpoint"], backend.address.to_string());
    let series = "nantian_stream_connections_total{route=\"TCPRoute/demo/r\",result=\"carried\"}";
    assert_eq!(gateway.metric(series).await, Some(1.0));
}

#[tokio::test]
async fn a_connection_that_has_nowhere_to_go_is_reset() {
    let gateway = world(&[("empty", &[])]).start().await;
    assert!(is_reset(&gateway).await, "no route");
    for (what, backends) in [
        ("no endpoint", "{name: empty, port: 80}"),
        ("no Service", "{name: nope, port: 80}"),
        ("no kind", "{group: example.org, kind: Thing, name: x, port: 80}"),
        ("no weight", "{name: empty, port: 80, weight: 0}"),
    ] {
        gateway.edit("route", &route(backends)).await;
        assert!(is_reset(&gateway).await, "{what}");
    }
}

#[tokio::test]
async fn connections_are_shared_out_by_weight() {
    let (a, b, c) =
        (Backend::greeting("a").await, Backend::greeting("b").await, Backend::greeting("c").await);
    let gateway = world(&[("a", &[a.address]), ("b", &[b.address]), ("c", &[c.address])])
        .manifest("route", &route("{name: a, port: 80, weight: 3}, {name: b, port: 80, weight: 1}, {name: c, port: 80, weight: 0}"))
        .start()
        .await;
    let mut counts = [0; 3];
    for _ in 0..200 {
        counts[usize::from(name(&gateway).await - b'a')] += 1;
    }
    assert_eq!(counts[2], 0, "{counts:?}");
    // 150 with a standard deviation of 6.
    assert!((110..190).contains(&counts[0]), "{counts:?}");
}

#[tokio::test]
async fn an_endpoint_that_refuses_makes_way_for_another_one() {
    let b = Backend::greeting("b").await;
    let closed = Port::reserve();
    let gateway =
        world(&[("a", &[closed.address(), b.address])]).manifest("route", &route(TO_A)).start().await;
    for _ in 0..8 {
        assert_eq!(name(&gateway).await, b'b');
    }
}

#[tokio::test]
async fn an_open_connection_is_counted_and_outlives_edits_of_its_route() {
    let (a, b) = (Backend::greeting("a").await, Backend::greeting("b").await);
    let gateway =
        world(&[("a", &[a.address]), ("b", &[b.address])]).manifest("route", &route(TO_A)).start().await;
    let mut wire = gateway.connect().await;
    assert_eq!(soon(wire.exactly(1)).await.unwrap(), b"a");
    assert_eq!(in_flight(&gateway).await, 1);
    assert_eq!(gateway.metric("nantian_stream_connections_open{route=\"TCPRoute/demo/r\"}").await, Some(1.0));

    gateway.edit("route", &route("{name: b, port: 80}")).await;
    assert_eq!(name(&gateway).await, b'b', "new ones go where the route says now");
    wire.send("still").await;
    assert_eq!(soon(wire.exactly(5)).await.unwrap(), b"still");

    gateway.edit("route", &route("{name: b, port: 80}").replace("name: r,", "name: other,")).await;
    assert!(wire.is_closed().await, "its route is gone");
}

#[tokio::test]
async fn the_count_of_an_endpoint_ends_with_the_connection() {
    let a = Backend::greeting("a").await;
    let gateway = world(&[("a", &[a.address])]).manifest("route", &route(TO_A)).start().await;
    let mut wire = gateway.connect().await;
    soon(wire.exactly(1)).await.unwrap();
    wire.finish().await;
    assert_eq!(wire.rest().await, b"end");
    eventually("the endpoint is idle", async || in_flight(&gateway).await == 0).await;
}

#[tokio::test]
async fn a_silent_connection_is_closed_and_one_that_speaks_is_not() {
    let a = Backend::greeting("a").await;
    let gateway = world(&[("a", &[a.address])])
        .manifest("route", &route(TO_A))
        .options(&["--tunnel-idle-timeout", "1s", "--idle-timeout", "100ms", "--header-timeout", "100ms"])
        .start()
        .await;
    let (mut silent, mut speaking) = (gateway.connect().await, gateway.connect().await);
    soon(silent.exactly(1)).await.unwrap();
    soon(speaking.exactly(1)).await.unwrap();
    for _ in 0..10 {
        after(Duration::from_millis(150)).await;
        speaking.send("x").await;
        assert_eq!(soon(speaking.exactly(1)).await.unwrap(), b"x");
    }
    assert!(silent.is_closed().await);
}

#[tokio::test]
async fn a_reset_of_one_side_reaches_the_other() {
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    let backend = Backend::raw(move |wire| {
        let told = told.clone();
        async move {
            let mut io = wire.into_io();
            let mut buffer = [0; 16];
            loop {
                match io.read(&mut buffer).await {
                    Ok(1..) => {}
                    ended => return told.send(ended.map_err(|error| error.kind())).unwrap(),
                }
            }
        }
    })
    .await;
    let gateway = world(&[("a", &[backend.address])]).manifest("route", &route(TO_A)).start().await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    eventually("the backend has the connection", async || backend.connections() == 1).await;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    assert_eq!(soon(tells.recv()).await.unwrap(), Err(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_client_stays_with_its_endpoint_if_the_policy_hashes_its_address() {
    let (a, b, c) =
        (Backend::greeting("a").await, Backend::greeting("b").await, Backend::greeting("c").await);
    let by_address = "loadBalancing: {type: ConsistentHash, consistentHash: {keyType: SourceIP}}";
    let gateway = world(&[("a", &[a.address, b.address, c.address])])
        .manifest("route", &route(TO_A))
        .manifest("policy", &lb_policy("a", by_address))
        .start()
        .await;
    let first = name(&gateway).await;
    for _ in 0..10 {
        assert_eq!(name(&gateway).await, first);
    }
    let accepted = gateway.condition("BackendLBPolicy demo/a", "Accepted").await;
    assert_eq!(accepted["status"], "True");
    assert!(accepted["message"].as_str().unwrap().contains("in force"), "{accepted}");
}

#[tokio::test]
async fn a_drain_lets_connections_go_on_until_its_time_is_over() {
    let a = Backend::greeting("a").await;
    let mut gateway = world(&[("a", &[a.address])])
        .manifest("route", &route(TO_A))
        .options(&["--drain-timeout", "10s"])
        .start()
        .await;
    let mut wire = gateway.connect().await;
    soon(wire.exactly(1)).await.unwrap();
    gateway.signal("TERM");
    eventually("no new connection", async || TcpStream::connect(gateway.address()).await.is_err()).await;
    wire.send("on").await;
    assert_eq!(soon(wire.exactly(2)).await.unwrap(), b"on");
    wire.finish().await;
    assert_eq!(wire.rest().await, b"end");
    assert!(gateway.exit().await.success());
}

#[tokio::test]
async fn a_connection_counts_among_those_of_the_process() {
    let a = Backend::greeting("a").await;
    let gateway = world(&[("a", &[a.address])])
        .manifest("route", &route(TO_A))
        .options(&["--max-connections", "1"])
        .start()
        .await;
    let mut first = gateway.connect().await;
    soon(first.exactly(1)).await.unwrap();
    let mut second: Wire = gateway.connect().await;
    after(Duration::from_millis(200)).await;
    assert_eq!(a.connections(), 1, "the second one waits");
    first.finish().await;
    first.rest().await;
    assert_eq!(soon(second.exactly(1)).await.unwrap(), b"a");
}

#[tokio::test]
async fn tls_of_the_client_is_passed_on_to_a_service_that_speaks_https() {
    let backend = Backend::greeting("a").await;
    for protocol in ["https", "kubernetes.io/wss"] {
        let service = stream_service("a", "TCP", &[backend.address]).replace("whatever", protocol);
        let gateway =
            world(&[]).manifest("service-a", &service).manifest("route", &route(TO_A)).start().await;
        assert_eq!(name(&gateway).await, b'a', "{protocol}");
    }
}
