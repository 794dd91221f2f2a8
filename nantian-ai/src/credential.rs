//! What the gateway shows a provider instead of the client's own credential.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

#[cfg(feature = "aws")]
use crate::aws::Signer;
use crate::body::RequestBody;

/// A secret string: wiped from memory when dropped, never printed.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(Zeroizing<String>);

/// How a credential is written into a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Scheme {
    /// The secret as it is, in `x-api-key` unless another header is named.
    ApiKey,
    /// A signature of the request by an account of AWS; the secret is `access key:secret key` or
    /// `access key:secret key:session token`. Needs the feature `aws`.
    Aws,
    /// `Basic` and the base64 of the secret, which is `user:password`.
    Basic,
    /// `Bearer` and the secret.
    Bearer,
    /// No credential at all.
    None,
}

/// The credential of one target.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Credential {
    /// How the secret is written.
    ///
    /// Default: the provider's. Source: `AIService.spec.auth.type`.
    pub scheme: Scheme,
    /// The secrets, used in turn: the first attempt of a request begins anywhere, each further one takes the next. Empty for
    /// [`Scheme::None`].
    ///
    /// Source: the lines of the entry `AIService.spec.auth.key` of the Secret `AIService.spec.auth.secret`.
    pub secrets: Vec<Secret>,
    /// The header that carries it.
    ///
    /// Range: a header name. Default: by scheme and provider. Source: `AIService.spec.auth.header`.
    pub header: Option<String>,
}

/// A credential that cannot be sent. The secret is never part of the message.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCredential {
    /// The header's name is not one.
    #[error("`{header}` is not a header name")]
    Header {
        /// The name as given.
        header: String,
    },
    /// The header is one that a request needs for itself.
    #[error("header `{header}` cannot carry a credential")]
    Reserved {
        /// The name as given.
        header: String,
    },
    /// A scheme other than `none` has an empty secret.
    #[error("the secret is empty")]
    Empty,
    /// The secret is no pair of keys of AWS, with or without a session token.
    #[error("the secret is not `access key:secret key`, with or without `:session token`")]
    Keys,
    /// Requests can be signed for AWS only with the feature `aws`.
    #[error("this build cannot sign requests for AWS")]
    NotBuiltIn,
    /// A signature is in the headers that AWS looks for it in.
    #[error("a signature cannot be in header `{header}`")]
    Signature {
        /// The name as given.
        header: String,
    },
    /// The secret holds a byte that no header value may hold.
    #[error("the secret holds a byte that is not allowed in a header")]
    Secret,
}

/// A scheme's name that is not known.
#[derive(Clone, Debug, thiserror::Error)]
#[error("unknown auth type `{name}`, expected bearer, apiKey, basic, aws or none")]
#[non_exhaustive]
pub struct UnknownScheme {
    /// The name as given.
    pub name: String,
}

/// A checked credential, ready to be written into requests.
#[derive(Clone, Debug)]
pub(crate) enum Stamp {
    /// The same in every request.
    Header { name: HeaderName, value: Secret },
    /// Made for each request.
    #[cfg(feature = "aws")]
    Signature(Signer),
}

// === impl Secret ===

impl Secret {
    /// Takes a secret. Line ends at its end are removed: they come from files, never from providers.
    pub fn new(value: impl Into<String>) -> Self {
        let value = Zeroizing::new(value.into());
        Self(Zeroizing::new(value.trim_end_matches(['\r', '\n']).to_owned()))
    }

    fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self::new(value)
    }
}

// === impl Scheme ===

impl FromStr for Scheme {
    type Err = UnknownScheme;

    /// Reads a scheme's name in any case, with or without a dash.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name.to_ascii_lowercase().replace(['-', '_'], "").as_str() {
            "apikey" => Ok(Self::ApiKey),
            "aws" => Ok(Self::Aws),
            "basic" => Ok(Self::Basic),
            "bearer" => Ok(Self::Bearer),
            "none" => Ok(Self::None),
            _ => Err(UnknownScheme { name: name.to_owned() }),
        }
    }
}

