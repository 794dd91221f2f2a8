//! What the gateway shows a provider instead of the client's own credential.

#[cfg(feature = "aws")]
pub(crate) mod aws;
mod scheme;
mod secret;
pub(crate) mod stamp;

use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};

#[cfg(feature = "aws")]
use self::aws::Signer;
use self::stamp::Stamp;
use crate::token::{Form, Identity, Source, TokenClient, Workload};

pub use self::scheme::{Scheme, UnknownScheme};
pub use self::secret::Secret;

/// The credential of one target.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Credential {
    /// How the secret is written.
    ///
    /// Default: none; an AIService that names no type means its provider's,
    /// [`Provider::scheme`](crate::Provider::scheme). Source: `AIService.spec.auth.type`.
    pub scheme: Scheme,
    /// The secrets, used in turn: the first attempt of a request begins anywhere, each further one takes the
    /// next; one that is refused with 401, 402, 403, 407 or 429 makes way for one that is yet unused at once,
    /// also without retries. Empty for [`Scheme::None`].
    ///
    /// Source: the lines of the entry `AIService.spec.auth.key` of the Secret `AIService.spec.auth.secret`.
    pub secrets: Vec<Secret>,
    /// The identity that stands for the secrets where there are none: the program's own.
    ///
    /// Range: of the same cloud as the scheme. Default: none. Source: the operator of the proxy.
    pub workload: Option<Workload>,
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
    /// The secret is no account of the cloud, or the workload has no identity there.
    #[error("not {what}: {problem}")]
    Account {
        /// What it should be.
        what: &'static str,
        /// Why it is not.
        problem: &'static str,
    },
    /// The credential has to be exchanged for tokens, and there is no client to do so, see
    /// [`Target::with_tokens`](crate::Target::with_tokens).
    #[error("credentials of type {scheme} are exchanged for tokens, for which there is no client")]
    NoClient {
        /// The scheme.
        scheme: Scheme,
    },
    /// The scheme needs a feature that this build is without.
    #[error("this build knows no credentials of type {scheme}")]
    NotBuiltIn {
        /// The scheme.
        scheme: Scheme,
    },
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

// === impl Credential ===

impl Credential {
    /// A credential of any scheme in its customary header.
    pub fn new(scheme: Scheme, secret: impl Into<Secret>) -> Self {
        Self { scheme, secrets: vec![secret.into()], workload: None, header: None }
    }

