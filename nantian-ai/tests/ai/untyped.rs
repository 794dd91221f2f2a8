//! Replies that do not say what they are, say what servers say of everything, or say that they are another.

use std::time::Duration;

use http::Response;
use nantian_ai::usage::Outcome;
use nantian_ai::{ClientDialect, Dialect};

use crate::support::{Body, Reports, Upstream, events, json, layer, send};
use crate::troubles::{last_event, message, request, target, token};

const TYPES: [Option<&str>; 3] = [None, Some("text/plain; charset=utf-8"), Some("application/octet-stream")];

/// What some proxies call all that a model says.
const JSON: Option<&str> = Some("application/json");

fn typed(mut response: Response<Body>, content_type: Option<&'static str>) -> Response<Body> {
    response.headers_mut().remove("content-type");
    if let Some(content_type) = content_type {
        response.headers_mut().insert("content-type", content_type.parse().unwrap());
    }
    response
}

#[tokio::test]
async fn a_stream_without_a_type_is_read_as_what_was_asked_for() {
    for client in ClientDialect::ALL.map(Dialect::from) {
        for (provider, content_type) in Dialect::ALL
            .iter()
            .flat_map(|it| TYPES.into_iter().chain([JSON]).map(|content_type| (*it, content_type)))
        {
            let begun = events("any/thing", [(Duration::ZERO, Some(token(provider)))]);
            let upstream = Upstream::new().replies(typed(begun, content_type));
            let (head, body) = send(layer(target(provider)), &upstream, request(client, true)).await;
            let pair = format!("{client} to {provider}, {content_type:?}: {body}");
            assert_eq!(head.status, 200, "{pair}");
            assert!(message(client, last_event(&body)).contains("broke off"), "{pair}");
        }
    }
}

#[tokio::test]
async fn what_an_answer_without_a_type_reports_counts_whether_or_not_it_is_the_stream_that_was_asked_for() {
    const STREAM: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n";
    const WHOLE: &str = r#"{"choices":[{"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":3}}"#;
    for client in ClientDialect::ALL.map(Dialect::from) {
        for (streams, answer, content_type) in [
            (true, STREAM, None),
            (true, WHOLE, None),
            (false, WHOLE, None),
            (true, STREAM, JSON),
            (true, WHOLE, JSON),
        ] {
            let reports = Reports::default();
            let upstream = Upstream::new().replies(typed(json(200, answer), content_type));
            let service = layer(target(Dialect::OpenAi)).observer(reports.clone());
            let (head, body) = send(service, &upstream, request(client, streams)).await;
            let (report, asked) = (reports.only(), format!("{client}, {streams}, {content_type:?}: {body}"));
            assert!(head.status == 200 && body.contains("Hello"), "{asked}");
            assert_eq!(
                (report.outcome, report.usage.input, report.usage.output),
                (Outcome::Completed, 9, 3),
                "{asked}"
            );
            assert!(!report.usage.estimated, "{asked}");
        }
    }
}

#[tokio::test]
async fn an_answer_of_ollama_is_read_whole_or_as_a_line_whatever_was_asked_for() {
    const LINE: &str = r#"{"message":{"role":"assistant","content":"Hello"},"done":true,"prompt_eval_count":9,"eval_count":3}"#;
    let lines = LINE.replace('{', "{\n ");
    for client in ClientDialect::ALL.map(Dialect::from) {
        for (streams, answer) in [(true, LINE), (true, &lines), (false, LINE), (false, &lines)] {
            let reports = Reports::default();
            let upstream = Upstream::new().replies(json(200, answer));
            let service = layer(target(Dialect::Ollama)).observer(reports.clone());
            let (head, body) = send(service, &upstream, request(client, streams)).await;
            let (report, asked) = (reports.only(), format!("{client}, {streams}, {answer}: {body}"));
            assert!(head.status == 200 && body.contains("Hello"), "{asked}");
            assert_eq!((report.outcome, report.usage.total), (Outcome::Completed, 12), "{asked}");
        }
    }
}

#[tokio::test]
async fn an_error_without_a_type_is_no_answer() {
    for client in ClientDialect::ALL.map(Dialect::from) {
        for streams in [true, false] {
            let answer = json(200, r#"{"error":{"message":"later"}}"#);
            let upstream = Upstream::new().replies(typed(answer, None));
            let (head, body) =
                send(layer(target(Dialect::OpenAi)), &upstream, request(client, streams)).await;
            assert_eq!(head.status, 502, "{client}, {streams}: {body}");
            message(client, &body);
        }
    }
}
