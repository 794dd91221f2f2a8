//! A Pingora proxy that offers Anthropic's Messages over an OpenAI-type provider: the codec runs in the body callbacks.
//!
//! The provider is a fake one in this program, so that it runs without an account.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::ensure;
use async_trait::async_trait;
use axum::{Router, response::IntoResponse, routing::post};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use nantian_ai::codec::{Defaults, StreamDecoder, StreamEncoder};
use nantian_ai::ir::{Fault, FaultKind, Losses, ToolNames};
use nantian_ai::{DROPPED, Dialect, estimate_tokens};
use nantian_pingora_examples::{backend, post as ask, proxy, respond};
use pingora_core::{Error, ErrorType, Result, upstreams::peer::HttpPeer};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

const CLIENT: Dialect = Dialect::Anthropic;
const PROVIDER: Dialect = Dialect::OpenAi;
/// The most that is kept of a request or of a whole reply, in bytes.
const MOST: usize = 4 << 20;

struct Proxy {
    provider: SocketAddr,
}

/// What is known of a request between the callbacks.
#[derive(Default)]
struct Exchange {
    /// The client's request, or the reply if it comes whole.
    whole: BytesMut,
    asked: Option<Asked>,
    answer: Answer,
    /// What the client is told if there is no answer.
    fault: Option<Fault>,
}

/// What the provider was asked for.
struct Asked {
    defaults: Defaults,
    names: ToolNames,
    /// What the provider's dialect has no words for.
    lost: Losses,
}

/// How the reply comes.
#[derive(Default)]
enum Answer {
    #[default]
    Whole,
    Stream(Box<(StreamDecoder, StreamEncoder)>),
    Fault(StatusCode),
}

impl Exchange {
    /// Takes the next part of something that is kept until it is whole.
    fn keep(&mut self, body: &mut Option<Bytes>) -> Result<()> {
        let more = body.take().unwrap_or_default();
        if self.whole.len() + more.len() > MOST {
            return self.fail(Fault::new(FaultKind::TooLarge, "the body is too large"));
        }
        self.whole.extend_from_slice(&more);
        Ok(())
    }

    /// Ends the exchange with what [`ProxyHttp::fail_to_proxy`] is to say.
    fn fail<T>(&mut self, fault: Fault) -> Result<T> {
        self.fault = Some(fault);
        Error::err(ErrorType::HTTPStatus(400))
    }

    /// The request in the provider's words.
    fn translate_request(&mut self) -> Result<Bytes> {
        let body = std::mem::take(&mut self.whole);
        let (mut request, mut lost) = match CLIENT.decode_request(&body) {
            Ok(request) => request,
            Err(invalid) => return self.fail(Fault::new(FaultKind::Invalid, invalid.to_string())),
        };
        "gpt-4o".clone_into(&mut request.model);
        let names = ToolNames::adapt(&mut request);
        let written = match PROVIDER.encode_request(&request, "openai") {
            Ok((written, more)) => {
                lost.extend(more);
                written
            }
            Err(invalid) => return self.fail(Fault::new(FaultKind::Invalid, invalid.to_string())),
        };
        let defaults = Defaults {
            id: "msg_1".to_owned(),
            model: request.model,
            created: SystemTime::now(),
            stream_usage: request.stream_usage,
            input_estimate: estimate_tokens(&written),
        };
        self.asked = Some(Asked { defaults, names, lost });
        Ok(written)
    }

    /// The next part of the answer in the client's words.
    fn translate_answer(&mut self, body: &mut Option<Bytes>, ends: bool) -> Result<()> {
        match &mut self.answer {
            Answer::Stream(stream) => {
                let (decoder, encoder) = &mut **stream;
                let (mut events, mut out) = (VecDeque::new(), Vec::new());
                decoder.push(body.as_deref().unwrap_or_default(), &mut events);
                if ends {
                    decoder.finish(&mut events);
                }
                events.drain(..).for_each(|event| encoder.push(event, &mut out));
                *body = Some(Bytes::from(out));
            }
            Answer::Whole | Answer::Fault(_) => {
                self.keep(body)?;
                if ends {
                    *body = Some(self.translate_whole());
                }
            }
        }
        Ok(())
    }

