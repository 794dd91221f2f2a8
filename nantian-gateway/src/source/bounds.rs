//! The bounds that the API server puts on fields, where the Rust types have none.
//!
//! From the CRDs of Gateway API v1.6 and the validation of the core kinds.

use nantian_crd::schema::Rule;
use serde_json::{Map, Value, json};

/// A bound on every field whose path ends in `field`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    /// The end of the path, which begins with the kind; `[]` stands for the items of a list or map.
    field: &'static str,
    limit: Limit,
}

#[derive(Debug, Clone, Copy)]
enum Limit {
    /// The number is in this range.
    Number(i64, i64),
    /// The list has as many items.
    Items(usize, usize),
    /// The text has as many characters.
    Length(usize, usize),
    /// The text has this form.
    Form(&'static str),
    /// The number is one of these.
    Numbers(&'static [i64]),
    /// The text is one of these.
    Words(&'static [&'static str]),
    /// The rule holds.
    Holds(Rule),
}

use Limit::{Form, Holds, Items, Length, Number, Numbers, Words};

/// Forms of text, and what to call them.
pub(super) mod form {
    use nantian_crd::schema::Hint;

    /// `*.example.com` or `www.example.com`.
    pub(in crate::source) const HOST_PATTERN: &str =
        r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
    /// `www.example.com`.
    pub(in crate::source) const DNS_NAME: &str =
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
    /// `team-a`.
    pub(in crate::source) const DNS_LABEL: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
    /// `gateway.networking.k8s.io`, or nothing.
    pub(in crate::source) const GROUP: &str =
        r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
    /// `HTTPRoute`.
    pub(in crate::source) const KIND: &str = r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$";
    /// RFC 9110, 5.6.2.
    pub(in crate::source) const TOKEN: &str = r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$";
    /// GEP-2257.
    pub(in crate::source) const DURATION: &str = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$";
    /// `example.com/controller`.
    pub(in crate::source) const CONTROLLER: &str =
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+$";

    /// `spiffe://example.org/service`.
    pub(in crate::source) const URI: &str = r"^[A-Za-z][A-Za-z0-9+.\-]*:.+$";

