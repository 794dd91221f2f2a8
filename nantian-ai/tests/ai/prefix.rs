//! What has been said stays what it was: providers keep conversations by their beginnings, and some models
//! trust their own reasoning only after the beginning that it had.

use nantian_ai::ir::ToolNames;
use nantian_ai::{ClientDialect, Dialect};
use serde_json::{Value, json};

/// The models of each dialect, and the member in which a conversation stands.
const MODELS: [(Dialect, &str, &str, &str); 10] = [
    (Dialect::Anthropic, "anthropic", "claude-opus-5-5", "messages"),
    (Dialect::Anthropic, "anthropic", "claude-sonnet-4-5", "messages"),
    (Dialect::Bedrock, "bedrock", "us.anthropic.claude-opus-5-5", "messages"),
    (Dialect::Bedrock, "bedrock", "amazon.nova-pro-v1:0", "messages"),
    (Dialect::Gemini, "gemini", "gemini-3-pro", "contents"),
    (Dialect::Ollama, "ollama", "qwen3", "messages"),
    (Dialect::OpenAi, "openai", "gpt-5", "messages"),
    (Dialect::OpenAi, "vllm", "Qwen/Qwen3-8B", "messages"),
    (Dialect::OpenAi, "deepseek", "deepseek-v4-pro", "messages"),
    (Dialect::Responses, "openai", "gpt-5", "input"),
];

/// Requests one after the other of a conversation as Claude Code leads it.
fn of_claude_code(requests: usize) -> Vec<Value> {
    let mut messages = vec![json!({"role": "user", "content": "Look."})];
    let request = |number: usize, messages: &[Value]| {
        let mut messages = messages.to_vec();
        // The mark moves with the end of the conversation.
        let last = messages.last_mut().unwrap();
        last["content"] =
            json!([{"type": "text", "text": last["content"], "cache_control": {"type": "ephemeral"}}]);
        json!({
            "model": "any", "max_tokens": 9, "messages": messages,
            "system": [
                {"type": "text", "text": format!("x-anthropic-billing-header: cc_version=2; cch={number:05x};")},
                {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
            ],
            "tools": [{"name": "look", "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}}}],
        })
    };
    let mut all = Vec::new();
    for number in 0..requests {
        messages.push(
            json!({"role": "system", "content": format!("<total_tokens>{}</total_tokens>", 9 - number)}),
        );
        all.push(request(number, &messages));
        let id = format!("call_{number}");
        messages.extend([
            json!({"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": "look", "input": {"at": id}}]}),
            json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "Nothing."}]}),
        ]);
    }
    all
}

/// The same as Codex leads it: `developer` speaks before the user does.
fn of_codex(requests: usize) -> Vec<Value> {
    let mut input = Vec::new();
    let mut all = Vec::new();
    for number in 0..requests {
        input.extend([
            json!({"type": "message", "role": "developer", "content": [{"type": "input_text", "text": format!("Mode {number}.")}]}),
            json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Look."}]}),
        ]);
        all.push(json!({"model": "any", "instructions": "Be brief.", "input": input}));
        input.push(json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Nothing."}]}));
    }
    all
}

/// A body without the marks of what is to be kept, which move.
fn without_marks(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let said = items.into_iter().filter(|item| item.get("cachePoint").is_none());
            said.map(without_marks).collect()
        }
        Value::Object(members) => {
            let said = members.into_iter().filter(|(name, _)| name != "cache_control");
            said.map(|(name, value)| (name, without_marks(value))).collect()
        }
        value => value,
    }
}

