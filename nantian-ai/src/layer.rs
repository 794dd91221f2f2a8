//! The layer: one target, its observer and its responder.

use std::fmt;
use std::sync::Arc;

use tower_layer::Layer;

use crate::layer_parts::LayerParts;
use crate::memory::BodyMemory;
use crate::respond::{DialectResponder, Responder};
use crate::service::AiService;
use crate::target::Target;
use crate::usage::UsageObserver;

/// Makes a plain HTTP client a model of one [`Target`]: clients' requests in, the provider's replies out.
///
/// The inner service gets requests with absolute URIs and bodies in memory. It needs to be `Clone`, because a
/// failed attempt is repeated on its own copy. An error of it counts as one after which the provider may have
/// worked on the prompt, which is then charged; it says that nothing was sent, as when no connection could be
/// made, with [`Unsent`](crate::Unsent).
pub struct AiLayer<O = ()> {
    shared: Arc<LayerParts<O>>,
}

// === impl AiLayer ===

impl AiLayer {
    /// A layer for one target, which answers errors in the client's dialect and observes nothing.
    pub fn new(target: impl Into<Arc<Target>>) -> Self {
        Self {
            shared: Arc::new(LayerParts {
                target: target.into(),
                observer: Arc::new(()),
                responder: Arc::new(DialectResponder),
                memory: None,
            }),
        }
    }
}

impl<O> AiLayer<O> {
    /// Sets who is told the usage of every request: an observer, an `Arc` of a shared one, or a closure.
    ///
    /// ```
    /// use nantian_ai::usage::UsageReport;
    /// use nantian_ai::{AiLayer, RequestFacts, Target, TargetConfig};
    ///
    /// # let target = Target::new(TargetConfig::new("demo/gpt", "openai", "gpt-4o")).unwrap();
    /// // The types of a closure's arguments have to be written.
    /// let layer = AiLayer::new(target).observer(|_: &http::Extensions, facts: &RequestFacts| {
    ///     let model = facts.model.clone();
    ///     move |report: UsageReport| println!("{model:?}: {} tokens", report.usage.total)
    /// });
    /// ```
    #[must_use]
    pub fn observer<P: UsageObserver>(self, observer: P) -> AiLayer<P> {
        let LayerParts { target, responder, memory, .. } = Arc::unwrap_or_clone(self.shared);
        let observer = Arc::new(observer);
        AiLayer { shared: Arc::new(LayerParts { target, observer, responder, memory }) }
    }

    /// Sets who writes the response to an error.
    #[must_use]
    pub fn responder(self, responder: impl Responder + 'static) -> Self {
        self.with(|parts| parts.responder = Arc::new(responder))
    }

    /// Sets what the bodies of all requests and the answers that are read whole may take together, until what
    /// is answered is known; one of a request that a [`ModelRoute`](crate::route::ModelRoute) has read is
    /// counted there. Default: no limit.
    #[must_use]
    pub fn memory(self, memory: BodyMemory) -> Self {
        self.with(|parts| parts.memory = Some(memory))
    }

    fn with(mut self, change: impl FnOnce(&mut LayerParts<O>)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }
}

impl<O> Clone for AiLayer<O> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<O> fmt::Debug for AiLayer<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AiLayer").field("target", &self.shared.target).finish_non_exhaustive()
    }
}

impl<S, O> Layer<S> for AiLayer<O> {
    type Service = AiService<S, O>;

    fn layer(&self, inner: S) -> Self::Service {
        AiService::new(inner, Arc::clone(&self.shared))
    }
}
