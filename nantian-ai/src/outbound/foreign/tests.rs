use bytes::Bytes;
use http::{HeaderMap, Method};

use super::*;

/// The body as it is sent to a model, and what is lost of it.
fn sent(path: &str, model: &str, body: &str) -> (String, String) {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let surface = Surface::detect(&Method::POST, path, &HeaderMap::new()).unwrap();
    let object = Object::parse(&body).unwrap();
    let mut losses = Losses::default();
    let edits = edits(&surface, &object, model, &mut losses);
    let sent = object.set_and(&body, &[], edits).concat();
    serde_json::from_slice::<serde_json::Value>(&sent).unwrap();
    (String::from_utf8(sent).unwrap(), losses.to_string())
}

#[test]
fn reasoning_of_another_family_is_cut_out_of_messages_in_place() {
    let foreign = r#"{"type":"thinking","thinking":"hm","signature":"ntn1.none"}"#;
    let other = r#"{ "signature" : "goo\u0067le.x", "type":"thinking","thinking":"" }"#;
    let redacted = r#"{"type":"redacted_thinking","data":"aws.AA=="}"#;
    let own = r#"{"type":"thinking","thinking":"","signature":"EqoB"}"#;
    let text = r#"{"type":"text","text":"\"ntn1.\" {\"type\":\"thinking\"}"}"#;
    let body = |blocks: &[&str]| {
        let blocks = blocks.join(" , ");
        format!(
            "{{\"model\":\"m\", \"messages\":[{{\"role\":\"user\",\"content\":\"a\"}},\n{{\"role\":\"assistant\",\"content\":[ {blocks} ]}}]}}"
        )
    };
    for (blocks, kept) in [
        (&[foreign, text][..], &[text][..]),
        (&[foreign, other, redacted, text], &[text]),
        (&[own, foreign, text, redacted], &[own, text]),
        (&[text, other, own], &[text, own]),
    ] {
        let (sent, lost) = sent("/v1/messages", "claude-opus-4-6", &body(blocks));
        assert_eq!((sent, &*lost), (body(kept), "messages.reasoning"));
    }
    let routed = r#"{"type":"redacted_thinking","data":"openrouter.reasoning:eyJ"}"#;
    let untouched = body(&[own, routed, text]);
    let seen = sent("/v1/messages", "claude-opus-4-6", &untouched);
    assert_eq!(seen, (untouched, String::new()));
    let (sent, _) = sent("/v1/messages", "claude-opus-4-6", &body(&[foreign, redacted]));
    assert_eq!(sent, "{\"model\":\"m\", \"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}");
}

#[test]
fn a_model_that_wants_a_budget_does_not_think_in_a_turn_that_has_lost_its_beginning() {
    let body = |then: &str| {
        format!(
            r#"{{"messages":[{{"role":"user","content":"a"}},{{"role":"assistant","content":[{{"type":"thinking","thinking":"","signature":"openai.rs.g"}},{{"type":"tool_use","id":"c","name":"f","input":{{}}}}]}},{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"c"}}]}}{then}],"thinking":{{"type":"enabled","budget_tokens":2000}}}}"#
        )
    };
    let disabled = r#""thinking":{"type":"disabled"}"#;
    let new_turn = r#",{"role":"assistant","content":"b"},{"role":"user","content":"c"}"#;
    for (model, then, stops) in [
        ("claude-sonnet-4-5", "", true),
        ("claude-sonnet-4-5", new_turn, false),
        ("claude-opus-4-6", "", false),
    ] {
        let (sent, lost) = sent("/v1/messages", model, &body(then));
        assert!(!sent.contains("openai.rs.g"), "{sent}");
        assert_eq!(sent.contains(disabled), stops, "{model} {then}");
        assert_eq!(lost.contains("thinking"), stops, "{model} {then}");
    }
}

