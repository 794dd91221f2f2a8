//! LLM provider adapters as tower Layers.
//!
//! A [`Target`] is one provider and model. An [`AiLayer`] turns any HTTP client into a service that takes the
//! requests of OpenAI (Chat Completions, Responses), Anthropic or Ollama clients and sends them there, with
//! the target's address, credential and model in place of the client's. Where both speak one dialect,
//! everything else stays byte for byte as it was written; where they do not, chats are translated, streams
//! included.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use nantian_ai::body::RequestBody;
//! use nantian_ai::{AiLayer, Credential, Target, TargetConfig};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let target = Target::new(
//!     TargetConfig::new("demo/gpt", "openai", "gpt-4o").with_credential(Credential::bearer("sk-ours")),
//! )?;
//!
//! // Stands for an HTTP client.
//! let upstream = service_fn(|request: Request<RequestBody>| async move {
//!     assert_eq!(request.uri(), "https://api.openai.com/v1/chat/completions");
//!     assert_eq!(request.headers()["authorization"], "Bearer sk-ours");
//!     let body = request.into_body().collect().await?.to_bytes();
//!     assert_eq!(body, r#"{"model": "gpt-4o", "messages": []}"#);
//!     Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(r#"{"choices":[]}"#)))
//! });
//!
//! let request = Request::post("/v1/chat/completions")
//!     .header("authorization", "Bearer of-the-client")
//!     .body(Full::<Bytes>::from(r#"{"model": "any", "messages": []}"#))?;
//! let response = AiLayer::new(target).layer(upstream).oneshot(request).await?;
//!
//! assert_eq!(response.into_body().collect().await?.to_bytes(), r#"{"choices":[]}"#);
//! # Ok(())
//! # }
//! ```
//!
//! # What it does
//!
//! - The operation is told from the end of the path, see [`Surface`]. Chats are translated between any two
//!   [`Dialect`]s, and embeddings to every provider that [has them](Dialect::embeds); another operation that
//!   the provider does not know is refused with 400 in the client's dialect.
//! - What the provider's dialect has no words for is left out and named in the header
//!   [`DROPPED`](headers::DROPPED), of a streamed answer in a trailer of that name, or the request is refused
//!   if the client says [`STRICT`](headers::STRICT). What it cannot carry at all, such as a recording, is
//!   refused. Tokens that the provider does not count are estimated, which the header or trailer
//!   [`USAGE`](headers::USAGE) says.
//! - The client's credentials end here, see [`Credential`]; the upstream's 401 becomes 502. With the feature
//!   `aws` requests to Bedrock are signed; accounts of Entra ID and, with the feature `gcp`, of Google are
//!   exchanged for [tokens](token).
//! - In one dialect only the top-level `model` of the body changes, members that name others end here, and a
//!   stream is asked to tell its usage, see [`edit`]. The body is read whole, within
//!   [`TargetConfig::max_body`], so that a failed attempt can be repeated, see
//!   [`RetryPolicy`](retry::RetryPolicy); how many calls are repeats at once has a
//!   [budget](retry::RetryBudget).
//! - A client is answered once a stream has said something: one that fails, stalls or breaks off before is
//!   repeated or answered with a status. One that does so later ends with an error event of the client's
//!   dialect.
//! - A body that is compressed with gzip or zstd is sent on as it was before.
//! - [`Timeouts`] bound each attempt: a buffered reply as a whole, a stream to its first token and then
//!   from chunk to chunk.
//! - Estimates of input tokens are corrected by what the provider has reported, see [`Calibration`].
//! - The [`usage`] of every reply is metered while it passes and told to a
//!   [`UsageObserver`](usage::UsageObserver) exactly once.
//! - A [`route`] offers several targets: by the model that a request names, else by weight, and on to the
//!   others where one fails.
//! - Whatever fails becomes a response in the client's dialect with the [`Error`] in its extensions, see
//!   [`respond`].
//!
//! # An HTTP client
//!
//! Any service of `Request<RequestBody>` is one. That of hyper-util speaks HTTPS with hyper-rustls, of which
//! the features `http1`, `native-tokio` and a provider of cryptography are needed (`aws-lc-rs`, say); the
//! whole program is `examples/src/bin/hyper_ai.rs`:
//!
//! ```ignore
//! let mut connector = HttpConnector::new();
//! connector.set_connect_timeout(config.timeouts.connect);
//! connector.enforce_http(false);
//! let connector = hyper_rustls::HttpsConnectorBuilder::new()
//!     .with_native_roots()?
//!     .https_only()
//!     .enable_http1()
//!     .wrap_connector(connector);
//! let client = Client::builder(TokioExecutor::new()).build::<_, RequestBody>(connector);
//! let service = AiLayer::new(Target::new(config)?).layer(client);
//! ```
//!
//! # Without tower
//!
//! Nearly all of this can be had without IO: [`translate`] and the [`codec`]s below it translate,
//! [`Target::admit`] and [`Target::prepare`] make the upstream's request (from a head that is edited in place
//! the [`Target::withheld_headers`] are removed, and of its query all but the [`Target::passing_query`]),
//! [`RetryPolicy::next_at`](retry::RetryPolicy::next_at) decides about the next attempt, and [`wire`] has the
//! decoders. The answer comes back by what the [`Prepared`] request says: [`Prepared::meter`] reads the
//! provider's own bytes, and they go on by its [`translation`](Prepared::translation), without the usage that
//! it [hides](Prepared::hides_usage), or under [another name](Prepared::answer_model) of the model. Where a
//! provider counts no tokens, [`ClientDialect::encode_count`] writes what [`estimate_tokens`] and the
//! target's [`calibration`](Target::calibration) say.
//!
//! What needs the layer: asking again without what a provider has refused, or with a lower limit; holding a
//! stream back until it has said something; and heeding [`Timeouts`].
//!
//! ```
//! use bytes::Bytes;
//! use http::{HeaderMap, StatusCode};
//! use nantian_ai::usage::End;
//! use nantian_ai::{Target, TargetConfig};
//!
//! // A client of Anthropic's, a provider that speaks like OpenAI.
//! let target = Target::new(TargetConfig::new("demo/gpt", "openai", "gpt-4o"))?;
//! let body = br#"{"model":"any","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#;
//! let (head, ()) = http::Request::post("/v1/messages").body(())?.into_parts();
//! let prepared = target.prepare(&target.admit(&head)?, head, Bytes::from_static(body))?;
//!
//! let reply = br#"{"choices":[{"message":{"content":"Hello."}}],"usage":{"prompt_tokens":9,"completion_tokens":3}}"#;
//! let mut meter = prepared.meter();
//! meter.begin(StatusCode::OK, &HeaderMap::new());
//! meter.push(reply);
//! assert_eq!(meter.report(End::Finished).usage.total, 12);
//!
//! let translation = prepared.translation().ok_or("another dialect")?;
//! let (answer, _) = translation.reply(reply, false)?;
//! assert!(answer.starts_with(b"{\"id\":\"msg_"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `aws` | requests to Bedrock are signed (Signature Version 4); without it they carry a bearer key |
//! | `gcp` | tokens for service accounts of Google |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod call;
mod credential;
mod dialect;
mod error;
mod estimate;
mod facts;
mod layer;
mod layer_parts;
mod memory;
mod outbound;
mod packed;
mod references;
mod service;
mod settings;
mod target;
mod wish;

