//! Vectors of texts, for clients of one dialect from providers of another.

use nantian_ai::TargetConfig;
use nantian_ai::usage::Outcome;
use serde_json::{Value, json};

use crate::support::{Reports, Upstream, json as reply, layer, openai, post, send};

const OPENAI: &str = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,-0.25]},{"object":"embedding","index":1,"embedding":[1,2]}],"model":"text-embedding-3-small","usage":{"prompt_tokens":8,"total_tokens":8}}"#;
const OLLAMA: &str =
    r#"{"model":"nomic","embeddings":[[0.5,-0.25],[1,2]],"total_duration":9,"prompt_eval_count":8}"#;
const GEMINI: &str =
    r#"{"embeddings":[{"values":[0.5,-0.25]},{"values":[1,2]}],"usageMetadata":{"promptTokenCount":8}}"#;

const COHERE: &str =
    r#"{"embeddings":[[0.5,-0.25],[1,2]],"id":"i","response_type":"embeddings_floats","texts":["a","b"]}"#;

fn ollama() -> TargetConfig {
    TargetConfig::new("demo/nomic", "ollama", "nomic")
}

fn gemini() -> TargetConfig {
    TargetConfig::new("demo/gemini", "gemini", "gemini-embedding-001")
}

fn bedrock(model: &str) -> TargetConfig {
    TargetConfig::new("demo/vectors", "bedrock", model)
        .with_endpoint("https://bedrock-runtime.eu-central-1.amazonaws.com")
}

