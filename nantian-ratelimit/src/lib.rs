//! Request and LLM-token limits as a tower Layer.
//!
//! ```
//! use axum::{Router, routing::get};
//! use nantian_ratelimit::{Limit, Limiter, Policy, RateLimitLayer};
//!
//! let policy = Policy::builder()
//!     .limit(Limit::requests_per_minute(60).with_burst(1.5))
//!     .scope("apiKey".parse()?)
//!     .build()?;
//! let app: Router = Router::new()
//!     .route("/", get(|| async { "hello" }))
//!     .layer(RateLimitLayer::new(Limiter::new(policy)));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Requests of one API key share a bucket; without a [`scope`](PolicyBuilder::scope) all requests do, unless
//! the layer is told of routes. By address it is `ip`, with [`RateLimitLayer::client_ip`]. [`Scope`] has the
//! grammar, and [`ScopeValues`] where the values come from.
//!
//! # What holds
//!
//! - All limits of a [`Policy`] are decided at once. A denied request costs nothing on any of them, and
//!   what limiters around have charged for it comes back ([`LimiterBuilder::max_keys`] has the exception).
//! - A limit admits requests for at most its bucket plus what refills, over any window, however many threads
//!   ask. The arithmetic is in integers that do not drift: a burst of 90 is 90, and a caller that waits as
//!   long as it was told passes. Only where an amount does not divide its window is something rounded: room
//!   may be found less than a nanosecond early, which does not add up.
//! - Tokens are reserved before a request is served and settled when it was. What was used beyond the
//!   reservation is debt, of which there is one window at most; what was not used comes back, and may be used
//!   besides the bucket: [`Reservation`] tells how much that is.
//! - A change of amounts keeps what every caller has used ([`Limiter::successor`]).
//! - Memory is bounded, and no key in use loses its bucket to another ([`LimiterBuilder::max_keys`]).
//! - Keys are stored as keyed digests; nothing this crate prints or reports shows one.
//!
//! # Two faces
//!
//! [`Limiter`] is the core: synchronous, told the time, for any proxy. A proxy of callbacks asks it whose
//! request it is ([`Limiter::key_of`]) and whether it passes ([`Limiter::admit`]), tells the client what came
//! of it ([`Responder`](respond::Responder), [`Denied::write_fields`], [`Levels::write_fields`]), and settles
//! what was used ([`Reservation::settle`]). [`RateLimitLayer`] puts it around HTTP services:
//!
//! - a [`KeyExtractor`] says whose request it is; the default, [`ScopeValues`], reads headers and a request
//!   extension,
//! - a [`CostEstimator`] guesses tokens; the default, [`TypicalCost`], reads [`EstimatedTokens`] or goes by
//!   experience,
//! - a [`UsageMeter`] learns from responses what was used; the default, [`ReportedTokens`], by an extension
//!   [`UsedTokens`],
//! - a [`Responder`](respond::Responder) answers refused requests; the default,
//!   [`DialectResponder`](respond::DialectResponder), in the words of the client's API,
//! - an [`Observer`] is told what was decided.
//!
//! Tokens count by what requests used, or by what was estimated where nobody tells: around a whole
//! application, of which some requests ask no model, each of those costs a typical answer ([`UsedTokens`]
//! shows what to do). Whoever learns the usage earlier than a meter, or elsewhere than in the response,
//! settles the [`ReservationHandle`] in their extensions:
//!
//! ```
//! use std::convert::Infallible;
//! use http::{Request, Response};
//! use nantian_ratelimit::{Limit, Limiter, Policy, RateLimitLayer, ReservationHandle, Settlement};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let policy = Policy::builder().limit(Limit::tokens_per_minute(1000)).build()?;
//! let service = RateLimitLayer::new(Limiter::new(policy)).layer(service_fn(|request: Request<String>| async move {
//!     if let Some(reservation) = request.extensions().get::<ReservationHandle>() {
//!         reservation.settle(Settlement::Used(42));
//!     }
//!     Ok::<_, Infallible>(Response::new(String::from("answer")))
//! }));
//! let response = service.oneshot(Request::new(String::from("question"))).await?;
//! assert_eq!(response.headers()["x-ratelimit-limit-tokens"], "1000");
//! # Ok(())
//! # }
//! ```
//!
//! # Over a limit
//!
//! A policy refuses, lets requests wait their turn ([`OnLimit::Queue`]), or merely counts
//! ([`OnLimit::Warn`]). What waits has been charged nothing: it may leave at any time. The wait is a timer of
//! tokio.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `redis` | limits that several processes share on a Redis or Valkey server: see the module of that name |
//! | `redis-tls` | the same over TLS, with the provider of the program's choice |
//!
//! None is on by default.
//!
//! # What it does not do
//!
//! - What requests use is learned for each limiter ([`Limiter::typical_tokens`]). Whoever reads bodies knows
//!   more: put what is expected into [`EstimatedTokens`]; an [`OutputEstimate`] for each model tells how long
//!   answers become. Ask [`RateLimitLayer::begin`] before a body is read, or callers over their limits have
//!   theirs read, too.
//! - It knows no API of models. `nantian_ai::usage` does: its meter becomes a [`UsageMeter`], and its
//!   observer settles a reservation, each in a dozen lines, as the examples `hyper_rate_limit` and
//!   `four_layers` of Nantian show.
//! - Each decision about shared limits asks the server, unless it has just denied the same; no replica takes
//!   a slice of a limit ahead of its requests.
//!
//! # Fields of responses
//!
//! Responses carry `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11), the
//! `x-ratelimit-*` fields of OpenAI and, to its own clients, the `anthropic-ratelimit-*` fields of Anthropic,
//! in place of an upstream's, unless [`RateLimitLayer::report_levels`] says otherwise; refusals also what
//! [`Denied::write_fields`] lists. Limiters may be stacked: all must admit, what an inner one denies
//! costs nothing on the outer ones, and usage settles them all.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod client_address;
mod cost;
mod decide;
mod decision_request;
mod early_charge;
mod error;
mod handle;
mod headers;
mod key;
mod key_extractor;
mod layer;
mod ledger;
mod levels;
mod limit;
mod limit_column;
mod limiter;
mod observe;
mod output_estimate;
mod policy;
mod poly;
mod rate;
mod reservation;
mod scope;
mod service;
mod sync;
mod table;
mod typical;
mod usage_meter;
mod wait_queue;

pub mod body;
pub mod clock;
pub mod future;
#[cfg(feature = "redis")]
pub mod redis;
pub mod respond;

pub use client_address::client_address;
pub use cost::{Cost, CostEstimator, EstimatedTokens, TypicalCost, is_preflight};
pub use error::{Denied, InvalidPolicy, InvalidScope, MissingPart, Unavailable};
pub use handle::{Attempted, ReservationHandle};
pub use key::{Key, KeyHasher};
pub use key_extractor::{KeyExtractor, ScopeValues, client_network};
pub use layer::RateLimitLayer;
pub use levels::{Level, Levels};
pub use limit::{Limit, LimitName, Unit};
pub use limiter::{Admitted, Limiter, LimiterBuilder};
pub use observe::{Decision, Observer};
pub use output_estimate::OutputEstimate;
pub use policy::{MAX_LIMITS, MissingKey, OnLimit, Policy, PolicyBuilder, Queue};
pub use reservation::{CachedSettlement, Reservation, Settled, Settlement};
pub use scope::{Scope, ScopePart};
pub use service::RateLimit;
pub use usage_meter::{ReportedTokens, ResponseEnd, ResponseMeter, UsageMeter, UsedTokens};
pub use wait_queue::{HeldBytes, MaxWait};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
