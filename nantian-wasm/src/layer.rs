//! The layer.

use std::sync::Arc;

use tower_layer::Layer;

use crate::plugin::Plugin;
use crate::respond::DefaultResponder;
use crate::service::WasmService;

/// Runs plugins around a service: requests pass them first to last, responses last to first.
///
/// ```
/// # use nantian_wasm::{Failure, WasmLayer};
/// let layer = WasmLayer::new(Vec::new());
/// let own_refusals = layer.with_responder(|failure: &Failure| {
///     let mut response = http::Response::new(bytes::Bytes::new());
///     *response.status_mut() = failure.status();
///     response
/// });
/// ```
#[derive(Debug, Clone)]
pub struct WasmLayer<R = DefaultResponder> {
    plugins: Arc<[Plugin]>,
    responder: R,
}

// === impl WasmLayer ===

impl WasmLayer {
    /// A layer of these plugins, in the order requests pass them; failures get the default response.
    ///
    /// Without plugins the layer costs nothing.
    pub fn new(plugins: impl IntoIterator<Item = Plugin>) -> Self {
        Self { plugins: plugins.into_iter().collect(), responder: DefaultResponder }
    }
}

impl<R> WasmLayer<R> {
    /// Makes failures look differently to the client.
    pub fn with_responder<T>(self, responder: T) -> WasmLayer<T> {
        WasmLayer { plugins: self.plugins, responder }
    }
}

impl<S, R: Clone> Layer<S> for WasmLayer<R> {
    type Service = WasmService<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        WasmService::new(inner, Arc::clone(&self.plugins), self.responder.clone())
    }
}