fn parsed(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

#[tokio::test]
async fn an_openai_client_gets_vectors_of_every_provider_that_makes_them() {
    let body = r#"{"model":"any","input":["a","b"],"dimensions":2,"user":"u"}"#;
    for (config, answer, path, asked, dropped) in [
        (
            ollama(),
            OLLAMA,
            "http://localhost:11434/api/embed",
            json!({"model": "nomic", "input": ["a", "b"], "truncate": false, "dimensions": 2}),
            "user",
        ),
        (
            gemini(),
            GEMINI,
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-embedding-001:batchEmbedContents",
            json!({"requests": [
                {"model": "models/gemini-embedding-001", "content": {"parts": [{"text": "a"}]}, "outputDimensionality": 2},
                {"model": "models/gemini-embedding-001", "content": {"parts": [{"text": "b"}]}, "outputDimensionality": 2},
            ]}),
            "user",
        ),
    ] {
        let reports = Reports::default();
        let model = config.model.clone();
        let upstream = Upstream::new().replies(reply(200, answer));
        let (head, body) =
            send(layer(config).observer(reports.clone()), &upstream, post("/v1/embeddings", body)).await;
        let (sent, seen) = upstream.request();
        assert_eq!(sent.uri, path);
        assert_eq!(parsed(&seen), asked);
        assert_eq!(
            (head.status.as_u16(), &head.headers["x-nantian-dropped"]),
            (200, &dropped.parse().unwrap())
        );
        assert_eq!(
            parsed(body.as_bytes()),
            json!({
                "object": "list",
                "data": [
                    {"object": "embedding", "index": 0, "embedding": [0.5, -0.25]},
                    {"object": "embedding", "index": 1, "embedding": [1.0, 2.0]},
                ],
                "model": model,
                "usage": {"prompt_tokens": 8, "total_tokens": 8},
            })
        );
        let report = reports.only();
        assert_eq!((report.outcome, report.usage.input, report.usage.output), (Outcome::Completed, 8, 0));
        assert!(!report.usage.estimated);
    }
}

#[tokio::test]
async fn vectors_of_bedrock_are_asked_of_each_maker_in_its_own_form() {
    for (model, input, answer, path, asked) in [
        (
            "cohere.embed-v4:0",
            json!(["a", "b"]),
            COHERE,
            "cohere.embed-v4%3A0",
            json!({"texts": ["a", "b"], "input_type": "search_document", "output_dimension": 2}),
        ),
        (
            "amazon.titan-embed-text-v2:0",
            json!("a"),
            r#"{"embedding":[0.5,-0.25],"embeddingsByType":{"float":[0.5,-0.25]},"inputTextTokenCount":8}"#,
            "amazon.titan-embed-text-v2%3A0",
            json!({"inputText": "a", "dimensions": 2}),
        ),
        (
            "amazon.nova-2-multimodal-embeddings-v1:0",
            json!("a"),
            r#"{"embeddings":[{"embeddingType":"TEXT","embedding":[0.5,-0.25]}]}"#,
            "amazon.nova-2-multimodal-embeddings-v1%3A0",
            json!({"taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": {
                "embeddingPurpose": "GENERIC_INDEX",
                "embeddingDimension": 2,
                "text": {"truncationMode": "NONE", "value": "a"},
            }}),
        ),
    ] {
        let reports = Reports::default();
        let mut answer = reply(200, answer);
        // Of Cohere's vectors only this tells it.
        answer.headers_mut().insert("x-amzn-bedrock-input-token-count", 8.into());
        let upstream = Upstream::new().replies(answer);
        let request = json!({"model": "any", "input": input, "dimensions": 2}).to_string();
        let (head, body) = send(
            layer(bedrock(model)).observer(reports.clone()),
            &upstream,
            post("/v1/embeddings", request.as_str()),
        )
        .await;
        let (sent, seen) = upstream.request();
        let host = "https://bedrock-runtime.eu-central-1.amazonaws.com";
        assert_eq!(sent.uri.to_string(), format!("{host}/model/{path}/invoke"));
        assert_eq!(parsed(&seen), asked);
        assert_eq!(head.status, 200);
        let body = parsed(body.as_bytes());
        assert_eq!(body["data"][0]["embedding"], json!([0.5, -0.25]));
        assert_eq!(body["usage"]["prompt_tokens"], 8, "{model}");
        let report = reports.only();
        assert_eq!((report.usage.input, report.usage.estimated), (8, false), "{model}");
    }
    let upstream = Upstream::new();
    let titan = bedrock("amazon.titan-embed-text-v2:0");
    let (head, body) = send(layer(titan), &upstream, post("/v1/embeddings", r#"{"input":["a","b"]}"#)).await;
    assert_eq!((head.status.as_u16(), upstream.requests()), (400, 0));
    assert!(body.contains("takes one at a time"), "{body}");
}

#[tokio::test]
async fn base64_is_written_here_for_the_clients_that_ask_for_it() {
    let body = r#"{"model":"any","input":"a","encoding_format":"base64"}"#;
    let upstream = Upstream::new().replies(reply(200, r#"{"model":"nomic","embeddings":[[0.5,-0.25]]}"#));
    let (_, body) = send(layer(ollama()), &upstream, post("/v1/embeddings", body)).await;
    let body = parsed(body.as_bytes());
    assert_eq!(body["data"][0]["embedding"], "AAAAPwAAgL4=");
    assert!(body["usage"]["prompt_tokens"].as_u64().unwrap() > 0, "an estimate where nothing is told");
}

#[tokio::test]
async fn both_of_ollamas_apis_are_served_by_an_openai_type_provider() {
    for (path, body, asked, expected) in [
        (
            "/api/embed",
            r#"{"model":"any","input":["a","b"],"keep_alive":"5m","options":{"num_ctx":9}}"#,
            json!({"model": "gpt-4o", "input": ["a", "b"], "encoding_format": "float"}),
            json!({"model": "text-embedding-3-small", "embeddings": [[0.5, -0.25], [1.0, 2.0]], "prompt_eval_count": 8}),
        ),
        (
            "/api/embeddings",
            r#"{"model":"any","prompt":"a"}"#,
            json!({"model": "gpt-4o", "input": "a", "encoding_format": "float"}),
            json!({"embedding": [0.5, -0.25]}),
        ),
    ] {
        let upstream = Upstream::new().replies(reply(200, OPENAI));
        let (head, body) = send(layer(openai()), &upstream, post(path, body)).await;
        let (sent, seen) = upstream.request();
        assert_eq!(sent.uri, "https://api.openai.com/v1/embeddings");
        assert_eq!(parsed(&seen), asked);
        assert_eq!(parsed(body.as_bytes()), expected);
        let dropped = head.headers.get("x-nantian-dropped");
        assert_eq!(dropped.is_some_and(|dropped| dropped == "options"), path == "/api/embed");
    }
}

#[tokio::test]
async fn what_cannot_be_asked_of_a_provider_is_refused_in_the_clients_words() {
    let claude = TargetConfig::new("demo/claude", "anthropic", "claude-sonnet-4-5");
    for (config, path, body, said) in [
        (claude.clone(), "/v1/embeddings", r#"{"input":"a"}"#, "embeddings of the openai dialect"),
        (claude, "/api/embed", r#"{"input":"a"}"#, "embeddings of the ollama dialect"),
        (ollama(), "/v1/embeddings", r#"{"input":[1,2]}"#, "`input` is made of token numbers"),
        (
            openai().with_strict(true),
            "/api/embed",
            r#"{"input":"a","truncate":true}"#,
            "no words for truncate",
        ),
    ] {
        let upstream = Upstream::new();
        let (head, body) = send(layer(config), &upstream, post(path, body)).await;
        assert_eq!(head.status, 400);
        let error = parsed(body.as_bytes())["error"].clone();
        let message = if path == "/api/embed" { error } else { error["message"].clone() };
        assert!(message.as_str().unwrap().contains(said), "{message}");
        assert_eq!(upstream.requests(), 0);
    }
}

#[tokio::test]
async fn a_providers_refusal_reaches_the_client_in_its_own_words() {
    let upstream =
        Upstream::new().replies(reply(400, r#"{"error":"the input length exceeds the context length"}"#));
    let (head, body) = send(layer(ollama()), &upstream, post("/v1/embeddings", r#"{"input":"a"}"#)).await;
    assert_eq!(head.status, 400);
    assert_eq!(parsed(body.as_bytes())["error"]["message"], "the input length exceeds the context length");
}

#[tokio::test]
async fn more_texts_than_gemini_takes_are_refused_so_that_another_one_can_be_asked() {
    for (texts, requests) in [(100, 1), (101, 0)] {
        let body = json!({"model": "any", "input": vec!["a"; texts]}).to_string();
        let upstream = Upstream::new().replies(reply(200, GEMINI));
        let (head, said) = send(layer(gemini()), &upstream, post("/v1/embeddings", &body)).await;
        assert_eq!((upstream.requests(), head.status == 400), (requests, requests == 0), "{said}");
        assert_eq!(said.contains("100 texts"), requests == 0, "{said}");
    }
}
