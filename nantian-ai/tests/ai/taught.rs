//! Providers that refuse at first, and what is learnt of it.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use nantian_ai::{TargetConfig, retry::Attempts};
use serde_json::{Value, json};

use crate::support::{Upstream, json as reply, layer, send};

pub(crate) fn strict(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    request.headers_mut().insert("x-nantian-strict", http::HeaderValue::from_static("true"));
    request
}

/// A refusal as Bedrock says it, as xAI does, or as others do.
pub(crate) fn refused(message: &str) -> http::Response<crate::support::Body> {
    let error = if message.starts_with("The model returned") {
        json!({"message": message})
    } else if message.starts_with("Model ") {
        json!({"code": "Client specified an invalid argument", "error": message})
    } else {
        json!({"error": {"message": message, "type": "invalid_request_error"}})
    };
    reply(400, &error.to_string())
}

/// A member of each request that the provider got.
pub(crate) fn asked(upstream: &Upstream, path: &str) -> Vec<Value> {
    let body = |body: &Bytes| serde_json::from_slice::<Value>(body).unwrap();
    upstream.all().iter().map(|(_, it)| body(it).pointer(path).cloned().unwrap_or_default()).collect()
}

/// Asks twice of a provider that refuses at first, which is three requests, and gives what is named as lost.
pub(crate) async fn taught(
    config: TargetConfig,
    refusal: &str,
    answer: &str,
    request: impl Fn() -> Request<Full<Bytes>>,
) -> (Upstream, String) {
    let layer = layer(config);
    let upstream =
        Upstream::new().replies(refused(refusal)).replies(reply(200, answer)).replies(reply(200, answer));
    let mut named = Vec::new();
    for attempts in [Some(Attempts(2)), None] {
        let (head, body) = send(layer.clone(), &upstream, request()).await;
        assert_eq!((head.status.as_u16(), head.extensions.get().copied()), (200, attempts), "{body}");
        let dropped = head.headers.get("x-nantian-dropped").map_or("", |it| it.to_str().unwrap());
        named.push(dropped.to_owned());
    }
    assert_eq!(named[0], named[1]);
    (upstream, named.remove(0))
}
