//! The IR and the registry become a snapshot.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{CompiledBackend, CompiledRule, Place, Registry, Target};
use crate::{
    filter::FilterLayer,
    ir::{self, Ir, ObjectName, Policies, RouteId},
    listen::PortKey,
    policy::{Meter, Plugins, RateLimits},
    route::{RouterBuilder, RuleIndex},
    snapshot::{Port, Snapshot},
};

/// Something valid that cannot be served after all; becomes a condition of its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The kind of the object.
    pub kind: &'static str,
    /// The object.
    pub name: ObjectName,
    /// The reason of the condition, in CamelCase.
    pub reason: &'static str,
    /// The field and what is wrong with it.
    pub message: String,
}

impl Problem {
    pub(super) fn new(kind: &'static str, name: ObjectName, reason: &'static str, message: String) -> Self {
        Self { kind, name, reason, message }
    }
}

/// A snapshot and what it could not take in.
#[derive(Debug)]
pub struct Compiled {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// What is not served.
    pub problems: Vec<Problem>,
}

/// Makes generation `generation` of the data path; state in `registry` is used again where its identity is the same.
pub fn compile(ir: &Ir, registry: &mut Registry, generation: u64) -> Compiled {
    let problems = registry.update(ir);
    let routes = ir.routes.iter().map(|route| (&route.id, route)).collect();
    let mut compiler = Compiler { ir, registry, routes, rules: Vec::new(), problems };
    let ports = ir.ports.iter().map(|port| compiler.port(port)).collect::<BTreeMap<_, _>>();
    let Compiler { rules, problems, .. } = compiler;
    let names: HashSet<String> = ir.routes.iter().map(|route| route.id.to_string()).collect();
    registry.metrics.retain_routes(|name| names.contains(name));
    Compiled { snapshot: Arc::new(Snapshot { generation, ports, rules }), problems }
}

struct Compiler<'a> {
    ir: &'a Ir,
    registry: &'a mut Registry,
    routes: HashMap<&'a RouteId, &'a ir::Route>,
    rules: Vec<Arc<CompiledRule>>,
    problems: Vec<Problem>,
}

impl<'a> Compiler<'a> {
    fn port(&mut self, port: &'a ir::Port) -> (PortKey, Port) {
        let key = PortKey { address: port.address, port: port.port };
        let mut router = RouterBuilder::default();
        for listener in &port.listeners {
            router.listener(&listener.hostname);
            for attachment in &listener.routes {
                self.attach(listener, attachment, &mut router);
            }
        }
        let tls = match port.protocol {
            ir::ListenerProtocol::Http => None,
            ir::ListenerProtocol::Https => self.tls(key, port),
        };
        (key, Port { router: router.build(), tls })
    }

    fn tls(&mut self, key: PortKey, port: &ir::Port) -> Option<crate::listen::TlsServer> {
        match self.registry.tls(key, &port.listeners) {
            Ok((server, faults)) => {
                for fault in faults {
                    let gateway = port.listeners.iter().map(|listener| listener.id.gateway.clone()).next();
                    let gateway = gateway.unwrap_or_default();
                    self.problems.push(Problem::new(
                        "Gateway",
                        gateway,
                        "InvalidCertificateRef",
                        fault.to_string(),
                    ));
                }
                Some(server)
            }
            Err(error) => {
                tracing::error!(%error, port = %key, "TLS cannot be set up");
                None
            }
        }
    }

    fn attach(
        &mut self,
        listener: &'a ir::Listener,
        attachment: &'a ir::Attachment,
        router: &mut RouterBuilder,
    ) {
        let Some(route) = self.routes.get(&attachment.route).copied() else {
            return;
        };
        let place =
            Place { gateway: listener.id.gateway.to_string().into(), route: route.id.to_string().into() };
        for rule in &route.rules {
            let Ok(index) = u32::try_from(self.rules.len()) else { return };
            let index = RuleIndex(index);
            let around = [&listener.policies, &route.policies, &rule.policies];
            let compiled = self.rule(rule, &place, &around);
            self.rules.push(Arc::new(compiled));
            for host in &attachment.hostnames {
                for found in &rule.matches {
                    if let Err(error) = router.add(&listener.hostname, host, found, index) {
                        let name = route.id.0.clone();
                        self.problems.push(Problem::new(
                            "HTTPRoute",
                            name,
                            "UnsupportedValue",
                            error.to_string(),
                        ));
                    }
                }
            }
        }
    }

