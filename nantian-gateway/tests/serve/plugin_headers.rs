//! Headers as plugins, and those behind them, get them.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::{
    plugins::add_header,
    support::{Backend, Message, Running, World, plugin},
};

/// Says in the request header `x-end` whether the headers were shown as the end of the request.
const TELLS_THE_END: &str = r#"(module
    (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "x-end")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (i32.store8 (i32.const 80) (i32.add (i32.const 48) (local.get 2)))
        (call $add (i32.const 0) (i32.const 64) (i32.const 5) (i32.const 80) (i32.const 1))))"#;

/// A gateway with a route to `backend` that this plugin looks at.
async fn gateway(backend: &Backend, module: &[u8]) -> Running {
    let module = format!("inline: {}", BASE64_STANDARD.encode(module));
    World::of_backend(backend).manifest("plugin", &plugin("r", &module)).start().await
}

/// The names of a message's own headers, in their order.
fn order(message: &Message) -> String {
    let names = message.headers.iter().map(|(name, _)| name.as_str());
    names.filter(|name| name.starts_with("a-")).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn headers_keep_their_order_where_there_are_plugins() {
    let backend = Backend::answering(|_| {
        "HTTP/1.1 200 OK\r\nA-1: 1\r\nKeep-Alive: timeout=5\r\nA-2: 2\r\nConnection: keep-alive\r\n\
         A-3: 3\r\nContent-Length: 0\r\nA-4: 4\r\n\r\n"
    })
    .await;
    let gateway = gateway(&backend, &add_header()).await;
    let mut wire = gateway.connect().await;
    wire.send(
        "GET / HTTP/1.1\r\nHost: a.example\r\nA-1: 1\r\nConnection: keep-alive\r\nA-2: 2\r\n\
         X-Forwarded-For: 192.0.2.1\r\nTE: gzip\r\nA-3: 3\r\nExpect: 100-continue\r\nA-4: 4\r\n\r\n",
    )
    .await;
    let reply = wire.message().await.unwrap();
    assert_eq!((reply.status(), order(&reply).as_str()), (200, "a-1 a-2 a-3 a-4"));
    assert_eq!(order(&backend.last()), "a-1 a-2 a-3 a-4");
}

#[tokio::test]
async fn headers_of_a_client_that_asks_to_leave_http_are_not_shown_as_the_end() {
    let backend = Backend::echo("a").await;
    let gateway = gateway(&backend, &wat::parse_str(TELLS_THE_END).unwrap()).await;
    for (asks, end) in [("", "1"), ("Connection: upgrade\r\nUpgrade: websocket\r\n", "0")] {
        let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\n{asks}\r\n");
        assert_eq!(gateway.connect().await.ask(request).await.status(), 200);
        assert_eq!(backend.last().header("x-end"), Some(end), "{asks:?}");
    }
}
