//! Requests that want no answer: a model is to be loaded, or to be let go.

use std::time::{Duration, SystemTime};

use super::reply::head;
use crate::codec::{Defaults, Echo, object};
use crate::dialect::{ClientDialect, Operation, Surface};
use crate::edit::Object;

/// A chat without messages, or a text without a prompt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loading {
    operation: Operation,
    /// The model is not to be kept.
    unloads: bool,
}

// === impl Loading ===

impl Loading {
    /// What a request says that wants no more.
    pub(crate) fn of(surface: &Surface, body: &Object<'_>) -> Option<Self> {
        let is_given = |name: &str, nothing: &[u8]| {
            body.value(name).is_some_and(|value| value != b"null" && value != nothing)
        };
        let asks = match (surface.dialect(), surface.operation()) {
            (ClientDialect::Ollama, Operation::Chat) => is_given("messages", b"[]"),
            (ClientDialect::Ollama, Operation::Generate) => is_given("prompt", b"\"\""),
            _ => return None,
        };
        let unloads = body.value("keep_alive").is_some_and(is_no_time);
        (!asks).then_some(Self { operation: surface.operation(), unloads })
    }

    /// What Ollama says once it has done that.
    pub(crate) fn answer(self, model: &str) -> Vec<u8> {
        let defaults = Defaults {
            id: String::new(),
            model: model.to_owned(),
            created: SystemTime::now(),
            took: Duration::ZERO,
            stream_usage: false,
            input_estimate: 0,
            echo: Echo::default(),
        };
        object(|body| {
            head(body, None, &defaults);
            match self.operation {
                Operation::Generate => body.text("response", ""),
                _ => body.object("message", |message| {
                    message.text("role", "assistant");
                    message.text("content", "");
                }),
            }
            body.text("done_reason", if self.unloads { "unload" } else { "load" });
            body.flag("done", true);
        })
    }
}

/// Whether a time, a number of seconds or a text with its unit, is none.
fn is_no_time(json: &[u8]) -> bool {
    let text = String::from_utf8_lossy(json);
    let number = text.trim_matches('"').trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    number.parse() == Ok(0.0)
}
