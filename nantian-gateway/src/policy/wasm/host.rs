//! What plugins may reach: Services, over HTTP and gRPC.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{PoisonError, RwLock},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use nantian_lb::{AttemptTimeout, Balancer};
use nantian_wasm::host::{
    CallError, CallFailure, ForeignError, GrpcCall, GrpcReplies, GrpcStream, Host, HttpCall,
    HttpCallResponse, HttpReply,
};
use tokio::time::timeout;
use tower::{ServiceBuilder, ServiceExt as _};

use super::{foreign, grpc};
use crate::{
    body::Body,
    ir::{BackendId, CallGrants, ObjectName},
    policy::balance_layer,
    respond::LoggedError,
    runtime::CallThreads,
    upstream::{Client, Connect, Destination, FailoverLayer, UpstreamError},
};

/// Largest body of a response that is read, in bytes.
const MAX_BODY: usize = 4 << 20;

/// The Services that one plugin may call.
#[derive(Debug)]
pub(super) struct PluginHost {
    namespace: String,
    allowed: RwLock<Allowed>,
}

/// What a plugin may reach now.
#[derive(Debug, Default)]
struct Allowed {
    /// Absent for a plugin that may not call out.
    calls: Option<CallThreads>,
    upstreams: BTreeMap<BackendId, Balancer<Destination>>,
    grants: CallGrants,
}

// === impl PluginHost ===

impl PluginHost {
    /// That of a plugin in this namespace, which may reach nothing yet.
    pub(super) fn new(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), allowed: RwLock::default() }
    }

    pub(super) fn may_call(&self) -> bool {
        self.allowed.read().unwrap_or_else(PoisonError::into_inner).calls.is_some()
    }

    /// Replaces who makes its calls, if it may make any, and the Services; calls under way are not touched.
    pub(super) fn allow(
        &self,
        calls: Option<CallThreads>,
        upstreams: BTreeMap<BackendId, Balancer<Destination>>,
        grants: CallGrants,
    ) {
        *self.allowed.write().unwrap_or_else(PoisonError::into_inner) = Allowed { calls, upstreams, grants };
    }

    /// Who makes the call, and the balancer of the Service that the guest means. As in Envoy, a call to one
    /// without endpoints fails at once.
    fn find(&self, name: &str) -> Result<(CallThreads, Balancer<Destination>), CallError> {
        let allowed = self.allowed.read().unwrap_or_else(PoisonError::into_inner);
        let calls = allowed.calls.clone().ok_or(CallError::Unavailable)?;
        let (service, port) = parse(name, &self.namespace).ok_or(CallError::UnknownUpstream)?;
        let means = |id: &BackendId| id.service == service && port.is_none_or(|port| port == id.port);
        let found = allowed.upstreams.iter().find(|(id, _)| means(id));
        match found {
            Some((_, balancer)) if balancer.is_empty() => Err(CallError::NoEndpoint),
            Some((_, balancer)) => Ok((calls, balancer.clone())),
            None if allowed.grants.services.contains(&service) => Err(CallError::UnusableUpstream),
            None if service.namespace == self.namespace => Err(CallError::UnknownUpstream),
            None if allowed.may_refer_to(service) => Err(CallError::UnknownUpstream),
            None => Err(CallError::NotAllowed),
        }
    }
}

// === impl Allowed ===

impl Allowed {
    /// Whether a ReferenceGrant lets the plugin refer to a Service of this name, be there one or not.
    fn may_refer_to(&self, ObjectName { namespace, name }: ObjectName) -> bool {
        let granted = &self.grants.granted;
        let all = (namespace.clone(), None);
        granted.contains(&all) || granted.contains(&(namespace, Some(name)))
    }
}

impl Host for PluginHost {
    /// Few threads make the calls of all plugins.
    fn may_run_guests(&self) -> bool {
        false
    }

    fn http_call(&self, _: &str, call: HttpCall, reply: HttpReply) -> Result<(), CallError> {
        let (calls, balancer) = self.find(&call.upstream)?;
        calls.run(move |client| async move {
            let outcome = http(client, &balancer, call, &reply).await;
            reply.send(outcome);
        });
        Ok(())
    }

