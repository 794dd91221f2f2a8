//! What guests may reach outside their exchange, if the embedder lets them.

mod reply;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};

pub use self::reply::{GrpcEvent, GrpcReplies, HttpReply};
pub(crate) use self::reply::{ReplyAddress, ReplyRunner};

/// The embedder's side of call-outs and foreign functions; every method has a default that refuses.
///
/// A guest is running while these methods are called, on whichever thread it runs: they must start what is
/// asked for and return. Replies may come later from any thread, which runs the guest if it
/// [may](Host::may_run_guests), or else leaves the reply to whoever does.
///
/// The thread of [upkeep](crate::EngineThreads::upkeep) is one of them, and has no runtime: `tokio::spawn`
/// panics there. Whoever makes calls with tokio keeps a handle of the runtime. A method that panics has
/// failed, as if it had said [`CallError::Unavailable`], or no; so has a [`GrpcStream`], also where it is
/// dropped, and its call is over. The guest and the thread go on.
///
/// ```
/// use std::collections::HashMap;
/// use http::uri::{Authority, Scheme, Uri};
/// use nantian_wasm::host::{CallError, CallFailure, Host, HttpCall, HttpReply};
/// # use bytes::Bytes;
/// # use http::{HeaderMap, Request, Response};
/// # use nantian_wasm::host::HttpCallResponse;
/// # async fn send(request: Request<Bytes>) -> Result<HttpCallResponse, CallFailure> {
/// #     assert_eq!((request.uri().host(), request.uri().port_u16()), (Some("10.0.0.7"), Some(8080)));
/// #     Ok(HttpCallResponse::new(Response::new(Bytes::new()), HeaderMap::new()))
/// # }
///
/// struct CallOuts {
///     runtime: tokio::runtime::Handle,
///     /// The address of each upstream that plugins may call.
///     upstreams: HashMap<String, Authority>,
/// }
///
/// impl Host for CallOuts {
///     fn http_call(&self, _plugin: &str, call: HttpCall, reply: HttpReply) -> Result<(), CallError> {
///         let HttpCall { upstream, mut request, timeout, .. } = call;
///         let address = self.upstreams.get(&upstream).ok_or(CallError::UnknownUpstream)?;
///         // Where the guest wanted it to go is of no account; what it said is in the header `host`.
///         let mut uri = std::mem::take(request.uri_mut()).into_parts();
///         (uri.scheme, uri.authority) = (Some(Scheme::HTTP), Some(address.clone()));
///         *request.uri_mut() = Uri::from_parts(uri).map_err(|_| CallError::Unavailable)?;
///         self.runtime.spawn(async move {
///             let outcome = tokio::time::timeout(timeout, send(request)).await;
///             reply.send(outcome.unwrap_or(Err(CallFailure::Timeout)));
///         });
///         Ok(())
///     }
/// }
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
/// # let upstreams = HashMap::from([("auth".to_owned(), Authority::from_static("10.0.0.7:8080"))]);
/// # let host = CallOuts { runtime: runtime.handle().clone(), upstreams };
/// # let uri = Uri::builder().scheme("http").authority("169.254.169.254");
/// # let uri = uri.path_and_query("/keys").build().unwrap();
/// # let request = Request::get(uri).body(Bytes::new()).unwrap();
/// # let call = HttpCall::new("auth", request, HeaderMap::new(), std::time::Duration::from_secs(1));
/// # let (sender, outcome) = std::sync::mpsc::channel();
/// # let reply = HttpReply::new(move |outcome| sender.send(outcome).unwrap());
/// # host.http_call("greeter", call, reply).unwrap();
/// # let outcome = runtime.block_on(async {
/// #     loop {
/// #         tokio::task::yield_now().await;
/// #         if let Ok(outcome) = outcome.try_recv() {
/// #             break outcome;
/// #         }
/// #     }
/// # });
/// # assert_eq!(outcome.unwrap().response.status(), 200);
/// ```
pub trait Host: Send + Sync + 'static {
    /// Whether a thread that brings a reply runs the guest, if its instance is free: for a slice of a
    /// millisecond or two.
    ///
    /// Where it must not, because it brings the replies of many plugins, the task of the stream runs the
    /// guest that has called out and waits, or else [`Engine::maintain`](crate::Engine::maintain) does in its
    /// next round. Default: it runs it.
    fn may_run_guests(&self) -> bool {
        true
    }

    /// Sends a request to `call.upstream` and gives the outcome to `reply`; dropping `reply` counts as
    /// [`CallFailure::Unreachable`].
    ///
    /// # Errors
    ///
    /// [`CallError`] when nothing was sent.
    fn http_call(&self, plugin: &str, call: HttpCall, reply: HttpReply) -> Result<(), CallError> {
        let _ = (plugin, call, reply);
        Err(CallError::Unavailable)
    }

    /// Opens a gRPC call to `call.upstream`; dropping the returned stream cancels it.
    ///
    /// # Errors
    ///
    /// [`CallError`] when nothing was opened.
    fn grpc_call(
        &self,
        plugin: &str,
        call: GrpcCall,
        replies: GrpcReplies,
    ) -> Result<Box<dyn GrpcStream>, CallError> {
        let _ = (plugin, call, replies);
        Err(CallError::Unavailable)
    }

    /// Answers `proxy_call_foreign_function`; none when there is no function of this name.
    fn foreign_function(
        &self,
        plugin: &str,
        name: &str,
        arguments: &[u8],
    ) -> Option<Result<Vec<u8>, ForeignError>> {
        let _ = (plugin, name, arguments);
        None
    }
}

