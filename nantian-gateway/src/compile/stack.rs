//! The whole way of a request, from its route to its endpoint.
//!
//! Each function is one chain, read from the client to the backend; a layer that is `None` costs nothing.
//! The services are built once for each rule and worker, when the rule is first asked for.

use std::{convert::Infallible, sync::Arc};

use http::{Request, Response, StatusCode};
use nantian_ai::BodyMemory;
use nantian_lb::session::Sessions;
use tower::{
    Layer as _, ServiceBuilder,
    layer::util::{Identity, Stack},
    service_fn,
    util::{MapErrLayer, MapRequestLayer, MapResponseLayer},
};

use super::{
    AiBackend, BackendService, LocalFuture, LocalService,
    backends::{Backends, Share, no_backend},
    rule::{CompiledBackend, CompiledMirror, CompiledRule, CompiledTarget},
};
use crate::{
    body::{Body, BoxError},
    filter::{Mirror, MirrorLayer, RetryLayer, TimeoutLayer},
    listen::HeldUpload,
    metrics::RouteMetrics,
    observe::{AccessLog, ObserveLayer, ObservedBody},
    policy,
    respond::{self, RespondLayer},
    upstream::{Client, Connect, FailoverLayer, count_tunnel},
};

/// The service of a rule: whatever happens, there is a response.
pub(crate) type RouteService = LocalService<Response<ObservedBody>, Infallible>;
/// The future of a [`RouteService`].
pub(crate) type RouteFuture = LocalFuture<Response<ObservedBody>, Infallible>;
type MapResponse = MapResponseLayer<fn(Response<Body>) -> Response<Body>>;
type OfNoError = Stack<MapErrLayer<fn(Infallible) -> BoxError>, Identity>;
type Answers = Stack<TimeoutLayer, Stack<RespondLayer, Stack<MapResponse, OfNoError>>>;

/// What the services of one worker share.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// The number of the worker.
    pub(crate) worker: usize,
    /// Its connections to backends.
    pub(crate) client: Client,
    /// Memory for the bodies that are read whole, shared by all workers.
    pub(crate) body_memory: BodyMemory,
    /// Breaks off the answers of AIServices, and tells the access log that the process does.
    pub(crate) cutoff: policy::Cutoff,
    /// The access log, if there is one.
    pub(crate) access_log: Option<AccessLog>,
    /// Where requests without a route are counted.
    pub(crate) unmatched: Arc<RouteMetrics>,
}

/// A rule: counted and logged, filtered, answered in the words of its clients, then in time, seen by plugins
/// as is whatever it comes to, within limits, to one of its backends, or redirected.
pub(crate) fn rule(rule: &CompiledRule, context: &Context) -> RouteService {
    let observe = ObserveLayer::new(
        Arc::clone(&rule.place.route),
        Arc::clone(&rule.metrics),
        context.worker,
        context.access_log.clone(),
        context.cutoff.clone(),
    );
    LocalService::new(
        ServiceBuilder::new()
            .layer(observe)
            .option_layer(rule.filters.clone())
            .option_layer(rule.asks_models().then_some(policy::WordsLayer))
            .layer(RespondLayer)
            .option_layer(time(rule))
            .option_layer(rule.plugins.clone())
            .option_layer(rule.plugins.as_ref().map(|_| answers()))
            .option_layer(rule.rate_limits.as_ref().map(|limits| limits.within(&context.body_memory)))
            .option_layer(rule.redirect.clone())
            .option_layer(mirrors(&rule.mirrors, rule, context))
            .service(backends(rule, context)),
    )
}

/// Responses in the place of errors, for plugins: as in Envoy, they see those of the gateway too.
fn answers() -> Answers {
    ServiceBuilder::new()
        .map_err(never as fn(Infallible) -> BoxError)
        .layer(mapping(respond::told_to_plugins))
        .layer(RespondLayer)
        .layer(TimeoutLayer::inside())
        .into_inner()
}

fn mapping(response: fn(Response<Body>) -> Response<Body>) -> MapResponse {
    MapResponseLayer::new(response)
}

fn never(never: Infallible) -> BoxError {
    match never {}
}

/// The time of a rule; calls of gRPC have that of their clients.
fn time(rule: &CompiledRule) -> Option<TimeoutLayer> {
    if rule.timeout.is_none() && !rule.is_of_calls() {
        return None;
    }
    let is_asked = rule.plugins.is_some() || rule.backends.iter().any(|share| share.plugins.is_some());
    let is_limited =
        rule.rate_limits.is_some() || rule.backends.iter().any(|share| share.rate_limits.is_some());
    let layer = TimeoutLayer::new(rule.timeout).asked_inside(is_asked).telling_services(rule.asks_models());
    Some(layer.bounding_waits(is_limited))
}

/// One of a rule's backends: by weight, or, of AIServices, by the model that the request names. An AIService
/// that cannot be used is passed over as one that fails is.
fn backends(rule: &CompiledRule, context: &Context) -> BackendService {
    if rule.serves_unmatched {
        return not_found();
    }
    if rule.is_routed_by_model {
        let models: Vec<_> = rule.backends.iter().filter_map(|share| model(share, rule, context)).collect();
        if !models.is_empty() {
            let route = policy::model_route(models, &context.body_memory);
            return match before_route(rule) {
                Some(limits) => LocalService::new(limits.layer(route)),
                None => route,
            };
        }
    }
    let shares = rule.backends.iter().map(|share| Share {
        weight: share.weight,
        service: backend(share, rule, context),
        home: share.home(),
    });
    LocalService::new(Backends::new(shares))
}

