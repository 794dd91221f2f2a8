//! The rules of a route.

use std::collections::HashSet;

use gateway_api::experimental::httproutes::{
    HttpRoute, HttpRouteRules, HttpRouteRulesBackendRefs, HttpRouteRulesMatches,
};

use super::{
    backends,
    filter_spec::{ExtensionSpec, FilterSpec, MirrorSpec, RefSpec, ref_spec},
    filters::{self, FilterPosition},
    matches, mirror, retry, timeouts,
};
use crate::{
    gates::Feature,
    ir::{
        BackendId, BackendTransport, Filter, Mirror, ObjectName, PathMatch, Policies, PolicyId, RouteId,
        RouteKind, RouteMatch, Rule, SessionPersistence, Target, WeightedBackend,
    },
    translate::{
        cluster_state::ClusterState,
        conditions::Reason,
        connected,
        fault::{Fault, Faults, Path},
        grants::GroupKind,
        policy::{AiServices, PolicySet, TargetKey},
        service, session,
    },
};

/// The rules of a route, read.
#[derive(Default)]
pub(super) struct Rules {
    pub(super) list: Vec<Rule>,
    /// The plugins that its filters name.
    pub(super) plugins: Vec<ObjectName>,
    /// Why the route is not accepted.
    pub(super) refused: Faults,
    /// References that do not resolve; their share is answered with 500.
    pub(super) unresolved: Faults,
    /// References that resolve only where TLS is passed through.
    pub(super) unsecured: Faults,
}

/// What filters do, their references resolved.
struct Attached {
    filters: Vec<Filter>,
    mirrors: Vec<Mirror>,
    plugins: Vec<PolicyId>,
}

/// Reads the rules of one route.
pub(super) struct RuleReader<'r, 'a> {
    pub(super) cluster: &'r ClusterState<'a>,
    pub(super) policies: &'r PolicySet,
    pub(super) ai_services: &'r AiServices,
    pub(super) route: &'r RouteId,
}

impl RuleReader<'_, '_> {
    /// Reads all rules; a route without any has one that takes every request.
    pub(super) fn read(self, route: &HttpRoute, refused: Faults) -> Rules {
        let mut rules = Rules { refused, ..Rules::default() };
        let root = Path::SPEC.field("rules");
        let specs = route.spec.rules.as_deref().unwrap_or_default();
        refuse_twice_named(specs, &root, &mut rules.refused);
        refuse_one_session_name_for_two(specs, &root, &mut rules.refused);
        let matches: usize = specs.iter().filter_map(|spec| spec.matches.as_ref()).map(Vec::len).sum();
        if matches > MAX_MATCHES {
            let message = format!("{matches} matches, of which a route may have {MAX_MATCHES}");
            rules.refused.push(Fault::unsupported(&root, message));
        }
        for (index, spec) in specs.iter().enumerate() {
            let rule = self.rule(spec, &root.index(index), &mut rules);
            rules.list.push(rule);
        }
        if specs.is_empty() {
            let rule = self.rule(DEFAULT_RULE, &root.index(0), &mut rules);
            rules.list.push(rule);
        }
        rules
    }

    fn rule(&self, spec: &HttpRouteRules, path: &Path<'_>, rules: &mut Rules) -> Rule {
        let timeouts = spec.timeouts.as_ref().map(|spec| timeouts::read(spec, &path.field("timeouts")));
        let timeouts = timeouts.and_then(|timeouts| rules.refused.keep(timeouts)).unwrap_or_default();
        let match_specs = spec.matches.as_deref().unwrap_or_default();
        let share = self.cluster.patterns.of(&self.route.name.namespace);
        let mut matches = matches::read(match_specs, &path.field("matches"), share, &mut rules.refused);
        if !self.route.kind.is_http() {
            matches.clear();
        }
        let prefix = one_prefix(match_specs, &matches);
        let backend_specs = spec.backend_refs.as_deref().unwrap_or_default();
        let place = FilterPosition::Rule { prefix, has_backends: !backend_specs.is_empty() };
        let path_of_filters = path.field("filters");
        let filter_specs = spec.filters.as_deref().unwrap_or_default();
        let Attached { filters, mirrors, plugins } =
            self.filters(filter_specs, place, &path_of_filters, rules);
        let mut policies = self.attached(spec);
        for plugin in plugins {
            if !policies.plugins.contains(&plugin) {
                policies.plugins.push(plugin);
            }
        }
        let is_rewritten = filters
            .iter()
            .any(|filter| matches!(filter, Filter::UrlRewrite(rewrite) if rewrite.path.is_some()));
        let place = FilterPosition::Backend { prefix, is_rewritten };
        let backends = self.backends(backend_specs, place, &path.field("backendRefs"), rules);
        let retry = spec.retry.as_ref().map(|spec| retry::read(spec, &path.field("retry")));
        let retry = retry.and_then(|retry| rules.refused.keep(retry)).flatten();
        if retry.is_some() && backends.iter().any(|share| matches!(share.target, Target::AiService(_))) {
            let message = "an AIService has a retry of its own";
            rules.refused.push(Fault::unsupported(&path.field("retry"), message));
        }
        let session = self.session(spec, &backends, path, rules);
        let name = spec.name.clone();
        Rule { name, matches, filters, mirrors, backends, timeouts, retry, session, policies }
    }