/// Refuses everything: the host of plugins that were given none.
pub(crate) struct NoHost;

/// An HTTP request a guest wants to be sent.
#[derive(Debug)]
#[non_exhaustive]
pub struct HttpCall {
    /// Name of the upstream, as the guest gave it.
    pub upstream: String,
    /// The request: method, path and authority are there, framing headers are not. Its first header is
    /// `host`, as the guest gave it: where that is empty, the authority is that of the upstream.
    ///
    /// Scheme and authority of its URI are words of the guest, for the head alone: to be dialled is what
    /// [`upstream`](Self::upstream) stands for, or a guest reaches whatever it names.
    pub request: Request<Bytes>,
    /// Trailers to be sent after the body.
    pub trailers: HeaderMap,
    /// Time until the whole response must be there. Range: 1 ms to 60 s.
    pub timeout: Duration,
}

/// A gRPC call a guest wants to be made.
#[derive(Debug)]
#[non_exhaustive]
pub struct GrpcCall {
    /// Name of the upstream, as the guest gave it.
    pub upstream: String,
    /// Full name of the service.
    pub service: String,
    /// Name of the method.
    pub method: String,
    /// Metadata to be sent with the request.
    pub metadata: HeaderMap,
    /// The one message of a unary call; none opens a stream.
    pub message: Option<Bytes>,
    /// Time until a unary call must be over; none for streams.
    pub timeout: Option<Duration>,
}

/// The sending half of a gRPC call.
pub trait GrpcStream: Send {
    /// Sends a message.
    fn send(&mut self, message: Bytes);
    /// Says that no message follows.
    fn close(&mut self);
}

/// Why a call-out was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// There is no upstream of this name: the guest sees that the argument is bad.
    #[error("there is no upstream of this name")]
    UnknownUpstream,
    /// The upstream cannot be called at this port, or at any: the guest sees that the argument is bad.
    #[error("the upstream has no such port that can be called")]
    UnusableUpstream,
    /// The plugin may not call an upstream of this name, be there one or not: the guest sees the same.
    #[error("the plugin has no grant to call it")]
    NotAllowed,
    /// The upstream has no endpoint: the guest sees an internal failure.
    #[error("the upstream has no endpoints")]
    NoEndpoint,
    /// Call-outs are not available now: the guest sees an internal failure.
    #[error("call-outs are not available")]
    Unavailable,
}