#[test]
fn the_requests_of_a_conversation_begin_with_those_before_them() {
    let conversations =
        [(ClientDialect::Anthropic, of_claude_code(4)), (ClientDialect::Responses, of_codex(4))];
    for (from, conversation) in conversations {
        for (to, provider, model, name) in MODELS {
            let mut before = Vec::new();
            let mut around = None;
            for request in &conversation {
                let (mut request, _) = from.decode_request(request.to_string().as_bytes()).unwrap();
                model.clone_into(&mut request.model);
                ToolNames::adapt(&mut request);
                let (body, _) = to.encode_request(&request, provider).unwrap();
                let mut body = without_marks(serde_json::from_slice(&body).unwrap());
                let said = body[name].take().as_array().unwrap().clone();
                assert!(said.len() > before.len(), "{from} to {model}");
                assert_eq!(said[..before.len()], before, "{from} to {model}");
                assert_eq!(around.get_or_insert_with(|| body.clone()), &body, "{from} to {model}");
                before = said;
            }
            let all = json!([around, before]).to_string();
            assert!(!all.contains("billing"), "{from} to {model}");
            assert_eq!(all.matches("Be brief.").count(), 1, "{from} to {model}");
            assert_eq!(all.matches("Nothing.").count(), 3, "{from} to {model}");
        }
    }
}

/// Where a chat says what is to be kept, and where Claude is told so.
const MARKS: [(&str, &str); 9] = [
    ("/tools/0/function", "/tools/0"),
    ("/messages/0", "/system/1"),
    ("/messages/2/tool_calls/0", "/messages/1/content/1"),
    ("/messages/3", "/messages/2/content/0"),
    ("/messages/4", "/messages/3/content/0"),
    ("/messages/5", "/messages/4/content/1"),
    ("/messages/0/content/0", "/system/0"),
    ("/tools/1/function", "/tools/1"),
    ("/tools/2/function", "/tools/2"),
];

/// Which of its marks Claude is told of a chat that has some, and what is lost.
fn told(marked: &[usize], mark: &Value) -> (Vec<usize>, String) {
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}});
    let tool =
        |name| json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}});
    let mut body = json!({
        "model": "claude-sonnet-4-5",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}]},
            {"role": "user", "content": "Look."},
            {"role": "assistant", "content": "I do.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": ""},
            {"role": "assistant", "content": "Nothing."},
            {"role": "user", "content": [{"type": "text", "text": "And"}, {"type": "text", "text": "now?"}]},
        ],
        "tools": [tool("look"), tool("read"), tool("find")],
    });
    for &at in marked {
        body.pointer_mut(MARKS[at].0).unwrap()["cache_control"] = mark.clone();
    }
    let (request, mut lost) = ClientDialect::OpenAi.decode_request(body.to_string().as_bytes()).unwrap();
    let (body, more) = Dialect::Anthropic.encode_request(&request, "anthropic").unwrap();
    lost.extend(more);
    let body: Value = serde_json::from_slice(&body).unwrap();
    let is_marked = |block: &Value| block["cache_control"] == *mark;
    let told: Vec<_> =
        (0..MARKS.len()).filter(|at| body.pointer(MARKS[*at].1).is_some_and(is_marked)).collect();
    assert_eq!(body.to_string().matches("cache_control").count(), told.len(), "{body:#}");
    (told, lost.to_string())
}

#[test]
fn what_is_to_be_kept_may_be_said_beside_a_text_too_as_often_as_claude_takes_it() {
    let mark = json!({"type": "ephemeral"});
    for (marked, kept, lost) in [
        (&[0, 1, 2, 3][..], &[0, 1, 2, 3][..], ""),
        (&[2, 3, 4, 5], &[2, 3, 4, 5], ""),
        (&[1, 2, 3, 4, 5], &[1, 3, 4, 5], "cache_control"),
        (&[0, 1, 2, 3, 4, 5], &[0, 1, 4, 5], "cache_control"),
        // Neither the end nor the system goes for the tools, nor the end for the system.
        (&[0, 1, 5, 7, 8], &[1, 5, 7, 8], "cache_control"),
        (&[0, 1, 2, 3, 4, 5, 7, 8], &[1, 4, 5, 8], "cache_control"),
        (&[0, 1, 4, 5, 6], &[0, 1, 4, 5], "cache_control"),
    ] {
        assert_eq!(told(marked, &mark), (kept.to_vec(), lost.to_owned()));
    }
    // What says nothing that is known is no reason to refuse the rest.
    for unknown in [json!(true), json!("ephemeral"), json!({"type": 1})] {
        assert_eq!(told(&[0, 1, 2, 3], &unknown), (Vec::new(), "cache_control".to_owned()));
    }
}

