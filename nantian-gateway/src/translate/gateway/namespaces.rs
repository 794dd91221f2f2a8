//! From which namespaces routes may attach to a listener.

use std::collections::BTreeMap;

use gateway_api::experimental::gateways::{
    GatewayListeners, GatewayListenersAllowedRoutesNamespacesFrom as From,
};

use crate::{
    source::Objects,
    translate::{
        cluster_state::namespace_label,
        fault::{Fault, Path},
    },
};

/// `allowedRoutes.namespaces`.
#[derive(Default)]
pub(in crate::translate) enum NamespaceFilter<'a> {
    /// Every namespace.
    All,
    /// One namespace: that of the listener.
    One(String),
    /// Namespaces whose labels meet all requirements.
    Labelled(Vec<Requirement<'a>>),
    /// No namespace.
    #[default]
    None,
}

/// A requirement on one label.
pub(in crate::translate) struct Requirement<'a> {
    key: &'a str,
    test: Test<'a>,
}

/// A requirement as it is written.
pub(super) struct Expression<'a> {
    pub(super) key: &'a str,
    pub(super) operator: &'a str,
    pub(super) values: &'a [String],
}

enum Test<'a> {
    Equals(&'a str),
    In(&'a [String]),
    NotIn(&'a [String]),
    Exists,
    DoesNotExist,
}

// === impl NamespaceFilter ===

impl<'a> NamespaceFilter<'a> {
    /// Reads that of a listener in the namespace `own`.
    pub(super) fn read(own: &str, spec: &'a GatewayListeners, path: &Path<'_>) -> Result<Self, Fault> {
        let namespaces = spec.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
        match namespaces.map(|namespaces| (&namespaces.from, &namespaces.selector)) {
            Some((Some(From::All), _)) => Ok(Self::All),
            Some((Some(From::Selector), selector)) => {
                let path = path.field("allowedRoutes");
                let path = path.field("namespaces");
                let path = path.field("selector");
                // An empty selector selects everything; a forgotten one must not.
                let selector = selector.as_ref();
                let selector = selector.ok_or_else(|| Fault::unsupported(&path, "from Selector needs it"))?;
                let expressions = selector.match_expressions.iter().flatten().map(|expression| Expression {
                    key: &expression.key,
                    operator: &expression.operator,
                    values: expression.values.as_deref().unwrap_or_default(),
                });
                requirements(selector.match_labels.as_ref(), expressions, &path).map(Self::Labelled)
            }
            Some((Some(From::Same) | None, _)) | None => Ok(Self::One(own.to_owned())),
        }
    }

    /// Whether routes of `namespace` may attach.
    pub(in crate::translate) fn admits(&self, objects: &Objects, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::One(own) => own == namespace,
            Self::Labelled(requirements) => requirements
                .iter()
                .all(|requirement| requirement.is_met(namespace_label(objects, namespace, requirement.key))),
            Self::None => false,
        }
    }
}

// === impl Requirement ===

impl Requirement<'_> {
    fn is_met(&self, label: Option<&str>) -> bool {
        let is_one_of =
            |values: &[String]| label.is_some_and(|label| values.iter().any(|value| value == label));
        match self.test {
            Test::Equals(value) => label == Some(value),
            Test::In(values) => is_one_of(values),
            Test::NotIn(values) => !is_one_of(values),
            Test::Exists => label.is_some(),
            Test::DoesNotExist => label.is_none(),
        }
    }
}

/// The requirements of a selector.
pub(super) fn requirements<'a>(
    labels: Option<&'a BTreeMap<String, String>>,
    expressions: impl Iterator<Item = Expression<'a>>,
    path: &Path<'_>,
) -> Result<Vec<Requirement<'a>>, Fault> {
    let labels = labels.into_iter().flat_map(BTreeMap::iter);
    let mut requirements: Vec<_> =
        labels.map(|(key, value)| Requirement { key, test: Test::Equals(value) }).collect();
    let path = path.field("matchExpressions");
    for (index, expression) in expressions.enumerate() {
        requirements.push(requirement(&expression, &path.index(index))?);
    }
    Ok(requirements)
}

fn requirement<'a>(expression: &Expression<'a>, path: &Path<'_>) -> Result<Requirement<'a>, Fault> {
    let test = match (expression.operator, expression.values) {
        ("In" | "NotIn", []) => {
            return Err(Fault::unsupported(&path.field("values"), "In and NotIn need at least one value"));
        }
        ("In", values) => Test::In(values),
        ("NotIn", values) => Test::NotIn(values),
        ("Exists", []) => Test::Exists,
        ("DoesNotExist", []) => Test::DoesNotExist,
        ("Exists" | "DoesNotExist", _) => {
            return Err(Fault::unsupported(&path.field("values"), "Exists and DoesNotExist take no values"));
        }
        (other, _) => {
            let message = format!("{other:?} is not one of In, NotIn, Exists, DoesNotExist");
            return Err(Fault::unsupported(&path.field("operator"), message));
        }
    };
    Ok(Requirement { key: expression.key, test })
}
