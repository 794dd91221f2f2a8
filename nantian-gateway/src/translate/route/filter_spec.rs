//! One view of the filters of a rule and of a backendRef.
//!
//! The generated types of the two are equal field by field and yet different types.

use gateway_api::experimental::httproutes as api;

use crate::ir::RedirectScheme;

/// A filter as it is written.
pub(super) enum FilterSpec<'a> {
    RequestHeaders(HeadersSpec<'a>),
    ResponseHeaders(HeadersSpec<'a>),
    Redirect(RedirectSpec<'a>),
    Rewrite(RewriteSpec<'a>),
    Cors(CorsSpec<'a>),
    Mirror(MirrorSpec<'a>),
    Extension(ExtensionSpec<'a>),
    /// A type that is not served yet.
    Unserved(&'static str),
    /// The block that `type` asks for is absent.
    Absent(&'static str),
    /// A block that `type` does not ask for is present.
    Stray(&'static str),
}

/// A header modifier.
pub(super) struct HeadersSpec<'a> {
    pub(super) set: Vec<(&'a str, &'a str)>,
    pub(super) add: Vec<(&'a str, &'a str)>,
    pub(super) remove: &'a [String],
}

/// A redirect.
pub(super) struct RedirectSpec<'a> {
    pub(super) scheme: Option<RedirectScheme>,
    pub(super) hostname: Option<&'a str>,
    pub(super) path: Option<PathSpec<'a>>,
    pub(super) port: Option<i32>,
    pub(super) status: Option<i64>,
}

/// A rewrite.
pub(super) struct RewriteSpec<'a> {
    pub(super) hostname: Option<&'a str>,
    pub(super) path: Option<PathSpec<'a>>,
}

/// What other origins may do.
pub(super) struct CorsSpec<'a> {
    pub(super) origins: &'a [String],
    pub(super) credentials: bool,
    pub(super) methods: &'a [String],
    pub(super) headers: &'a [String],
    pub(super) exposed: &'a [String],
    pub(super) max_age: Option<i32>,
}

/// A mirror.
pub(super) struct MirrorSpec<'a> {
    pub(super) backend: RefSpec<'a>,
    pub(super) percent: Option<i32>,
    /// Numerator and denominator.
    pub(super) fraction: Option<(i32, Option<i32>)>,
}

/// A reference to a backend.
#[derive(Clone, Copy)]
pub(super) struct RefSpec<'a> {
    pub(super) group: Option<&'a str>,
    pub(super) kind: Option<&'a str>,
    pub(super) namespace: Option<&'a str>,
    pub(super) name: &'a str,
    pub(super) port: Option<i32>,
}

/// The path of a redirect or a rewrite.
#[derive(Clone, Copy)]
pub(super) enum PathSpec<'a> {
    Full(&'a str),
    Prefix(&'a str),
    /// The field that `type` asks for is absent.
    Absent(&'static str),
}

/// A reference to a filter of another group.
pub(super) struct ExtensionSpec<'a> {
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
    pub(super) name: &'a str,
}

macro_rules! ref_spec {
    ($reference:expr) => {
        RefSpec {
            group: $reference.group.as_deref(),
            kind: $reference.kind.as_deref(),
            namespace: $reference.namespace.as_deref(),
            name: &$reference.name,
            port: $reference.port,
        }
    };
}
pub(super) use ref_spec;

macro_rules! headers {
    ($modifier:expr) => {
        HeadersSpec {
            set: $modifier.set.iter().flatten().map(|entry| (&*entry.name, &*entry.value)).collect(),
            add: $modifier.add.iter().flatten().map(|entry| (&*entry.name, &*entry.value)).collect(),
            remove: $modifier.remove.as_deref().unwrap_or_default(),
        }
    };
}

macro_rules! path {
    ($path:expr, $Type:path) => {{
        use $Type as Type;
        $path.as_ref().map(|path| match path.r#type {
            Type::ReplaceFullPath => {
                path.replace_full_path.as_deref().map_or(PathSpec::Absent("replaceFullPath"), PathSpec::Full)
            }
            Type::ReplacePrefixMatch => {
                let prefix = path.replace_prefix_match.as_deref();
                prefix.map_or(PathSpec::Absent("replacePrefixMatch"), PathSpec::Prefix)
            }
        })
    }};
}

macro_rules! filter_spec {
    ($Filter:path, $Type:path, $Scheme:path, $RedirectPath:path, $RewritePath:path) => {
        impl<'a> From<&'a $Filter> for FilterSpec<'a> {
            fn from(filter: &'a $Filter) -> Self {
                use {$Scheme as Scheme, $Type as Type};
                let asked = match filter.r#type {
                    Type::RequestHeaderModifier => "requestHeaderModifier",
                    Type::ResponseHeaderModifier => "responseHeaderModifier",
                    Type::RequestRedirect => "requestRedirect",
                    Type::UrlRewrite => "urlRewrite",
                    Type::ExtensionRef => "extensionRef",
                    Type::RequestMirror => "requestMirror",
                    Type::Cors => "cors",
                    Type::ExternalAuth => return Self::Unserved("ExternalAuth"),
                };
                let blocks = [
                    ("requestHeaderModifier", filter.request_header_modifier.is_some()),
                    ("responseHeaderModifier", filter.response_header_modifier.is_some()),
                    ("requestRedirect", filter.request_redirect.is_some()),
                    ("urlRewrite", filter.url_rewrite.is_some()),
                    ("extensionRef", filter.extension_ref.is_some()),
                    ("requestMirror", filter.request_mirror.is_some()),
                    ("cors", filter.cors.is_some()),
                    ("externalAuth", filter.external_auth.is_some()),
                ];
                if let Some((stray, _)) = blocks.iter().find(|(name, present)| *present && *name != asked) {
                    return Self::Stray(stray);
                }
                let request = filter.request_header_modifier.as_ref();
                let response = filter.response_header_modifier.as_ref();
                let redirect = filter.request_redirect.as_ref().map(|redirect| RedirectSpec {
                    scheme: redirect.scheme.as_ref().map(|scheme| match scheme {
                        Scheme::Http => RedirectScheme::Http,
                        Scheme::Https => RedirectScheme::Https,
                    }),
                    hostname: redirect.hostname.as_deref(),
                    path: path!(redirect.path, $RedirectPath),
                    port: redirect.port,
                    status: redirect.status_code,
                });
                let rewrite = filter.url_rewrite.as_ref().map(|rewrite| RewriteSpec {
                    hostname: rewrite.hostname.as_deref(),
                    path: path!(rewrite.path, $RewritePath),
                });
                let extension = filter.extension_ref.as_ref().map(|extension| ExtensionSpec {
                    group: &extension.group,
                    kind: &extension.kind,
                    name: &extension.name,
                });
                let cors = filter.cors.as_ref().map(|cors| CorsSpec {
                    origins: cors.allow_origins.as_deref().unwrap_or_default(),
                    credentials: cors.allow_credentials.unwrap_or(false),
                    methods: cors.allow_methods.as_deref().unwrap_or_default(),
                    headers: cors.allow_headers.as_deref().unwrap_or_default(),
                    exposed: cors.expose_headers.as_deref().unwrap_or_default(),
                    max_age: cors.max_age,
                });
                let mirror = filter.request_mirror.as_ref().map(|mirror| MirrorSpec {
                    backend: ref_spec!(mirror.backend_ref),
                    percent: mirror.percent,
                    fraction: mirror.fraction.as_ref().map(|share| (share.numerator, share.denominator)),
                });
                // At most one block is left.
                request
                    .map(|modifier| Self::RequestHeaders(headers!(modifier)))
                    .or_else(|| response.map(|modifier| Self::ResponseHeaders(headers!(modifier))))
                    .or_else(|| redirect.map(Self::Redirect))
                    .or_else(|| rewrite.map(Self::Rewrite))
                    .or_else(|| cors.map(Self::Cors))
                    .or_else(|| mirror.map(Self::Mirror))
                    .or_else(|| extension.map(Self::Extension))
                    .unwrap_or(Self::Absent(asked))
            }
        }
    };
}

filter_spec!(
    api::HttpRouteRulesFilters,
    api::HttpRouteRulesFiltersType,
    api::HttpRouteRulesFiltersRequestRedirectScheme,
    api::HttpRouteRulesFiltersRequestRedirectPathType,
    api::HttpRouteRulesFiltersUrlRewritePathType
);

filter_spec!(
    api::HttpRouteRulesBackendRefsFilters,
    api::HttpRouteRulesBackendRefsFiltersType,
    api::HttpRouteRulesBackendRefsFiltersRequestRedirectScheme,
    api::HttpRouteRulesBackendRefsFiltersRequestRedirectPathType,
    api::HttpRouteRulesBackendRefsFiltersUrlRewritePathType
);