    fn translate_whole(&mut self) -> Bytes {
        let reply = match (&self.answer, &self.asked) {
            (Answer::Fault(status), _) => Err(PROVIDER.decode_fault(*status, &self.whole)),
            (_, Some(asked)) => PROVIDER.decode_reply(&self.whole, 1).map(|(reply, _)| (reply, asked)),
            (_, None) => Err(Fault::new(FaultKind::Upstream, "an answer before the request")),
        };
        match reply {
            Ok((mut reply, asked)) => {
                asked.names.restore_in(&mut reply);
                CLIENT.encode_reply(reply, &asked.defaults).0
            }
            Err(fault) => CLIENT.encode_fault(&fault).1,
        }
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::default()
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut Exchange) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.provider, false, String::new())))
    }

    /// The client's credential ends here, and the body gets another length.
    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        _: &mut Exchange,
    ) -> Result<()> {
        request.set_uri(Uri::from_static("/v1/chat/completions"));
        for name in ["x-api-key", "accept-encoding", "content-length"] {
            request.remove_header(name);
        }
        request.insert_header("authorization", "Bearer sk-operator")?;
        request.insert_header("transfer-encoding", "chunked")
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        ends: bool,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.keep(body)?;
        if ends {
            *body = Some(exchange.translate_request()?);
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        let is_stream = response.headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
        if let Some(asked) = exchange.asked.as_ref().filter(|asked| !asked.lost.is_empty()) {
            response.insert_header(DROPPED, asked.lost.to_string())?;
        }
        let mut content_type = "application/json";
        if !response.status.is_success() {
            exchange.answer = Answer::Fault(response.status);
        } else if is_stream && let Some(asked) = exchange.asked.take() {
            let encoder = StreamEncoder::new(CLIENT, asked.defaults, asked.names);
            exchange.answer = Answer::Stream(Box::new((StreamDecoder::new(PROVIDER, 1), encoder)));
            content_type = StreamEncoder::content_type(CLIENT);
        }
        response.remove_header("content-length");
        response.insert_header("transfer-encoding", "chunked")?;
        response.insert_header("content-type", content_type)
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        ends: bool,
        exchange: &mut Exchange,
    ) -> Result<Option<Duration>> {
        exchange.translate_answer(body, ends)?;
        Ok(None)
    }

    /// Whatever fails is told in the client's words.
    async fn fail_to_proxy(&self, session: &mut Session, _: &Error, exchange: &mut Exchange) -> FailToProxy {
        let unreachable = || Fault::new(FaultKind::Upstream, "the provider cannot be reached");
        let (status, body) = CLIENT.encode_fault(&exchange.fault.take().unwrap_or_else(unreachable));
        let mut response = Response::new(body);
        *response.status_mut() = status;
        // Whoever is gone cannot be told.
        let _ = respond(session, response).await;
        FailToProxy { error_code: status.as_u16(), can_reuse_downstream: false }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let provider = backend(Router::new().route("/v1/chat/completions", post(complete))).await?;
    let url = format!("http://{}/v1/messages", proxy(Proxy { provider }).await?);

    let (status, dropped, whole) = say(&url, WHOLE).await?;
    ensure!(dropped == "top_k", "what OpenAI cannot be told is named: {dropped:?}");
    ensure!(status == 200 && whole.contains(r#""text":"384,400 km.""#), "{whole}");
    ensure!(whole.contains(r#""output_tokens":6"#), "{whole}");

    let (status, _, stream) = say(&url, STREAM).await?;
    ensure!(status == 200 && stream.starts_with("event: message_start\n"), "{stream}");
    ensure!(
        stream.contains(r#""text":"384,400 km.""#) && stream.contains(r#""text":" On average.""#),
        "{stream}"
    );
    ensure!(stream.ends_with("data: {\"type\":\"message_stop\"}\n\n"), "{stream}");

    let (status, _, fault) = say(&url, r#"{"model":"any","messages":"no list"}"#).await?;
    ensure!(status == 400 && fault.contains(r#""type":"invalid_request_error""#), "{status} {fault}");
    let (status, _, fault) = say(&url, BUSY).await?;
    ensure!(status == 429 && fault.contains(r#""type":"rate_limit_error""#), "{status} {fault}");

    print!("in Anthropic's dialect, whole:\n{whole}\nand as a stream:\n{stream}");
    Ok(())
}

const WHOLE: &str = r#"{"model":"any","max_tokens":99,"top_k":40,"messages":[{"role":"user","content":"How far is the moon?"}]}"#;
const STREAM: &str = r#"{"model":"any","max_tokens":99,"stream":true,"messages":[{"role":"user","content":"How far is the moon?"}]}"#;
const BUSY: &str =
    r#"{"model":"any","max_tokens":99,"messages":[{"role":"user","content":"Are you busy?"}]}"#;

/// What a client of Anthropic's hears: the status, what was dropped, the body.
async fn say(url: &str, body: &'static str) -> anyhow::Result<(StatusCode, String, String)> {
    let response = ask(url, "sk-of-the-client", body)?.await?;
    let dropped = response.headers().get(DROPPED).map(|names| names.to_str()).transpose()?;
    let (status, dropped) = (response.status(), dropped.unwrap_or_default().to_owned());
    Ok((status, dropped, String::from_utf8(response.into_body().collect().await?.to_bytes().into())?))
}

/// The provider.
async fn complete(headers: HeaderMap, request: String) -> impl IntoResponse {
    const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
    if headers.get("authorization").is_none_or(|key| key != "Bearer sk-operator")
        || headers.contains_key("x-api-key")
    {
        (StatusCode::UNAUTHORIZED, JSON, r#"{"error":{"message":"not your key"}}"#)
    } else if request.contains("busy") {
        (StatusCode::TOO_MANY_REQUESTS, JSON, r#"{"error":{"message":"slow down"}}"#)
    } else if request.contains(r#""stream":true"#) {
        (StatusCode::OK, [("content-type", "text/event-stream")], SPOKEN)
    } else {
        (StatusCode::OK, JSON, ANSWER)
    }
}

const ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant","content":"384,400 km."},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":6,"total_tokens":15}}"#;
const SPOKEN: &str = concat!(
    r#"data: {"id":"c","choices":[{"index":0,"delta":{"content":"384,400 km."}}]}"#,
    "\n\n",
    r#"data: {"id":"c","choices":[{"index":0,"delta":{"content":" On average."}}]}"#,
    "\n\n",
    r#"data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
    "\n\n",
    r#"data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":6}}"#,
    "\n\ndata: [DONE]\n\n",
);