/// The limits of the only AIService, as far as they can be asked before its body is read and nothing of its
/// own comes before them.
fn before_route(rule: &CompiledRule) -> Option<policy::BeforeBody> {
    let [share] = &*rule.backends else { return None };
    let is_first = share.weight > 0 && share.filters.is_none() && share.plugins.is_none();
    share.rate_limits.as_ref().filter(|_| is_first)?.before_route()
}

/// A share that is an AIService.
fn model(share: &CompiledBackend, rule: &CompiledRule, context: &Context) -> Option<policy::ModelChoice> {
    let CompiledTarget::AiService(AiBackend { target, .. }) = &share.target else { return None };
    let (_, name) = target.name().split_once('/').unwrap_or(("", target.name()));
    let choice = policy::ModelChoice::new(name, target.model(), backend(share, rule, context));
    Some(choice.with_weight(share.weight))
}

/// A share of a rule: its own filters, plugins and limits, then the target, again if that fails.
fn backend(share: &CompiledBackend, rule: &CompiledRule, context: &Context) -> BackendService {
    // An AIService that fails is passed over.
    let is_final = !matches!(share.target, CompiledTarget::AiService(..));
    // Providers have some.
    let has_limits = !is_final || rule.rate_limits.is_some() || share.rate_limits.is_some();
    let goes_on = || MapRequestLayer::new(HeldUpload::passed);
    LocalService::new(
        ServiceBuilder::new()
            .option_layer(share.filters.clone())
            .option_layer(share.plugins.clone())
            .option_layer(share.plugins.as_ref().filter(|_| is_final).map(|_| answers()))
            .option_layer(share.rate_limits.as_ref().map(|limits| limits.within(&context.body_memory)))
            .option_layer(share.redirect.clone())
            .option_layer(mirrors(&share.mirrors, rule, context))
            .option_layer(has_limits.then(|| mapping(policy::mark_upstream)))
            .option_layer(share.meter.as_ref().map(|meter| meter.within(&context.body_memory)))
            .option_layer((is_final && rule.may_hold_bodies()).then(goes_on))
            .service(attempts(share, rule, context)),
    )
}

/// As many attempts at the target as the rule wants, each in time.
fn attempts(share: &CompiledBackend, rule: &CompiledRule, context: &Context) -> BackendService {
    let mut attempt = target(&share.target, share.sessions.as_ref(), rule, context);
    if let Some(limit) = share.timeout {
        attempt = LocalService::new(TimeoutLayer::of_attempt(limit).layer(attempt));
    }
    if let Some((retry, budget)) = &share.retry {
        let (budget, metrics) = (Arc::clone(budget), Arc::clone(&rule.metrics));
        let retry = RetryLayer::new(retry.clone(), budget, metrics, context.worker);
        attempt = LocalService::new(retry.layer(attempt));
    }
    attempt
}

/// Copies of requests go straight to an endpoint of each mirror.
fn mirrors(mirrors: &[CompiledMirror], rule: &CompiledRule, context: &Context) -> Option<MirrorLayer> {
    MirrorLayer::new(mirrors.iter().map(|mirror| {
        let service = target(&mirror.target, None, rule, context);
        Mirror::new(mirror.share, service, Arc::clone(&rule.metrics), context.worker)
    }))
}

/// A target: an endpoint of a Service by its balancer, or the provider of an AIService in its dialect.
fn target(
    target: &CompiledTarget,
    sessions: Option<&Sessions>,
    rule: &CompiledRule,
    context: &Context,
) -> BackendService {
    match target {
        CompiledTarget::Service(balancer, tls) => LocalService::new(
            ServiceBuilder::new()
                .map_response(|response: Response<_>| count_tunnel(response).map(Body::from))
                .map_err(BoxError::from)
                .layer(FailoverLayer::new(balancer.clone()))
                .layer(policy::balance_layer(balancer, sessions))
                .service(Connect::new(context.client.clone(), tls.clone(), rule.is_of_calls())),
        ),
        CompiledTarget::AiService(AiBackend { target, destination, observer }) => ServiceBuilder::new()
            .layer(policy::ai_layer(
                Arc::clone(target),
                observer.clone(),
                &context.body_memory,
                &context.cutoff,
            ))
            .map_response(|response: Response<_>| response.map(Body::from))
            .map_err(BoxError::from)
            .service(context.client.to(destination.clone())),
        CompiledTarget::Invalid => no_backend(),
    }
}

/// A request that no rule matches, and no plugin of its listener looks at.
pub(crate) fn unmatched(context: &Context) -> RouteService {
    let observe = ObserveLayer::new(
        Arc::from(""),
        Arc::clone(&context.unmatched),
        context.worker,
        context.access_log.clone(),
        context.cutoff.clone(),
    );
    LocalService::new(ServiceBuilder::new().layer(observe).layer(RespondLayer).service(not_found()))
}

fn not_found() -> BackendService {
    LocalService::new(service_fn(|_: Request<Body>| {
        std::future::ready(Ok(respond::plain(StatusCode::NOT_FOUND, "no route matches this request")))
    }))
}