    /// Reads filters, and resolves what they refer to.
    fn filters<'s, F>(
        &self,
        specs: &'s [F],
        place: FilterPosition<'_>,
        path: &Path<'_>,
        rules: &mut Rules,
    ) -> Attached
    where
        FilterSpec<'s>: From<&'s F>,
    {
        let filters::Filters { list, extensions, mirrors: specs } =
            filters::read(specs, place, path, &mut rules.refused);
        let mut plugins = Vec::new();
        for (index, extension) in &extensions {
            let plugin = self.plugin(extension, &path.index(*index).field("extensionRef"), rules);
            plugins.extend(rules.refused.keep(plugin));
        }
        let mut mirrors = Vec::new();
        for (index, spec) in &specs {
            let path = path.index(*index);
            let path = path.field("requestMirror");
            let share = rules.refused.keep(mirror::share(spec, &path));
            let backend = rules.unresolved.keep(self.mirrored(spec, &path.field("backendRef")));
            if let (Some(share), Some(backend)) = (share, backend) {
                mirrors.push(Mirror { backend, share });
            }
        }
        Attached { filters: list, mirrors, plugins }
    }

    /// The Service that is to be sent copies.
    fn mirrored(&self, spec: &MirrorSpec<'_>, path: &Path<'_>) -> Result<BackendId, Fault> {
        match backends::resolve(
            self.cluster,
            self.policies,
            self.ai_services,
            self.route,
            &spec.backend,
            path,
        )? {
            Target::Backend(id) => Ok(id),
            Target::AiService(_) | Target::InvalidAiService | Target::Invalid => {
                Err(Fault::at(Reason::InvalidKind, path, "only a Service can be a mirror"))
            }
        }
    }

    fn attached(&self, spec: &HttpRouteRules) -> Policies {
        match &spec.name {
            Some(name) => self.policies.attached(&TargetKey::Route(self.route.clone(), Some(name.clone()))),
            None => Policies::default(),
        }
    }

    /// The sessions of the rule, if all that it sends requests to can keep them.
    fn session(
        &self,
        spec: &HttpRouteRules,
        backends: &[WeightedBackend],
        path: &Path<'_>,
        rules: &mut Rules,
    ) -> Option<SessionPersistence> {
        let path = path.field("sessionPersistence");
        let session = rules.refused.keep(session::of_rule(spec.session_persistence.as_ref()?, &path))?;
        for backend in backends {
            let problem = match &backend.target {
                Target::AiService(name) => Some(format!("AIService {name} keeps no sessions")),
                Target::Backend(id) => service::affinity(self.cluster, &id.service)
                    .map(|affinity| format!("Service {} has sessionAffinity {affinity}", id.service)),
                Target::InvalidAiService | Target::Invalid => None,
            };
            if let Some(problem) = problem {
                rules.refused.push(Fault::unsupported(&path, problem));
            }
        }
        Some(session)
    }

    /// The plugin that an `ExtensionRef` names; one that is not to be had stands in, and fails every request.
    fn plugin(
        &self,
        extension: &ExtensionSpec<'_>,
        path: &Path<'_>,
        rules: &mut Rules,
    ) -> Result<PolicyId, Fault> {
        let kind = GroupKind::new(extension.group, extension.kind);
        if kind != GroupKind::WASM_PLUGIN {
            return Err(Fault::unsupported(path, format_args!("{kind} is not served, only WasmPlugin is")));
        }
        if !self.cluster.gates.is_open(Feature::WasmPlugin) {
            let message = "WasmPlugin is not served, --feature-gates WasmPlugin=true would";
            return Err(Fault::unsupported(path, message));
        }
        let name = ObjectName::new(self.route.name.namespace.as_str(), extension.name);
        let (id, problem) = self.policies.plugin_by_name(&name);
        if let Some(problem) = problem {
            let fault = Fault::at(Reason::InvalidExtensionRef, path, problem);
            let exists = self.cluster.objects.wasm_plugins.contains_key(&name);
            rules.unresolved.push(if exists { fault } else { fault.absent() });
        }
        rules.plugins.push(name);
        Ok(id)
    }

    fn backends(
        &self,
        specs: &[HttpRouteRulesBackendRefs],
        place: FilterPosition<'_>,
        path: &Path<'_>,
        rules: &mut Rules,
    ) -> Vec<WeightedBackend> {
        let mut backends = Vec::with_capacity(specs.len());
        for (index, spec) in specs.iter().enumerate() {
            let path = path.index(index);
            let reference = ref_spec!(spec);
            let target = backends::resolve(
                self.cluster,
                self.policies,
                self.ai_services,
                self.route,
                &reference,
                &path,
            );
            let target = rules.unresolved.keep(target).unwrap_or_else(|| backends::invalid(&reference));
            if let (RouteKind::Tls, Target::Backend(id)) = (self.route.kind, &target)
                && connected(self.cluster, self.policies, id).transport == BackendTransport::Passthrough
            {
                rules.unsecured.push(backends::needs_policy(id, &path));
            }
            let filter_specs = spec.filters.as_deref().unwrap_or_default();
            let Attached { filters, mirrors, plugins } =
                self.filters(filter_specs, place, &path.field("filters"), rules);
            let policies = Policies { plugins, ..Policies::default() };
            if let Some(weight) = rules.refused.keep(backends::weight(spec.weight, &path)) {
                backends.push(WeightedBackend { weight, target, filters, mirrors, policies });
            }
        }
        backends
    }
}

