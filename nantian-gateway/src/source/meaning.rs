//! What an `apiVersion` and a `kind` stand for, and what to say where they stand for nothing.

use nantian_crd::schema::suggest;

use super::kind::{GATEWAY_API, Kind, KindInfo, NANTIAN};

/// What an `apiVersion` and a `kind` stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A kind that the gateway reads.
    Read(Kind),
    /// A kind of someone else.
    Skipped,
    /// A kind of the Gateway API that the gateway does not serve.
    Unserved,
    /// A slip: the field that is wrong, and the reason.
    Slip(&'static str, String),
}

/// Kinds of the Gateway API that are not served: what a ReferenceGrant was called before.
const NOT_SERVED: [&str; 1] = ["ReferencePolicy"];

// === impl Meaning ===

impl Meaning {
    /// Looks up what a document claims to be.
    pub(super) fn of(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let named: Vec<_> = Kind::ALL.into_iter().filter(|candidate| candidate.info().name == kind).collect();
        match named.iter().find(|candidate| candidate.info().group == group) {
            Some(found) if found.info().versions.contains(&version) => Self::Read(*found),
            Some(found) => Self::Slip("apiVersion", wrong_version(api_version, found.info())),
            None if group == GATEWAY_API || group == NANTIAN => unknown_kind(group, kind),
            None => match named.first() {
                Some(named) if is_likely_typo(group, named.info().group) => {
                    Self::Slip("apiVersion", wrong_version(api_version, named.info()))
                }
                _ => Self::Skipped,
            },
        }
    }
}

fn wrong_version(found: &str, info: KindInfo) -> String {
    let versions: Vec<_> = info.versions.iter().map(|version| info.api_version_of(version)).collect();
    format!("{found:?} has no {}; allowed: {}", info.name, versions.join(", "))
}

/// Whether `group` was written where `meant` was meant: a typing error, or a group that belongs to
/// Kubernetes.
///
/// Other groups have kinds of the same names (a Service of Knative, a Gateway of Istio), which are none of
/// our business.
fn is_likely_typo(group: &str, meant: &str) -> bool {
    ["", "apps", "discovery.k8s.io", "networking.k8s.io"].contains(&group)
        || suggest(group, [meant]).is_some()
}

fn unknown_kind(group: &str, kind: &str) -> Meaning {
    if group == GATEWAY_API && NOT_SERVED.contains(&kind) {
        return Meaning::Unserved;
    }
    let read = Kind::ALL.into_iter().map(Kind::info).filter(|info| info.group == group).map(|info| info.name);
    let others = NOT_SERVED.into_iter().filter(|_| group == GATEWAY_API);
    let known: Vec<_> = read.chain(others).collect();
    let hint = match suggest(kind, known.iter().copied()) {
        Some(suggestion) => format!("did you mean {suggestion:?}?"),
        None => format!("known are {}", known.join(", ")),
    };
    Meaning::Slip("kind", format!("{kind:?} is no kind of {group}; {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_known_by_its_group_and_version() {
        for api_version in ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"] {
            assert_eq!(Meaning::of(api_version, "HTTPRoute"), Meaning::Read(Kind::HttpRoute));
        }
        assert_eq!(Meaning::of("v1", "Service"), Meaning::Read(Kind::Service));
        assert_eq!(Meaning::of("discovery.k8s.io/v1", "EndpointSlice"), Meaning::Read(Kind::EndpointSlice));
    }

    #[test]
    fn kinds_of_others_are_skipped_even_under_a_familiar_name() {
        for (api_version, kind) in [
            ("apps/v1", "Deployment"),
            ("v1", "ServiceAccount"),
            ("serving.knative.dev/v1", "Service"),
            ("networking.istio.io/v1", "Gateway"),
        ] {
            assert_eq!(Meaning::of(api_version, kind), Meaning::Skipped, "{api_version} {kind}");
        }
    }

    #[test]
    fn kinds_of_the_gateway_api_that_are_not_served_are_told_from_those_of_others() {
        for kind in NOT_SERVED {
            assert_eq!(Meaning::of("gateway.networking.k8s.io/v1", kind), Meaning::Unserved, "{kind}");
        }
    }

    #[test]
    fn a_slip_is_named_with_what_was_meant() {
        for (api_version, kind, field, reason) in [
            (
                "gateway.networking.k8s.io/v1",
                "HttpRoute",
                "kind",
                r#""HttpRoute" is no kind of gateway.networking.k8s.io; did you mean "HTTPRoute"?"#,
            ),
            (
                "gateway.nantian.dev/v1alpha1",
                "Cache",
                "kind",
                r#""Cache" is no kind of gateway.nantian.dev; known are AIService, TokenPolicy, WasmPlugin"#,
            ),
            (
                "gateway.networking.k8s.io/v1alpha2",
                "HTTPRoute",
                "apiVersion",
                r#""gateway.networking.k8s.io/v1alpha2" has no HTTPRoute; allowed: gateway.networking.k8s.io/v1, gateway.networking.k8s.io/v1beta1"#,
            ),
            (
                "gateway.nantain.dev/v1alpha1",
                "TokenPolicy",
                "apiVersion",
                r#""gateway.nantain.dev/v1alpha1" has no TokenPolicy; allowed: gateway.nantian.dev/v1alpha1"#,
            ),
            (
                "v1",
                "HTTPRoute",
                "apiVersion",
                r#""v1" has no HTTPRoute; allowed: gateway.networking.k8s.io/v1, gateway.networking.k8s.io/v1beta1"#,
            ),
        ] {
            assert_eq!(Meaning::of(api_version, kind), Meaning::Slip(field, reason.to_owned()));
        }
    }
}
