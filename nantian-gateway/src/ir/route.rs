//! Routes, their rules, and what a rule matches.

use std::{fmt, time::Duration};

use http::{HeaderName, Method};
use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::{BackendId, Filter, ObjectName, PolicyId, SessionPersistence, Transport, redact, shown};

/// One route that is attached to at least one listener.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Route {
    /// Its identity.
    pub id: RouteId,
    /// Policies on the whole route.
    pub policies: Policies,
    /// Its rules, in the order of the object.
    pub rules: Vec<Rule>,
}

/// The identity of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId {
    /// The kind.
    pub kind: RouteKind,
    /// The name.
    pub name: ObjectName,
}

/// A kind of route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RouteKind {
    /// HTTPRoute.
    Http,
    /// GRPCRoute.
    Grpc,
    /// TLSRoute.
    Tls,
    /// TCPRoute.
    Tcp,
    /// UDPRoute.
    Udp,
}

impl RouteKind {
    /// Whether its rules are about requests; else they are about connections, or the datagrams of a client.
    pub const fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Grpc)
    }

    /// What its backends are reached by.
    pub const fn transport(self) -> Transport {
        match self {
            Self::Udp => Transport::Udp,
            _ => Transport::Tcp,
        }
    }

    /// What its clients speak, as far as the gateway looks.
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::Http | Self::Grpc => "HTTP",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }

    /// The name in `kind`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
            Self::Udp => "UDPRoute",
        }
    }
}

impl fmt::Display for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RouteKind::Http => self.name.fmt(f),
            other => write!(f, "{}/{}", other.as_str(), self.name),
        }
    }
}

impl Serialize for RouteId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One rule of a route.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Rule {
    /// The rule's name, if it has one.
    pub name: Option<String>,
    /// What the rule matches, at least one (the default match is the path prefix `/`); none where no request
    /// is matched.
    pub matches: Vec<RouteMatch>,
    /// The filters, in order.
    pub filters: Vec<Filter>,
    /// Services that are sent copies of the requests.
    pub mirrors: Vec<Mirror>,
    /// Where requests and connections go; empty answers 500, unless a filter answers first, and resets a
    /// connection.
    pub backends: Vec<WeightedBackend>,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Whether requests that fail are sent again.
    pub retry: Option<RouteRetry>,
    /// How clients stay with their endpoints; `None` is as the backends have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionPersistence>,
    /// Policies on this rule, and plugins that its ExtensionRef filters name.
    pub policies: Policies,
}

/// All conditions of one match; every one must hold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    /// The method, if only one is meant.
    #[serde(serialize_with = "shown::optional")]
    pub method: Option<Method>,
    /// Headers.
    pub headers: Vec<KeyMatch<HeaderName>>,
    /// Query parameters; names are exact.
    pub query: Vec<KeyMatch<String>>,
    /// The method of a gRPC call, whatever its service is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
}

impl Default for RouteMatch {
    fn default() -> Self {
        let path = PathMatch::Prefix("/".to_owned());
        Self { path, method: None, headers: Vec::new(), query: Vec::new(), call: None }
    }
}

/// How a path is matched.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Whole segments from the front; never ends in `/` unless it is `/`.
    Prefix(String),
    /// The whole path, by a regular expression in the syntax of the `regex` crate.
    Regex(String),
}

/// A condition on one header or query parameter. A value that may be a credential is not shown.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyMatch<N> {
    /// Its name.
    pub name: N,
    /// What its value must be.
    pub value: ValueMatch,
}

/// How a value is matched.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum ValueMatch {
    /// Equal, byte for byte.
    Exact(String),
    /// The whole value, by a regular expression.
    Regex(String),
}

