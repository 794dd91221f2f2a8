//! What is nested without end: refused by whoever reads it, for recursion would end the process.

use std::collections::VecDeque;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use nantian_ai::codec::StreamDecoder;
use nantian_ai::ir::Event;
use nantian_ai::usage::{End, Meter};
use nantian_ai::{ClientDialect, Dialect, RequestFacts, Surface};

use crate::support::{Upstream, events, json, layer, openai, post, send, stream_chat};

/// What opens a level, and what closes it. Values of some names are carried as text and read apart.
const LEVELS: [(&str, &str); 9] = [
    ("[", "]"),
    (r#"{"a":"#, "}"),
    (r#"{"args":["#, "]}"),
    (r#"{"arguments":["#, "]}"),
    (r#"{"input":["#, "]}"),
    (r#"{"input_schema":["#, "]}"),
    (r#"{"parameters":["#, "]}"),
    (r#"{"schema":["#, "]}"),
    (r#"{"error":{"input":["#, "]}}"),
];

/// Objects that are nested so.
fn nested() -> impl Iterator<Item = String> {
    LEVELS.into_iter().map(|(open, close)| {
        let (open, close) = (open.repeat(10_000), close.repeat(10_000));
        format!("{{\"x\":{open}0{close}}}")
    })
}

#[test]
fn no_codec_follows() {
    for body in nested() {
        for client in ClientDialect::ALL {
            client.decode_request(body.as_bytes()).unwrap_err();
        }
        for dialect in Dialect::ALL {
            dialect.decode_reply(body.as_bytes(), 7).unwrap_err();
            dialect.decode_fault(StatusCode::BAD_REQUEST, body.as_bytes());
            let mut events = VecDeque::new();
            let mut decoder = StreamDecoder::new(dialect, 7);
            decoder.push(format!("data: {body}\n\n{body}\n").as_bytes(), &mut events);
            decoder.finish(&mut events);
            assert!(matches!(events.back(), Some(Event::Failed(_))), "{dialect}");
        }
    }
}

#[test]
fn no_meter_follows() {
    for body in nested() {
        for (path, kind) in [
            ("/v1/chat/completions", "text/event-stream"),
            ("/v1/messages", "text/event-stream"),
            ("/v1/responses", "text/event-stream"),
            ("/api/chat", "application/x-ndjson"),
        ] {
            let surface = Surface::detect(&http::Method::POST, path, &HeaderMap::new()).unwrap();
            let facts = RequestFacts::read(&surface, b"{}").unwrap();
            for (kind, reply) in
                [(kind, format!("data: {body}\n\n{body}\n")), ("application/json", body.clone())]
            {
                let mut meter = Meter::new(&surface, &facts);
                meter.begin(
                    StatusCode::OK,
                    &HeaderMap::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static(kind))]),
                );
                meter.push(reply.as_bytes());
                meter.report(End::Finished);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_of_a_provider_that_nests_without_end_gets_an_error_or_what_it_said() {
    for body in nested() {
        let data = format!("data: {body}\n\n");
        let stream = || events("text/event-stream", [(Duration::ZERO, Some(data.clone()))]);
        let upstream = Upstream::new().replies(stream());
        let (_, passed) = send(layer(openai()), &upstream, stream_chat()).await;
        assert!(passed.contains("upstream_truncated"), "{passed}");

        let request = |streams: bool| {
            let said = format!(
                r#"{{"model":"m","max_tokens":9,"stream":{streams},"messages":[{{"role":"user","content":"a"}}]}}"#
            );
            post("/v1/messages", &said)
        };
        for (streams, reply) in [(true, stream()), (false, json(200, &body)), (false, json(400, &body))] {
            let upstream = Upstream::new().replies(reply);
            let (_, told) = send(layer(openai()), &upstream, request(streams)).await;
            assert!(told.contains(r#""type":"error""#), "{told}");
        }
    }
}
