//! Watches: one JSON object a line, for as long as the client listens.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use super::{
    answer::{Body, Query, Target, is_selected, status},
    kinds::Kind,
    store::{Store, key},
};

/// What follows the version that the client knows; 410 where that is forgotten.
pub(super) fn watch(store: &Arc<Store>, target: &Target, query: &Query) -> Response<Body> {
    let known = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
    let follow = Follow {
        store: Arc::clone(store),
        changes: store.changes(),
        known,
        bookmarks_seen: 0,
        is_over: false,
        target: Target::clone(target),
        query: query.clone(),
    };
    let lines = stream::unfold(follow, |mut follow| async move {
        let lines = follow.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(lines))), follow))
    });
    let body = StreamBody::new(lines).boxed();
    Response::builder().header("content-type", "application/json").body(body).unwrap()
}

struct Follow {
    store: Arc<Store>,
    changes: tokio::sync::watch::Receiver<u64>,
    known: u64,
    bookmarks_seen: usize,
    is_over: bool,
    target: Target,
    query: Query,
}

impl Follow {
    /// The next lines, or `None` when the watch has ended.
    async fn next(&mut self) -> Option<String> {
        loop {
            if self.is_over {
                return None;
            }
            self.changes.borrow_and_update();
            let lines = self.lines();
            if !lines.is_empty() {
                return Some(lines);
            }
            if self.is_over {
                return None;
            }
            self.changes.changed().await.ok()?;
        }
    }

    fn lines(&mut self) -> String {
        let state = self.store.state();
        if self.known < state.oldest {
            self.is_over = true;
            let expired = status(410, "Expired", "too old resource version");
            return line("ERROR", &expired);
        }
        let mut lines = String::new();
        for entry in state.history.iter().filter(|entry| entry.version > self.known) {
            let namespace = entry.object["metadata"]["namespace"].as_str().unwrap_or_default();
            if self.target.covers(&key(&entry.plural, namespace, ""))
                && is_selected(&entry.object, &self.query)
            {
                lines += &line(entry.kind, &self.target.shown(entry.object.clone()));
            }
        }
        let bookmarks = state.history.iter().filter(|entry| entry.kind == "BOOKMARK").count();
        self.known = self.known.max(state.version);
        if bookmarks > self.bookmarks_seen {
            let metadata = json!({ "resourceVersion": state.version.to_string() });
            let object = json!({ "kind": self.target.kind.name, "metadata": metadata });
            lines += &line("BOOKMARK", &self.target.shown(object));
        }
        self.bookmarks_seen = bookmarks;
        // A watch ends with the version of its kind.
        let is_it = |kind: &Kind| {
            let mut versions = kind.versions.iter().map(|version| kind.api_version(version));
            kind.plural == self.target.kind.plural
                && state.knows(kind)
                && versions.any(|version| version == self.target.api_version)
        };
        self.is_over = !state.kinds.iter().any(is_it);
        lines
    }
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({ "type": kind, "object": object }))
}
