//! Plugins that end a stream while both of its messages are under way, in front of a backend that speaks
//! HTTP/2.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::sync::{Notify, mpsc};

use crate::support::{
    Backend, World,
    http2::{client, get, reply, upload},
    plugin, rule, soon, to,
};

/// Holds what clients upload, lets it go when the response comes, and answers 403 in its place.
const REFUSES_LATE: &str = r#"(module
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
    (import "env" "proxy_send_local_response"
        (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "part held")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
        (drop (call $log (i32.const 2) (i32.const 16) (i32.const 9)))
        (i32.const 1))
    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
        (drop (call $continue (i32.const 0)))
        (drop (call $answer (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const -1)))
        (i32.const 0)))"#;

#[tokio::test]
async fn upload_whose_response_is_refused_ends_and_takes_no_worker_with_it() {
    let early = Arc::new(Notify::new());
    let (tell, mut told) = mpsc::unbounded_channel();
    let backend = Backend::h2c({
        let early = Arc::clone(&early);
        move |request: Request<Incoming>| {
            let (early, tell) = (Arc::clone(&early), tell.clone());
            async move {
                if request.uri().path() == "/upload" {
                    early.notified().await;
                    tokio::spawn(async move {
                        let _ = tell.send(request.into_body().collect().await.map(|body| body.to_bytes()));
                    });
                }
                Response::new(Full::<Bytes>::default())
            }
        }
    })
    .await;
    let guest = BASE64_STANDARD.encode(wat::parse_str(REFUSES_LATE).unwrap());
    let gateway = World::new()
        .h2c_service("a", &backend)
        .route("up", &[rule("/upload", &to("a"))])
        .route("other", &[rule("/other", &to("a"))])
        .manifest("plugin", &plugin("up", &format!("inline: {guest}")))
        .start()
        .await;
    let client = client(&gateway).await;
    let (parts, request) = upload("/upload");
    parts.send("secret").unwrap();
    let response = client.clone().send_request(request);
    gateway.log.more("part held", 0).await;
    early.notify_one();
    assert_eq!(soon(response).await.unwrap().status(), StatusCode::FORBIDDEN);
    let upload = soon(told.recv()).await.unwrap();
    assert!(upload.is_err(), "nothing of what was held reaches the backend, and no end: {upload:?}");
    let other = reply(&client, get("/other")).await;
    assert_eq!(other.0, StatusCode::OK, "the worker of that connection serves on");
    drop(parts);
}
