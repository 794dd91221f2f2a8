//! The IR and the registry become a snapshot.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use nantian_lb::Balancer;

use super::{CompiledBackend, CompiledMirror, CompiledRule, CompiledTarget, Problem, Registry, RulePosition};
use crate::{
    filter::{FilterLayer, RedirectLayer},
    ir::{self, Ir, ObjectName, Policies, PolicyId, RouteId},
    listen::PortKey,
    policy::{CookieNames, Downstream, PluginPlace, Plugins, RateLimits, ServiceUsage, SessionScope},
    route::{RouterBuilder, RuleIndex},
    snapshot::{Port, Snapshot},
    translate::conditions::Reason,
    upstream::{Destination, UpstreamTls},
};

/// A snapshot and what it could not take in.
#[derive(Debug)]
pub struct Compiled {
    /// The snapshot.
    pub(crate) snapshot: Arc<Snapshot>,
    /// What is not served.
    pub(crate) problems: Vec<Problem>,
}

/// Makes generation `generation` of the data path; state in `registry` is used again where its identity is
/// the same.
pub fn compile(ir: &Ir, registry: &mut Registry, generation: u64) -> Compiled {
    let problems = registry.update(ir);
    let routes = ir.routes.iter().map(|route| (&route.id, route)).collect();
    let cookie_names = CookieNames::default();
    let mut compiler =
        Compiler { ir, registry, routes, rules: Vec::new(), problems, cookie_names, identity: None };
    let ports = ir.ports.iter().map(|port| compiler.port(port)).collect::<BTreeMap<_, _>>();
    let Compiler { rules, problems, .. } = compiler;
    let names: HashSet<String> = ir.routes.iter().map(|route| route.id.to_string()).collect();
    registry.patterns.sweep();
    registry.metrics.set_certificates(registry.tls.not_after());
    registry.metrics.retain_routes(|name| names.contains(name));
    let has_plugins = !ir.plugins.is_empty();
    Compiled { snapshot: Arc::new(Snapshot { generation, ports, rules, has_plugins }), problems }
}

pub(super) struct Compiler<'a> {
    pub(super) ir: &'a Ir,
    pub(super) registry: &'a mut Registry,
    pub(super) routes: HashMap<&'a RouteId, &'a ir::Route>,
    rules: Vec<Arc<CompiledRule>>,
    pub(super) problems: Vec<Problem>,
    pub(super) cookie_names: CookieNames<'a>,
    /// The Secret of the certificate that the Gateway of the present listener presents to backends.
    pub(super) identity: Option<ObjectName>,
}

impl<'a> Compiler<'a> {
    fn port(&mut self, port: &'a ir::Port) -> (PortKey, Port) {
        let mut router = RouterBuilder::new(self.registry.patterns.clone());
        let is_secure = port.protocol == ir::SocketProtocol::Tls;
        let mut streams = Vec::new();
        for listener in &port.listeners {
            router.listener(&listener.hostname);
            self.identity = self.identity(listener);
            self.unmatched(listener, &mut router);
            for attachment in &listener.routes {
                if attachment.route.kind.is_http() {
                    self.attach(listener, attachment, is_secure, &mut router);
                } else {
                    streams.push(attachment.route.clone());
                }
            }
        }
        let spoken = self.spoken(port);
        let number = port.public_port.unwrap_or(port.port);
        (PortKey::from(port), Port { number, router: router.build(), spoken, streams })
    }

