//! UDPRoute: datagrams, each client with a session of its own.

use std::{net::SocketAddr, time::Duration};

use crate::support::{
    Backend, Caller, Echo, Port, Running, World, after, backend_tls_policy, eventually, soon, stream_route,
    stream_service, stream_world, trusting_authority,
};

/// A Gateway with one UDP listener, and Services.
fn world(services: &[(&str, &[SocketAddr])]) -> World {
    stream_world("UDP", services)
}

fn route(backends: &str) -> String {
    stream_route("UDPRoute", "r", "", "", backends)
}

const TO_A: &str = "{name: a, port: 80}";
const OPEN: &str = "nantian_stream_connections_open{route=\"UDPRoute/demo/r\"}";

async fn open(gateway: &Running) -> f64 {
    gateway.metric(OPEN).await.unwrap()
}

#[tokio::test]
async fn every_client_gets_its_own_answers() {
    let echo = Echo::new("a:").await;
    let gateway = world(&[("a", &[echo.address])]).manifest("route", &route(TO_A)).start().await;
    let mut callers = Vec::new();
    for _ in 0..50 {
        callers.push(Caller::new(gateway.address()).await);
    }
    for round in 0..5 {
        for (number, caller) in callers.iter().enumerate() {
            caller.say(format!("{round}/{number}").as_bytes()).await;
        }
        for (number, caller) in callers.iter().enumerate() {
            assert_eq!(caller.hear().await, format!("a:{round}/{number}").into_bytes());
        }
    }
    assert_eq!(open(&gateway).await, 50.0);
    let in_flight = &gateway.config().await["endpoints"]["demo/a:80/udp"][0]["inFlight"];
    assert_eq!(*in_flight, 50, "the endpoint counts its clients");
    let bytes = "nantian_stream_bytes_total{route=\"UDPRoute/demo/r\",direction=\"in\"}";
    assert_eq!(gateway.metric(bytes).await, Some((5 * (10 * 3 + 40 * 4)) as f64));
}

#[tokio::test]
async fn datagrams_of_every_length_pass() {
    let echo = Echo::new("").await;
    let gateway = world(&[("a", &[echo.address])]).manifest("route", &route(TO_A)).start().await;
    let caller = Caller::new(gateway.address()).await;
    for length in [0, 1, 1472, 1473, 9000, 65_507] {
        let datagram: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        caller.say(&datagram).await;
        assert!(caller.hear().await == datagram, "{length}");
    }
}

#[tokio::test]
async fn a_session_that_is_silent_ends_and_one_that_speaks_stays_with_its_endpoint() {
    let (a, b) = (Echo::new("a").await, Echo::new("b").await);
    let gateway = world(&[("a", &[a.address, b.address])])
        .manifest("route", &route(TO_A))
        .options(&["--udp-session-timeout", "2s", "--access-log", "json"])
        .start()
        .await;
    let (silent, speaking) = (Caller::new(gateway.address()).await, Caller::new(gateway.address()).await);
    silent.ask("x").await;
    let first = speaking.ask("x").await;
    for _ in 0..8 {
        after(Duration::from_millis(500)).await;
        assert_eq!(speaking.ask("x").await, first, "round robin would go to the other one");
    }
    eventually("one session is left", async || open(&gateway).await == 1.0).await;
    let line = gateway.output.more("\"UDP\"", 0).await;
    assert!(
        line.contains("\"route\":\"UDPRoute/demo/r\"") && line.contains("\"received_bytes\":1"),
        "{line}"
    );
}

#[tokio::test]
async fn sessions_are_bounded_and_what_is_over_the_bound_is_left_out() {
    let echo = Echo::new("a").await;
    let gateway = world(&[("a", &[echo.address])])
        .manifest("route", &route(TO_A))
        .options(&["--max-udp-sessions", "2", "--udp-session-timeout", "1s"])
        .start()
        .await;
    let (one, two) = (Caller::new(gateway.address()).await, Caller::new(gateway.address()).await);
    one.ask("x").await;
    two.ask("x").await;
    let three = Caller::new(gateway.address()).await;
    three.say(b"x").await;
    let dropped = "nantian_stream_dropped_datagrams_total{route=\"UDPRoute/demo/r\"}";
    eventually("it is dropped", async || gateway.metric(dropped).await == Some(1.0)).await;
    assert!(three.is_unanswered());
    assert_eq!(one.ask("x").await, "ax", "who has a session keeps it");
    assert_eq!(three.insist("x").await, "ax", "there is room once a session has ended");
}

#[tokio::test]
async fn an_endpoint_that_listens_no_more_makes_way_for_another_one() {
    let (a, b) = (Echo::new("a").await, Echo::new("b").await);
    let gateway = world(&[("a", &[a.address, b.address])]).manifest("route", &route(TO_A)).start().await;
    let caller = Caller::new(gateway.address()).await;
    let (left, right) = if caller.ask("").await == "a" { (a, "b") } else { (b, "a") };
    left.stop().await;
    assert_eq!(caller.insist("").await, right);
}

#[tokio::test]
async fn a_session_ends_when_its_endpoint_leaves_the_service() {
    let (a, b) = (Echo::new("a").await, Echo::new("b").await);
    let gateway = world(&[("a", &[a.address])]).manifest("route", &route(TO_A)).start().await;
    let caller = Caller::new(gateway.address()).await;
    assert_eq!(caller.ask("x").await, "ax");
    gateway.edit("service-a", &stream_service("a", "UDP", &[a.address, b.address])).await;
    assert_eq!(caller.ask("x").await, "ax");
    gateway.edit("service-a", &stream_service("a", "UDP", &[b.address])).await;
    eventually("the other one is asked", async || caller.ask("x").await == "bx").await;
}

