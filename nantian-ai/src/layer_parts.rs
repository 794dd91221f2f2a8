//! What all services and futures of a layer have in common.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body::Body;

use crate::body::ResponseBody;
use crate::call::attempt::Failed;
use crate::dialect::{ClientDialect, Operation, Surface};
use crate::error::{BoxError, Error};
use crate::estimate::estimate_tokens;
use crate::facts::RequestFacts;
use crate::headers::{ESTIMATED, USAGE};
use crate::memory::BodyMemory;
use crate::respond::Responder;
use crate::target::Target;
use crate::usage::UsageSink;

/// What all services and futures of a layer have in common.
pub(crate) struct LayerParts<O> {
    pub(crate) target: Arc<Target>,
    pub(crate) observer: Arc<O>,
    pub(crate) responder: Arc<dyn Responder>,
    pub(crate) memory: Option<BodyMemory>,
}

// === impl LayerParts ===

impl<O> Clone for LayerParts<O> {
    fn clone(&self) -> Self {
        Self {
            target: Arc::clone(&self.target),
            observer: Arc::clone(&self.observer),
            responder: Arc::clone(&self.responder),
            memory: self.memory.clone(),
        }
    }
}

impl<O> LayerParts<O> {
    /// The response to an error.
    pub(crate) fn answer<B: Body<Data = Bytes>, K: UsageSink>(
        &self,
        error: Error,
        dialect: ClientDialect,
    ) -> Response<ResponseBody<B, K>> {
        tracing::debug!(target = self.target.name(), %error, "request not served");
        let mut response = self.responder.respond(&error, dialect);
        response.extensions_mut().insert(Arc::new(error));
        response.map(ResponseBody::local)
    }

    /// The answer to a request that needs no provider: a count of tokens where the provider counts none.
    pub(crate) fn counted<B: Body<Data = Bytes>, K: UsageSink>(
        &self,
        surface: &Surface,
        body: &[u8],
    ) -> Option<Result<Response<ResponseBody<B, K>>, Error>> {
        let asked = self.target.speaks(surface) || self.target.translates(surface);
        if surface.operation() != Operation::CountTokens || asked {
            return None;
        }
        Some(RequestFacts::read(surface, body).map(|_| self.count(surface.dialect(), self.estimate(body))))
    }

    /// How many tokens a conversation has, as far as it can be told here.
    pub(crate) fn estimate(&self, body: &[u8]) -> u64 {
        self.target.calibration().apply(estimate_tokens(body))
    }

    /// The answer with an estimate of a count of tokens.
    pub(crate) fn count<B: Body<Data = Bytes>, K: UsageSink>(
        &self,
        dialect: ClientDialect,
        count: u64,
    ) -> Response<ResponseBody<B, K>> {
        let mut response = Response::new(dialect.encode_count(count));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().insert(USAGE, ESTIMATED);
        response.map(ResponseBody::local)
    }

    /// The inner service has failed.
    pub(crate) fn unreachable(&self, error: impl Into<BoxError>) -> Failed {
        let target = self.target.name().to_owned();
        Failed::from(Error::Upstream { target, source: Arc::from(error.into()) })
    }
}
