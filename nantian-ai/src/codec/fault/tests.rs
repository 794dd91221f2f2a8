use super::*;
use crate::dialect::Dialect;

#[test]
fn errors_are_read_in_every_shape() {
    for (body, message) in [
        (r#"{"error":{"message":"later","type":"x"}}"#, "later"),
        (r#"{"type":"error","error":{"type":"overloaded_error","message":"later"}}"#, "later"),
        (r#"{"error":"later"}"#, "later"),
        (r#"{"message":"later"}"#, "later"),
        (r#"{"detail":"later"}"#, "later"),
        (r#"data:{"error":{"code":"429","message":"Param Incorrect","param":"later","type":""}}"#, "later"),
        (r#"[{"error":{"code":429,"message":"later","status":"RESOURCE_EXHAUSTED"}}]"#, "later"),
        ("<html>Bad gateway</html>", "the provider answered with status 429"),
        ("", "the provider answered with status 429"),
    ] {
        let fault = read(StatusCode::TOO_MANY_REQUESTS, body.as_bytes());
        assert_eq!((fault.kind, fault.message.as_str()), (FaultKind::RateLimit, message), "{body}");
    }
}

#[test]
fn that_a_conversation_is_too_long_is_told_by_a_code_or_by_words() {
    for error in [
        r#"{"message":"m","type":"invalid_request_error","code":"context_length_exceeded"}"#,
        r#"{"message":"m","type":"exceed_context_size_error","code":400}"#,
        r#"{"message":"Input tokens exceed the configured limit of 272000 tokens."}"#,
        r#"{"message":"input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000"}"#,
        r#"{"message":"The decoder prompt (length 5000) is longer than the maximum model length of 4096."}"#,
        r#"{"message":"the request exceeds the available context size, try increasing it"}"#,
        r#"{"message":"This model's maximum prompt length is 131072 but the request contains 537812 tokens."}"#,
        r#"{"message":"Please reduce the length of the messages or completion."}"#,
        r#"{"message":"Your request exceeded model token limit: 8192"}"#,
        r#"{"message":"<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 98304]"}"#,
        r#"{"message":"Input length 265330 exceeds the maximum allowed input length of 262112 tokens."}"#,
        r#"{"message":"number of input tokens (204703) has exceeded max_prompt_tokens (202752) limit."}"#,
        r#"{"message":"Prompt exceeds max length","code":"1261"}"#,
    ] {
        let body = format!(r#"{{"error":{error}}}"#);
        assert_eq!(read(StatusCode::BAD_REQUEST, body.as_bytes()).kind, FaultKind::ContextLength, "{error}");
        // A status that says something else is believed.
        let limited = read(StatusCode::TOO_MANY_REQUESTS, body.as_bytes());
        assert_eq!(limited.kind, FaultKind::RateLimit, "{error}");
    }
    let other = br#"{"error":{"message":"m","code":"invalid_value"}}"#;
    assert_eq!(read(StatusCode::BAD_REQUEST, other).kind, FaultKind::Invalid);
}

#[test]
fn what_is_no_fault_of_the_request_is_told_by_a_name_or_by_words_whatever_the_status() {
    for (error, kind) in [
        (
            r#"{"message":"Model Not Exist","type":"invalid_request_error","code":"invalid_request_error"}"#,
            FaultKind::NotFound,
        ),
        (
            r#"{"message":"Invalid model: mistral-old","type":"invalid_model","code":"1500"}"#,
            FaultKind::NotFound,
        ),
        (
            r#"{"message":"The model `x` has been decommissioned","type":"invalid_request_error","code":"model_decommissioned"}"#,
            FaultKind::NotFound,
        ),
        (r#"{"message":"a/b is not a valid model ID","code":400}"#, FaultKind::NotFound),
        (
            r#"{"message":"Failed to call a function.","type":"invalid_request_error","code":"tool_use_failed"}"#,
            FaultKind::Unreadable,
        ),
        (
            r#"{"message":"Failed to generate JSON.","type":"invalid_request_error","code":"json_validate_failed"}"#,
            FaultKind::Unreadable,
        ),
        (r#"{"message":"m","type":"invalid_request_error","code":"invalid_value"}"#, FaultKind::Invalid),
        (
            r#"{"message":"you said: Model Not Exist, and: this model does not support image input"}"#,
            FaultKind::Invalid,
        ),
    ] {
        let fault = read(StatusCode::BAD_REQUEST, format!(r#"{{"error":{error}}}"#).as_bytes());
        assert_eq!(fault.kind, kind, "{error}");
    }
    let gone = FaultKind::NotFound;
    let cannot = FaultKind::Unsupported;
    for (message, kind) in [
        ("The provided model identifier is invalid.", gone),
        (
            "Invocation of model ID x with on-demand throughput isn\u{2019}t supported. Retry with an inference profile.",
            gone,
        ),
        ("User location is not supported for the API use.", cannot),
        ("Qwen/Qwen3-8B is not a multimodal model None", cannot),
        ("This model doesn't support the image field for user messages. Remove image and try again.", cannot),
        ("At most 0 image(s) may be provided in one prompt.", cannot),
        ("registry.ollama.ai/library/gemma3:270m does not support tools", cannot),
        (
            "Invalid 'tools': array too long. Expected an array with maximum length 128, but got an array with length 300 instead.",
            cannot,
        ),
        ("'tools' : maximum number of items is 128", cannot),
        ("Maximum tools limit reached. 219 tools have been provided but the maximum is 200.", cannot),
        (
            "Invalid 'messages[3].tool_calls': array too long. Expected an array with maximum length 128, but got an array with length 129 instead.",
            FaultKind::Invalid,
        ),
        ("\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set", cannot),
        (
            "The chatCompletion operation does not work with the specified model, gpt-5-codex. Please choose different model and try again.",
            cannot,
        ),
    ] {
        assert_eq!(Fault::said(FaultKind::Invalid, message).kind, kind, "{message}");
    }
}

#[test]
fn what_a_provider_behind_another_one_says_is_heard() {
    let behind = |raw: &str| {
        let error = serde_json::json!({"message": OF_ANOTHER, "code": 400, "metadata": {"raw": raw, "provider_name": "Anthropic"}});
        read(StatusCode::BAD_REQUEST, serde_json::json!({"error": error}).to_string().as_bytes())
    };
    for (raw, kind, message) in [
        (
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 205000 tokens > 200000 maximum"}}"#,
            FaultKind::ContextLength,
            "prompt is too long: 205000 tokens > 200000 maximum",
        ),
        (r#"{"message":"no caching"}"#, FaultKind::Invalid, "no caching"),
        ("temporarily away", FaultKind::Invalid, "temporarily away"),
        (
            r#"{"error":{"code":"invalid_api_key","message":"Incorrect key sk-ou"}}"#,
            FaultKind::Invalid,
            OF_ANOTHER,
        ),
    ] {
        let fault = behind(raw);
        assert_eq!((fault.kind, fault.message.as_str()), (kind, message), "{raw}");
    }
    let bare = br#"{"error":{"message":"Provider returned error","code":400}}"#;
    assert_eq!(read(StatusCode::BAD_REQUEST, bare).message, OF_ANOTHER);
}

#[test]
fn an_error_without_a_status_is_told_by_its_names() {
    for (error, kind) in [
        (r#"{"type":"overloaded_error","message":"m"}"#, FaultKind::Overloaded),
        (r#"{"message":"m","code":"rate_limit_exceeded"}"#, FaultKind::RateLimit),
        (r#"{"message":"m","code":503}"#, FaultKind::Overloaded),
        (r#"{"message":"m","type":"invalid_request_error","code":"tool_use_failed"}"#, FaultKind::Unreadable),
        (r#"{"message":"m","type":"server_error","code":503}"#, FaultKind::Overloaded),
        (r#""m""#, FaultKind::Upstream),
        (r#"{"message":"m","type":"odd"}"#, FaultKind::Upstream),
    ] {
        let fault = of_error(serde_json::from_str(error).unwrap());
        assert_eq!((fault.kind, fault.message.as_str()), (kind, "m"), "{error}");
    }
}

#[test]
fn what_a_provider_says_of_a_credential_stays_here() {
    for error in [
        r#"{"type":"authentication_error","message":"Incorrect key sk-ou***rs"}"#,
        r#"{"message":"Incorrect key sk-ou***rs","code":"invalid_api_key"}"#,
        r#"{"message":"Incorrect key sk-ou***rs","code":401}"#,
        r#"{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API: sk-ou"}"#,
        r#"{"type":"invalid_request_error","message":"You have reached your specified API usage limits. You will regain access on sk-ou"}"#,
        r#"{"type":"invalid_request_error","message":"This organization has been disabled. sk-ou"}"#,
        r#"{"type":"billing_error","message":"sk-ou"}"#,
        r#"{"message":"sk-ou","type":"invalid_request_error","code":"billing_hard_limit_reached"}"#,
        r#"{"message":"sk-ou","type":"insufficient_quota","code":"insufficient_quota"}"#,
        r#"{"code":400,"message":"API key sk-ou not valid","status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}"#,
    ] {
        let fault = of_error(serde_json::from_str(error).unwrap());
        assert_eq!(fault.kind, FaultKind::Upstream);
        assert!(!fault.message.contains("sk-ou"), "{error}");
        let refused = read(StatusCode::BAD_REQUEST, format!(r#"{{"error":{error}}}"#).as_bytes());
        assert_eq!(refused, fault);
    }
}

#[test]
fn a_status_that_refuses_the_credential_says_so_without_a_word() {
    for status in [401, 402, 407] {
        let fault = Dialect::OpenAi.decode_fault(StatusCode::from_u16(status).unwrap(), b"");
        assert!(is_refused_credential(&fault), "{status}: {fault}");
    }
}

#[test]
fn a_long_message_is_cut_between_letters() {
    let body = format!(r#"{{"error":"{}"}}"#, "é".repeat(2_000));
    let fault = read(StatusCode::BAD_REQUEST, body.as_bytes());
    assert_eq!(fault.message.len(), 1_024);
}