    fn rule(&mut self, rule: &ir::Rule, place: &Place, around: &[&Policies]) -> CompiledRule {
        let rate_limits = self.rate_limits(around, place);
        let plugins = self.plugins(around);
        let counts_tokens = rate_limits.as_ref().is_some_and(RateLimits::counts_tokens);
        let backends: Vec<_> =
            rule.backends.iter().map(|share| self.share(share, rule, place, counts_tokens)).collect();
        let filters = self.filters(&rule.filters, place);
        let needs_info = filters.is_some()
            || plugins.is_some()
            || rate_limits.is_some()
            || backends.iter().any(|share| {
                share.filters.is_some()
                    || share.plugins.is_some()
                    || share.rate_limits.is_some()
                    || share.target.asks_for_client()
            });
        CompiledRule {
            place: place.clone(),
            metrics: self.registry.metrics.route(&place.route),
            timeout: rule.timeouts.request,
            filters,
            plugins,
            rate_limits,
            backends,
            needs_info,
        }
    }

    fn share(
        &mut self,
        share: &ir::WeightedBackend,
        rule: &ir::Rule,
        place: &Place,
        counts_tokens: bool,
    ) -> CompiledBackend {
        let (target, policies) = match &share.target {
            ir::Target::Backend(id) => {
                let target = self.registry.balancer(id).map_or(Target::Invalid, Target::Service);
                (target, self.ir.backends.get(id).map(|backend| &backend.policies))
            }
            ir::Target::AiService(name) => {
                let target = self.registry.ai_service(name);
                let target = target.map_or(Target::Invalid, |(target, to)| Target::AiService(target, to));
                (target, self.ir.ai_services.get(name).map(|service| &service.policies))
            }
            ir::Target::Invalid => (Target::Invalid, None),
        };
        let around: Vec<&Policies> = policies.into_iter().collect();
        let rate_limits = self.rate_limits(&around, place);
        let counts_tokens = counts_tokens || rate_limits.as_ref().is_some_and(RateLimits::counts_tokens);
        let meter = (counts_tokens && matches!(target, Target::Service(_))).then_some(Meter);
        CompiledBackend {
            weight: share.weight,
            filters: self.filters(&share.filters, place),
            plugins: self.plugins(&around),
            rate_limits,
            timeout: rule.timeouts.backend_request,
            meter,
            target,
        }
    }

    fn filters(&mut self, filters: &[ir::Filter], place: &Place) -> Option<FilterLayer> {
        FilterLayer::new(filters).unwrap_or_else(|error| {
            // The translator accepts only what can be compiled.
            tracing::error!(%error, route = %place.route, "a filter cannot be compiled and is left out");
            None
        })
    }

    fn rate_limits(&mut self, around: &[&Policies], place: &Place) -> Option<RateLimits> {
        let mut limiters = Vec::new();
        for id in around.iter().flat_map(|policies| &policies.rate_limits) {
            let Some(limit) = self.ir.rate_limits.get(id) else { continue };
            match self.registry.limiter(id, limit) {
                Ok(limiter) => limiters.push(limiter),
                Err(reason) => {
                    let problem = Problem::new("TokenPolicy", limit.object.clone(), "Invalid", reason);
                    if !self.problems.contains(&problem) {
                        self.problems.push(problem);
                    }
                }
            }
        }
        RateLimits::new(limiters, place, &self.registry.metrics)
    }

    fn plugins(&self, around: &[&Policies]) -> Option<Plugins> {
        let ids: Vec<_> = around.iter().flat_map(|policies| &policies.plugins).cloned().collect();
        self.registry.plugins().chain(&ids)
    }
}
