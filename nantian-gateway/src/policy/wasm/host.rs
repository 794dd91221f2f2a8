//! What plugins may reach: Services, over HTTP and gRPC.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full, Limited};
use nantian_lb::{Balancer, PickContext};
use nantian_wasm::{
    CallError, CallFailure, ForeignError, GrpcCall, GrpcReplies, GrpcStream, Host, HttpCall,
    HttpCallResponse, HttpReply,
};
use tokio::time::timeout;

use super::{foreign, grpc};
use crate::{
    body::Body,
    ir::{BackendId, ObjectName},
    runtime::CallThread,
    upstream::{Client, Destination},
};

/// Largest body of a response that is read, in bytes.
const MAX_BODY: usize = 4 << 20;

/// The Services that one plugin may call.
#[derive(Debug)]
pub(super) struct PluginHost {
    namespace: String,
    /// Absent for a plugin that may not call out.
    calls: Option<CallThread>,
    upstreams: RwLock<BTreeMap<BackendId, Balancer<Destination>>>,
}

// === impl PluginHost ===

impl PluginHost {
    pub(super) fn new(namespace: &str, calls: Option<CallThread>) -> Self {
        Self { namespace: namespace.to_owned(), calls, upstreams: RwLock::default() }
    }

    pub(super) fn may_call(&self) -> bool {
        self.calls.is_some()
    }

    /// Replaces the Services; calls under way are not touched.
    pub(super) fn allow(&self, upstreams: BTreeMap<BackendId, Balancer<Destination>>) {
        *self.upstreams.write().unwrap_or_else(PoisonError::into_inner) = upstreams;
    }

    /// Who makes the call, and the balancer of the Service that the guest means.
    fn find(&self, name: &str) -> Result<(&CallThread, Balancer<Destination>), CallError> {
        let calls = self.calls.as_ref().ok_or(CallError::Unavailable)?;
        let balancer = self.balancer(name).ok_or(CallError::UnknownUpstream)?;
        Ok((calls, balancer))
    }

    fn balancer(&self, name: &str) -> Option<Balancer<Destination>> {
        let (service, port) = parse(name, &self.namespace)?;
        let upstreams = self.upstreams.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = upstreams
            .iter()
            .filter(|(id, _)| id.service == service && port.is_none_or(|port| port == id.port));
        found.next().map(|(_, balancer)| balancer.clone())
    }
}

impl Host for PluginHost {
    fn http_call(&self, _: &str, call: HttpCall, reply: HttpReply) -> Result<(), CallError> {
        let (calls, balancer) = self.find(&call.upstream)?;
        calls.run(move |client| async move { reply.send(http(client, &balancer, call).await) });
        Ok(())
    }

    fn grpc_call(
        &self,
        _: &str,
        call: GrpcCall,
        replies: GrpcReplies,
    ) -> Result<Box<dyn GrpcStream>, CallError> {
        let (calls, balancer) = self.find(&call.upstream)?;
        Ok(grpc::open(calls, balancer, call, replies))
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

/// The Service and port of a name: `svc`, `svc.ns`, `svc.ns.svc.cluster.local`, each with `:port` or without, and
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
    let host = host.strip_suffix(".cluster.local").unwrap_or(host);
    let host = host.strip_suffix(".svc").unwrap_or(host);
    let (service, namespace) = host.split_once('.').unwrap_or((host, namespace));
    Some((ObjectName::new(namespace, service), port))
}

/// Makes an HTTP call: connection, response and body within its time.
async fn http(
    client: Client,
    balancer: &Balancer<Destination>,
    call: HttpCall,
) -> Result<HttpCallResponse, CallFailure> {
    let exchange = async {
        let picked = balancer.pick(&PickContext::default()).map_err(|_| CallFailure::NoEndpoint)?;
        // Counted as in flight to its end.
        let (destination, _in_flight) = picked.into_parts();
        let (parts, body) = call.request.into_parts();
        let trailers = call.trailers;
        let body = Full::new(body).map_err(crate::body::BoxError::from);
        let body = if trailers.is_empty() {
            Body::boxed(body)
        } else {
            Body::boxed(body.with_trailers(std::future::ready(Some(Ok(trailers)))))
        };
        let response = client.send(destination, Request::from_parts(parts, body)).await;
        let (parts, body) = response.map_err(|_| CallFailure::Unreachable)?.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| CallFailure::Reset)?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let body: Bytes = body.to_bytes();
        Ok(HttpCallResponse::new(http::Response::from_parts(parts, body), trailers))
    };
    timeout(call.timeout, exchange).await.unwrap_or(Err(CallFailure::Timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        ] {
            assert_eq!(parse(name, "shop"), auth(port), "{name}");
        }
        assert_eq!(parse("auth.other", "shop"), Some((ObjectName::new("other", "auth"), None)));
        assert_eq!(parse("auth:port", "shop"), None);
        assert_eq!(parse("outbound|x||auth", "shop"), None);
    }
}
