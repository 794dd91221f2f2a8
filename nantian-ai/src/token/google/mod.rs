//! Service accounts of Google: an assertion that the account's key signs (RFC 7523), or the machine's own
//! account.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::Request;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::TokenError;
use super::identity::{check_url, form};
use crate::codec::object;
use crate::credential::{InvalidCredential, Secret};

/// Where tokens are issued, unless the key names another place.
const TOKEN_ENDPOINT: &str = "https://oauth2.googleapis.com/token";

/// What may be used with the token; what the account may do there is its own.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// How an assertion is shown.
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// How long an assertion holds, in seconds: what Google allows.
const ASSERTION_LIFE: u64 = 3_600;

/// Where a machine of Google's asks for the token of its own account.
const OWN_TOKEN: &str = "/computeMetadata/v1/instance/service-accounts/default/token";

/// A service account. `Debug` shows no secrets.
pub(crate) enum Account {
    Key(Box<Key>),
    /// The machine's own; the URL of its token.
    Own(String),
}

/// The key of a service account.
pub(crate) struct Key {
    email: String,
    id: String,
    url: String,
    pair: KeyPair,
}

/// A key file as Google writes it.
#[derive(Deserialize)]
struct KeyFile {
    #[serde(rename = "type")]
    kind: String,
    client_email: String,
    #[serde(deserialize_with = "super::identity::secret")]
    private_key: Secret,
    #[serde(default)]
    private_key_id: String,
    token_uri: Option<String>,
}

// === impl Account ===

impl Account {
    /// Reads a key file, which is an object of JSON.
    pub(crate) fn parse(file: &str) -> Result<Self, InvalidCredential> {
        const WHAT: &str = "the key of a service account of Google";
        let refuse = |problem| InvalidCredential::Account { what: WHAT, problem };
        let file: KeyFile = serde_json::from_str(file)
            .map_err(|_| refuse("it has to be an object with `type`, `client_email` and `private_key`"))?;
        if file.kind != "service_account" {
            return Err(refuse("its type is not `service_account`"));
        }
        let der = der(file.private_key.expose()).ok_or_else(|| refuse("its private key is no PEM"))?;
        let pair =
            KeyPair::from_pkcs8(&der).map_err(|_| refuse("its private key is no RSA key in PKCS #8"))?;
        let url = file.token_uri.unwrap_or_else(|| TOKEN_ENDPOINT.to_owned());
        check_url(&url).map_err(refuse)?;
        Ok(Self::Key(Box::new(Key { email: file.client_email, id: file.private_key_id, url, pair })))
    }

    /// The account of the machine, whose metadata server is at `host`.
    pub(super) fn own(host: &str) -> Result<Self, &'static str> {
        let url = format!("http://{host}{OWN_TOKEN}");
        check_url(&url)?;
        Ok(Self::Own(url))
    }

    pub(super) fn request_at(&self, now: SystemTime) -> Result<Request<Bytes>, TokenError> {
        match self {
            Self::Key(key) => {
                let assertion = key.assertion_at(now)?;
                form(&key.url, &[("grant_type", GRANT), ("assertion", assertion.expose())])
            }
            Self::Own(url) => Request::get(url)
                .header("metadata-flavor", "Google")
                .body(Bytes::new())
                .map_err(|_| TokenError::Unreadable),
        }
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => f
                .debug_struct("Account")
                .field("email", &key.email)
                .field("url", &key.url)
                .finish_non_exhaustive(),
            Self::Own(url) => f.debug_struct("Account").field("url", url).finish(),
        }
    }
}

// === impl Key ===

impl Key {
    /// A JSON Web Token (RFC 7519) that is signed by RS256.
    fn assertion_at(&self, now: SystemTime) -> Result<Secret, TokenError> {
        let issued = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let header = object(|header| {
            header.text("alg", "RS256");
            header.text("typ", "JWT");
            if !self.id.is_empty() {
                header.text("kid", &self.id);
            }
        });
        let claims = object(|claims| {
            claims.text("iss", &self.email);
            claims.text("scope", SCOPE);
            claims.text("aud", &self.url);
            claims.count("iat", issued);
            claims.count("exp", issued.saturating_add(ASSERTION_LIFE));
        });
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| TokenError::Signature)?;
        Ok(Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}

/// The key within a PEM text (RFC 7468).
fn der(pem: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (_, rest) = pem.split_once("-----BEGIN PRIVATE KEY-----")?;
    let (body, _) = rest.split_once("-----END PRIVATE KEY-----")?;
    let base64: Zeroizing<String> = Zeroizing::new(body.split_whitespace().collect());
    STANDARD.decode(base64.as_bytes()).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests;
