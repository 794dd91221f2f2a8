//! AIService: who is told how its calls went.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::Value;

use crate::support::{Backend, Port, World, chat, eventually, eventually_within, llm, provider, said};

const REPLY: &str = r#"{"id":"chatcmpl-7","model":"fake-large-0","choices":[{"index":0,"message":{"role":"assistant","content":"a secret"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":91,"total_tokens":100,"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":3},"completion_tokens_details":{"reasoning_tokens":50}}}"#;

const STREAM: &str = "data: {\"id\":\"chatcmpl-8\",\"model\":\"fake-large-0\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a sec\"}}]}\n\n\
    data: {\"id\":\"chatcmpl-8\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"ret\"},\"finish_reason\":\"stop\"}]}\n\n\
    data: {\"id\":\"chatcmpl-8\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":91,\"total_tokens\":100}}\n\n\
    data: [DONE]\n\n";

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// An OpenAI-type provider.
pub(crate) async fn gpt() -> Backend {
    provider(REPLY, STREAM).await
}

/// A collector that takes everything.
pub(crate) async fn collector() -> Backend {
    Backend::answering(|_| said("application/json", "{}")).await
}

/// The AIService `llm` at `provider`, which tells `observability`.
fn world(provider: &Backend, observability: &str) -> World {
    const SECRET: &str = "
apiVersion: v1
kind: Secret
metadata: {name: langfuse, namespace: demo}
stringData: {secret: sk-lf}
";
    llm(provider, &format!("observability: {observability}")).manifest("langfuse", SECRET)
}

