//! AIService: the measures and the traces that its collectors take.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use serde_json::{Value, json};

use crate::{
    ai_telemetry::{attribute, collector, gpt, spans},
    support::{Backend, chat, eventually, llm, llm_service, provider, said},
};

const UNCOUNTED: &str = "data: {\"model\":\"m-0\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n\
    data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

/// The points of each histogram that a collector has been told of at the end.
async fn measures(mut gateway: crate::support::Running, otel: &Backend) -> Vec<Value> {
    gateway.signal("TERM");
    assert!(gateway.exit().await.success());
    let told = otel.seen().into_iter().rfind(|message| message.start.contains("/v1/metrics")).unwrap();
    let told = &told.json()["resourceMetrics"][0];
    assert!(attribute(&told["resource"], "service.instance.id").is_some(), "processes are told apart");
    told["scopeMetrics"][0]["metrics"].as_array().unwrap().clone()
}

#[tokio::test]
async fn measures_are_those_of_the_conventions() {
    let (provider, otel) = (gpt().await, collector().await);
    let gateway =
        llm(&provider, &format!("observability: {{otel: {{endpoint: '{}'}}}}", otel.address)).start().await;
    for stream in [false, true] {
        assert_eq!(gateway.ask(chat("llm.example", stream)).await.status(), 200);
    }
    let measures = measures(gateway, &otel).await;
    let found: Vec<_> = measures
        .iter()
        .map(|measure| {
            let points = measure["histogram"]["dataPoints"].as_array().unwrap();
            let count = |point: &Value| point["count"].as_str().unwrap().parse::<u64>().unwrap();
            for point in points {
                assert_eq!(attribute(point, "gen_ai.provider.name").as_deref(), Some("openai"));
                assert_eq!(attribute(point, "gen_ai.request.model").as_deref(), Some("fake-large"));
                assert_eq!(attribute(point, "gen_ai.response.model").as_deref(), Some("fake-large-0"));
                let buckets = point["bucketCounts"].as_array().unwrap().len();
                assert_eq!(buckets, point["explicitBounds"].as_array().unwrap().len() + 1);
            }
            let bounds = points[0]["explicitBounds"].as_array().unwrap();
            let (first, last) = (bounds[0].clone(), bounds[bounds.len() - 1].clone());
            (measure["name"].as_str().unwrap(), [first, last], points.iter().map(count).sum::<u64>())
        })
        .collect();
    let seconds = [json!(0.01), json!(81.92)];
    assert_eq!(
        found,
        [
            ("gen_ai.client.operation.duration", seconds.clone(), 2),
            ("gen_ai.client.operation.time_to_first_chunk", seconds.clone(), 1),
            ("gen_ai.client.operation.time_per_output_chunk", seconds.clone(), 1),
            ("gen_ai.client.token.usage", [json!(1.0), json!(67_108_864.0)], 4),
            ("gen_ai.server.request.duration", seconds, 2),
            ("gen_ai.server.time_to_first_token", [json!(0.001), json!(10.0)], 1),
            ("gen_ai.server.time_per_output_token", [json!(0.01), json!(2.5)], 1),
        ]
    );
}

#[tokio::test]
async fn what_is_only_estimated_is_no_measure_of_tokens() {
    let (provider, otel) = (provider("{}", UNCOUNTED).await, collector().await);
    let gateway =
        llm(&provider, &format!("observability: {{otel: {{endpoint: '{}'}}}}", otel.address)).start().await;
    assert_eq!(gateway.ask(chat("llm.example", true)).await.status(), 200);
    let measures = measures(gateway, &otel).await;
    let names: Vec<_> = measures.iter().map(|measure| measure["name"].as_str().unwrap()).collect();
    assert!(!names.contains(&"gen_ai.client.token.usage"), "{names:?}");
    assert!(!names.contains(&"gen_ai.server.time_per_output_token"), "{names:?}");
    assert!(names.contains(&"gen_ai.server.time_to_first_token"), "{names:?}");
    assert_eq!(attribute(&spans(&otel)[0], "nantian.usage.estimated").as_deref(), Some("true"));
}

