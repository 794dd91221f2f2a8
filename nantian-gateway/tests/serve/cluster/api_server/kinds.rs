//! The kinds that are served.

use serde_json::{Value, json};

/// How a kind is addressed.
#[derive(Debug, Clone)]
pub(super) struct Kind {
    pub(super) group: String,
    pub(super) versions: Vec<String>,
    pub(super) plural: String,
    pub(super) name: String,
    pub(super) is_namespaced: bool,
    pub(super) has_status: bool,
    pub(super) short_names: Vec<String>,
}

impl Kind {
    fn new(group: &str, versions: &[&str], plural: &str, name: &str, is_namespaced: bool) -> Self {
        Self {
            group: group.to_owned(),
            versions: versions.iter().map(|version| (*version).to_owned()).collect(),
            plural: plural.to_owned(),
            name: name.to_owned(),
            is_namespaced,
            has_status: true,
            short_names: Vec::new(),
        }
    }

    /// The kinds without a CRD of their own here.
    pub(super) fn built_in() -> Vec<Self> {
        let gateway_api = "gateway.networking.k8s.io";
        vec![
            Self::new("", &["v1"], "namespaces", "Namespace", false),
            Self::new("", &["v1"], "services", "Service", true),
            Self::new("", &["v1"], "secrets", "Secret", true),
            Self::new("", &["v1"], "configmaps", "ConfigMap", true),
            Self::new("discovery.k8s.io", &["v1"], "endpointslices", "EndpointSlice", true),
            Self::new("coordination.k8s.io", &["v1"], "leases", "Lease", true),
            Self::new("events.k8s.io", &["v1"], "events", "Event", true),
            Self::new(
                "apiextensions.k8s.io",
                &["v1"],
                "customresourcedefinitions",
                "CustomResourceDefinition",
                false,
            ),
            Self::new(gateway_api, &["v1", "v1beta1"], "gatewayclasses", "GatewayClass", false),
            Self::new(gateway_api, &["v1", "v1beta1"], "gateways", "Gateway", true),
            Self::new(gateway_api, &["v1"], "listenersets", "ListenerSet", true),
            Self::new(gateway_api, &["v1", "v1beta1"], "httproutes", "HTTPRoute", true),
            Self::new(gateway_api, &["v1"], "grpcroutes", "GRPCRoute", true),
            Self::new(gateway_api, &["v1"], "tlsroutes", "TLSRoute", true),
            Self::new(gateway_api, &["v1"], "tcproutes", "TCPRoute", true),
            Self::new(gateway_api, &["v1"], "udproutes", "UDPRoute", true),
            Self::new(gateway_api, &["v1"], "backendtlspolicies", "BackendTLSPolicy", true),
            Self::new(gateway_api, &["v1", "v1beta1"], "referencegrants", "ReferenceGrant", true),
        ]
    }

    /// The kind that a CRD adds.
    pub(super) fn of_crd(crd: &Value) -> Self {
        let spec = &crd["spec"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let versions = spec["versions"].as_array().unwrap();
        Self {
            group: text(&spec["group"]),
            versions: versions.iter().map(|version| text(&version["name"])).collect(),
            plural: text(&spec["names"]["plural"]),
            name: text(&spec["names"]["kind"]),
            is_namespaced: spec["scope"] == "Namespaced",
            has_status: versions.iter().any(|version| version["subresources"]["status"].is_object()),
            short_names: spec["names"]["shortNames"].as_array().into_iter().flatten().map(text).collect(),
        }
    }

    /// The status that the schema of the kind gives to an object without one.
    pub(super) fn first_status(&self) -> Value {
        let conditions: &[&str] = match self.name.as_str() {
            "GatewayClass" => &["Accepted"],
            "Gateway" => &["Accepted", "Programmed"],
            _ => return Value::Null,
        };
        let condition = |kind: &&str| {
            json!({
                "type": kind, "status": "Unknown", "reason": "Pending", "message": "Waiting for controller",
                "lastTransitionTime": "1970-01-01T00:00:00Z",
            })
        };
        json!({ "conditions": conditions.iter().map(condition).collect::<Vec<_>>() })
    }

    pub(super) fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }
}