/// The spans that a collector has been told, oldest first.
pub(crate) fn spans(collector: &Backend) -> Vec<Value> {
    let told = collector.seen().into_iter().filter(|message| message.start.contains("/v1/traces"));
    told.flat_map(|message| {
        message.json()["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().cloned().unwrap_or_default()
    })
    .collect()
}

/// The value of an attribute, whatever its type.
pub(crate) fn attribute(span: &Value, key: &str) -> Option<String> {
    let attributes = span["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|attribute| attribute["key"] == key)?;
    let value = found["value"].as_object().unwrap().values().next().unwrap();
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

#[tokio::test]
async fn a_collector_and_langfuse_are_told_of_each_call_and_of_no_content() {
    let (provider, otel, langfuse) = (gpt().await, collector().await, collector().await);
    let observability = format!(
        "{{otel: {{endpoint: '{}', serviceName: shop}}, \
         langfuse: {{host: 'http://{}', publicKey: pk-lf, secretKeyRef: {{name: langfuse}}}}}}",
        otel.address, langfuse.address
    );
    let gateway = world(&provider, &observability).start().await;
    let traced = format!("\r\ntraceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n");
    for stream in [false, true] {
        let request = chat("llm.example", stream).replacen("\r\n", &traced, 1);
        assert_eq!(gateway.ask(request).await.status(), 200);
    }
    eventually("both are told of both calls", async || {
        spans(&otel).len() == 2 && spans(&langfuse).len() == 2
    })
    .await;

    for (stream, span) in [false, true].into_iter().zip(spans(&otel)) {
        let expected = |key: &str, value: &str| {
            assert_eq!(attribute(&span, key).as_deref(), Some(value), "{key}: {span}")
        };
        assert_eq!(span["name"], "chat fake-large");
        assert_eq!((&span["traceId"], &span["parentSpanId"]), (&TRACE.into(), &"00f067aa0ba902b7".into()));
        expected("gen_ai.operation.name", "chat");
        expected("gen_ai.provider.name", "openai");
        expected("gen_ai.response.model", "fake-large-0");
        expected("gen_ai.response.id", if stream { "chatcmpl-8" } else { "chatcmpl-7" });
        expected("gen_ai.usage.input_tokens", "9");
        expected("gen_ai.usage.output_tokens", "91");
        for (key, tokens) in [
            ("gen_ai.usage.cache_read.input_tokens", "4"),
            ("gen_ai.usage.cache_creation.input_tokens", "3"),
            ("gen_ai.usage.reasoning.output_tokens", "50"),
        ] {
            assert_eq!(attribute(&span, key).as_deref(), (!stream).then_some(tokens), "{key}: {span}");
        }
        expected("server.port", &provider.address.port().to_string());
        assert_eq!(attribute(&span, "gen_ai.response.time_to_first_chunk").is_some(), stream);
        assert_eq!(attribute(&span, "langfuse.observation.type"), None);
    }
    let told = langfuse.last();
    assert_eq!(told.start, "POST /api/public/otel/v1/traces HTTP/1.1");
    assert_eq!(told.header("authorization"), Some("Basic cGstbGY6c2stbGY="));
    assert_eq!(told.header("x-langfuse-ingestion-version"), Some("4"));
    assert_eq!(attribute(&spans(&langfuse)[0], "langfuse.observation.type").as_deref(), Some("generation"));
    let service = &otel.last().json()["resourceSpans"][0]["resource"]["attributes"][0];
    assert_eq!(service["value"]["stringValue"], "shop");
    for message in otel.seen().iter().chain(&langfuse.seen()) {
        assert!(!message.text().contains("secret"), "neither contents nor credentials");
    }
    let config = gateway.config().await.to_string();
    assert!(!config.contains("sk-lf") && !config.contains("cGstbGY6c2stbGY="));
    for (kind, tokens) in
        [("input", 18.0), ("cached", 4.0), ("cache_written", 3.0), ("output", 182.0), ("reasoning", 50.0)]
    {
        let counted = format!("nantian_ai_tokens_total{{ai_service=\"demo/llm\",kind=\"{kind}\"}}");
        assert_eq!(gateway.metric(&counted).await, Some(tokens), "{kind}");
    }
    let sent = r#"nantian_ai_exported_records_total{ai_service="demo/llm",result="sent"}"#;
    eventually("four records are sent", async || gateway.metric(sent).await == Some(4.0)).await;
}

#[tokio::test]
async fn collectors_are_told_what_was_asked_and_why_a_whole_answer_has_ended() {
    let (provider, otel, langfuse) = (gpt().await, collector().await, collector().await);
    let observability = format!(
        "{{otel: {{endpoint: '{}'}}, langfuse: {{host: 'http://{}', publicKey: pk, secretKey: sk}}}}",
        otel.address, langfuse.address
    );
    let gateway = world(&provider, &observability).start().await;
    let body = r#"{"model":"any","temperature":0.5,"top_p":0.25,"seed":-7,"n":2,"max_tokens":9,"stop":["END","."],"response_format":{"type":"json_object"},"user":"u-7","messages":[]}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: llm.example\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(gateway.ask(request).await.status(), 200);
    eventually("both are told", async || spans(&otel).len() == 1 && spans(&langfuse).len() == 1).await;
    let span = &spans(&otel)[0];
    for (key, value) in [
        ("gen_ai.request.temperature", "0.5"),
        ("gen_ai.request.top_p", "0.25"),
        ("gen_ai.request.seed", "-7"),
        ("gen_ai.request.choice.count", "2"),
        ("gen_ai.request.max_tokens", "18"),
        ("gen_ai.request.stop_sequences", r#"{"values":[{"stringValue":"END"},{"stringValue":"."}]}"#),
        ("gen_ai.output.type", "json"),
        ("gen_ai.response.finish_reasons", r#"{"values":[{"stringValue":"stop"}]}"#),
    ] {
        assert_eq!(attribute(span, key).as_deref(), Some(value), "{key}: {span}");
    }
    assert_eq!(attribute(span, "user.id"), None, "whose it is only Langfuse asks");
    assert_eq!(attribute(&spans(&langfuse)[0], "user.id").as_deref(), Some("u-7"));
}

#[tokio::test]
async fn calls_whose_traces_are_not_recorded_are_counted_all_the_same() {
    let (provider, otel) = (gpt().await, collector().await);
    let observability = format!("{{otel: {{endpoint: '{}'}}}}", otel.address);
    let mut gateway = world(&provider, &observability).start().await;
    for sampled in ["00", "01", "00"] {
        let traced = format!("\r\ntraceparent: 00-{TRACE}-00f067aa0ba902b7-{sampled}\r\n");
        let request = chat("llm.example", false).replacen("\r\n", &traced, 1);
        assert_eq!(gateway.ask(request).await.status(), 200);
    }
    // What is counted is told each minute, and at the end.
    gateway.signal("TERM");
    assert!(gateway.exit().await.success());
    assert_eq!(spans(&otel).len(), 1);
    let told = otel.seen().into_iter().rfind(|message| message.start.contains("/v1/metrics")).unwrap();
    let told = told.json();
    let metrics = told["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap();
    let duration =
        metrics.iter().find(|metric| metric["name"] == "gen_ai.client.operation.duration").unwrap();
    assert_eq!(duration["histogram"]["dataPoints"][0]["count"], "3");
}

#[tokio::test]
async fn a_refusal_that_was_not_free_is_told_as_one() {
    const NOTHING_LEFT: &str = r#"{"error":{"message":"Could not finish the message because max_tokens or model output limit was reached.","type":"invalid_request_error"}}"#;
    let refusal = format!(
        "HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{NOTHING_LEFT}",
        NOTHING_LEFT.len()
    );
    let provider = Backend::answering(move |_| refusal.clone().into_bytes()).await;
    let otel = collector().await;
    let gateway = world(&provider, &format!("{{otel: {{endpoint: '{}'}}}}", otel.address)).start().await;
    assert_eq!(gateway.ask(chat("llm.example", false)).await.status(), 400);
    eventually("the collector is told of the call", async || spans(&otel).len() == 1).await;
    let span = &spans(&otel)[0];
    assert_eq!(attribute(span, "error.type").as_deref(), Some("upstream_error"), "{span}");
    let input = attribute(span, "gen_ai.usage.input_tokens").unwrap();
    assert!(input.parse::<u64>().unwrap() > 0, "the model has thought: {span}");
    for (outcome, calls) in [("not_served", 1.0), ("truncated", 0.0)] {
        let counted = format!("nantian_ai_calls_total{{ai_service=\"demo/llm\",outcome=\"{outcome}\"}}");
        assert_eq!(gateway.metric(&counted).await.unwrap_or(0.0), calls, "{outcome}");
    }
}

#[tokio::test]
async fn contents_are_told_where_they_are_wanted_and_blacked_out() {
    let (provider, otel) = (gpt().await, collector().await);
    let observability =
        format!("{{otel: {{endpoint: '{}'}}, captureContent: true, redact: ['s[aeiou]cret']}}", otel.address);
    let gateway = world(&provider, &observability).start().await;
    for stream in [false, true] {
        assert_eq!(gateway.ask(chat("llm.example", stream)).await.status(), 200);
    }
    eventually("both calls are told", async || spans(&otel).len() == 2).await;
    for span in spans(&otel) {
        assert_eq!(
            attribute(&span, "gen_ai.input.messages").as_deref(),
            Some(r#"[{"role":"user","parts":[{"type":"text","content":"hi"}]}]"#)
        );
        assert_eq!(
            attribute(&span, "gen_ai.output.messages").as_deref(),
            Some(
                r#"[{"role":"assistant","parts":[{"type":"text","content":"a [redacted]"}],"finish_reason":"stop"}]"#
            )
        );
    }
    let body = r#"{"model":"any","messages":[],"tools":[{"type":"function","function":{"name":"find","description":"a secret","parameters":{"type":"object"}}}]}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: llm.example\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(gateway.ask(request).await.status(), 200);
    eventually("the call with a tool is told", async || spans(&otel).len() == 3).await;
    assert_eq!(
        attribute(&spans(&otel)[2], "gen_ai.tool.definitions").as_deref(),
        Some(
            r#"[{"type":"function","name":"find","parameters":{"type":"object"},"description":"a [redacted]"}]"#
        )
    );
}

#[tokio::test]
async fn contents_that_cannot_be_blacked_out_are_not_told() {
    let characters: Vec<char> = ('\u{4e00}'..).take(120).collect();
    let names: Vec<String> = characters.chunks(3).map(String::from_iter).collect();
    let names = format!(r"\b({})\b", names.join("|"));
    for (expression, captures) in [
        (r"(\w{500}){500}", true),
        (r"\b\d{16}(?-u:\b)", true),
        (names.as_str(), true),
        // What nobody wants to be told lacks nothing.
        (names.as_str(), false),
    ] {
        let (provider, otel) = (gpt().await, collector().await);
        let endpoint = otel.address;
        let observability = format!(
            "{{otel: {{endpoint: '{endpoint}'}}, captureContent: {captures}, redact: [hi, '{expression}']}}"
        );
        let gateway = world(&provider, &observability).start().await;
        let resolved = if captures { "False" } else { "True" };
        for (condition, status) in [("Accepted", "True"), ("ResolvedRefs", resolved), ("Programmed", "True")]
        {
            let told = gateway.condition("AIService demo/llm", condition).await;
            assert_eq!(told["status"], status, "{expression}: {told}");
        }
        assert_eq!(gateway.ask(chat("llm.example", false)).await.status(), 200);
        eventually("the call is told", async || spans(&otel).len() == 1).await;
        assert_eq!(attribute(&spans(&otel)[0], "gen_ai.input.messages"), None);
    }
}

#[tokio::test]
async fn of_a_conversation_that_is_too_long_to_be_told_the_latest_and_the_answer_are() {
    let (provider, otel) = (gpt().await, collector().await);
    let observability = format!("{{otel: {{endpoint: '{}'}}, captureContent: true}}", otel.address);
    let gateway = world(&provider, &observability).start().await;
    let body = format!(
        r#"{{"model":"any","messages":[{{"role":"user","content":"{}"}},{{"role":"user","content":"and now?"}}]}}"#,
        "long ago ".repeat(9_000)
    );
    let length = body.len();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: llm.example\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    assert_eq!(gateway.ask(request).await.status(), 200);
    eventually("the call is told", async || spans(&otel).len() == 1).await;
    let span = &spans(&otel)[0];
    let input = r#"[{"role":"user","parts":[{"type":"text","content":"and now?"}]}]"#;
    assert_eq!(attribute(span, "gen_ai.input.messages").as_deref(), Some(input));
    assert!(attribute(span, "gen_ai.output.messages").unwrap().contains("a secret"));
    assert_eq!(attribute(span, "nantian.content.partial").as_deref(), Some("true"));
}

#[tokio::test]
async fn a_collector_that_cannot_take_traces_now_is_told_again_and_one_that_refuses_them_is_not() {
    for (status, lost) in [("503 Busy", false), ("400 Bad", true)] {
        let times = Arc::new(AtomicUsize::new(0));
        let asked = Arc::clone(&times);
        let otel = Backend::answering(move |message| {
            let first = message.start.contains("traces") && asked.fetch_add(1, Relaxed) == 0;
            match first {
                true => {
                    format!("HTTP/1.1 {status}\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n").into_bytes()
                }
                false => said("application/json", "{}"),
            }
        })
        .await;
        let provider = gpt().await;
        let gateway = world(&provider, &format!("{{otel: {{endpoint: '{}'}}}}", otel.address)).start().await;
        assert_eq!(gateway.ask(chat("llm.example", false)).await.status(), 200);
        let series = |result: &str| {
            format!(r#"nantian_ai_exported_records_total{{ai_service="demo/llm",result="{result}"}}"#)
        };
        let (expected, other) = if lost { ("failed", "sent") } else { ("sent", "failed") };
        eventually("the record is told or lost", async || {
            gateway.metric(&series(expected)).await == Some(1.0)
        })
        .await;
        assert_eq!(gateway.metric(&series(other)).await, Some(0.0));
        assert_eq!(times.load(Relaxed), if lost { 1 } else { 2 });
    }
}

#[tokio::test]
async fn a_collector_that_hangs_or_cannot_be_reached_is_nobody_elses_business() {
    let provider = gpt().await;
    let hangs = Backend::raw(|_| std::future::pending()).await;
    let nobody = Port::reserve();
    let observability = format!(
        "{{otel: {{endpoint: '{}'}}, langfuse: {{host: 'http://{}', publicKey: pk, secretKey: sk}}}}",
        nobody.address(),
        hangs.address
    );
    let mut gateway = world(&provider, &observability).start().await;
    for _ in 0..20 {
        assert_eq!(gateway.ask(chat("llm.example", false)).await.status(), 200);
    }
    let failed = r#"nantian_ai_exported_records_total{ai_service="demo/llm",result="failed"}"#;
    // Nothing is lost before the fifth attempt.
    eventually_within(Duration::from_secs(60), "what is lost is counted", async || {
        gateway.metric(failed).await.is_some_and(|lost| lost > 0.0)
    })
    .await;
    gateway.signal("TERM");
    assert!(gateway.exit().await.success(), "the end waits for no collector that hangs");
}

#[tokio::test]
async fn a_missing_secret_of_langfuse_takes_no_model_out_of_service() {
    let (provider, otel) = (gpt().await, collector().await);
    let observability = format!(
        "{{otel: {{endpoint: '{}'}}, langfuse: {{publicKey: pk, secretKeyRef: {{name: gone}}}}}}",
        otel.address
    );
    let gateway = world(&provider, &observability).start().await;
    for (condition, status) in [("ResolvedRefs", "False"), ("Programmed", "True")] {
        let told = gateway.condition("AIService demo/llm", condition).await;
        assert_eq!(told["status"], status, "{told}");
    }
    assert_eq!(gateway.ask(chat("llm.example", false)).await.status(), 200);
    eventually("the other collector is told", async || spans(&otel).len() == 1).await;
}

#[tokio::test]
async fn the_langfuse_project_of_the_environment_stands_in_and_no_other_server_sees_its_keys() {
    let (provider, own, other) = (gpt().await, collector().await, collector().await);
    for (host, resolved) in [("", "True"), (&*format!("host: 'http://{}'", other.address), "False")] {
        let mut gateway = world(&provider, &format!("{{langfuse: {{{host}}}}}"))
            .variable("LANGFUSE_HOST", &format!("http://{}/", own.address))
            // As keys are that were read from a file.
            .variable("LANGFUSE_PUBLIC_KEY", "pk-env\n")
            .variable("LANGFUSE_SECRET_KEY", "sk-env\n")
            .start()
            .await;
        for (condition, status) in [("ResolvedRefs", resolved), ("Programmed", "True")] {
            let told = gateway.condition("AIService demo/llm", condition).await;
            assert_eq!(told["status"], status, "{told}");
        }
        assert_eq!(gateway.ask(chat("llm.example", false)).await.status(), 200);
        // What is left is told before the process ends.
        gateway.signal("TERM");
        assert!(gateway.exit().await.success());
        assert_eq!(spans(&own).len(), 1);
    }
    // The base64 of pk-env:sk-env.
    assert_eq!(own.last().header("authorization"), Some("Basic cGstZW52OnNrLWVudg=="));
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn a_host_of_the_environment_that_is_none_is_blamed_on_it_and_not_shown() {
    let provider = gpt().await;
    let gateway = world(&provider, "{langfuse: {publicKey: pk, secretKey: sk}}")
        .variable("LANGFUSE_HOST", "langfuse.internal")
        .start()
        .await;
    let told = gateway.condition("AIService demo/llm", "ResolvedRefs").await.to_string();
    assert!(
        told.contains("spec.observability.langfuse: the host that the gateway's environment names"),
        "{told}"
    );
    assert!(!told.contains("langfuse.internal"), "{told}");
}

#[tokio::test]
async fn what_a_collector_cannot_be_is_told_in_the_status() {
    let provider = gpt().await;
    for (observability, why) in [
        ("{otel: {}, redact: ['(']}", "spec.observability.redact[0]: regex parse error"),
        ("{langfuse: {host: 'http://localhost:1'}}", "spec.observability.langfuse.publicKey: is missing"),
        (
            "{langfuse: {publicKeyRef: {name: gone}, secretKey: sk}}",
            "spec.observability.langfuse.publicKeyRef: Secret demo/gone does not exist",
        ),
        (
            "{langfuse: {publicKey: pk, secretKeyRef: {name: langfuse, key: other}}}",
            "spec.observability.langfuse.secretKeyRef: Secret demo/langfuse has no entry \"other\"",
        ),
    ] {
        let gateway = world(&provider, observability).start().await;
        let told = [
            gateway.condition("AIService demo/llm", "Accepted").await,
            gateway.condition("AIService demo/llm", "ResolvedRefs").await,
        ];
        let told = told.map(|condition| condition.to_string()).join(" ");
        assert!(told.contains(&why.replace('"', "\\\"")), "{told}");
    }
}