#[tokio::test]
async fn langfuse_is_told_the_share_of_traces_that_it_is_to_have_and_where_they_belong() {
    const SECRET: &str = "
apiVersion: v1
kind: Secret
metadata: {name: langfuse, namespace: demo}
stringData: {public: pk-lf, secret: sk-lf}
";
    let (provider, langfuse) = (gpt().await, collector().await);
    let observability = format!(
        "observability: {{langfuse: {{host: 'http://{}', publicKeyRef: {{name: langfuse, key: public}}, \
         secretKeyRef: {{name: langfuse, key: secret}}, sampleRate: 0.5, environment: staging, \
         release: v7}}}}",
        langfuse.address
    );
    let gateway = llm(&provider, &observability).manifest("langfuse", SECRET).start().await;
    // Of a trace the lower half of its id counts.
    let [told, left] = ["ffffffffffffffff7000000000000000", "0000000000000001f000000000000000"];
    for trace in [left, told, left, told] {
        let traced = format!("\r\ntraceparent: 00-{trace}-00f067aa0ba902b7-01\r\n");
        let request = chat("llm.example", false).replacen("\r\n", &traced, 1);
        assert_eq!(gateway.ask(request).await.status(), 200);
    }
    eventually("two calls are told", async || spans(&langfuse).len() == 2).await;
    for span in spans(&langfuse) {
        assert_eq!(span["traceId"], told);
        assert_eq!(attribute(&span, "langfuse.environment").as_deref(), Some("staging"));
        assert_eq!(attribute(&span, "langfuse.release").as_deref(), Some("v7"));
        // Of 9 tokens 4 came from a cache and 3 went into one: Langfuse adds up what it is told.
        assert_eq!(
            attribute(&span, "langfuse.observation.usage_details").as_deref(),
            Some(r#"{"input":2,"output":91,"input_cache_read":4,"input_cache_creation":3}"#)
        );
    }
    assert_eq!(langfuse.last().header("authorization"), Some("Basic cGstbGY6c2stbGY="));
    let dropped = r#"nantian_ai_exported_records_total{ai_service="demo/llm",result="dropped"}"#;
    assert_eq!(gateway.metric(dropped).await, Some(0.0), "what is left out is not lost");
}

#[tokio::test]
async fn measures_go_on_when_an_edit_leaves_whom_they_are_told() {
    for (old, new) in [("sk-provider", "sk-rotated"), ("{otel", "{captureContent: true, otel")] {
        let (provider, otel) = (gpt().await, collector().await);
        let observability = format!("observability: {{otel: {{endpoint: '{}'}}}}", otel.address);
        let mut gateway = llm(&provider, &observability).start().await;
        for _ in 0..2 {
            assert_eq!(gateway.ask(chat("llm.example", false)).await.status(), 200);
        }
        gateway.edit("llm", &llm_service(&provider, &observability).replace(old, new)).await;
        assert_eq!(gateway.ask(chat("llm.example", false)).await.status(), 200);
        gateway.signal("TERM");
        assert!(gateway.exit().await.success());
        let reports = otel.seen().into_iter().filter(|message| message.start.contains("/v1/metrics"));
        let counts: Vec<u64> = reports
            .map(|report| {
                let metrics = &report.json()["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
                metrics[0]["histogram"]["dataPoints"][0]["count"].as_str().unwrap().parse().unwrap()
            })
            .collect();
        assert!(counts.is_sorted() && counts.last() == Some(&3), "{new}: {counts:?}");
    }
}

#[tokio::test]
async fn a_collector_that_an_edit_takes_away_is_told_what_is_left_again_if_it_cannot_take_it() {
    let refused = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
    let otel = Backend::answering(move |message| {
        let signal = usize::from(message.start.contains("/v1/metrics"));
        match refused[signal].swap(true, Relaxed) {
            false => b"HTTP/1.1 503 Busy\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n".to_vec(),
            true => said("application/json", "{}"),
        }
    })
    .await;
    let provider = gpt().await;
    let observability = format!("observability: {{otel: {{endpoint: '{}'}}}}", otel.address);
    let gateway = llm(&provider, &observability).start().await;
    assert_eq!(gateway.ask(chat("llm.example", false)).await.status(), 200);
    gateway.edit("llm", &llm_service(&provider, "")).await;
    eventually("traces and measures are told twice", async || {
        let told = otel.seen();
        let times = |signal: &str| told.iter().filter(|message| message.start.contains(signal)).count();
        [times("/v1/traces"), times("/v1/metrics")] == [2, 2]
    })
    .await;
}
