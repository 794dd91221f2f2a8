//! A server of plain hyper that limits LLM tokens: a request reserves an estimate, and what the answer says
//! of its usage settles it, in any of the dialects that nantian-ai reads.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, http::request, http::response, server::conn::http1};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use nantian_ai::{
    RequestFacts, Surface,
    usage::{End, Meter, Outcome},
};
use nantian_ratelimit::{
    CachedSettlement, Limit, Limiter, Policy, RateLimitLayer, ResponseEnd, ResponseMeter, Settlement,
    UsageMeter,
};
use tokio::net::TcpListener;
use tower::{Layer as _, service_fn};

/// What a model answers.
const ANSWER: &str =
    r#"{"choices":[],"usage":{"prompt_tokens":600,"completion_tokens":300,"total_tokens":900}}"#;

/// Reads the usage in the answers of models.
struct AnswersOfModels;

/// Reads one of them.
struct Answer(Meter);

impl UsageMeter for AnswersOfModels {
    fn begin(&self, request: &request::Parts) -> Option<Box<dyn ResponseMeter>> {
        let surface = Surface::detect(&request.method, request.uri.path(), &request.headers).ok()?;
        // Who has read the body makes facts of it: what a provider does not tell is estimated by them.
        Some(Box::new(Answer(Meter::new(&surface, &RequestFacts::default()))))
    }
}

impl ResponseMeter for Answer {
    fn head(&mut self, response: &response::Parts) {
        self.0.begin(response.status, &response.headers);
    }

    fn data(&mut self, data: &[u8]) {
        self.0.push(data);
    }

    fn end(mut self: Box<Self>, end: ResponseEnd) -> Option<CachedSettlement> {
        let report = self.0.report(match end {
            ResponseEnd::Complete => End::Finished,
            ResponseEnd::Failed => End::Failed,
            _ => End::Dropped,
        });
        let used = report.usage.total;
        Some(match report.outcome {
            Outcome::NotServed => Settlement::NotServed.into(),
            // An estimate is no reason to give anything back.
            _ if report.usage.estimated => Settlement::AtLeast(used).into(),
            _ => Settlement::Used(used).with_cached(report.usage.cached),
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let policy = Policy::builder().limit(Limit::tokens_per_minute(1000)).scope("apiKey".parse()?).build()?;
    let layer = RateLimitLayer::new(Limiter::new(policy)).usage_meter(AnswersOfModels);
    let address = serve(layer).await?;

    // The first answer uses more than anybody could know before: what is left is 100, and no second one fits.
    let first = ask(address, "alice").await?;
    ensure!(first.status() == 200, "a full bucket is enough");
    first.into_body().collect().await?;
    let second = ask(address, "alice").await?;
    ensure!(second.status() == 429, "900 tokens are typical now, and 100 are left");
    let wait = second.headers().get("retry-after").context("a refusal says when to come back")?.clone();
    let body = second.into_body().collect().await?.to_bytes();
    ensure!(body.starts_with(br#"{"error":{"message":"rate limit reached"#), "it is told as OpenAI would");
    ensure!(ask(address, "bob").await?.status() == 200, "other keys are not touched");

    println!("900 of 1000 tokens are used; the next 900 may come in {} s", wait.to_str()?);
    Ok(())
}

/// Starts a server that answers as a model does.
async fn serve(layer: RateLimitLayer) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let service = layer.layer(service_fn(async |_: Request<Incoming>| {
        let answer = Response::builder().header("content-type", "application/json");
        answer.body(Full::<Bytes>::from(ANSWER))
    }));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(address)
}

async fn ask(address: SocketAddr, key: &str) -> anyhow::Result<Response<Incoming>> {
    let request = Request::post(format!("http://{address}/v1/chat/completions"))
        .header("authorization", format!("Bearer {key}"))
        .body(Full::<Bytes>::from(r#"{"model":"any","messages":[]}"#))?;
    Ok(Client::builder(TokioExecutor::new()).build_http().request(request).await?)
}