// === impl Credential ===

impl Credential {
    /// A credential of any scheme in its customary header.
    pub fn new(scheme: Scheme, secret: impl Into<Secret>) -> Self {
        Self { scheme, secrets: vec![secret.into()], header: None }
    }

    /// No credential.
    pub fn none() -> Self {
        Self { scheme: Scheme::None, secrets: Vec::new(), header: None }
    }

    /// Adds another secret, to be used in turn with the others.
    #[must_use]
    pub fn or(mut self, secret: impl Into<Secret>) -> Self {
        self.secrets.push(secret.into());
        self
    }

    /// `Authorization: Bearer <secret>`.
    pub fn bearer(secret: impl Into<Secret>) -> Self {
        Self::new(Scheme::Bearer, secret)
    }

    /// `x-api-key: <secret>`.
    pub fn api_key(secret: impl Into<Secret>) -> Self {
        Self::new(Scheme::ApiKey, secret)
    }

    /// `Authorization: Basic <base64 of user:password>`.
    pub fn basic(user_and_password: impl Into<Secret>) -> Self {
        Self::new(Scheme::Basic, user_and_password)
    }

    /// A signature by an account of AWS; the keys are `access key:secret key`, with or without `:session token`.
    pub fn aws(keys: impl Into<Secret>) -> Self {
        Self::new(Scheme::Aws, keys)
    }

    /// Moves the credential into another header; its value stays what the scheme says.
    #[must_use]
    pub fn in_header(mut self, name: impl Into<String>) -> Self {
        self.header = Some(name.into());
        self
    }

    /// Checks the credential once, so that writing it cannot fail on a request. Signatures are for a region.
    pub(crate) fn stamps(&self, region: Option<&str>) -> Result<Vec<Stamp>, InvalidCredential> {
        if self.scheme == Scheme::None {
            return Ok(Vec::new());
        }
        if self.secrets.is_empty() {
            return Err(InvalidCredential::Empty);
        }
        if self.scheme == Scheme::Aws {
            return self.signatures(region.unwrap_or_default());
        }
        self.secrets.iter().map(|secret| self.stamp(secret.expose())).collect()
    }

    #[cfg(feature = "aws")]
    fn signatures(&self, region: &str) -> Result<Vec<Stamp>, InvalidCredential> {
        if let Some(header) = &self.header {
            return Err(InvalidCredential::Signature { header: header.clone() });
        }
        let signers = self.secrets.iter().map(|secret| Signer::new(secret.expose(), region));
        signers.map(|signer| signer.map(Stamp::Signature).ok_or(InvalidCredential::Keys)).collect()
    }

    #[cfg(not(feature = "aws"))]
    fn signatures(&self, _region: &str) -> Result<Vec<Stamp>, InvalidCredential> {
        Err(InvalidCredential::NotBuiltIn)
    }

    fn stamp(&self, secret: &str) -> Result<Stamp, InvalidCredential> {
        // Room for all that is written: a buffer that grows would leave copies that nobody wipes.
        let mut value = String::with_capacity(2 * secret.len() + 16);
        let name = match self.scheme {
            _ if secret.is_empty() => return Err(InvalidCredential::Empty),
            Scheme::ApiKey | Scheme::Aws | Scheme::None => {
                value.push_str(secret);
                HeaderName::from_static("x-api-key")
            }
            Scheme::Bearer => {
                value.extend(["Bearer ", secret]);
                AUTHORIZATION
            }
            Scheme::Basic => {
                value.push_str("Basic ");
                STANDARD.encode_string(secret, &mut value);
                AUTHORIZATION
            }
        };
        let name = match &self.header {
            Some(header) => header_name(header)?,
            None => name,
        };
        let value = Secret::new(value);
        header_value(&value).ok_or(InvalidCredential::Secret)?;
        Ok(Stamp::Header { name, value })
    }
}