    /// Makes what the Gateway of `listener` presents to backends ready for use.
    pub(super) fn identity(&mut self, listener: &ir::Listener) -> Option<ObjectName> {
        let certificate = listener.client_certificate.as_ref()?;
        if let Err(reason) = self.registry.identify(certificate) {
            let problem = Problem::of_client_certificate(&listener.id.gateway, certificate, &reason);
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
        Some(certificate.secret.clone())
    }

    /// Plugins of a listener see what none of its routes is for, too.
    fn unmatched(&mut self, listener: &ir::Listener, router: &mut RouterBuilder) {
        let place = RulePosition::unmatched(&listener.id);
        let plugins = self.plugins(&[&listener.policies], &[], Self::place_of_plugins(&place, None));
        let Some(plugins) = plugins else { return };
        let Ok(index) = u32::try_from(self.rules.len()) else { return };
        let metrics = self.registry.metrics.unmatched();
        self.rules.push(Arc::new(CompiledRule::unmatched(place, plugins, metrics)));
        router.unmatched(&listener.hostname, RuleIndex(index));
    }

    fn attach(
        &mut self,
        listener: &'a ir::Listener,
        attachment: &'a ir::Attachment,
        is_secure: bool,
        router: &mut RouterBuilder,
    ) {
        let Some(route) = self.routes.get(&attachment.route).copied() else {
            return;
        };
        let place = RulePosition {
            gateway: listener.id.gateway.to_string().into(),
            route: route.id.to_string().into(),
            id: route.id.clone(),
        };
        for (number, rule) in route.rules.iter().enumerate() {
            let Ok(index) = u32::try_from(self.rules.len()) else { return };
            let index = RuleIndex(index);
            let around = [&listener.policies, &route.policies, &rule.policies];
            let mut compiled = self.rule(rule, &place, &around);
            let scope = SessionScope::new(&place, rule, number, is_secure);
            self.keep_sessions(rule, &scope, &attachment.hostnames, &mut compiled);
            self.rules.push(Arc::new(compiled));
            let crosses = rule.filters.iter().any(|filter| matches!(filter, ir::Filter::Cors(_)));
            for host in &attachment.hostnames {
                for found in &rule.matches {
                    if let Err(error) = router.add(&listener.hostname, host, found, crosses, index) {
                        self.problems.push(Problem::of_route(&place, error.to_string()));
                    }
                }
            }
        }
    }

    fn rule(&mut self, rule: &ir::Rule, place: &RulePosition, around: &[&'a Policies]) -> CompiledRule {
        let rate_limits = self.rate_limits(around, &[], place, &self.downstream_of_rule(rule));
        let only = match &*rule.backends {
            [only] => Some(&only.target),
            _ => None,
        };
        let counts_tokens = rate_limits.as_ref().is_some_and(RateLimits::counts_tokens);
        let shares = rule.backends.iter().map(|share| self.share(share, rule, place, around, counts_tokens));
        let backends: Vec<_> = shares.collect();
        let leads_to_plugins = backends.iter().any(|share| share.plugins.is_some());
        let of_plugins = PluginPlace { leads_to_plugins, ..Self::place_of_plugins(place, only) };
        let plugins = self.plugins(around, &[], of_plugins);
        let mirrors = self.mirrors(&rule.mirrors);
        let redirect = RedirectLayer::new(&rule.filters);
        let needs_info = redirect.is_some()
            || plugins.is_some()
            || rate_limits.is_some()
            || mirrors.iter().any(|mirror| mirror.target.asks_for_client())
            || backends.iter().any(|share| {
                share.mirrors.iter().any(|mirror| mirror.target.asks_for_client())
                    || share.redirect.is_some()
                    || share.plugins.is_some()
                    || share.rate_limits.is_some()
                    || share.target.asks_for_client()
            });
        CompiledRule {
            place: place.clone(),
            metrics: self.registry.metrics.route(&place.route),
            timeout: rule.timeouts.request,
            filters: FilterLayer::new(&rule.filters),
            plugins,
            rate_limits,
            redirect,
            mirrors,
            backends,
            is_routed_by_model: rule.is_routed_by_model(),
            serves_unmatched: false,
            needs_info,
        }
    }

    fn share(
        &mut self,
        share: &ir::WeightedBackend,
        rule: &ir::Rule,
        place: &RulePosition,
        outer: &[&Policies],
        counts_tokens: bool,
    ) -> CompiledBackend {
        let (target, policies) = match &share.target {
            ir::Target::Backend(id) => {
                let target = self.service(id).map_or(CompiledTarget::Invalid, |(balancer, tls)| {
                    CompiledTarget::Service(balancer, tls)
                });
                (target, self.ir.backends.get(id).map(|backend| &backend.policies))
            }
            ir::Target::AiService(name) => {
                let presented = self.presented(&share.target);
                let target = self.registry.ai_service(name).cloned();
                let target = target.map_or(CompiledTarget::Invalid, |mut backend| {
                    presented.iter().for_each(|tls| backend.destination.over(tls));
                    if let Some(timeout) = rule.timeouts.backend_request {
                        // It ends attempts in the words of a dialect, and asks again.
                        backend.target = Arc::new(backend.target.with_attempt_timeout(timeout));
                    }
                    CompiledTarget::AiService(backend)
                });
                (target, self.ir.ai_services.get(name).map(|service| &service.policies))
            }
            ir::Target::InvalidAiService | ir::Target::Invalid => (CompiledTarget::Invalid, None),
        };
        let around: Vec<&Policies> = [&share.policies].into_iter().chain(policies).collect();
        let rate_limits = self.rate_limits(&around, outer, place, &self.downstream_of_share(rule, share));
        let counts_tokens = counts_tokens || rate_limits.as_ref().is_some_and(RateLimits::counts_tokens);
        let retry = match &share.target {
            ir::Target::Backend(id) => {
                rule.retry.clone().map(|retry| (retry, self.registry.retry_budget(&place.id, id)))
            }
            _ => None,
        };
        let meter = match &share.target {
            ir::Target::Backend(id) if counts_tokens && matches!(target, CompiledTarget::Service(..)) => {
                Some(ServiceUsage::of(id))
            }
            _ => None,
        };
        CompiledBackend {
            weight: share.weight,
            filters: FilterLayer::new(&share.filters),
            plugins: self.plugins(&around, outer, Self::place_of_plugins(place, Some(&share.target))),
            rate_limits,
            redirect: RedirectLayer::new(&share.filters),
            mirrors: self.mirrors(&share.mirrors),
            timeout: rule
                .timeouts
                .backend_request
                .filter(|_| !matches!(target, CompiledTarget::AiService(..))),
            retry,
            meter,
            sessions: None,
            target,
        }
    }

    /// The endpoints of a Service, and the TLS in which the Gateway of the present listener shows them its
    /// certificate, if it has any; `None` if nothing may be sent there.
    pub(super) fn service(
        &mut self,
        id: &ir::BackendId,
    ) -> Option<(Balancer<Destination>, Option<UpstreamTls>)> {
        let balancer = self.registry.balancer(id)?;
        Some((balancer, self.presented(&ir::Target::Backend(id.clone()))))
    }

    /// TLS to a target in which the Gateway of the present listener shows its certificate, if it has any.
    fn presented(&mut self, target: &ir::Target) -> Option<UpstreamTls> {
        self.identity.as_ref().and_then(|secret| self.registry.presenting(secret, target))
    }

    fn mirrors(&mut self, mirrors: &[ir::Mirror]) -> Vec<CompiledMirror> {
        let compiled = mirrors.iter().filter_map(|mirror| {
            let (balancer, tls) = self.service(&mirror.backend)?;
            Some(CompiledMirror { share: mirror.share, target: CompiledTarget::Service(balancer, tls) })
        });
        compiled.collect()
    }

    fn rate_limits(
        &mut self,
        around: &[&Policies],
        outer: &[&Policies],
        place: &RulePosition,
        downstream: &Downstream,
    ) -> Option<RateLimits> {
        let mut limiters = Vec::new();
        for id in distinct(around, outer, |policies| &policies.rate_limits) {
            let Some(limit) = self.ir.rate_limits.get(id) else { continue };
            let (limiter, fault) = self.registry.limiter(id, limit);
            let problem = fault.map(|fault| {
                Problem::new("TokenPolicy", limit.object.clone(), Reason::Invalid, fault)
                    .beside_last_good(limiter.is_some())
            });
            limiters.extend(limiter);
            self.problems.extend(problem.filter(|problem| !self.problems.contains(problem)));
        }
        RateLimits::new(limiters, place, downstream)
    }

    /// The plugins at a place.
    fn plugins(&self, around: &[&Policies], outer: &[&Policies], place: PluginPlace) -> Option<Plugins> {
        self.registry.plugins().chain(distinct(around, outer, |policies| &policies.plugins), place)
    }

    /// What plugins at a place are told of it; `backend` is where every request goes on to.
    fn place_of_plugins(place: &RulePosition, backend: Option<&ir::Target>) -> PluginPlace {
        let backend = backend.and_then(|target| match target {
            ir::Target::Backend(id) => Some(id.to_string().into()),
            ir::Target::AiService(name) => Some(name.to_string().into()),
            ir::Target::InvalidAiService | ir::Target::Invalid => None,
        });
        let route = Arc::clone(&place.route);
        PluginPlace { route, backend, wants_address: false, leads_to_plugins: false }
    }
}

/// The policies at `around`, each once: one that is attached at several places on a request's way, `outer`
/// ones included, is asked at the first of them.
fn distinct<'p>(
    around: &[&'p Policies],
    outer: &[&Policies],
    kind: for<'x> fn(&'x Policies) -> &'x Vec<PolicyId>,
) -> Vec<&'p PolicyId> {
    let mut distinct: Vec<&PolicyId> = Vec::new();
    for policies in around {
        for id in kind(policies) {
            if !distinct.contains(&id) && !outer.iter().any(|outer| kind(outer).contains(id)) {
                distinct.push(id);
            }
        }
    }
    distinct
}
