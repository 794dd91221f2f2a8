//! What limits have to know of what follows them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{AiBackend, compiler::Compiler};
use crate::{
    ir,
    policy::{Downstream, Models, Others, Upstream},
};

impl Compiler<'_> {
    /// What follows the limits of a rule.
    pub(super) fn downstream_of_rule(&self, rule: &ir::Rule) -> Downstream {
        Downstream {
            models: self.models(rule),
            is_attempt: false,
            is_read: false,
            upstreams: asked(rule).filter_map(|share| self.upstream(&share.target)).collect(),
            is_routed_by_model: rule.is_routed_by_model(),
            others: if rule.backends.iter().any(|share| self.may_rewrite(share)) {
                Others::All
            } else {
                unknown(rule.backends.iter().any(is_service))
            },
        }
    }

    /// What follows the limits of a share of `rule`, and of what it leads to.
    pub(super) fn downstream_of_share(&self, rule: &ir::Rule, share: &ir::WeightedBackend) -> Downstream {
        let service = match &share.target {
            ir::Target::AiService(name) => self.ir.ai_services.get(name),
            _ => None,
        };
        let models = service.map_or(Models::Asked, |service| Models::Only(Arc::from(&*service.model)));
        let upstreams = self.upstream(&share.target).into_iter().collect();
        // The rule may have another AIService to ask.
        let is_attempt = service.is_some();
        Downstream {
            models,
            is_attempt,
            is_read: is_attempt && rule.is_routed_by_model(),
            upstreams,
            is_routed_by_model: false,
            // Its filters and plugins come before its limits.
            others: unknown(is_service(share)),
        }
    }

    /// A target that is an AIService.
    fn upstream(&self, target: &ir::Target) -> Option<Upstream> {
        let ir::Target::AiService(name) = target else { return None };
        let AiBackend { target, observer, .. } = self.registry.ai_service(name)?;
        Some(Upstream { target: Arc::clone(target), lengths: observer.lengths() })
    }

    /// What the models of a rule are: an AIService goes by its name and by that of its model. A name that
    /// several have is none, and their shares decide, as where an AIService is chosen.
    fn models(&self, rule: &ir::Rule) -> Models {
        let services: Vec<_> = asked(rule)
            .filter_map(|share| match &share.target {
                ir::Target::AiService(name) => Some((name, self.ir.ai_services.get(name)?)),
                _ => None,
            })
            .collect();
        let Some((_, first)) = services.first() else { return Models::Asked };
        // Whatever the body says, it is the only one.
        if services.len() == asked(rule).count()
            && services.iter().all(|(_, service)| service.model == first.model)
        {
            return Models::Only(Arc::from(&*first.model));
        }
        // The model decides nothing: a bucket for each would be one more for the same backends.
        if !rule.is_routed_by_model() {
            return Models::Only(Arc::default());
        }
        let (mut models, mut shared) = (BTreeMap::new(), Vec::new());
        for (name, service) in services {
            let model: Arc<str> = Arc::from(&*service.model);
            for known_as in BTreeSet::from([&*name.name, &*service.model]) {
                if models.insert(known_as.to_owned(), Arc::clone(&model)).is_some() {
                    shared.push(known_as);
                }
            }
        }
        shared.into_iter().for_each(|name| drop(models.remove(name)));
        Models::Known(Arc::new(models))
    }

    /// Whether the filters or plugins of a share may make another operation of a request.
    fn may_rewrite(&self, share: &ir::WeightedBackend) -> bool {
        let of_target = match &share.target {
            ir::Target::Backend(id) => self.ir.backends.get(id).map(|backend| &backend.policies),
            ir::Target::AiService(name) => self.ir.ai_services.get(name).map(|service| &service.policies),
            ir::Target::InvalidAiService | ir::Target::Invalid => None,
        };
        share.filters.iter().any(|filter| matches!(filter, ir::Filter::UrlRewrite(_)))
            || [&share.policies].into_iter().chain(of_target).any(|policies| !policies.plugins.is_empty())
    }
}

/// What may use tokens where nothing is rewritten.
fn unknown(is_service: bool) -> Others {
    if is_service { Others::Unknown } else { Others::None }
}

/// The shares of a rule that get requests: what has no weight, or does not resolve beside others, is passed
/// over.
fn asked(rule: &ir::Rule) -> impl Iterator<Item = &ir::WeightedBackend> {
    rule.backends.iter().filter(|share| share.weight > 0 && (is_service(share) || is_model(share)))
}

/// Whether it leads to an AIService.
fn is_model(share: &ir::WeightedBackend) -> bool {
    matches!(share.target, ir::Target::AiService(_))
}

/// Whether it leads to a Service, which may know operations of models that have no path here.
fn is_service(share: &ir::WeightedBackend) -> bool {
    matches!(share.target, ir::Target::Backend(_))
}
