//! Contents of requests and answers, as the semantic conventions have them: messages of parts, in JSON. What
//! is to be blacked out never leaves this process.

use std::ops::Range;

use nantian_ai::{
    ir::{Block, Json, Reply, Role, Stop, Tool},
    usage::Content,
};
use serde_json::{Value, json};

use crate::{
    ir::REDACTED,
    pattern::{Finder, InvalidPattern, Patterns},
};

/// Finds it.
const MARK: &str = r"\[redacted\]";

/// What is blacked out in contents.
#[derive(Debug, Clone, Default)]
pub(super) struct Redaction(Vec<Finder>);

/// Contents that may be told.
#[derive(Debug, Default, PartialEq)]
pub(super) struct RedactedContent {
    /// What the operator of the application said.
    pub(super) instructions: Option<Value>,
    /// The tools that the model was offered.
    pub(super) tools: Option<Value>,
    /// What else was said.
    pub(super) input: Option<Value>,
    /// What the model answered.
    pub(super) output: Option<Value>,
}

// === impl Redaction ===

impl Redaction {
    /// Blacks out what any of the expressions matches. What they match of a mark is one with it, so that what
    /// was blacked out once may be looked at again.
    pub(super) fn new(expressions: &[String], patterns: &Patterns) -> Result<Self, InvalidPattern> {
        let expressions = expressions.iter().map(String::as_str).chain([MARK]);
        expressions.map(|expression| patterns.finder(expression)).collect::<Result<_, _>>().map(Self)
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
            let tools: Vec<Value> = request.tools.iter().map(|tool| self.tool(tool)).collect();
            told.tools = (!tools.is_empty()).then_some(Value::Array(tools));
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
                let arguments = self.json(&call.arguments);
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

    fn tool(&self, tool: &Tool) -> Value {
        let mut told = json!({"type": "function", "name": tool.name, "parameters": self.json(&tool.schema)});
        if let (Some(description), Some(fields)) = (&tool.description, told.as_object_mut()) {
            fields.insert("description".to_owned(), self.redact(description).into());
        }
        told
    }

    /// A text where it is no JSON any more without what is blacked out.
    fn json(&self, json: &Json) -> Value {
        let text = self.redact(json.as_str());
        let mut value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        self.redact_strings(&mut value);
        value
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

    /// All expressions are looked for in what was written; what they match is told as one where it touches.
    fn redact(&self, text: &str) -> String {
        let mut found: Vec<_> = self.0.iter().flat_map(|finder| finder.spans(text)).collect();
        found.sort_unstable_by_key(|span| span.start);
        let mut hidden: Vec<Range<usize>> = Vec::new();
        for span in found {
            match hidden.last_mut() {
                Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
                _ => hidden.push(span),
            }
        }
        let (mut told, mut characters, mut at) = (String::new(), text.chars(), 0);
        for span in hidden {
            told.extend(characters.by_ref().take(span.start - at));
            told.push_str(REDACTED);
            characters.by_ref().take(span.len()).for_each(drop);
            at = span.end;
        }
        told.extend(characters);
        told
    }
}

#[cfg(test)]
mod tests {
    use nantian_ai::ir::ToolCall;

    use super::*;

    fn blacking_out(expressions: &[&str]) -> Redaction {
        let expressions: Vec<_> = expressions.iter().map(|&expression| expression.to_owned()).collect();
        Redaction::new(&expressions, &Patterns::default()).unwrap()
    }

    #[test]
    fn what_several_expressions_match_is_told_as_one() {
        for (expressions, text, told) in [
            (&["."; 8][..], "a text", "[redacted]"),
            (&["b+", "bc", "f"], "abbcdef", "a[redacted]de[redacted]"),
            (&["ü", "x*"], "für müde xx-Füße", "f[redacted]r m[redacted]de [redacted]-F[redacted]ße"),
            (&["d]"], "a[redacted]", "a[redacted]"),
            (&["d"], "d[redacted]", "[redacted]"),
            (&[], "a text", "a text"),
        ] {
            assert_eq!(blacking_out(expressions).redact(text), told);
        }
    }

    #[test]
    fn the_rest_is_blacked_out_where_it_takes_too_long_to_tell() {
        let text = "a".repeat(64 << 10);
        let told = blacking_out(&[".*z|ab?"]).redact(&format!("secret {text}"));
        assert_eq!(told, format!("secret {REDACTED}"));
    }

    #[test]
    fn escapes_hide_nothing_in_the_arguments_of_a_tool_call() {
        let redaction = blacking_out(&["[a-z]+@[a-z.]+"]);
        let arguments =
            r#"{"to": ["ann\u0040example.org"], "cc": {"bob\u0040example.org": "eve@example.org"}, "n": 1}"#;
        let arguments = Json::parse(arguments).unwrap();
        let call = ToolCall { id: "1".to_owned(), name: "send".to_owned(), arguments };
        let part = redaction.part(&Block::ToolCall(call));
        let expected = json!({"to": [REDACTED], "cc": {REDACTED: REDACTED}, "n": 1});
        assert_eq!(part["arguments"], expected);
    }

    #[test]
    fn arguments_of_a_tool_call_have_no_marks_within_marks() {
        for (expressions, arguments, expected) in [
            (&["red", "s.cret"][..], r#"{"note":"a secret"}"#, json!({"note": "a [redacted]"})),
            (&["red", "secret"], r#"{"note":"a s\u0065cret"}"#, json!({"note": "a [redacted]"})),
            (&[r"\w+"], r#"{"n":4111}"#, json!(r#"{"[redacted]":[redacted]}"#)),
        ] {
            let arguments = Json::parse(arguments).unwrap();
            let call = ToolCall { id: "1".to_owned(), name: "send".to_owned(), arguments };
            let part = blacking_out(expressions).part(&Block::ToolCall(call));
            assert_eq!(part["arguments"], expected);
        }
    }
}
