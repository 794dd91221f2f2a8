//! Contents of requests and answers, as the semantic conventions have them: messages of parts, in JSON. What
//! is to be blacked out never leaves this process.

use nantian_ai::{
    ir::{Block, Reply, Role, Stop},
    usage::Content,
};
use regex::Regex;
use serde_json::{Value, json};

/// What stands for what was blacked out.
const REDACTED: &str = "[redacted]";

/// What is blacked out in contents.
#[derive(Debug, Clone, Default)]
pub(super) struct Redaction(Vec<Regex>);

/// Contents that may be told.
#[derive(Debug, Default, PartialEq)]
pub(super) struct RedactedContent {
    /// What the operator of the application said.
    pub(super) instructions: Option<Value>,
    /// What else was said.
    pub(super) input: Option<Value>,
    /// What the model answered.
    pub(super) output: Option<Value>,
}

// === impl Redaction ===

impl Redaction {
    /// Blacks out what any of the patterns matches.
    pub(super) fn new<'p>(patterns: impl IntoIterator<Item = &'p String>) -> Result<Self, regex::Error> {
        patterns.into_iter().map(|pattern| Regex::new(pattern)).collect::<Result<_, _>>().map(Self)
    }

    /// What may be told of a call.
    pub(super) fn tell(&self, content: &Content) -> RedactedContent {
        let mut told = RedactedContent::default();
        if let Some(request) = content.asked() {
            let (system, others): (Vec<_>, Vec<_>) =
                request.messages.iter().partition(|message| message.role == Role::System);
            let instructions: Vec<Value> =
                system.iter().flat_map(|message| self.parts(&message.content)).collect();
            let others = others.iter().map(|message| {
                let role = if message.role == Role::Assistant { "assistant" } else { "user" };
                json!({"role": role, "parts": self.parts(&message.content)})
            });
            told.input = Some(Value::Array(others.collect()));
            told.instructions = (!instructions.is_empty()).then_some(Value::Array(instructions));
        }
        told.output = content.answered().map(|reply| self.output(&reply));
        told
    }

    fn output(&self, reply: &Reply) -> Value {
        let reason = match reply.stop {
            Stop::Length => "length",
            Stop::ToolCalls => "tool_call",
            Stop::Refused => "content_filter",
            _ => "stop",
        };
        json!([{"role": "assistant", "parts": self.parts(&reply.content), "finish_reason": reason}])
    }

    fn parts(&self, content: &[Block]) -> Vec<Value> {
        content.iter().map(|block| self.part(block)).collect()
    }

    /// Pictures and documents are named and not told.
    fn part(&self, block: &Block) -> Value {
        match block {
            Block::Text(text) | Block::Refusal(text) => json!({"type": "text", "content": self.redact(text)}),
            Block::Reasoning(reasoning) => {
                json!({"type": "reasoning", "content": self.redact(&reasoning.text)})
            }
            Block::ToolCall(call) => {
                let arguments = self.redact(call.arguments.as_str());
                let mut arguments: Value =
                    serde_json::from_str(&arguments).unwrap_or(Value::String(arguments));
                self.redact_strings(&mut arguments);
                json!({"type": "tool_call", "id": call.id, "name": call.name, "arguments": arguments})
            }
            Block::ToolResult(result) => {
                json!({"type": "tool_call_response", "id": result.id, "response": self.parts(&result.content)})
            }
            Block::Image(_) => json!({"type": "image"}),
            Block::Document(_) => json!({"type": "document"}),
            _ => json!({"type": "reasoning"}),
        }
    }

    /// Blacks out in every string and every name of a field, which JSON may have written with escapes.
    fn redact_strings(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.redact(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.redact_strings(item)),
            Value::Object(fields) => {
                *fields = std::mem::take(fields)
                    .into_iter()
                    .map(|(name, mut field)| {
                        self.redact_strings(&mut field);
                        (self.redact(&name), field)
                    })
                    .collect();
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn redact(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, pattern| pattern.replace_all(&text, REDACTED).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use nantian_ai::ir::{Json, ToolCall};

    use super::*;

    #[test]
    fn escapes_hide_nothing_in_the_arguments_of_a_tool_call() {
        let redaction = Redaction::new([&"[a-z]+@[a-z.]+".to_owned()]).unwrap();
        let arguments =
            r#"{"to": ["ann\u0040example.org"], "cc": {"bob\u0040example.org": "eve@example.org"}, "n": 1}"#;
        let arguments = Json::parse(arguments).unwrap();
        let call = ToolCall { id: "1".to_owned(), name: "send".to_owned(), arguments };
        let part = redaction.part(&Block::ToolCall(call));
        let expected = json!({"to": [REDACTED], "cc": {REDACTED: REDACTED}, "n": 1});
        assert_eq!(part["arguments"], expected);
    }
}
