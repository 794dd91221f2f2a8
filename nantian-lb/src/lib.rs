//! Load balancing for HTTP clients and proxies: shared by reference, lock-free, counted to the end of the
//! body.
//!
//! The crate has two faces. The core is synchronous: a [`Balancer`] holds an immutable set of [`Endpoint`]s,
//! and [`Balancer::pick`] answers with a [`Picked`] endpoint and the [`InFlight`] guard that counts the
//! request. Around it, [`BalanceLayer`] is a tower layer whose inner service is given the request together
//! with the target that was picked, and whose response body carries the guard until it has ended.
//!
//! ```
//! use nantian_lb::{BalanceConfig, Balancer, Endpoint, PickContext, Strategy};
//!
//! let config = BalanceConfig::new(Strategy::LeastRequest);
//! let balancer = Balancer::new(
//!     [
//!         Endpoint::new("shop-1", "10.0.0.1:8080"),
//!         Endpoint::new("shop-2", "10.0.0.2:8080"),
//!     ],
//!     &config,
//! );
//!
//! let first = balancer.pick(&PickContext::new())?;
//! let second = balancer.pick(&PickContext::new())?;
//! assert_ne!(first.target(), second.target(), "the idle endpoint is preferred");
//!
//! // A new set keeps what is known about the endpoints that stay.
//! balancer.update([Endpoint::new("shop-1", "10.0.0.1:8080").with_weight(3)], &config);
//! assert_eq!(balancer.status()[0].in_flight, 1);
//! # Ok::<(), nantian_lb::PickError>(())
//! ```
//!
//! As a tower service, the picked target arrives with the request as a [`Routed`]:
//!
//! ```
//! use http::{Request, Response};
//! use http_body_util::BodyExt;
//! use nantian_lb::{BalanceConfig, BalanceLayer, Balancer, Endpoint, Routed};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), std::convert::Infallible> {
//! let balancer = Balancer::new([Endpoint::new("a", "10.0.0.1:8080")], &BalanceConfig::default());
//! let client = ServiceBuilder::new()
//!     .layer(BalanceLayer::new(balancer))
//!     .service(service_fn(|Routed { target, request, .. }: Routed<&'static str, Request<String>>| async move {
//!         let text = format!("{} goes to {target}", request.uri());
//!         Ok::<_, std::convert::Infallible>(Response::new(text))
//!     }));
//!
//! let response = client.oneshot(Request::new(String::new())).await?;
//! let text = response.into_body().collect().await?.to_bytes();
//! assert_eq!(text, "/ goes to 10.0.0.1:8080");
//! # Ok(())
//! # }
//! ```
//!
//! # Strategies
//!
//! | [`Strategy`] | pick | weights |
//! |---|---|---|
//! | [`RoundRobin`](Strategy::RoundRobin) | exact turns, in the order of the ids | evenly interleaved, exact over a cycle |
//! | [`Random`](Strategy::Random) | independent draws | exact in the mean |
//! | [`LeastRequest`](Strategy::LeastRequest) | the less loaded of two distinct draws, of all if they are up to four; a much slower one has one request less | drawn by weight, load divided by weight |
//! | [`PeakEwma`](Strategy::PeakEwma) | the one that promises the shorter wait of two distinct draws | as above |
//! | [`ConsistentHash`](Strategy::ConsistentHash) | Maglev table over a key of the request | table share |
//!
//! An endpoint of weight 0 gets no new request. Placement by hash is stable: it depends on the endpoint ids,
//! their weights and the key alone, and is versioned ([`PLACEMENT_VERSION`]). A bound on the load of single
//! endpoints is [`BalanceConfig::max_load_percent`]. A [session] wins over all of it.
//!
//! # Health
//!
//! An endpoint is passed over that is [not ready](Readiness), that [failed too often](health::OutlierConfig),
//! or whose [active checks](health::run) fail; unless so many are that [the rest could not bear
//! it](BalanceConfig::panic_threshold_percent). Which errors are those of the endpoint is [for whoever knows
//! the client to tell](BalanceLayer::blame). That it never answers is known if a time limit [tells
//! so](AttemptTimeout) or [how long that takes](BalanceLayer::blame_after). When it is back it may [start
//! slowly](health::SlowStartConfig). Of several [tiers](Endpoint::tier) the nearest is preferred. Nothing of
//! it needs a task or a timer: a pick that comes after the time of a change makes the change.
//!
//! # Counting
//!
//! A request is in flight from the pick until its [`InFlight`] guard is dropped, whatever the reason: end of
//! the body, error, cancellation or panic. The count cannot leak or become negative, because it *is* the
//! number of guards.

mod attempt_timeout;
mod balancer;
mod blame;
mod cluster;
mod config;
mod context;
mod endpoint;
mod error;
mod exchange;
mod hash;
mod in_flight;
mod key;
mod latency;
mod layer;
mod members;
mod observe;
mod outcome;
mod plan;
mod service;
mod set;
mod strategy;
mod sync;
mod thread_cache;
mod tried;

pub mod body;
pub mod clock;
pub mod future;
pub mod health;
pub mod respond;
pub mod session;

pub use attempt_timeout::AttemptTimeout;
pub use balancer::{Balancer, Picked, Picker};
pub use blame::{Blame, BlameAll};
pub use config::{BalanceConfig, Strategy, TierPreference};
pub use context::PickContext;
pub use endpoint::{Endpoint, EndpointId, Readiness};
pub use error::PickError;
pub use hash::PLACEMENT_VERSION;
pub use in_flight::{InFlight, UpgradeGuard};
pub use key::{ClientAddr, HashKey, KeySource};
pub use layer::BalanceLayer;
pub use observe::EndpointStatus;
pub use outcome::Outcome;
pub use service::{Balance, Routed};
pub use tried::Tried;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