#[test]
fn thoughts_are_not_cleared_where_there_shall_be_none() {
    let body = |context: &str, thinking: &str| {
        format!(
            r#"{{"messages":[{{"role":"assistant","content":[{{"type":"tool_use","id":"c","name":"f","input":{{}}}}]}},{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"c"}}]}}],{context}"thinking":{thinking},"stream":true}}"#
        )
    };
    let (enabled, disabled) = (r#"{"type":"enabled","budget_tokens":2000}"#, r#"{"type":"disabled"}"#);
    let clearing = r#""context_management":{"edits":[{"type":"clear_thinking_20251015","keep":"all"}]}, "#;
    let tools = r#""context_management":{"edits":[{"type":"clear_tool_uses_20250919"}]},"#;
    for (model, context, left, thinking, named) in [
        ("claude-sonnet-4-5", clearing, "", disabled, "thinking,context_management"),
        ("claude-sonnet-4-5", tools, tools, disabled, "thinking"),
        ("claude-opus-4-6", clearing, clearing, enabled, ""),
    ] {
        let (sent, lost) = sent("/v1/messages", model, &body(context, enabled));
        let compact = |body: &str| body.replace(", ", ",");
        assert_eq!((compact(&sent), &*lost), (compact(&body(left, thinking)), named), "{model}");
    }
}

#[test]
fn claude_does_not_think_in_a_turn_that_another_model_has_begun_without_a_thought() {
    const CALL: &str = r#"{"type":"tool_use","id":"c","name":"f","input":{}}"#;
    const RESULT: &str = r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"c"}]}"#;
    const THOUGHT: &str = r#"{"type":"thinking","thinking":"","signature":"EqoB"}"#;
    let said = |content: &str| format!(r#"{{"role":"assistant","content":[{content}]}}"#);
    let body = |turn: &[&str]| {
        let turn = turn.join(",");
        format!(
            r#"{{"messages":[{{"role":"user","content":"a"}},{turn}],"thinking":{{"type":"enabled","budget_tokens":2000}}}}"#
        )
    };
    let (without, begun) = (said(CALL), said(&format!("{THOUGHT},{CALL}")));
    let asked_anew = r#"{"role":"user","content":"b"}"#;
    for (model, turn, stops) in [
        ("claude-sonnet-4-5", &[&*without, RESULT][..], true),
        ("claude-sonnet-4-5", &[&without, RESULT, &begun, RESULT], true),
        // Steps after the first one need no thought.
        ("claude-sonnet-4-5", &[&begun, RESULT, &without, RESULT], false),
        ("claude-sonnet-4-5", &[&without, RESULT, &without, asked_anew], false),
        ("claude-opus-4-6", &[&without, RESULT], false),
        ("glm-4.6", &[&without, RESULT], false),
    ] {
        let body = body(turn);
        let (sent, lost) = sent("/v1/messages", model, &body);
        let config = r#"{"type":"enabled","budget_tokens":2000}"#;
        let expected = if stops { body.replace(config, r#"{"type":"disabled"}"#) } else { body };
        assert_eq!((sent, &*lost), (expected, if stops { "thinking" } else { "" }), "{model} {turn:?}");
    }
}

#[test]
fn reasoning_that_was_said_anew_is_cut_out_of_an_input() {
    for (path, marks) in [("/v1/responses", 0), ("/v1/responses/compact", 0), ("/v1/embeddings", 3)] {
        let body = r#"{"input":[{"role":"user","content":"a"},{"type":"reasoning","id":"rs_0","summary":[],"encrypted_content":"ntn1.none"},
            {"type":"reasoning","summary":[],"encrypted_content":"gAAA"},{"type":"reasoning","summary":[],"encrypted_content":"ntn1.signed.x"},{"type":"reasoning","summary":[],"encrypted_content":"ntn1.redacted.x"}]}"#;
        let (sent, _) = sent(path, "gpt-5", body);
        assert_eq!(sent.matches("ntn1.").count(), marks, "{sent}");
        assert!(sent.contains("gAAA"));
    }
    let text = r#"{"input":"\"ntn1."}"#;
    assert_eq!(sent("/v1/responses", "gpt-5", text), (text.to_owned(), String::new()));
}

#[test]
fn reasoning_of_responses_itself_goes_back_without_the_mark_that_it_got_in_a_stream() {
    let body = |id: &str, mark: &str, other: &str| {
        format!(
            r#"{{"input":[{{"role":"user","id":"u","content":"a"}},{{"type":"reasoning"{id},"summary":[],"encrypted_content":"{mark}gAAA"}}{other}]}}"#
        )
    };
    let other = r#", {"type":"reasoning","id":"rs_2","summary":[],"encrypted_content":"ntn1.signed.EqoB"}"#;
    for (other, named) in [("", ""), (other, "messages.reasoning")] {
        let marked = body(r#", "id":"rs_0_resp_1""#, "ntn1.signed.openai.rs_1.", other);
        let (sent, lost) = sent("/v1/responses", "grok-4", &marked);
        assert_eq!((sent, &*lost), (body("", "", ""), named));
    }
}

#[test]
fn an_input_without_reasoning_has_no_ids_that_want_it() {
    let body = Bytes::from_static(
        br#"{"input":[{"role":"user","content":"a"}, {"type":"reasoning","id":"rs_1","encrypted_content":"gAAA"}, {"id":"msg_1","type":"message","role":"assistant","content":[]},{"type":"function_call","id":"fc_1","call_id":"c"},{"type":"web_search_call","id":"ws_1"}]}"#,
    );
    let left = without_thoughts(&body, &mut Losses::default()).unwrap();
    assert_eq!(
        left,
        r#"{"input":[{"role":"user","content":"a"}, {"type":"message","role":"assistant","content":[]},{"type":"function_call","call_id":"c"},{"type":"web_search_call","id":"ws_1"}]}"#
    );
    let told = r#"{"id":"msg_1"},{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":null}"#;
    let body = Bytes::from(format!(r#"{{"input":[{told}]}}"#));
    let left = without_thoughts(&body, &mut Losses::default()).unwrap();
    assert_eq!(left, r#"{"input":[{"id":"msg_1"}]}"#, "a reference is nothing but an id");
    for input in [r#""gAAA""#, r#"[{"role":"user","id":"a"}]"#] {
        let body = Bytes::from(format!(r#"{{"input":{input}}}"#));
        assert_eq!(without_thoughts(&body, &mut Losses::default()), None);
    }
}
