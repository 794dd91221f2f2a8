//! Several models behind one route: each request goes to the one it names, else to one by weight, and on to
//! the others where one fails.
//!
//! ```
//! use std::convert::Infallible;
//!
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt as _, Full};
//! use nantian_ai::body::RequestBody;
//! use nantian_ai::route::{Choice, ModelRoute};
//! use tower::{ServiceExt as _, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! // Each stands for an `AiService`.
//! let model = |name: &'static str| {
//!     let service = service_fn(move |_: Request<RequestBody>| async move {
//!         Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(name)))
//!     });
//!     Choice::new(name, format!("{name}-1"), service)
//! };
//! let route = ModelRoute::new([model("small"), model("large")]);
//!
//! let request = Request::post("/v1/chat/completions").body(Full::<Bytes>::from(r#"{"model":"large-1"}"#))?;
//! let response = route.clone().oneshot(request).await?;
//! assert_eq!(response.into_body().collect().await?.to_bytes(), "large");
//!
//! let request = Request::get("/v1/models/small").body(Full::<Bytes>::default())?;
//! let listed = route.oneshot(request).await?.into_body().collect().await?.to_bytes();
//! assert_eq!(listed, r#"{"id":"small","object":"model","created":0,"owned_by":"nantian"}"#);
//! # Ok(())
//! # }
//! ```

mod body;
mod future;
mod listing;
mod service;

use std::sync::Arc;

use http::Response;
use tokio::time::Instant;

use crate::Unasked;
use crate::error::Error;

pub use self::body::RouteBody;
pub use self::future::RouteFuture;
pub use self::service::{Choice, ModelRoute};

/// In the extensions of a response for which another model was asked before, which failed.
///
/// Whoever counts requests around the route has one to count, whatever this model or what stands before it
/// has made of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to say about it")]
pub struct StandIn;

/// In the extensions of a request that may go on to another model: what its failure means to those who count.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Onward {
    /// Another model will be asked if this one fails.
    pub(crate) more: bool,
    /// How this one may be asked again, which has been passed over because there is another.
    pub(crate) later: Option<Later>,
    /// How often this one was asked again before it was passed over, this time included.
    pub(crate) repeats: u32,
    /// A provider has been sent the prompt, and may have worked on it.
    pub(crate) sent: bool,
}

/// How a model that was passed over may be asked again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Later {
    pub(crate) at: Instant,
    /// How often it will have been asked again by then.
    pub(crate) repeats: u32,
}

// === impl Onward ===

impl Onward {
    /// Marks a response that is made here, if it is the last word and nobody has been asked before either.
    pub(crate) fn mark<B>(self, response: &mut Response<B>) {
        let error = response.extensions().get::<Arc<Error>>();
        let goes_on = self.more && error.is_some_and(|error| error.may_fail_over());
        if !self.sent && !goes_on {
            response.extensions_mut().insert(Unasked);
        }
    }
}
