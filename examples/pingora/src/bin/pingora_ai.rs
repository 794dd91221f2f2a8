//! A Pingora proxy that offers Anthropic's Messages over an OpenAI-type provider: requests and answers are
//! translated in the body callbacks, without a service.
//!
//! The provider is a fake one in this program, so that it runs without an account.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use async_trait::async_trait;
use axum::{Router, response::IntoResponse, routing::post};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use nantian_ai::headers::DROPPED;
use nantian_ai::respond::{DialectResponder, Responder as _};
use nantian_ai::translate::{Translation, Translator};
use nantian_ai::{BoxError, ClientDialect, Error, Surface, Target, TargetConfig};
use nantian_pingora_examples::{backend, client, proxy, respond};
use pingora_core::{ErrorType, Result, upstreams::peer::HttpPeer};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

/// The most that is kept of a request or of a whole reply, in bytes.
const MOST: usize = 4 << 20;

struct Proxy {
    provider: SocketAddr,
    target: Target,
}

/// What is known of a request between the callbacks.
#[derive(Default)]
struct Exchange {
    surface: Option<Surface>,
    /// The client's request, or the reply if it comes whole.
    whole: BytesMut,
    translation: Option<Translation>,
    answer: Answer,
    /// What the client is told if there is no answer.
    error: Option<Error>,
}

/// How the reply comes.
#[derive(Default)]
enum Answer {
    #[default]
    Whole,
    Stream(Box<Translator>),
    Refusal(StatusCode),
}

impl Exchange {
    /// Takes the next part of something that is kept until it is whole.
    fn keep(&mut self, body: &mut Option<Bytes>) -> Result<()> {
        let more = body.take().unwrap_or_default();
        if self.whole.len() + more.len() > MOST {
            return self.fail(Error::BodyTooLarge { limit: MOST as u64 });
        }
        self.whole.extend_from_slice(&more);
        Ok(())
    }

    /// Ends the exchange with what [`ProxyHttp::fail_to_proxy`] is to say.
    fn fail<T>(&mut self, error: Error) -> Result<T> {
        self.error = Some(error);
        pingora_core::Error::err(ErrorType::HTTPStatus(400))
    }

    /// The request in the provider's words.
    fn translate_request(&mut self, target: &Target) -> Result<Bytes> {
        let body = std::mem::take(&mut self.whole);
        let Some(surface) = &self.surface else { return self.fail(Error::NoModel) };
        match Translation::begin(target, surface, &body, false) {
            Ok((translation, body)) => {
                self.translation = Some(translation);
                Ok(body)
            }
            Err(error) => self.fail(error),
        }
    }

    /// The next part of the answer in the client's words.
    fn translate_answer(&mut self, body: &mut Option<Bytes>, ends: bool) -> Result<()> {
        if let Answer::Stream(translator) = &mut self.answer {
            let mut out = translator.push(body.as_deref().unwrap_or_default()).to_vec();
            if ends {
                out.extend(translator.finish());
            }
            *body = Some(Bytes::from(out));
            return Ok(());
        }
        self.keep(body)?;
        if let (true, Some(translation)) = (ends, &self.translation) {
            *body = Some(match &self.answer {
                Answer::Refusal(status) => translation.refusal(*status, &self.whole).1,
                _ => match translation.reply(&self.whole, false) {
                    Ok((reply, _)) => reply,
                    Err(fault) => ClientDialect::Anthropic.encode_fault(&fault).1,
                },
            });
        }
        Ok(())
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::default()
    }