    /// What matches each form that our own kinds do not have.
    pub(in crate::source) const HINTS: [Hint; 6] = [
        Hint::new(HOST_PATTERN, "a host name in lower case, or *. and one"),
        Hint::new(DNS_LABEL, "a DNS label of lower-case letters, digits and hyphens"),
        Hint::new(KIND, "a kind: letters, digits and hyphens"),
        Hint::new(TOKEN, "a header name: letters, digits and !#$%&'*+-.^_`|~"),
        Hint::new(URI, "a URI with a scheme"),
        Hint::new(CONTROLLER, "a domain and a path such as example.com/controller"),
    ];
}

const fn on(field: &'static str, limit: Limit) -> Bound {
    Bound { field, limit }
}

const SERVICE_HAS_PORT: Rule = Rule::new(
    "(size(self.group) == 0 && self.kind == 'Service') ? has(self.port) : true",
    "is required for a Service",
    |backend| {
        let is = |field, default| backend.get(field).is_none_or(|value| value == default);
        let is_service = is("group", "") && is("kind", "Service");
        !is_service || backend.get("port").is_some_and(|port| !port.is_null())
    },
)
.with_field("port");

const ONE_SORT_OF_AUTHORITIES: Rule = Rule::new(
    "(has(self.caCertificateRefs) && size(self.caCertificateRefs) > 0) != \
     (has(self.wellKnownCACertificates) && self.wellKnownCACertificates != '')",
    "one of caCertificateRefs and wellKnownCACertificates is required, and only one",
    |validation| {
        let refs = validation.get("caCertificateRefs").and_then(Value::as_array);
        let well_known = validation.get("wellKnownCACertificates").and_then(Value::as_str);
        refs.is_some_and(|refs| !refs.is_empty()) != well_known.is_some_and(|name| !name.is_empty())
    },
);

const NAMED_BY_ITS_TYPE: Rule = Rule::new(
    "self.type == 'Hostname' ? has(self.hostname) && !has(self.uri) : has(self.uri) && !has(self.hostname)",
    "needs hostname where its type is Hostname, uri where it is URI, and not the other one",
    |name| {
        let has = |field| name.get(field).is_some_and(|value| !value.is_null() && value != "");
        let is_host = name.get("type").is_none_or(|kind| kind == "Hostname");
        has("hostname") == is_host && has("uri") != is_host
    },
);

/// Every bound.
pub(super) const BOUNDS: &[Bound] = &[
    on("GatewayClass.spec.controllerName", Form(form::CONTROLLER)),
    on("GatewayClass.spec.controllerName", Length(1, 253)),
    // Gateway
    on("Gateway.spec.gatewayClassName", Length(1, 253)),
    on("Gateway.spec.addresses", Items(0, 16)),
    on("Gateway.spec.listeners", Items(1, 64)),
    on("ListenerSet.spec.listeners", Items(1, 64)),
    on("parentRef.name", Length(1, 253)),
    on("parentRef.namespace", Form(form::DNS_LABEL)),
    on("frontend.perPort", Items(0, 64)),
    on("perPort[].port", Number(1, 65535)),
    on("listeners[].name", Form(form::DNS_NAME)),
    on("listeners[].name", Length(1, 253)),
    on("listeners[].hostname", Form(form::HOST_PATTERN)),
    on("listeners[].hostname", Length(1, 253)),
    on("listeners[].port", Number(1, 65535)),
    on("listeners[].protocol", Length(1, 255)),
    on("certificateRefs", Items(0, 64)),
    on("allowedRoutes.kinds", Items(0, 8)),
    // HTTPRoute
    on("HTTPRoute.spec.hostnames", Items(0, 16)),
    on("HTTPRoute.spec.hostnames[]", Form(form::HOST_PATTERN)),
    on("HTTPRoute.spec.hostnames[]", Length(1, 253)),
    on("HTTPRoute.spec.parentRefs", Items(0, 32)),
    on("HTTPRoute.spec.rules", Items(1, 16)),
    // GRPCRoute
    on("GRPCRoute.spec.hostnames", Items(0, 16)),
    on("GRPCRoute.spec.hostnames[]", Form(form::HOST_PATTERN)),
    on("GRPCRoute.spec.hostnames[]", Length(1, 253)),
    on("GRPCRoute.spec.parentRefs", Items(0, 32)),
    on("GRPCRoute.spec.rules", Items(0, 16)),
    on("GRPCRoute.spec.rules[].backendRefs[]", Holds(SERVICE_HAS_PORT)),
    on("method.service", Length(0, 1024)),
    on("method.method", Length(0, 1024)),
    // TLSRoute, TCPRoute, UDPRoute
    on("TLSRoute.spec.hostnames", Items(1, 16)),
    on("TLSRoute.spec.hostnames[]", Form(form::HOST_PATTERN)),
    on("TLSRoute.spec.hostnames[]", Length(1, 253)),
    on("TLSRoute.spec.parentRefs", Items(0, 32)),
    on("TLSRoute.spec.rules", Items(1, 1)),
    on("TLSRoute.spec.rules[].backendRefs", Items(1, 16)),
    on("TLSRoute.spec.rules[].backendRefs[]", Holds(SERVICE_HAS_PORT)),
    on("TCPRoute.spec.parentRefs", Items(0, 32)),
    on("TCPRoute.spec.rules", Items(1, 1)),
    on("TCPRoute.spec.rules[].backendRefs", Items(1, 16)),
    on("TCPRoute.spec.rules[].backendRefs[]", Holds(SERVICE_HAS_PORT)),
    on("UDPRoute.spec.parentRefs", Items(0, 32)),
    on("UDPRoute.spec.rules", Items(1, 1)),
    on("UDPRoute.spec.rules[].backendRefs", Items(1, 16)),
    on("UDPRoute.spec.rules[].backendRefs[]", Holds(SERVICE_HAS_PORT)),
    // Rules
    on("rules[].name", Form(form::DNS_NAME)),
    on("rules[].name", Length(1, 253)),
    on("rules[].matches", Items(0, 64)),
    on("rules[].filters", Items(0, 16)),
    on("rules[].backendRefs", Items(0, 16)),
    on("HTTPRoute.spec.rules[].backendRefs[]", Holds(SERVICE_HAS_PORT)),
    on("backendRefs[].filters", Items(0, 16)),
    on("backendRefs[].weight", Number(0, 1_000_000)),
    on("matches[].path.value", Length(0, 1024)),
    on("matches[].headers", Items(0, 16)),
    on("matches[].headers[].name", Form(form::TOKEN)),
    on("matches[].headers[].name", Length(1, 256)),
    on("matches[].headers[].value", Length(1, 4096)),
    on("matches[].queryParams", Items(0, 16)),
    on("matches[].queryParams[].name", Form(form::TOKEN)),
    on("matches[].queryParams[].name", Length(1, 256)),
    on("matches[].queryParams[].value", Length(1, 1024)),
    on("timeouts.request", Form(form::DURATION)),
    on("timeouts.backendRequest", Form(form::DURATION)),
    // Filters
    on("HeaderModifier.add", Items(0, 16)),
    on("HeaderModifier.add[].name", Form(form::TOKEN)),
    on("HeaderModifier.add[].name", Length(1, 256)),
    on("HeaderModifier.add[].value", Length(1, 4096)),
    on("HeaderModifier.set", Items(0, 16)),
    on("HeaderModifier.set[].name", Form(form::TOKEN)),
    on("HeaderModifier.set[].name", Length(1, 256)),
    on("HeaderModifier.set[].value", Length(1, 4096)),
    on("HeaderModifier.remove", Items(0, 16)),
    on("HeaderModifier.remove[]", Form(form::TOKEN)),
    on("requestRedirect.statusCode", Numbers(&[301, 302, 303, 307, 308])),
    on("requestRedirect.port", Number(1, 65535)),
    on("requestRedirect.hostname", Form(form::DNS_NAME)),
    on("urlRewrite.hostname", Form(form::DNS_NAME)),
    on("path.replaceFullPath", Length(0, 1024)),
    on("path.replacePrefixMatch", Length(0, 1024)),
    // References
    on("Refs[].group", Form(form::GROUP)),
    on("Refs[].kind", Form(form::KIND)),
    on("Refs[].name", Length(1, 253)),
    on("Refs[].namespace", Form(form::DNS_LABEL)),
    on("Refs[].port", Number(1, 65535)),
    on("Refs[].sectionName", Form(form::DNS_NAME)),
    on("backendRef.port", Number(1, 65535)),
    on("ReferenceGrant.spec.from", Items(1, 16)),
    on("ReferenceGrant.spec.from[].group", Form(form::GROUP)),
    on("ReferenceGrant.spec.from[].kind", Form(form::KIND)),
    on("ReferenceGrant.spec.from[].namespace", Form(form::DNS_LABEL)),
    on("ReferenceGrant.spec.to", Items(1, 16)),
    on("ReferenceGrant.spec.to[].group", Form(form::GROUP)),
    on("ReferenceGrant.spec.to[].kind", Form(form::KIND)),
    on("ReferenceGrant.spec.to[].name", Length(1, 253)),
    // BackendTLSPolicy
    on("BackendTLSPolicy.spec.targetRefs", Items(1, 16)),
    on("BackendTLSPolicy.spec.validation", Holds(ONE_SORT_OF_AUTHORITIES)),
    on("validation.caCertificateRefs", Items(0, 8)),
    on("validation.hostname", Form(form::DNS_NAME)),
    on("validation.hostname", Length(1, 253)),
    on("validation.subjectAltNames", Items(0, 5)),
    on("validation.subjectAltNames[]", Holds(NAMED_BY_ITS_TYPE)),
    on("subjectAltNames[].hostname", Form(form::HOST_PATTERN)),
    on("subjectAltNames[].hostname", Length(1, 253)),
    on("subjectAltNames[].uri", Form(form::URI)),
    on("subjectAltNames[].uri", Length(1, 253)),
    // Core kinds
    on("Service.spec.type", Words(&["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"])),
    on("Service.spec.ports[].port", Number(1, 65535)),
    on("Service.spec.ports[].protocol", Words(&["TCP", "UDP", "SCTP"])),
    on("EndpointSlice.addressType", Words(&["IPv4", "IPv6", "FQDN"])),
    on("EndpointSlice.endpoints", Items(0, 1000)),
    on("EndpointSlice.endpoints[].addresses", Items(1, 100)),
    on("EndpointSlice.ports[].port", Number(1, 65535)),
    on("EndpointSlice.ports[].protocol", Words(&["TCP", "UDP", "SCTP"])),
];

// === impl Bound ===

impl Bound {
    /// Whether the bound is on the field at `path`.
    pub(super) fn is_of(&self, path: &str) -> bool {
        path.ends_with(self.field)
    }

    /// The rule behind the bound, if it is one.
    pub(super) fn rule(&self) -> Option<Rule> {
        match self.limit {
            Holds(rule) => Some(rule),
            _ => None,
        }
    }

    /// The bound as keywords of a schema.
    pub(super) fn keywords(&self) -> Map<String, Value> {
        let keywords = match self.limit {
            Number(least, most) => json!({ "minimum": least, "maximum": most }),
            Items(least, most) => json!({ "minItems": least, "maxItems": most }),
            Length(least, most) => json!({ "minLength": least, "maxLength": most }),
            Form(pattern) => json!({ "pattern": pattern }),
            Numbers(numbers) => json!({ "enum": numbers }),
            Words(words) => json!({ "enum": words }),
            Holds(rule) => json!({ "x-kubernetes-validations": [{ "rule": rule.cel }] }),
        };
        match keywords {
            Value::Object(keywords) => keywords,
            _ => Map::new(),
        }
    }
}