/// How many matches the rules of a route may have together.
const MAX_MATCHES: usize = 128;

/// A policy that names such a rule could mean either.
fn refuse_twice_named(specs: &[HttpRouteRules], root: &Path<'_>, refused: &mut Faults) {
    for (index, spec) in specs.iter().enumerate() {
        let Some(name) = &spec.name else { continue };
        if specs.iter().take(index).any(|earlier| earlier.name.as_ref() == Some(name)) {
            let path = root.index(index);
            refused.push(Fault::unsupported(
                &path.field("name"),
                format_args!("{name:?} is the name of an earlier rule"),
            ));
        }
    }
}

/// Two rules share no session, and one cookie cannot hold the tokens of both.
fn refuse_one_session_name_for_two(specs: &[HttpRouteRules], root: &Path<'_>, refused: &mut Faults) {
    let name = |spec: &HttpRouteRules| spec.session_persistence.as_ref()?.session_name.clone();
    let mut names = HashSet::new();
    for (index, name) in specs.iter().enumerate().filter_map(|(index, spec)| Some((index, name(spec)?))) {
        if let Some(twice) = names.replace(name) {
            let path = root.index(index);
            let path = path.field("sessionPersistence");
            let problem = format!("{twice:?} is the name of the sessions of an earlier rule");
            refused.push(Fault::unsupported(&path.field("sessionName"), problem));
        }
    }
}

/// The rule of a route that has none.
const DEFAULT_RULE: &HttpRouteRules = &HttpRouteRules {
    backend_refs: None,
    filters: None,
    matches: None,
    name: None,
    retry: None,
    session_persistence: None,
    timeouts: None,
};

/// The prefix of paths, without a `/` at its end, of a rule that has exactly one match, of one: only then
/// "the prefix that matched" means something. One that is not valid is refused already.
fn one_prefix<'m>(specs: &[HttpRouteRulesMatches], matches: &'m [RouteMatch]) -> Option<&'m str> {
    match (specs, matches) {
        ([] | [_], [RouteMatch { path: PathMatch::Prefix(prefix), .. }]) => {
            Some(prefix.strip_suffix('/').unwrap_or(prefix))
        }
        ([_], []) => Some(""),
        _ => None,
    }
}