    fn grpc_call(
        &self,
        _: &str,
        call: GrpcCall,
        replies: GrpcReplies,
    ) -> Result<Box<dyn GrpcStream>, CallError> {
        let (calls, balancer) = self.find(&call.upstream)?;
        Ok(grpc::open(&calls, balancer, call, replies))
    }

    fn foreign_function(
        &self,
        _: &str,
        name: &str,
        arguments: &[u8],
    ) -> Option<Result<Vec<u8>, ForeignError>> {
        foreign::call(name, arguments)
    }
}

/// The Service and port of a name: `svc`, `svc.ns`, `svc.ns.svc`, the same before whichever domain the
/// cluster has and, as the property `cluster_name` has it, `ns/svc`, each with `:port` or without, and
/// `outbound|port||host` as Istio has it. Without a port the Service's lowest one is meant.
fn parse(name: &str, namespace: &str) -> Option<(ObjectName, Option<u16>)> {
    let (host, port) = match name.strip_prefix("outbound|") {
        Some(rest) => {
            let (port, rest) = rest.split_once('|')?;
            (rest.rsplit_once('|')?.1, Some(port.parse().ok()?))
        }
        None => match name.split_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (name, None),
        },
    };
    if let Some((namespace, service)) = host.split_once('/') {
        return Some((ObjectName::new(namespace, service), port));
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let (service, rest) = host.split_once('.').unwrap_or((host, namespace));
    let namespace = match rest.split_once('.') {
        Some((namespace, domain)) if domain.split('.').next() == Some("svc") => namespace,
        _ => rest,
    };
    Some((ObjectName::new(namespace, service), port))
}

/// Sends a call-out as a request of a route is sent: one that reaches no endpoint goes to another, and what
/// becomes of it is told of each. `None` if there is no endpoint.
///
/// # Errors
/// That of the endpoint that was tried last.
///
/// # Cancellation
/// Dropping the future drops the call.
pub(super) async fn send(
    client: Client,
    balancer: &Balancer<Destination>,
    request: Request<Body>,
) -> Result<Option<Response<Body>>, UpstreamError> {
    let endpoints = ServiceBuilder::new()
        .layer(FailoverLayer::new(balancer.clone()))
        .layer(balance_layer(balancer, None))
        // A gRPC call is HTTP/2 by itself.
        .service(Connect::new(client, None, false));
    let response = endpoints.oneshot(request).await?;
    let is_of_endpoint = response.extensions().get::<LoggedError>().is_none();
    Ok(is_of_endpoint.then(|| response.map(Body::from)))
}

/// Makes an HTTP call: connection, response and body within its time.
async fn http(
    client: Client,
    balancer: &Balancer<Destination>,
    call: HttpCall,
    reply: &HttpReply,
) -> Result<HttpCallResponse, CallFailure> {
    let (mut parts, body) = call.request.into_parts();
    let attempt = AttemptTimeout::new();
    parts.extensions.insert(attempt.clone());
    let trailers = call.trailers;
    let body = Full::new(body).map_err(crate::body::BoxError::from);
    let body = if trailers.is_empty() {
        Body::boxed(body)
    } else {
        Body::boxed(body.with_trailers(std::future::ready(Some(Ok(trailers)))))
    };
    let mut exchange = pin!(async {
        let response = send(client, balancer, Request::from_parts(parts, body)).await;
        let response = response.map_err(|error| match error {
            UpstreamError::Exchange { .. } => CallFailure::Disconnected,
            _ => CallFailure::Unreachable,
        });
        let response = response?.ok_or(CallFailure::NoEndpoint)?;
        let (parts, body) = response.into_parts();
        let head = weight(&parts.headers);
        let (body, trailers) =
            read(body, |bytes| reply.holds(head + bytes)).await.ok_or(CallFailure::Reset)?;
        Ok(HttpCallResponse::new(Response::from_parts(parts, body), trailers))
    });
    timeout(call.timeout, exchange.as_mut()).await.unwrap_or_else(|_| {
        attempt.expire();
        Err(CallFailure::Timeout)
    })
}

