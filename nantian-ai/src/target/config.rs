//! What an operator says about one target, as plain data.

use std::time::Duration;

use crate::credential::Credential;
use crate::dialect::Dialect;
use crate::retry::RetryPolicy;

/// One provider and model, as an operator configures it. [`Target::new`](crate::Target::new) checks it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TargetConfig {
    /// The name shown in errors and logs.
    ///
    /// Source: the AIService's `namespace/name`.
    pub name: String,
    /// Who serves the model; a known name brings defaults, see [`Provider`](crate::Provider).
    ///
    /// Source: `AIService.spec.provider`.
    pub provider: String,
    /// The dialect the upstream speaks.
    ///
    /// Default: the provider's; required for an unknown one. Source: `AIService.spec.format`.
    pub format: Option<Dialect>,
    /// The model that the upstream sees, whatever the client named.
    ///
    /// Source: `AIService.spec.model`.
    pub model: String,
    /// The base URL, path prefix included. Without a path the dialect's customary prefix is used.
    ///
    /// Range: `http` or `https`, no query, no user info. Default: the provider's; required for an unknown
    /// one. Source: `AIService.spec.endpoint`.
    pub endpoint: Option<String>,
    /// The region of a provider that has several.
    ///
    /// Range: lower-case letters, digits and `-`. Default: the one that the endpoint's host names; required
    /// for requests that are signed, and where the default endpoint depends on it. Source:
    /// `AIService.spec.region`.
    pub region: Option<String>,
    /// The version of the API of Azure OpenAI. A dated one names the model's deployment in the path.
    ///
    /// Range: letters, digits, `-`, `.` and `_`; only for the provider `azure-openai`. Default: the one
    /// without date, in which the deployment is the model. Source: `AIService.spec.apiVersion`.
    pub api_version: Option<String>,
    /// The credential that replaces the client's own.
    ///
    /// Default: none. Source: `AIService.spec.auth` and its Secret.
    pub credential: Credential,
    /// How long the upstream may take.
    ///
    /// Default: [`Timeouts::default`]. Source: `AIService.spec.timeout`.
    pub timeouts: Timeouts,
    /// When a failed attempt is repeated.
    ///
    /// Default: never. Source: `AIService.spec.retry`.
    pub retry: RetryPolicy,
    /// Whether a request is refused that says what the upstream's dialect has no words for.
    ///
    /// Default: no, it is sent without, and the response names what was left out in
    /// [`DROPPED`](crate::headers::DROPPED). A client asks for the same with the header
    /// [`STRICT`](crate::headers::STRICT). Source: the operator of the proxy.
    pub strict: bool,
    /// The largest request body that is read.
    ///
    /// Unit: bytes. Default: 32 MiB. Source: the operator of the proxy.
    pub max_body: u64,
}

/// How long one attempt may take. `None` waits without end.
///
/// A request whose time is over is dropped. A balancer further in takes that for a client who has left,
/// unless it is told that endpoints have only so long (`BalanceLayer::blame_after` of `nantian-lb`).
///
/// ```
/// use std::time::Duration;
/// use nantian_ai::Timeouts;
///
/// let timeouts = Timeouts::default().with_idle(Duration::from_secs(30)).with_total(None);
/// assert_eq!((timeouts.idle, timeouts.total), (Some(Duration::from_secs(30)), None));
/// assert_eq!(Timeouts::uniform(Duration::ZERO), Timeouts::none());
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Timeouts {
    /// For a connection to the upstream, its TLS handshake included, as far as the inner service heeds it.
    ///
    /// Connections are the inner service's, and nothing here can tell one that is opened from an answer that
    /// is awaited. So it is not enforced here but told: in the extensions of each request, as
    /// [`ConnectTimeout`]. With an inner service that does not look there, a connection that does not come is
    /// bounded by `total` or `first_token` alone; give its connector the same time.
    ///
    /// Default: 5 s. Source: the operator of the proxy.
    pub connect: Option<Duration>,
    /// From the start of an attempt to the last byte of a buffered reply.
    ///
    /// Default: 10 min. Source: `AIService.spec.timeout`.
    pub total: Option<Duration>,
    /// From the start of an attempt to the first token of a streamed reply. Headers, pings and chunks
    /// that only name the role are no token.
    ///
    /// Default: 10 min. Source: `AIService.spec.timeout`.
    pub first_token: Option<Duration>,
    /// Between two chunks of a streamed reply, once the first token has come.
    ///
    /// Default: 10 min. Source: `AIService.spec.timeout`.
    pub idle: Option<Duration>,
    /// From the start of an attempt to the last byte of its reply, streamed or not.
    ///
    /// Default: none. Source: `HTTPRoute.spec.rules[].timeouts.backendRequest`.
    pub attempt: Option<Duration>,
}

