//! The usage of replies that pass.

use http::{
    StatusCode,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
    method::Method,
};
use nantian_ai::{
    RequestFacts, Surface,
    usage::{End, Meter, UsageReport},
};

use super::{SIZES, wire::framed};
use crate::draw::Draw;

const PATHS: [&str; 6] = [
    "/v1/chat/completions",
    "/v1/messages",
    "/v1/responses",
    "/api/chat",
    "/v1/completions",
    "/v1/embeddings",
];

const FRAMES: &str = "application/vnd.amazon.eventstream";
const TYPES: [&str; 4] = ["application/json", "text/event-stream", "application/x-ndjson", FRAMES];

/// Every way to cut a reply gives the same report, whose parts are never more than the whole.
pub fn ai_meter(input: &[u8]) {
    let Some((mut draw, reply)) = Draw::split(input) else { return };
    let (path, media_type, size) = (draw.of(&PATHS), draw.of(&TYPES), draw.of(&SIZES));
    let end = draw.of(&[End::Finished, End::Dropped]);
    let framed = (media_type == FRAMES).then(|| framed(reply));
    let reply = framed.as_deref().unwrap_or(reply);
    let report = report(path, media_type, reply.chunks(size), end);
    assert_eq!(report, self::report(path, media_type, [reply], end), "chunks of {size}");

    let usage = report.usage;
    assert!(usage.total >= usage.input.saturating_add(usage.output), "{usage:?}");
    assert!(usage.reasoning <= usage.output, "{usage:?}");
}

fn report<'a>(
    path: &str,
    media_type: &'static str,
    chunks: impl IntoIterator<Item = &'a [u8]>,
    end: End,
) -> UsageReport {
    let surface = Surface::detect(&Method::POST, path, &HeaderMap::new()).expect("the path is known");
    let facts = RequestFacts::read(&surface, br#"{"model":"m"}"#).expect("it is an object");
    let mut meter = Meter::new(&surface, &facts);
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))]);
    meter.begin(StatusCode::OK, &headers);
    chunks.into_iter().for_each(|chunk| meter.push(chunk));
    meter.report(end)
}