    /// What no provider of the target's dialect could be asked for is refused before its body is read.
    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        let head = session.req_header();
        match self.target.admit(head) {
            Ok(surface) => {
                exchange.surface = Some(surface);
                Ok(false)
            }
            Err(error) => {
                respond(session, DialectResponder.respond(&error, ClientDialect::Anthropic)).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut Exchange) -> Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.provider, false, String::new());
        peer.options.connection_timeout = self.target.config().timeouts.connect;
        Ok(Box::new(peer))
    }

    /// The client's credentials end here, and the body gets another length.
    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        let Some(surface) = &exchange.surface else { return exchange.fail(Error::NoModel) };
        for name in self.target.withheld_headers(surface, &request.headers) {
            request.remove_header(&name);
        }
        request.set_uri(Uri::from_static("/v1/chat/completions"));
        request.insert_header("host", self.provider.to_string())?;
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
            *body = Some(exchange.translate_request(&self.target)?);
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        let Some(translation) = &exchange.translation else { return exchange.fail(Error::NoModel) };
        let is_stream = response.headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
        let mut content_type = translation.content_type();
        if !response.status.is_success() {
            exchange.answer = Answer::Refusal(response.status);
            content_type = "application/json";
            // That the operator's key is bad is no reason for a client to look for another one.
            response.set_status(translation.refusal(response.status, b"").0)?;
        } else if is_stream {
            exchange.answer = Answer::Stream(Box::new(translation.translator()));
        }
        if let Some(lost) = translation.losses().header_value() {
            response.insert_header(DROPPED, lost)?;
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
    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        cause: &pingora_core::Error,
        exchange: &mut Exchange,
    ) -> FailToProxy {
        let unreachable = || Error::Upstream {
            target: self.target.name().to_owned(),
            source: Arc::from(BoxError::from(cause.to_string())),
        };
        let error = exchange.error.take().unwrap_or_else(unreachable);
        let response = DialectResponder.respond(&error, ClientDialect::Anthropic);
        let error_code = response.status().as_u16();
        // Whoever is gone cannot be told.
        let _ = respond(session, response).await;
        FailToProxy { error_code, can_reuse_downstream: false }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let provider = backend(Router::new().route("/v1/chat/completions", post(complete))).await?;
    let target = Target::new(TargetConfig::new("example/gpt", "openai", "gpt-4o"))?;
    let url = format!("http://{}/v1/messages", proxy(Proxy { provider, target }).await?);

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

    let (status, _, fault) = say(&url, NO_KEY).await?;
    ensure!(status == 502 && fault.contains(r#""type":"api_error""#), "{status} {fault}");

    print!("in Anthropic's dialect, whole:\n{whole}\nand as a stream:\n{stream}");
    Ok(())
}

const WHOLE: &str = r#"{"model":"any","max_tokens":99,"top_k":40,"messages":[{"role":"user","content":"How far is the moon?"}]}"#;
const STREAM: &str = r#"{"model":"any","max_tokens":99,"stream":true,"messages":[{"role":"user","content":"How far is the moon?"}]}"#;
const BUSY: &str =
    r#"{"model":"any","max_tokens":99,"messages":[{"role":"user","content":"Are you busy?"}]}"#;
const NO_KEY: &str =
    r#"{"model":"any","max_tokens":99,"messages":[{"role":"user","content":"Do you lock me out?"}]}"#;

/// What a client of Anthropic's hears: the status, what was dropped, the body.
async fn say(url: &str, body: &'static str) -> anyhow::Result<(StatusCode, String, String)> {
    let request = Request::post(url)
        .header("content-type", "application/json")
        .header("x-api-key", "sk-of-the-client")
        .header("cookie", "session=of-the-client")
        .header("x-goog-iap-jwt-assertion", "of-the-client");
    let response = client().request(request.body(Full::from(body))?).await?;
    let dropped = response.headers().get(DROPPED).map(|names| names.to_str()).transpose()?;
    let (status, dropped) = (response.status(), dropped.unwrap_or_default().to_owned());
    Ok((status, dropped, String::from_utf8(response.into_body().collect().await?.to_bytes().into())?))
}

/// The provider.
async fn complete(headers: HeaderMap, request: String) -> impl IntoResponse {
    const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
    if headers.get("authorization").is_none_or(|key| key != "Bearer sk-operator")
        || ["x-api-key", "cookie", "x-goog-iap-jwt-assertion"].iter().any(|name| headers.contains_key(*name))
        || request.contains("lock me out")
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
