//! Credentials that are exchanged for tokens of a short life.
//!
//! A service account of Google, an application of Entra ID, a role of AWS: what providers are shown is a
//! token that a token endpoint has issued. A [`Target`](crate::Target) with such a credential is made by
//! [`Target::with_tokens`](crate::Target::with_tokens), with the HTTP client that makes the exchanges. Tokens
//! are kept until shortly before their end and asked for anew some minutes ahead, while requests go on with
//! the one that is there. There is one exchange at a time, whoever waits for it; one that has failed is not
//! tried again for a while that doubles from a second to a minute, and its failure is the answer meanwhile.
//!
//! ```
//! use std::sync::Arc;
//!
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use nantian_ai::token::Exchange;
//! use nantian_ai::{Credential, Target, TargetConfig};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! // Stands for an HTTP client.
//! async fn send(request: Request<Bytes>) -> Result<Response<Bytes>, std::convert::Infallible> {
//!     assert_eq!(request.uri(), "https://login.microsoftonline.com/t/oauth2/v2.0/token");
//!     Ok(Response::new(Bytes::from(r#"{"access_token":"eyJ…","expires_in":3600}"#.replace('…', "0"))))
//! }
//! let client = |exchange: Exchange| drop(tokio::spawn(exchange.through(send)));
//!
//! let account = r#"{"tenant":"t","appId":"c","password":"s"}"#;
//! let config = TargetConfig::new("demo/gpt", "azure-openai", "gpt-4o")
//!     .with_endpoint("https://demo.openai.azure.com")
//!     .with_credential(Credential::azure(account));
//! let target = Target::with_tokens(config, Arc::new(client))?;
//!
//! // What `AiLayer` does before each attempt.
//! target.ready(0).await?;
//! # Ok(())
//! # }
//! ```

mod entra;
mod error;
mod exchange;
#[cfg(feature = "gcp")]
mod google;
mod identity;
mod issued;
mod source;
#[cfg(feature = "aws")]
mod sts;
mod workload;

pub use self::error::TokenError;
pub use self::exchange::{Exchange, TokenClient};
pub use self::workload::Workload;

pub(crate) use self::identity::{Form, Identity};
pub(crate) use self::source::{Look, Source};
