//! Every golden stream through the whole layer: the observer is told what the client is told.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use nantian_ai::codec::StreamDecoder;
use nantian_ai::ir::{Block, Collector, Event, Reply};
use nantian_ai::usage::{Outcome, UsageReport};
use nantian_ai::{ClientDialect, Dialect};
use tower::{Layer as _, ServiceExt as _};

use crate::files::streams;
use crate::support::{Reports, Upstream, events, layer, post};
use crate::troubles::{content_type, path, target};

/// What a stream says: the whole answer, or `None` if it fails.
fn read(dialect: Dialect, stream: &[u8]) -> Option<Reply> {
    let mut decoder = StreamDecoder::new(dialect, 7);
    let mut events = VecDeque::new();
    decoder.push(stream, &mut events);
    decoder.finish(&mut events);
    let is_whole = events.back() == Some(&Event::End);
    let mut collector = Collector::default();
    events.into_iter().for_each(|event| collector.push(event));
    collector.finish().ok().filter(|_| is_whole)
}

/// What a client reads of it, and what the observer is told.
async fn asked(
    client: Dialect,
    upstream: Dialect,
    stream: &[u8],
    stays_open: bool,
) -> (u16, Option<Reply>, UsageReport) {
    let reports = Reports::default();
    let chunks: Vec<_> = stream.chunks(64).map(Bytes::copy_from_slice).collect();
    let chunks = chunks.into_iter().map(|chunk| (Duration::ZERO, Some(chunk)));
    let rest = stays_open.then_some((Duration::from_secs(3_600), Some(Bytes::new())));
    let provider = Upstream::new().replies(events(content_type(upstream), chunks.chain(rest)));
    let said = if client == Dialect::Responses { "input" } else { "messages" };
    let request = format!(r#"{{"model":"any","stream":true,"{said}":[{{"role":"user","content":"Hi"}}]}}"#);
    let service = layer(target(upstream)).observer(reports.clone()).layer(provider);
    let response = service.oneshot(post(path(client), &request)).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, read(client, &body).filter(|_| status == 200), reports.only())
}

/// How many parts of an answer every dialect has words for.
fn spoken(reply: &Reply) -> usize {
    reply
        .content
        .iter()
        .filter(|block| !matches!(block, Block::Reasoning(_) | Block::RedactedReasoning(_)))
        .count()
}

/// What is wrong with it.
fn fault(
    whole: &Option<Reply>,
    stays_open: bool,
    seen: &Option<Reply>,
    report: &UsageReport,
) -> Option<&'static str> {
    if seen.is_some() != (report.outcome == Outcome::Completed) {
        return Some("the observer is told of another end than the client");
    }
    if report.outcome == Outcome::Aborted {
        return Some("the client has not gone away");
    }
    // A stream that stays open may end without what would have made it whole.
    if !stays_open && seen.is_some() != whole.is_some() {
        return Some("the client is told of another end than the provider has told of");
    }
    let (Some(seen), Some(whole)) = (seen, whole) else { return None };
    if spoken(seen) != spoken(whole) {
        return Some("the client reads another answer");
    }
    (whole.tokens.output.is_some_and(|output| output != report.usage.output)).then_some("other usage is told")
}

#[tokio::test(start_paused = true)]
async fn what_the_observer_is_told_of_a_stream_is_what_the_client_has_read() {
    let mut faults = Vec::new();
    for upstream in Dialect::ALL {
        for (name, stream) in streams(upstream) {
            let whole = read(upstream, &stream);
            for client in ClientDialect::ALL.map(Dialect::from) {
                for stays_open in [false, true] {
                    // A line without an end may go on.
                    if stays_open && name == "no-line-end" {
                        continue;
                    }
                    let (status, seen, report) = asked(client, upstream, &stream, stays_open).await;
                    if let Some(fault) = fault(&whole, stays_open, &seen, &report) {
                        let outcome = report.outcome;
                        faults.push(format!(
                            "{name} of {upstream} to {client}, open: {stays_open}: {fault} ({status}, {outcome:?})"
                        ));
                    }
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}
