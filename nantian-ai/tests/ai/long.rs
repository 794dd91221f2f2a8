//! Conversations of many pieces: none costs more than in proportion to its length, or one of as many as a
//! body may have would take a worker's time from all others.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use nantian_ai::ir::ToolNames;
use nantian_ai::{ClientDialect, Dialect, Target, TargetConfig};
use serde_json::{Value, json};
use tokio::time::Instant;

/// How long a short conversation is, and how many times as long a long one.
const SHORT: u32 = 1_000;
const TIMES: u32 = 16;
/// The least time that a short one may take.
const LEAST: Duration = Duration::from_millis(10);

/// Checks that the longer one takes less than twice the time in proportion; by its square it would be 16
/// times. What takes next to none tells nothing, and further tries are for a machine that was busy.
fn check<T>(what: &str, short: &T, long: &T, mut say: impl FnMut(&T)) {
    let mut cost = |conversation: &T| {
        let begun = Instant::now();
        say(conversation);
        begun.elapsed()
    };
    assert!((0..5).any(|_| cost(long) < cost(short).max(LEAST) * (2 * TIMES)), "{what}");
}

fn chat(messages: impl IntoIterator<Item = Value>) -> (ClientDialect, &'static str, Value) {
    let messages: Vec<_> = messages.into_iter().collect();
    (ClientDialect::OpenAi, "/v1/chat/completions", json!({"model": "any", "messages": messages}))
}

fn call(at: usize) -> Value {
    json!({"id": format!("call_{at}"), "function": {"name": "f", "arguments": "{}"}})
}

fn signed(at: usize) -> Value {
    let extra = json!({"google": {"thought_signature": at.to_string()}});
    let function = json!({"name": "f", "arguments": "{}"});
    json!({"id": format!("call_{at}"), "function": function, "extra_content": extra})
}

/// Users who say much, models that say nothing, results in any order, calls of one id, documents of one
/// title, and thoughts.
fn conversations(length: u32) -> [(ClientDialect, &'static str, Value); 7] {
    let length = length as usize;
    let many = |piece: &dyn Fn(usize) -> Value| -> Vec<_> { (0..length).map(piece).collect() };
    let user = |_| json!({"role": "user", "content": "a"});
    let silent =
        |at: usize| json!({"role": if at.is_multiple_of(2) { "user" } else { "assistant" }, "content": ""});
    let result = |at: usize| json!({"role": "tool", "tool_call_id": format!("call_{at}"), "content": "r"});
    let calls = json!({"role": "assistant", "tool_calls": many(&call)});
    let alike = json!({"role": "assistant", "tool_calls": many(&|_| call(0))});
    let thought =
        |at: usize| json!({"type": "thinking", "thinking": "", "signature": format!("google.{at}")});
    let thoughts =
        json!({"role": "assistant", "tool_calls": many(&signed), "thinking_blocks": many(&thought)});
    let between = many(&result).into_iter().rev().flat_map(|result| [result, user(0)]);
    let document = |_| json!({"type": "document", "source": {"type": "text", "data": "a"}});
    let documents = json!([{"role": "user", "content": many(&document)}]);
    [
        chat(many(&user)),
        chat(many(&silent)),
        chat([calls.clone()].into_iter().chain(many(&result))),
        chat([calls].into_iter().chain(between.take(length))),
        chat([alike].into_iter().chain(many(&|_| result(0)))),
        chat([user(0), thoughts]),
        (ClientDialect::Anthropic, "/v1/messages", json!({"model": "any", "messages": documents})),
    ]
}

fn pairs() -> impl Iterator<Item = [(ClientDialect, &'static str, Value); 2]> {
    let (short, long) = (conversations(SHORT), conversations(TIMES * SHORT));
    short.into_iter().zip(long).map(|(short, long)| [short, long])
}

#[test]
fn a_long_conversation_is_said_anew_in_no_more_time_than_it_is_long() {
    for (at, pair) in pairs().enumerate() {
        let bodies = pair.map(|(client, _, body)| (client, body.to_string()));
        let read = |(client, body): &(ClientDialect, String)| {
            let (mut request, _) = client.decode_request(body.as_bytes()).unwrap();
            ToolNames::adapt(&mut request);
            request
        };
        let [short, long] = bodies.each_ref().map(read);
        check(&format!("reading {at}"), &bodies[0], &bodies[1], |body| drop(read(body)));
        for (dialect, provider) in
            Dialect::ALL.map(|it| (it, it.name())).into_iter().chain([(Dialect::OpenAi, "mistral")])
        {
            check(&format!("{at} for {provider}"), &short, &long, |request| {
                // What is refused has been looked at, too.
                let _ = dialect.encode_request(request, provider);
            });
        }
    }
}

#[test]
fn a_long_conversation_passes_in_no_more_time_than_it_is_long() {
    for (at, pair) in pairs().enumerate() {
        let [short, long] = pair.map(|(_, path, body)| (path, Bytes::from(body.to_string())));
        for provider in ["anthropic", "mistral", "openai"] {
            let target = Target::new(TargetConfig::new("demo/any", provider, "m")).unwrap();
            check(&format!("{at} for {provider}"), &short, &long, |(path, body)| {
                let (head, ()) = Request::post(*path).body(()).unwrap().into_parts();
                let surface = target.admit(&head).unwrap();
                let _ = target.prepare(&surface, head, body.clone());
            });
        }
    }
}
