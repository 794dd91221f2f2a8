use super::*;

#[test]
fn a_wish_is_taken_out_and_nothing_else() {
    for (wish, body, left) in [
        (Wish::Usage, r#"{"model":"m","stream_options":{"include_usage":true}}"#, r#"{"model":"m"}"#),
        (Wish::Thinking, r#"{"model":"m","think":true,"stream":true}"#, r#"{"model":"m","stream":true}"#),
        (
            Wish::Reasoning,
            r#"{"model":"claude-sonnet-4-5","messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"thinking","signature":"EqoB"},{"type":"text","text":"b"}]}]}"#,
            r#"{"model":"claude-sonnet-4-5","messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"text","text":"b"}]}]}"#,
        ),
        (
            Wish::Reasoning,
            r#"{"messages":[{"role":"assistant","reasoning_content":"c","content":"a"}],"reasoning_effort":"low"}"#,
            r#"{"messages":[{"role":"assistant","content":"a"}],"reasoning_effort":"low"}"#,
        ),
        (
            Wish::Marks,
            r#"{"messages":[{"role":"user","content":"a","cache_control":{}}],"prompt_cache_key":"k"}"#,
            r#"{"messages":[{"role":"user","content":"a"}],"prompt_cache_key":"k"}"#,
        ),
        (Wish::CacheKey, r#"{"prompt_cache_key":"k","messages":[]}"#, r#"{"messages":[]}"#),
        (
            Wish::Encryption,
            r#"{"include":["reasoning.encrypted_content","message.output_text.logprobs"]}"#,
            r#"{"include":["message.output_text.logprobs"]}"#,
        ),
        (
            Wish::Betas,
            r#"{"messages":[],"additionalModelRequestFields":{"anthropic_beta":["a"],"top_k":1}}"#,
            r#"{"messages":[],"additionalModelRequestFields":{"top_k":1}}"#,
        ),
        (
            Wish::Summary,
            r#"{"reasoning":{"effort":"low","summary":"auto"}}"#,
            r#"{"reasoning":{"effort":"low"}}"#,
        ),
        (
            Wish::Template,
            r#"{"model":"m","chat_template_kwargs":{"thinking":true},"reasoning_effort":"low"}"#,
            r#"{"model":"m"}"#,
        ),
        (
            Wish::MustCall,
            r#"{"toolConfig":{"tools":[],"toolChoice":{"any":{}}}}"#,
            r#"{"toolConfig":{"tools":[]}}"#,
        ),
        (Wish::Effort, r#"{"tools":[]}"#, r#"{"reasoning_effort":"none","tools":[]}"#),
        (Wish::Effort, r#"{"reasoning_effort":"low"}"#, r#"{"reasoning_effort":"none"}"#),
        (
            Wish::ForcedTool,
            r#"{"model":"m","thinking":{"type":"enabled"},"reasoning_effort":"low"}"#,
            r#"{"model":"m","thinking":{"type":"disabled"}}"#,
        ),
        (
            Wish::ToolChoice,
            r#"{"thinking":{"type":"disabled"},"tool_choice":"required"}"#,
            r#"{"tool_choice":"auto"}"#,
        ),
        (Wish::Rest, r#"{"reasoning":{"enabled":false},"model":"m"}"#, r#"{"model":"m"}"#),
        (Wish::Sampling, r#"{"model":"m","temperature":0.5,"top_p":1}"#, r#"{"model":"m"}"#),
        (
            Wish::Silence,
            r#"{"messages":[{"role":"assistant","content":"a"}]}"#,
            r#"{"messages":[{"reasoning_content":" ","role":"assistant","content":"a"}]}"#,
        ),
    ] {
        let body = Bytes::from_static(body.as_bytes());
        assert_eq!(wish.taken_out(&body, &mut Losses::default()).unwrap(), left);
    }
}

#[test]
fn a_wish_that_a_body_does_not_have_is_not_taken_out() {
    for (wish, body) in [
        (Wish::Betas, "{}"),
        (Wish::Marks, r#"{"messages":[{"content":"cache_control"}]}"#),
        (Wish::CacheKey, "{}"),
        (Wish::Summary, r#"{"reasoning":{"effort":"low"}}"#),
        (Wish::Encryption, r#"{"include":["message.output_text.logprobs"]}"#),
        (Wish::Template, "{}"),
        (Wish::MustCall, r#"{"toolConfig":{"tools":[]}}"#),
        (Wish::Schema, r#"{"messages":[],"response_format":{"type":"json_object"}}"#),
        (Wish::Reasoning, "{}"),
        (Wish::Effort, r#"{"reasoning_effort":"none"}"#),
        (Wish::ForcedTool, r#"{"thinking":{"type":"disabled"}}"#),
        (Wish::ToolChoice, r#"{"tool_choice":"required"}"#),
        (Wish::Rest, r#"{"reasoning":{"effort":"low"}}"#),
        (Wish::Sampling, "{}"),
        (Wish::Silence, r#"{"messages":[{"role":"user","content":"a"}]}"#),
    ] {
        let body = Bytes::from_static(body.as_bytes());
        assert_eq!(wish.taken_out(&body, &mut Losses::default()), None, "{wish:?}");
    }
}

#[test]
fn what_stands_for_a_signature_is_taken_out_and_signatures_stay() {
    let call = |signature: &str| {
        format!(r#"{{"id":"a","extra_content":{{"google":{{"thought_signature":"{signature}"}}}}}}"#)
    };
    let body =
        |first: &str| Bytes::from(format!(r#"{{"messages":[{{"tool_calls":[{first},{}]}}]}}"#, call("s")));
    let mut losses = Losses::default();
    let stands_in = body(&call("skip_thought_signature_validator"));
    assert_eq!(Wish::StandIn.taken_out(&stands_in, &mut losses).unwrap(), body(r#"{"id":"a"}"#));
    assert_eq!(Wish::StandIn.taken_out(&body(&call("s")), &mut losses), None);
    assert!(losses.is_empty());
}

#[test]
fn words_of_which_some_differ_are_found_at_the_beginning_alone() {
    const STRICT: &str = "tools.*.custom.strict: Extra";
    const MODEL: &str = "Model * does not support";
    for (message, words, begins_so) in [
        ("tools.12.custom.strict: Extra inputs", STRICT, true),
        ("tools.12.custom.name: tools.1.custom.strict: Extra", STRICT, false),
        ("a tools.1.custom.strict: Extra", STRICT, false),
        ("tools.", STRICT, false),
        ("Model grok-4.20-x does not support parameter a", MODEL, true),
        ("Model a b does not support parameter a", MODEL, false),
        ("Penalty is not enabled for this model", "Penalty is not", true),
    ] {
        assert_eq!(begins(message, words), begins_so, "{message}");
    }
}

#[test]
fn each_wish_has_a_place_of_its_own() {
    let mut wishes = Wishes::default();
    for &wish in ALL {
        assert!(!wishes.iter().any(|it| it == wish));
        wishes.add(wish);
    }
    assert_eq!((wishes.iter().collect::<Vec<_>>(), wishes.count()), (ALL.to_vec(), 28));
    ALL.iter().for_each(|wish| wishes.remove(*wish));
    assert!(wishes.is_empty());
}