/// A share of a rule's requests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WeightedBackend {
    /// The share; 0 gets nothing.
    pub weight: u32,
    /// Where the share goes.
    pub target: Target,
    /// Filters for this share alone, after the rule's.
    pub filters: Vec<Filter>,
    /// Services that are sent copies of this share's requests.
    pub mirrors: Vec<Mirror>,
    /// Plugins that this share's ExtensionRef filters name.
    pub policies: Policies,
}

/// A Service that is sent copies of requests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mirror {
    /// The Service.
    pub backend: BackendId,
    /// How many of the requests.
    pub share: Share,
}

/// So many out of so many; never more than all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Share {
    /// The part.
    pub numerator: u32,
    /// The whole, at least 1.
    pub denominator: u32,
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Target {
    /// A port of a Service.
    Backend(BackendId),
    /// An AI service.
    AiService(ObjectName),
    /// A reference to an AI service that does not resolve: it is passed over as one that fails is, or answers
    /// with 500 if no other one can be asked.
    InvalidAiService,
    /// Any other reference that does not resolve: its share is answered with 500.
    Invalid,
}

/// Time limits of a rule; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Timeouts {
    /// The whole exchange, `timeouts.request`.
    #[serde(serialize_with = "shown::limit")]
    pub request: Option<Duration>,
    /// One attempt at a backend, `timeouts.backendRequest`.
    #[serde(serialize_with = "shown::limit")]
    pub backend_request: Option<Duration>,
}

/// How requests that fail are sent again. Those that met no connection always are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteRetry {
    /// The statuses that are failures.
    pub codes: Vec<u16>,
    /// How often a request is sent again at most.
    pub attempts: u32,
    /// The least wait before the first time; later ones are longer.
    #[serde(serialize_with = "shown::duration")]
    pub backoff: Duration,
}

/// The policies attached at one place, in the order in which they apply.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Policies {
    /// TokenPolicies: every one must admit the request.
    pub rate_limits: Vec<PolicyId>,
    /// WasmPlugins: they run in this order.
    pub plugins: Vec<PolicyId>,
}

// === impl Rule ===

impl Rule {
    /// The Services that requests or their copies reach.
    pub fn backends(&self) -> impl Iterator<Item = &BackendId> {
        let mirrors = self.backends.iter().flat_map(|share| &share.mirrors).chain(&self.mirrors);
        let targets = self.backends.iter().filter_map(|share| match &share.target {
            Target::Backend(id) => Some(id),
            Target::AiService(_) | Target::InvalidAiService | Target::Invalid => None,
        });
        targets.chain(mirrors.map(|mirror| &mirror.backend))
    }

    /// Whether the model that a request names says where it goes: all backends are AIServices.
    pub fn is_routed_by_model(&self) -> bool {
        let is_model =
            |share: &WeightedBackend| matches!(share.target, Target::AiService(_) | Target::InvalidAiService);
        !self.backends.is_empty() && self.backends.iter().all(is_model)
    }

    /// The AIServices that requests reach.
    pub fn ai_services(&self) -> impl Iterator<Item = &ObjectName> {
        self.backends.iter().filter_map(|share| match &share.target {
            Target::AiService(name) => Some(name),
            Target::Backend(_) | Target::InvalidAiService | Target::Invalid => None,
        })
    }
}

// === impl Share ===

impl Share {
    /// All of them.
    pub const ALL: Self = Self { numerator: 1, denominator: 1 };
}

// === impl KeyMatch ===

impl<N: AsRef<str>> Serialize for KeyMatch<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("KeyMatch", 2)?;
        let name = self.name.as_ref();
        fields.serialize_field("name", name)?;
        if redact::is_sensitive(name) {
            fields.serialize_field("value", redact::REDACTED)?;
        } else {
            fields.serialize_field("value", &self.value)?;
        }
        fields.end()
    }
}

// === impl Policies ===

impl Policies {
    /// Appends what applies after these.
    pub fn append(&mut self, later: Self) {
        self.rate_limits.extend(later.rate_limits);
        self.plugins.extend(later.plugins);
    }
}