    /// No credential.
    pub fn none() -> Self {
        Self { scheme: Scheme::None, secrets: Vec::new(), workload: None, header: None }
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

    /// A signature by an account of AWS; the keys are `access key:secret key`, with or without
    /// `:session token`.
    pub fn aws(keys: impl Into<Secret>) -> Self {
        Self::new(Scheme::Aws, keys)
    }

    /// A token of Entra ID; the application is an object of JSON with `tenant`, `appId` and `password`.
    pub fn azure(application: impl Into<Secret>) -> Self {
        Self::new(Scheme::Azure, application)
    }

    /// A token of Google; the key is the JSON of a service account's key file.
    pub fn gcp(key: impl Into<Secret>) -> Self {
        Self::new(Scheme::Gcp, key)
    }

    /// The program's own identity.
    pub fn workload(workload: Workload) -> Self {
        Self { scheme: workload.scheme(), secrets: Vec::new(), workload: Some(workload), header: None }
    }

    /// Moves the credential into another header; its value stays what the scheme says.
    #[must_use]
    pub fn in_header(mut self, name: impl Into<String>) -> Self {
        self.header = Some(name.into());
        self
    }

    /// Checks the credential once, so that writing it cannot fail on a request. Signatures are for a region,
    /// and tokens are asked for by a client.
    pub(crate) fn stamps(
        &self,
        region: Option<&str>,
        client: Option<&Arc<dyn TokenClient>>,
    ) -> Result<Vec<Stamp>, InvalidCredential> {
        let region = region.unwrap_or_default();
        if self.scheme == Scheme::None {
            return Ok(Vec::new());
        }
        if let (Some(header), Scheme::Aws) = (&self.header, self.scheme) {
            return Err(InvalidCredential::Signature { header: header.clone() });
        }
        if self.secrets.is_empty() {
            let workload = self.workload.as_ref().filter(|workload| workload.scheme() == self.scheme);
            let identity = workload.ok_or(InvalidCredential::Empty)?.identity(region)?;
            return Ok(vec![self.exchanged(identity, region, client)?]);
        }
        self.secrets.iter().map(|secret| self.stamp(secret.expose(), region, client)).collect()
    }

    fn stamp(
        &self,
        secret: &str,
        region: &str,
        client: Option<&Arc<dyn TokenClient>>,
    ) -> Result<Stamp, InvalidCredential> {
        match self.scheme {
            _ if secret.is_empty() => Err(InvalidCredential::Empty),
            Scheme::Azure => self.exchanged(Identity::of_entra(secret)?, region, client),
            #[cfg(feature = "gcp")]
            Scheme::Gcp => self.exchanged(Identity::of_google(secret)?, region, client),
            #[cfg(feature = "aws")]
            Scheme::Aws => Signer::new(secret, region).map(Stamp::Signature).ok_or(InvalidCredential::Keys),
            #[cfg(not(feature = "gcp"))]
            Scheme::Gcp => Err(InvalidCredential::NotBuiltIn { scheme: self.scheme }),
            #[cfg(not(feature = "aws"))]
            Scheme::Aws => Err(InvalidCredential::NotBuiltIn { scheme: self.scheme }),
            Scheme::ApiKey | Scheme::None => self.written("", secret, HeaderName::from_static("x-api-key")),
            Scheme::Bearer => self.written("Bearer ", secret, AUTHORIZATION),
            Scheme::Basic => {
                // Room for all of it: a buffer that grows would leave copies that nobody wipes.
                let mut encoded = String::with_capacity(2 * secret.len() + 4);
                STANDARD.encode_string(secret, &mut encoded);
                self.written("Basic ", Secret::new(encoded).expose(), AUTHORIZATION)
            }
        }
    }

    fn written(&self, before: &str, secret: &str, customary: HeaderName) -> Result<Stamp, InvalidCredential> {
        let name = self.header_or(customary)?;
        let value = Secret::joined(&[before, secret]);
        header_value(&value).ok_or(InvalidCredential::Secret)?;
        Ok(Stamp::Header { name, value })
    }

    #[cfg_attr(not(feature = "aws"), expect(unused_variables, reason = "only AWS has regions"))]
    fn exchanged(
        &self,
        identity: Identity,
        region: &str,
        client: Option<&Arc<dyn TokenClient>>,
    ) -> Result<Stamp, InvalidCredential> {
        let client = client.ok_or(InvalidCredential::NoClient { scheme: self.scheme })?;
        let form = match self.scheme {
            #[cfg(feature = "aws")]
            Scheme::Aws => Form::Signature { region: region.to_owned() },
            _ => Form::Bearer(self.header_or(AUTHORIZATION)?),
        };
        Ok(Stamp::Token(Arc::new(Source::new(identity, form, Arc::clone(client)))))
    }

    fn header_or(&self, customary: HeaderName) -> Result<HeaderName, InvalidCredential> {
        self.header.as_deref().map_or(Ok(customary), header_name)
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
pub(crate) fn header_value(secret: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(secret.expose()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn written(credential: Credential) -> (String, String) {
        let mut headers = HeaderMap::new();
        credential.stamps(None, None).unwrap().remove(0).write(&mut headers);
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
        assert!(Credential::none().stamps(None, None).unwrap().is_empty());
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
            let error = credential.stamps(None, None).unwrap_err();
            assert!(!error.to_string().contains("secret\n"), "{error}");
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        let shown = format!("{:?}", Credential::bearer("sk-very-secret"));
        assert!(!shown.contains("sk-very-secret"), "{shown}");
    }
}
