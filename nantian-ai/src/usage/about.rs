//! What an answer says about itself.

use crate::codec::{Fields, Value};

/// What an answer says about itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct About {
    pub(crate) id: Option<String>,
    pub(crate) model: Option<String>,
    pub(super) finish_reason: Option<String>,
}

/// The members of a buffered reply that say it.
pub(super) const ID: &str = "id";
pub(super) const MODEL: &str = "model";
pub(super) const RESPONSE_ID: &str = "responseId";
pub(super) const MODEL_VERSION: &str = "modelVersion";
pub(super) const STOP_REASON: &str = "stop_reason";
pub(super) const STOP_REASON_OF_BEDROCK: &str = "stopReason";
pub(super) const DONE_REASON: &str = "done_reason";
pub(super) const STATUS: &str = "status";

/// The lists of answers, of which the first says why it has ended.
pub(super) const CHOICES: &str = "choices";
pub(super) const CANDIDATES: &str = "candidates";

/// The longest id, name or reason that is read, in bytes: they are kept, and providers choose them.
const LONGEST: usize = 1_024;

// === impl About ===

impl About {
    /// Reads the first or the last event of a stream, in which the providers of each dialect say it.
    pub(super) fn read(&mut self, event: &[u8]) {
        let Ok(mut event) = Fields::parse(event) else { return };
        // Anthropic and Responses begin with the answer as a whole.
        let mut inner = match event.any_object("response") {
            response if !response.is_empty() => response,
            _ => event.any_object("message"),
        };
        let mut details = inner.any_object("incomplete_details");
        let mut delta = event.any_object("delta");
        let first = |list: Vec<Value>| Fields::lenient(list.into_iter().next().unwrap_or_default());
        let mut choice = first(event.any_list("choices"));
        let mut candidate = first(event.any_list("candidates"));
        let id = event.some_text(ID).or(event.some_text(RESPONSE_ID)).or(inner.some_text(ID));
        let model = event.some_text(MODEL).or(event.some_text(MODEL_VERSION)).or(inner.some_text(MODEL));
        self.id = self.id.take().or(short(id));
        self.model = self.model.take().or(short(model));
        let reason = choice
            .some_text("finish_reason")
            .or(candidate.some_text("finishReason"))
            .or(delta.some_text("stop_reason"))
            .or(event.some_text("done_reason"))
            .or(event.some_text(STOP_REASON_OF_BEDROCK))
            .or(details.some_text("reason"))
            .or(inner.some_text("status").filter(|status| status != "in_progress"));
        self.finish_reason = short(reason).or(self.finish_reason.take());
    }

    /// Takes a member of a buffered reply; false if it is none that says anything here.
    pub(super) fn member(&mut self, name: &str, json: &[u8]) -> bool {
        let said = match name {
            ID | RESPONSE_ID => &mut self.id,
            MODEL | MODEL_VERSION => &mut self.model,
            STOP_REASON | STOP_REASON_OF_BEDROCK | DONE_REASON | STATUS | CHOICES | CANDIDATES => {
                &mut self.finish_reason
            }
            _ => return false,
        };
        *said = short(serde_json::from_slice(json).unwrap_or_default());
        true
    }
}

/// Leaves out what is longer than any name.
fn short(said: Option<String>) -> Option<String> {
    said.filter(|said| said.len() <= LONGEST)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_dialect_says_it_in_its_first_or_its_last_event() {
        for events in [
            [
                r#"{"id":"a","model":"m","choices":[{"delta":{"content":"x"},"finish_reason":null}]}"#,
                r#"{"id":"a","model":"m","choices":[{"delta":{},"finish_reason":"stop"}]}"#,
            ],
            [
                r#"{"responseId":"a","modelVersion":"m","candidates":[{"content":{}}]}"#,
                r#"{"candidates":[{"finishReason":"stop"}]}"#,
            ],
            [
                r#"{"type":"message_start","message":{"id":"a","model":"m"}}"#,
                r#"{"type":"message_delta","delta":{"stop_reason":"stop"}}"#,
            ],
            [
                r#"{"type":"response.created","response":{"id":"a","model":"m","status":"in_progress"}}"#,
                r#"{"type":"response.incomplete","response":{"status":"incomplete","incomplete_details":{"reason":"stop"}}}"#,
            ],
        ] {
            let mut about = About::default();
            events.iter().for_each(|event| about.read(event.as_bytes()));
            assert_eq!(about.id.as_deref(), Some("a"), "{events:?}");
            assert_eq!(about.model.as_deref(), Some("m"), "{events:?}");
            assert_eq!(about.finish_reason.as_deref(), Some("stop"), "{events:?}");
        }
    }

    #[test]
    fn what_is_longer_than_any_name_is_not_kept() {
        let (long, longer) = ("x".repeat(LONGEST), "m".repeat(LONGEST + 1));
        let mut about = About::default();
        about.read(json!({"id": "a", "model": longer, "done_reason": long}).to_string().as_bytes());
        let kept = About { id: Some("a".to_owned()), model: None, finish_reason: Some(long) };
        assert_eq!(about, kept);
        assert!(about.member(ID, json!(longer).to_string().as_bytes()));
        assert_eq!(about.id, None);
    }

    #[test]
    fn what_has_another_shape_says_nothing() {
        let mut about = About::default();
        about.read(br#"{"id":1,"model":{},"choices":"x","message":[],"delta":null}"#);
        about.read(b"not json");
        assert!(about.member("id", b"7") && !about.member("usage", b"{}"));
        assert_eq!(about, About::default());
    }
}