#[tokio::test]
async fn weights_and_references_hold_for_datagrams() {
    let (a, b) = (Echo::new("a").await, Echo::new("b").await);
    let gateway = world(&[("a", &[a.address]), ("b", &[b.address])])
        .manifest("route", &route("{name: a, port: 80, weight: 1}, {name: b, port: 80, weight: 0}"))
        .start()
        .await;
    for _ in 0..20 {
        assert_eq!(Caller::new(gateway.address()).await.ask("x").await, "ax");
    }
    gateway.edit("route", &route("{name: nope, port: 80}")).await;
    let caller = Caller::new(gateway.address()).await;
    caller.say(b"x").await;
    let dropped = "nantian_stream_dropped_datagrams_total{route=\"UDPRoute/demo/r\"}";
    eventually("it is dropped", async || gateway.metric(dropped).await == Some(1.0)).await;
    assert_eq!(b.seen(), 0);
}

#[tokio::test]
async fn a_session_outlives_edits_of_its_route_and_ends_with_it() {
    let (a, b) = (Echo::new("a").await, Echo::new("b").await);
    let gateway =
        world(&[("a", &[a.address]), ("b", &[b.address])]).manifest("route", &route(TO_A)).start().await;
    let caller = Caller::new(gateway.address()).await;
    assert_eq!(caller.ask("x").await, "ax");
    let edited = route("{name: a, port: 80, weight: 0}, {name: b, port: 80}");
    gateway.edit("route", &edited).await;
    assert_eq!(caller.ask("x").await, "ax");
    assert_eq!(Caller::new(gateway.address()).await.ask("x").await, "bx");
    gateway.edit("route", &edited.replace("name: r,", "name: other,")).await;
    eventually("it goes with the other route", async || caller.insist("x").await == "bx").await;
}

#[tokio::test]
async fn a_session_ends_when_no_route_leads_to_its_service_any_more() {
    let (a, b) = (Echo::new("a").await, Echo::new("b").await);
    let gateway =
        world(&[("a", &[a.address]), ("b", &[b.address])]).manifest("route", &route(TO_A)).start().await;
    let caller = Caller::new(gateway.address()).await;
    assert_eq!(caller.ask("x").await, "ax");
    // Nobody sees from then on whether the endpoint is still one of the Service.
    gateway.edit("route", &route("{name: b, port: 80}")).await;
    eventually("it goes with the other Service", async || caller.insist("x").await == "bx").await;
}

#[tokio::test]
async fn connections_and_datagrams_have_the_same_number_for_themselves() {
    let (tcp, udp) = (Backend::greeting("t").await, Echo::new("u").await);
    let port = Port::reserve();
    let listeners = [port.listener("tcp", "protocol: TCP"), port.listener("udp", "protocol: UDP")];
    let gateway = World::with_listeners(port, &listeners)
        .manifest("service-t", &stream_service("t", "TCP", &[tcp.address]))
        .manifest("service-u", &stream_service("u", "UDP", &[udp.address]))
        .manifest("t", &stream_route("TCPRoute", "t", "", "", "{name: t, port: 80}"))
        .manifest("u", &stream_route("UDPRoute", "u", "", "", "{name: u, port: 80}"))
        .start()
        .await;
    assert_eq!(soon(gateway.connect().await.exactly(1)).await.unwrap(), b"t");
    assert_eq!(Caller::new(gateway.address()).await.ask("x").await, "ux");
}

#[tokio::test]
async fn a_socket_on_all_interfaces_answers_from_the_address_that_was_asked() {
    let echo = Echo::new("a").await;
    let port = Port::reserve();
    let address = port.address();
    let listener = port.listener("udp", "protocol: UDP");
    let gateway = World::with_listeners(port, std::slice::from_ref(&listener))
        .manifest("gateway", &crate::support::gateway(&[listener]).replace("addresses:", "addresses: [] #"))
        .manifest("service-a", &stream_service("a", "UDP", &[echo.address]))
        .manifest("route", &route(TO_A))
        .start()
        .await;
    for ip in ["127.0.0.1", "127.0.0.5"] {
        let caller = Caller::new(SocketAddr::new(ip.parse().unwrap(), address.port())).await;
        assert_eq!(caller.ask("x").await, "ax", "{ip}: a connected socket hears nobody else");
    }
    drop(gateway);
}

#[tokio::test]
async fn a_policy_of_tls_is_not_about_datagrams() {
    let echo = Echo::new("a:").await;
    let policy = backend_tls_policy("a", "", &trusting_authority("nowhere", "a.example.org"));
    let of_port = policy.replace("name: a,", "name: port,").replace("name: a}", "name: a, sectionName: p}");
    let gateway = world(&[("a", &[echo.address])])
        .manifest("route", &route(TO_A))
        .manifest("policy", &policy)
        .manifest("port", &of_port)
        .start()
        .await;
    assert_eq!(Caller::new(gateway.address()).await.ask("x").await, "a:x");
    let config = gateway.config().await;
    let of_service = &config["conditions"]["BackendTLSPolicy demo/a"]["ancestors"][0];
    assert_eq!(of_service["ancestorRef"]["name"], "demo", "the Gateway that the Service is reached through");
}

#[tokio::test]
async fn what_the_service_says_of_its_protocol_is_not_about_datagrams() {
    let echo = Echo::new("a:").await;
    let service = stream_service("a", "UDP", &[echo.address]).replace("whatever", "https");
    let gateway = world(&[]).manifest("service-a", &service).manifest("route", &route(TO_A)).start().await;
    assert_eq!(
        Caller::new(gateway.address()).await.ask("x").await,
        "a:x",
        "it is QUIC, as the client has it"
    );
}
