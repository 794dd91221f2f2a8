//! Conversations of as many pieces as a body may have: none costs more than in proportion to its length, or
//! it would take a worker's time from all others. What grows faster does not end within a test's time.

use http::Request;
use nantian_ai::ir::ToolNames;
use nantian_ai::{ClientDialect, Dialect, Target, TargetConfig};
use serde_json::{Value, json};

const MANY: usize = 5_000;

fn many(piece: impl Fn(usize) -> Value) -> Vec<Value> {
    (0..MANY).map(piece).collect()
}

fn chat(messages: impl IntoIterator<Item = Value>) -> (ClientDialect, &'static str, Value) {
    let messages: Vec<_> = messages.into_iter().collect();
    (ClientDialect::OpenAi, "/v1/chat/completions", json!({"model": "any", "messages": messages}))
}

fn call(at: usize) -> Value {
    json!({"id": format!("call_{at}"), "function": {"name": "f", "arguments": "{}"}})
}

fn signed(at: usize) -> Value {
    let mut call = call(at);
    call["extra_content"] = json!({"google": {"thought_signature": at.to_string()}});
    call
}

/// Users who say much, models that say nothing, results in any order, documents of one title, and thoughts.
fn conversations() -> [(ClientDialect, &'static str, Value); 6] {
    let user = |_| json!({"role": "user", "content": "a"});
    let silent =
        |at: usize| json!({"role": if at.is_multiple_of(2) { "user" } else { "assistant" }, "content": ""});
    let result = |at: usize| json!({"role": "tool", "tool_call_id": format!("call_{at}"), "content": "r"});
    let calls = json!({"role": "assistant", "tool_calls": many(call)});
    let thought =
        |at: usize| json!({"type": "thinking", "thinking": "", "signature": format!("google.{at}")});
    let thoughts = json!({"role": "assistant", "tool_calls": many(signed), "thinking_blocks": many(thought)});
    let between = many(result).into_iter().rev().flat_map(|result| [result, user(0)]);
    let document = |_| json!({"type": "document", "source": {"type": "text", "data": "a"}});
    let documents = json!([{"role": "user", "content": many(document)}]);
    [
        chat(many(user)),
        chat(many(silent)),
        chat([calls.clone()].into_iter().chain(many(result))),
        chat([calls].into_iter().chain(between.take(MANY))),
        chat([user(0), thoughts]),
        (ClientDialect::Anthropic, "/v1/messages", json!({"model": "any", "messages": documents})),
    ]
}

#[test]
fn a_long_conversation_is_said_anew_in_no_more_time_than_it_is_long() {
    for (client, _, body) in conversations() {
        let (mut request, _) = client.decode_request(body.to_string().as_bytes()).unwrap();
        ToolNames::adapt(&mut request);
        for (dialect, provider) in
            Dialect::ALL.map(|it| (it, it.name())).into_iter().chain([(Dialect::OpenAi, "mistral")])
        {
            // What is refused has been looked at, too.
            let _ = dialect.encode_request(&request, provider);
        }
    }
}

#[test]
fn a_long_conversation_passes_in_no_more_time_than_it_is_long() {
    for (_, path, body) in conversations() {
        for provider in ["anthropic", "mistral", "openai"] {
            let target = Target::new(TargetConfig::new("demo/any", provider, "m")).unwrap();
            let (head, ()) = Request::post(path).body(()).unwrap().into_parts();
            let surface = target.admit(&head).unwrap();
            let _ = target.prepare(&surface, head, body.to_string().into());
        }
    }
}