fn header_name(header: &str) -> Result<HeaderName, InvalidCredential> {
    let name =
        HeaderName::from_str(header).map_err(|_| InvalidCredential::Header { header: header.to_owned() })?;
    let reserved = matches!(
        name.as_str(),
        "host" | "content-length" | "content-type" | "transfer-encoding" | "connection" | "te"
    );
    if reserved {
        return Err(InvalidCredential::Reserved { header: header.to_owned() });
    }
    Ok(name)
}

/// A header's value, marked sensitive.
fn header_value(secret: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(secret.expose()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

// === impl Stamp ===

impl Stamp {
    /// Writes it where it does not depend on the request.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        match self {
            Self::Header { name, value } => {
                // A checked secret is a header's value.
                if let Some(value) = header_value(value) {
                    headers.insert(name.clone(), value);
                }
            }
            #[cfg(feature = "aws")]
            Self::Signature(_) => {}
        }
    }

    /// Writes it into a request that is sent now.
    #[cfg_attr(not(feature = "aws"), expect(unused_variables, reason = "only signatures depend on the time"))]
    pub(crate) fn sign_at(&self, now: SystemTime, request: &mut Request<RequestBody>) {
        match self {
            Self::Header { .. } => self.write(request.headers_mut()),
            #[cfg(feature = "aws")]
            Self::Signature(signer) => {
                // Without one the provider refuses the request, which is told like any refused credential.
                if let Err(error) = signer.sign_at(now, request) {
                    tracing::warn!(%error, "a request cannot be signed");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(credential: Credential) -> (String, String) {
        let mut headers = HeaderMap::new();
        credential.stamps(None).unwrap().remove(0).write(&mut headers);
        let (name, value) = headers.iter().next().unwrap();
        assert!(value.is_sensitive());
        (name.to_string(), value.to_str().unwrap().to_owned())
    }

    #[test]
    fn each_scheme_writes_its_customary_header() {
        assert_eq!(written(Credential::bearer("sk-1\n")), ("authorization".into(), "Bearer sk-1".into()));
        assert_eq!(written(Credential::api_key("k")), ("x-api-key".into(), "k".into()));
        assert_eq!(
            written(Credential::basic("user:pass")),
            ("authorization".into(), "Basic dXNlcjpwYXNz".into())
        );
        assert!(Credential::none().stamps(None).unwrap().is_empty());
    }

    #[test]
    fn another_header_carries_the_same_value() {
        assert_eq!(written(Credential::api_key("k").in_header("Api-Key")), ("api-key".into(), "k".into()));
        assert_eq!(
            written(Credential::bearer("k").in_header("X-Token")),
            ("x-token".into(), "Bearer k".into())
        );
    }

    #[test]
    fn an_unusable_credential_is_refused_without_naming_the_secret() {
        for credential in [
            Credential::bearer(""),
            Credential::bearer("secret\nvalue"),
            Credential::bearer("secret").in_header("not a header"),
            Credential::bearer("secret").in_header("Host"),
        ] {
            let error = credential.stamps(None).unwrap_err();
            assert!(!error.to_string().contains("secret\n"), "{error}");
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        let shown = format!("{:?}", Credential::bearer("sk-very-secret"));
        assert!(!shown.contains("sk-very-secret"), "{shown}");
    }

    #[test]
    fn scheme_names_are_read_in_any_case() {
        for (name, scheme) in [
            ("bearer", Scheme::Bearer),
            ("Bearer", Scheme::Bearer),
            ("apiKey", Scheme::ApiKey),
            ("api-key", Scheme::ApiKey),
            ("BASIC", Scheme::Basic),
            ("none", Scheme::None),
        ] {
            assert_eq!(name.parse::<Scheme>().unwrap(), scheme);
        }
        let error = "digest".parse::<Scheme>().unwrap_err();
        assert!(error.to_string().contains("digest"), "{error}");
    }
}
