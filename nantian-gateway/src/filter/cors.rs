//! CORS (Fetch, section 3.3): preflights are answered here, and responses tell browsers who may read them.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};

use crate::{
    body::Body,
    ir::{self, Names, OriginPattern},
    listen::Order,
};

/// What an answer to a preflight depends on.
const PREFLIGHT_VARIES: &str = "origin, access-control-request-method, access-control-request-headers";

/// Headers that only this filter sets.
const OWN: [header::HeaderName; 6] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];

/// A CORS filter, ready to be applied.
#[derive(Debug)]
pub(super) struct Cors {
    origins: Vec<OriginPattern>,
    credentials: bool,
    methods: Allowed,
    headers: Allowed,
    exposed: Option<HeaderValue>,
    max_age: HeaderValue,
}

#[derive(Debug)]
enum Allowed {
    /// What is asked for; a wildcard would mean nothing in answers about requests with credentials.
    Asked,
    Listed(Option<HeaderValue>),
}

impl Cors {
    pub(super) fn new(cors: &ir::Cors) -> Self {
        let exposed = match &cors.exposed {
            // With credentials it would be the name of a header.
            Names::Any if cors.credentials => None,
            Names::Any => Some(HeaderValue::from_static("*")),
            Names::Listed(names) => names.clone(),
        };
        Self {
            origins: cors.origins.clone(),
            credentials: cors.credentials,
            methods: Allowed::new(&cors.methods),
            headers: Allowed::new(&cors.headers),
            exposed,
            max_age: cors.max_age_seconds.into(),
        }
    }

    /// The origin of a request, if it is allowed.
    pub(super) fn allowed_origin(&self, request: &Parts) -> Option<HeaderValue> {
        let value = request.headers.get(header::ORIGIN)?;
        let origin = value.to_str().ok()?;
        self.origins.iter().any(|pattern| pattern.allows(origin)).then(|| value.clone())
    }

    /// The answer to a preflight; nothing for any other request.
    pub(super) fn preflight(&self, request: &Parts) -> Option<Response<Body>> {
        let method = request.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
        let method = method
            .filter(|_| request.method == Method::OPTIONS && request.headers.contains_key(header::ORIGIN))?;
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static(PREFLIGHT_VARIES));
        if let Some(origin) = self.allowed_origin(request) {
            self.allow(origin, headers);
            let asked = request.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
            insert(headers, header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.answer(Some(method)));
            insert(headers, header::ACCESS_CONTROL_ALLOW_HEADERS, self.headers.answer(asked));
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        } else {
            *response.status_mut() = StatusCode::FORBIDDEN;
        }
        Some(response)
    }

    /// Lets scripts of `origin` read a response; without one no script of another origin may, whatever the
    /// backend says.
    pub(super) fn on_response(&self, origin: Option<HeaderValue>, headers: &mut HeaderMap) {
        Order::Kept.remove(headers, |name| OWN.contains(name));
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = origin {
            self.allow(origin, headers);
        }
    }

    fn allow(&self, origin: HeaderValue, headers: &mut HeaderMap) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        insert(headers, header::ACCESS_CONTROL_EXPOSE_HEADERS, self.exposed.as_ref());
    }
}

impl Allowed {
    fn new(names: &Names) -> Self {
        match names {
            Names::Any => Self::Asked,
            Names::Listed(names) => Self::Listed(names.clone()),
        }
    }

    fn answer<'a>(&'a self, asked: Option<&'a HeaderValue>) -> Option<&'a HeaderValue> {
        match self {
            Self::Asked => asked,
            Self::Listed(names) => names.as_ref(),
        }
    }
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: Option<&HeaderValue>) {
    if let Some(value) = value {
        headers.insert(name, value.clone());
    }
}
