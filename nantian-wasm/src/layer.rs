//! The layer.

use std::fmt;
use std::sync::Arc;

use http::Extensions;
use tower_layer::Layer;

use crate::plugin::Plugin;
use crate::respond::{Responder, SharedResponder};
use crate::service::WasmService;
use crate::stream::StreamInfo;

/// Runs plugins around a service: requests pass them first to last, responses last to first.
///
/// ```
/// # use nantian_wasm::{Failure, WasmLayer};
/// let layer = WasmLayer::new(Vec::new());
/// let own_refusals = layer.responder(|failure: &Failure| {
///     let mut response = http::Response::new(bytes::Bytes::new());
///     *response.status_mut() = failure.status();
///     response
/// });
/// ```
///
/// A layer keeps the plugins that it was made of. Who reloads them keeps the layer where it can be replaced
/// and applies it for each request, which allocates nothing:
///
/// ```
/// use std::sync::RwLock;
/// use nantian_wasm::{Module, Plugin, PluginConfig, PluginError, WasmLayer, WasmService};
/// use tower::Layer;
///
/// struct Reloadable<S> {
///     layer: RwLock<WasmLayer>,
///     inner: S,
/// }
///
/// impl<S: Clone> Reloadable<S> {
///     /// The service of the next request. Those under way stay with the plugins that they began with.
///     fn service(&self) -> WasmService<S> {
///         self.layer.read().unwrap().layer(self.inner.clone())
///     }
///
///     /// Starts the plugin first: for a thread that may block.
///     fn reload(&self, old: &Plugin, module: &Module, config: PluginConfig) -> Result<Plugin, PluginError> {
///         let plugin = old.successor(module, config)?;
///         *self.layer.write().unwrap() = WasmLayer::new([plugin.clone()]);
///         Ok(plugin)
///     }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct WasmLayer {
    plugins: Arc<[Plugin]>,
    stream_info: StreamInfoSource,
    responder: SharedResponder,
}

/// Tells what the embedder knows of a stream.
#[derive(Clone)]
pub(crate) struct StreamInfoSource(Arc<StreamInfoFn>);

type StreamInfoFn = dyn Fn(&mut Extensions) -> StreamInfo + Send + Sync;

// === impl WasmLayer ===

impl WasmLayer {
    /// A layer of these plugins, in the order requests pass them; failures get the default response.
    ///
    /// Without plugins the layer costs nothing.
    pub fn new(plugins: impl IntoIterator<Item = Plugin>) -> Self {
        Self {
            plugins: plugins.into_iter().collect(),
            stream_info: StreamInfoSource::default(),
            responder: SharedResponder::default(),
        }
    }

    /// Sets who writes the response to a failure.
    #[must_use]
    pub fn responder(self, responder: impl Responder + 'static) -> Self {
        Self { responder: SharedResponder::new(responder), ..self }
    }

    /// Asks this what the messages of a stream do not say, instead of taking it from the request's
    /// extensions.
    ///
    /// What it gets are the extensions of the request, in which it may leave something for inner services.
    #[must_use]
    pub fn stream_info(self, tell: impl Fn(&mut Extensions) -> StreamInfo + Send + Sync + 'static) -> Self {
        Self { stream_info: StreamInfoSource(Arc::new(tell)), ..self }
    }
}

impl<S> Layer<S> for WasmLayer {
    type Service = WasmService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        WasmService::new(inner, Arc::clone(&self.plugins), self.stream_info.clone(), self.responder.clone())
    }
}

// === impl StreamInfoSource ===

impl StreamInfoSource {
    pub(crate) fn tell(&self, known: &mut Extensions) -> StreamInfo {
        (self.0)(known)
    }
}

impl Default for StreamInfoSource {
    fn default() -> Self {
        Self(Arc::new(|known| known.get::<StreamInfo>().cloned().unwrap_or_default()))
    }
}

impl fmt::Debug for StreamInfoSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamInfoSource").finish_non_exhaustive()
    }
}
