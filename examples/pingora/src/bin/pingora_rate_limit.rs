//! A Pingora proxy that limits LLM tokens: a request reserves an estimate before it is passed on, its real
//! usage settles it.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use axum::{Router, routing::post};
use http_body_util::BodyExt as _;
use nantian_pingora_examples::{backend, nobody, post as ask, proxy, replace, respond};
use nantian_ratelimit::{
    CostEstimator as _, Limit, Limiter, Policy, Reservation, ScopeValues, Settlement, TypicalCost,
    respond::{DialectResponder, Refusal, Responder as _},
};
use pingora_core::{Error, Result, upstreams::peer::HttpPeer};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{ProxyHttp, Session};

struct Proxy {
    limiter: Limiter,
    backend: SocketAddr,
}

/// What is known of a request between the callbacks.
#[derive(Default)]
struct Exchange {
    reservation: Option<Reservation>,
    /// What the backend says it used.
    used: Option<u64>,
    /// A backend was sent the prompt, or a part of it, in any attempt.
    is_sent: bool,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::default()
    }

    /// Decides before anything else is done, and answers those who are refused.
    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        let request = session.req_header();
        let key = match self.limiter.key_of(&ScopeValues::new(), request) {
            Ok(Some(key)) => key,
            Ok(None) => return Ok(false),
            Err(missing) => {
                let response = DialectResponder.respond(Refusal::Missing(&missing), request);
                respond(session, response).await?;
                return Ok(true);
            }
        };
        let cost = TypicalCost.estimate(request, self.limiter.typical_tokens());
        match self.limiter.admit(key, cost) {
            Ok(admitted) => {
                exchange.reservation = Some(admitted.reserve());
                Ok(false)
            }
            Err(denied) => {
                let mut response = DialectResponder.respond(Refusal::Denied(&denied), request);
                denied.write_fields(response.headers_mut());
                respond(session, response).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut Exchange) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.backend, false, String::new())))
    }

    /// A connection is there, and the head is sent next. Pingora may try again if that fails.
    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        _: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.is_sent = true;
        Ok(())
    }

    /// Tells the client where the limits stand, and not what the backend says of its own.
    async fn response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        let used = response.headers.get("x-tokens-used").and_then(|used| used.to_str().ok()?.parse().ok());
        exchange.used = used;
        if let Some(reservation) = &exchange.reservation {
            let mut fields = response.headers.clone();
            reservation.levels().write_fields(&mut fields);
            replace(response, &fields)?;
        }
        Ok(())
    }

    /// The end of every request, however it ends: a backend that was sent the prompt may have used tokens.
    async fn logging(&self, _: &mut Session, _: Option<&Error>, exchange: &mut Exchange) {
        let Some(reservation) = exchange.reservation.take() else { return };
        let settlement = match exchange.used {
            Some(used) => Settlement::Used(used),
            None if !exchange.is_sent => Settlement::NotServed,
            None => Settlement::AsReserved,
        };
        reservation.settle(settlement);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let policy = Policy::builder().limit(Limit::tokens_per_minute(1000)).scope("apiKey".parse()?).build()?;
    let limiter = Limiter::new(policy);
    let told = [("x-tokens-used", "900"), ("x-ratelimit-limit-requests", "5000")];
    let app = Router::new().route("/v1/chat/completions", post(async move || (told, "answer")));
    let served = proxy(Proxy { limiter: limiter.clone(), backend: backend(app).await? }).await?;
    let broken = proxy(Proxy { limiter, backend: nobody().await? }).await?;
    let url = |at| format!("http://{at}/v1/chat/completions");
    const BODY: &str = r#"{"model":"any","messages":[]}"#;

    // The answer uses more than anybody could know before: what is left is 100, and no second one fits.
    let first = ask(&url(served), "alice", BODY)?.await?;
    ensure!(first.status() == 200, "a full bucket is enough");
    ensure!(first.headers().contains_key("x-ratelimit-remaining-tokens"), "a client learns where it stands");
    ensure!(
        !first.headers().contains_key("x-ratelimit-limit-requests"),
        "that is what the backend allows us"
    );
    let second = ask(&url(served), "alice", BODY)?.await?;
    ensure!(second.status() == 429, "900 tokens are typical now, and 100 are left");
    let wait = second.headers().get("retry-after").context("a refusal says when to come back")?.clone();
    let body = second.into_body().collect().await?.to_bytes();
    ensure!(body.starts_with(br#"{"error":{"message":"rate limit reached"#), "it is told as OpenAI would");

    // A provider that cannot be reached uses nothing: bob's tokens come back each time.
    for _ in 0..3 {
        ensure!(ask(&url(broken), "bob", BODY)?.await?.status() == 502, "nobody answers");
    }
    ensure!(ask(&url(served), "bob", BODY)?.await?.status() == 200, "bob has all of his tokens");

    println!("900 of 1000 tokens are used; the next 900 may come in {} s", wait.to_str()?);
    Ok(())
}