/// The conversation that a model is sent, shortly: role and text of each turn, and what is lost.
fn sent(to: Dialect, provider: &str, model: &str, messages: Value) -> (Vec<String>, String) {
    let body = json!({"model": "any", "messages": messages}).to_string();
    let (mut request, _) = ClientDialect::OpenAi.decode_request(body.as_bytes()).unwrap();
    model.clone_into(&mut request.model);
    let (body, losses) = to.encode_request(&request, provider).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let turns = body["messages"].as_array().unwrap().iter().map(|turn| {
        let said = match turn["content"].as_str() {
            Some(text) => vec![text],
            None => turn["content"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|block| block["text"].as_str())
                .collect(),
        };
        format!("{}: {}", turn["role"].as_str().unwrap(), said.join(" | "))
    });
    (turns.collect(), losses.to_string())
}

#[test]
fn what_the_system_says_later_is_said_by_it_where_that_is_taken() {
    let say = |turns: &[(&str, &str)]| {
        Value::from_iter(turns.iter().map(|(role, text)| json!({"role": role, "content": text})))
    };
    let opus = |turns| sent(Dialect::Anthropic, "anthropic", "claude-opus-4-8", say(turns));
    let sonnet = |turns| sent(Dialect::Anthropic, "anthropic", "claude-sonnet-5", say(turns));
    let vllm = |turns| sent(Dialect::OpenAi, "vllm", "Qwen/Qwen3-8B", say(turns));
    let openai = |turns| sent(Dialect::OpenAi, "openai", "gpt-5", say(turns));
    let lines = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();

    let talk = &[
        ("system", "a"),
        ("user", "b"),
        ("system", "c"),
        ("assistant", "d"),
        ("system", "e"),
        ("user", "f"),
    ][..];
    assert_eq!(
        opus(talk),
        (lines(&["user: b", "system: c", "assistant: d", "user: f", "system: e"]), String::new())
    );
    let as_user = ["user: b | <system>\nc\n</system>", "assistant: d", "user: <system>\ne\n</system> | f"];
    assert_eq!(sonnet(talk), (lines(&as_user), "messages.system".to_owned()));
    let (said, lost) = vllm(talk);
    let after =
        ["system: a", "user: b | <system>\nc\n</system>", "assistant: d", "user: f | <system>\ne\n</system>"];
    assert_eq!((said, &*lost), (lines(&after), "messages.system"));
    let in_place = ["system: a", "user: b", "system: c", "assistant: d", "system: e", "user: f"];
    assert_eq!(openai(talk), (lines(&in_place), String::new()));

    // Where it says nothing, nobody else does.
    let bedrock = |turns| sent(Dialect::Bedrock, "bedrock", "amazon.nova-pro-v1:0", say(turns));
    let ollama = |turns| sent(Dialect::Ollama, "ollama", "llama3.1:8b", say(turns));
    let silent = &[("user", "a"), ("assistant", "b"), ("system", " "), ("assistant", "c"), ("user", "d")][..];
    let (said, lost) = bedrock(silent);
    assert_eq!((said, &*lost), (lines(&["user: a", "assistant: b | c", "user: d"]), ""));
    for (said, lost) in [vllm(silent), ollama(silent)] {
        assert_eq!((said.last().unwrap().as_str(), &*lost), ("user: d", ""), "{said:?}");
    }

    // It needs a user's turn before it.
    let (said, lost) = opus(&[("user", "a"), ("assistant", "b"), ("system", "c")]);
    assert_eq!(said, lines(&["user: a", "assistant: b", "user: <system>\nc\n</system>"]));
    assert_eq!(lost, "messages.system");
    let (said, lost) =
        opus(&[("user", "a"), ("system", "b"), ("assistant", ""), ("user", "c"), ("system", "d")]);
    assert_eq!((said, &*lost), (lines(&["user: a | c", "system: b | d"]), ""));
}