pub mod body;
pub mod codec;
pub mod edit;
pub mod future;
pub mod headers;
pub mod ir;
pub mod read;
pub mod respond;
pub mod retry;
pub mod route;
pub mod token;
pub mod translate;
pub mod usage;
pub mod wire;

pub use self::call::deadline::Deadline;
pub use self::credential::{Credential, InvalidCredential, Scheme, Secret, UnknownScheme};
pub use self::dialect::{ClientDialect, Dialect, Operation, ProvidersOnly, Surface, UnknownDialect};
pub use self::error::{Awaited, BoxError, Ending, Error, Unsent};
pub use self::estimate::estimate_tokens;
pub use self::facts::RequestFacts;
pub use self::layer::AiLayer;
pub use self::memory::{BodyMemory, HeldMemory};
pub use self::outbound::Prepared;
pub use self::service::AiService;
pub use self::settings::Settings;
pub use self::target::calibration::Calibration;
pub use self::target::config::{ConnectTimeout, TargetConfig, Timeouts};
pub use self::target::endpoint::{Endpoint, InvalidEndpoint};
pub use self::target::provider::Provider;
pub use self::target::{InvalidTarget, Target};

/// In the extensions of a response for which no provider has been sent anything: the request was refused or
/// answered here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to say about it")]
pub struct Unasked;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