/// The whole of a body and its trailers; none if it breaks off, is too long, or takes more bytes than are
/// admitted.
async fn read<B>(mut body: B, admits: impl Fn(usize) -> bool) -> Option<(Bytes, HeaderMap)>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let (mut bytes, mut trailers) = (BytesMut::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame.ok()?.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok()?,
        }
        if bytes.len() > MAX_BODY || !admits(bytes.len() + weight(&trailers)) {
            return None;
        }
    }
    Some((bytes.freeze(), trailers))
}

/// Bytes of header names and values.
fn weight(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, convert::Infallible};

    use futures_util::{FutureExt as _, stream};
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    /// A body of four and five bytes, and a trailer of three.
    fn response() -> impl http_body::Body<Data = Bytes, Error = Infallible> + Unpin {
        let trailers = HeaderMap::from_iter([("x-t".parse().unwrap(), http::HeaderValue::from_static(""))]);
        let frames = ["four", "fiver"].map(|text| Frame::data(Bytes::from_static(text.as_bytes())));
        StreamBody::new(stream::iter(frames.into_iter().chain([Frame::trailers(trailers)]).map(Ok)))
    }

    #[test]
    fn response_to_a_call_out_is_read_while_there_is_room_for_it() {
        let told = RefCell::new(Vec::new());
        let whole = read(response(), |bytes| {
            told.borrow_mut().push(bytes);
            true
        });
        let (body, trailers) = whole.now_or_never().unwrap().unwrap();
        assert_eq!((&body[..], trailers.len(), told.into_inner()), (&b"fourfiver"[..], 1, vec![4, 9, 12]));
        assert_eq!(read(response(), |bytes| bytes <= 11).now_or_never(), Some(None), "trailers count");
        assert_eq!(read(response(), |bytes| bytes < 9).now_or_never(), Some(None));
    }

    #[test]
    fn body_as_long_as_may_be_is_read_with_its_trailers() {
        let read_of = |length| {
            let trailers =
                HeaderMap::from_iter([("x-t".parse().unwrap(), http::HeaderValue::from_static(""))]);
            let frames = [Frame::data(Bytes::from(vec![0; length])), Frame::trailers(trailers)];
            let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
            read(body, |_| true).now_or_never().unwrap().map(|(body, _)| body.len())
        };
        assert_eq!((read_of(MAX_BODY), read_of(MAX_BODY + 1)), (Some(MAX_BODY), None));
    }

    #[test]
    fn services_are_known_by_the_names_that_plugins_use() {
        let auth = |port| Some((ObjectName::new("shop", "auth"), port));
        for (name, port) in [
            ("auth", None),
            ("auth:8080", Some(8080)),
            ("auth.shop", None),
            ("auth.shop:8080", Some(8080)),
            ("auth.shop.svc.cluster.local", None),
            ("outbound|8080||auth.shop.svc.cluster.local", Some(8080)),
            ("auth.shop.svc", None),
            ("auth.shop.svc.cluster.local.:8080", Some(8080)),
            ("outbound|8080||auth.shop.svc.corp.internal", Some(8080)),
            ("outbound|8080|v2|auth.shop.svc.corp.internal.", Some(8080)),
            ("shop/auth", None),
            ("shop/auth:8080", Some(8080)),
        ] {
            assert_eq!(parse(name, "shop"), auth(port), "{name}");
        }
        assert_eq!(parse("auth.other", "shop"), Some((ObjectName::new("other", "auth"), None)));
        let elsewhere = parse("auth.shop.example.com", "shop");
        assert_eq!(elsewhere, Some((ObjectName::new("shop.example.com", "auth"), None)), "no Service has it");
        assert_eq!(parse("auth:port", "shop"), None);
        assert_eq!(parse("outbound|x||auth", "shop"), None);
    }
}