/// How a call-out ended without a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallFailure {
    /// The response did not come in time: the guest sees status 504.
    #[error("timed out")]
    Timeout,
    /// No connection could be made: the guest sees status 503.
    #[error("no connection")]
    Unreachable,
    /// The upstream closed the connection before the head of a response: the guest sees status 503.
    #[error("disconnected")]
    Disconnected,
    /// The upstream has no endpoint that could be asked: the guest sees status 503.
    #[error("no endpoint")]
    NoEndpoint,
    /// The response broke off or was too large: the guest sees no headers at all.
    #[error("reset")]
    Reset,
}

/// Why a foreign function gave no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForeignError {
    /// The arguments are not what the function takes.
    #[error("bad argument")]
    BadArgument,
    /// The arguments are not in the form that the function reads: the guest sees a failure of serialization.
    #[error("unreadable argument")]
    Unreadable,
    /// The function did not succeed.
    #[error("internal failure")]
    Failed,
}

/// A complete response to a call-out.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpCallResponse {
    /// Status, headers and body.
    pub response: Response<Bytes>,
    /// Trailers, if any.
    pub trailers: HeaderMap,
}

// === impl Host ===

impl<H: Host + ?Sized> Host for Arc<H> {
    fn may_run_guests(&self) -> bool {
        (**self).may_run_guests()
    }

    fn http_call(&self, plugin: &str, call: HttpCall, reply: HttpReply) -> Result<(), CallError> {
        (**self).http_call(plugin, call, reply)
    }

    fn grpc_call(
        &self,
        plugin: &str,
        call: GrpcCall,
        replies: GrpcReplies,
    ) -> Result<Box<dyn GrpcStream>, CallError> {
        (**self).grpc_call(plugin, call, replies)
    }

    fn foreign_function(
        &self,
        plugin: &str,
        name: &str,
        arguments: &[u8],
    ) -> Option<Result<Vec<u8>, ForeignError>> {
        (**self).foreign_function(plugin, name, arguments)
    }
}

impl Host for NoHost {}

// === impl HttpCall ===

impl HttpCall {
    /// A call: to ask a [`Host`] directly, as tests do.
    pub fn new(
        upstream: impl Into<String>,
        request: Request<Bytes>,
        trailers: HeaderMap,
        timeout: Duration,
    ) -> Self {
        Self { upstream: upstream.into(), request, trailers, timeout }
    }
}

// === impl GrpcCall ===

impl GrpcCall {
    /// A call without metadata that opens a stream: to ask a [`Host`] directly, as tests do.
    pub fn new(upstream: impl Into<String>, service: impl Into<String>, method: impl Into<String>) -> Self {
        let [upstream, service, method] = [upstream.into(), service.into(), method.into()];
        Self { upstream, service, method, metadata: HeaderMap::new(), message: None, timeout: None }
    }
}

// === impl HttpCallResponse ===

impl HttpCallResponse {
    /// A response and the trailers behind it.
    pub fn new(response: Response<Bytes>, trailers: HeaderMap) -> Self {
        Self { response, trailers }
    }

    /// Bytes it takes.
    pub(crate) fn weight(&self) -> usize {
        let headers = weight(self.response.headers()).saturating_add(weight(&self.trailers));
        self.response.body().len().saturating_add(headers)
    }
}

/// What a method of the embedder's gives; none if it panics, which the hook of panics has told by then.
/// Upkeep makes the calls of all plugins, and is not to end with one.
pub(crate) fn unless_it_panics<T>(method: impl FnOnce() -> T) -> Option<T> {
    // What it leaves half done is its own.
    catch_unwind(AssertUnwindSafe(method)).ok()
}

/// Bytes of header names and values, and of the entries that keep them.
fn weight(headers: &HeaderMap) -> usize {
    const ENTRY: usize = 64;
    headers.iter().map(|(name, value)| ENTRY + name.as_str().len() + value.len()).sum()
}