/// In the extensions of every request to the inner service: how long it may take to open a connection, if
/// that is bounded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "it is one time")]
pub struct ConnectTimeout(pub Duration);

// === impl TargetConfig ===

impl TargetConfig {
    /// The largest request body that is read unless configured otherwise: 32 MiB.
    pub const DEFAULT_MAX_BODY: u64 = 32 * 1024 * 1024;

    /// A target with everything else at its default.
    pub fn new(name: impl Into<String>, provider: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            provider: provider.into(),
            format: None,
            model: model.into(),
            endpoint: None,
            region: None,
            api_version: None,
            credential: Credential::none(),
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
            strict: false,
            max_body: Self::DEFAULT_MAX_BODY,
        }
    }

    /// Sets the dialect.
    #[must_use]
    pub fn with_format(mut self, format: Dialect) -> Self {
        self.format = Some(format);
        self
    }

    /// Sets the base URL.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = Some(endpoint.into());
        self
    }

    /// Sets the region.
    #[must_use]
    pub fn with_region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// Sets the version of the API.
    #[must_use]
    pub fn with_api_version(mut self, version: impl Into<String>) -> Self {
        self.api_version = Some(version.into());
        self
    }

    /// Sets the credential.
    #[must_use]
    pub fn with_credential(mut self, credential: Credential) -> Self {
        self.credential = credential;
        self
    }

    /// Sets the timeouts.
    #[must_use]
    pub fn with_timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Sets the retry policy.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Sets whether requests are refused of which something would be lost.
    #[must_use]
    pub fn with_strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Sets the largest request body that is read, in bytes.
    #[must_use]
    pub fn with_max_body(mut self, bytes: u64) -> Self {
        self.max_body = bytes;
        self
    }
}

// === impl Timeouts ===

impl Timeouts {
    /// The time for a connection unless configured otherwise: 5 s.
    pub const DEFAULT_CONNECT: Duration = Duration::from_secs(5);

    /// The one `timeout` of an AIService: the total of a buffered reply; for a stream the time to the first
    /// token and then between chunks; 0 s for no bound. Connections have their default.
    pub const fn uniform(timeout: Duration) -> Self {
        let connect = Some(Self::DEFAULT_CONNECT);
        let bound = if timeout.is_zero() { None } else { Some(timeout) };
        Self { connect, total: bound, first_token: bound, idle: bound, attempt: None }
    }

    /// No limits but that on connections.
    pub const fn none() -> Self {
        let connect = Some(Self::DEFAULT_CONNECT);
        Self { connect, total: None, first_token: None, idle: None, attempt: None }
    }

    /// Sets the time for a connection; `None` leaves it to the inner service.
    #[must_use]
    pub fn with_connect(mut self, connect: impl Into<Option<Duration>>) -> Self {
        self.connect = connect.into();
        self
    }

    /// Sets the total of a buffered reply.
    #[must_use]
    pub fn with_total(mut self, total: impl Into<Option<Duration>>) -> Self {
        self.total = total.into();
        self
    }

    /// Sets the time to the first token of a stream.
    #[must_use]
    pub fn with_first_token(mut self, first_token: impl Into<Option<Duration>>) -> Self {
        self.first_token = first_token.into();
        self
    }

    /// Sets the time between two chunks of a stream.
    #[must_use]
    pub fn with_idle(mut self, idle: impl Into<Option<Duration>>) -> Self {
        self.idle = idle.into();
        self
    }

    /// Sets the time of a whole attempt, that of a stream included.
    #[must_use]
    pub fn with_attempt(mut self, attempt: impl Into<Option<Duration>>) -> Self {
        self.attempt = attempt.into();
        self
    }
}

impl Default for Timeouts {
    /// Ten minutes each, as the providers' own clients have it.
    fn default() -> Self {
        Self::uniform(Duration::from_secs(600))
    }
}
