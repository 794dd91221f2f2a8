//! Who asks for a token, how, and in what form it is shown to providers.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{Request, Response};
use serde::{Deserialize, Deserializer};

use super::TokenError;
use super::entra;
#[cfg(feature = "gcp")]
use super::google;
use super::issued::Issued;
#[cfg(feature = "aws")]
use super::sts;
#[cfg(feature = "aws")]
use crate::credential::aws::Signer;
use crate::credential::stamp::Stamp;
use crate::credential::{InvalidCredential, Secret, header_value};

/// The largest answer that is read, in bytes.
const LARGEST_ANSWER: usize = 64 * 1024;

/// Who is to have a token. `Debug` shows no secrets.
pub(crate) enum Identity {
    Entra(entra::Application),
    #[cfg(feature = "gcp")]
    Google(google::Account),
    #[cfg(feature = "aws")]
    Aws(sts::Role),
}

/// How a token is shown to the provider.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// `Bearer`, in a header.
    Bearer(HeaderName),
    /// By signatures for a region.
    #[cfg(feature = "aws")]
    Signature { region: String },
}

/// The answer of an OAuth 2.0 token endpoint (RFC 6749, 5.1).
#[derive(Deserialize)]
struct Granted {
    #[serde(deserialize_with = "secret")]
    access_token: Secret,
    /// In seconds; some endpoints write it as a string.
    expires_in: Seconds,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(u64),
    Text(String),
}

/// And its refusal (5.2).
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refused {
    error: String,
    error_description: String,
}

// === impl Identity ===

impl Identity {
    /// Reads an application of Entra ID.
    pub(crate) fn of_entra(application: &str) -> Result<Self, InvalidCredential> {
        entra::Application::parse(application).map(Self::Entra)
    }

    /// Reads the key of a service account.
    #[cfg(feature = "gcp")]
    pub(crate) fn of_google(key: &str) -> Result<Self, InvalidCredential> {
        google::Account::parse(key).map(Self::Google)
    }

    /// What is asked of the token endpoint now.
    pub(super) fn request_at(
        &self,
        #[cfg_attr(
            not(feature = "gcp"),
            expect(unused_variables, reason = "only Google's assertions have a time")
        )]
        now: SystemTime,
    ) -> Result<Request<Bytes>, TokenError> {
        match self {
            Self::Entra(application) => application.request(),
            #[cfg(feature = "gcp")]
            Self::Google(account) => account.request_at(now),
            #[cfg(feature = "aws")]
            Self::Aws(role) => role.request(),
        }
    }

    /// What it answers.
    pub(super) fn read_at(
        &self,
        #[cfg_attr(
            not(feature = "aws"),
            expect(unused_variables, reason = "only AWS names the end of a life")
        )]
        now: SystemTime,
        response: &Response<Bytes>,
    ) -> Result<Issued, TokenError> {
        if response.body().len() > LARGEST_ANSWER {
            return Err(TokenError::Unreadable);
        }
        match self {
            Self::Entra(_) => granted(response),
            #[cfg(feature = "gcp")]
            Self::Google(_) => granted(response),
            #[cfg(feature = "aws")]
            Self::Aws(role) => role.read_at(now, response),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entra(application) => application.fmt(f),
            #[cfg(feature = "gcp")]
            Self::Google(account) => account.fmt(f),
            #[cfg(feature = "aws")]
            Self::Aws(role) => role.fmt(f),
        }
    }
}

// === impl Form ===

impl Form {
    /// The token, to be written into requests; `None` if it cannot be.
    pub(super) fn stamp(&self, secret: &Secret) -> Option<Stamp> {
        match self {
            Self::Bearer(name) => {
                let value = Secret::joined(&["Bearer ", secret.expose()]);
                header_value(&value)?;
                Some(Stamp::Header { name: name.clone(), value })
            }
            #[cfg(feature = "aws")]
            Self::Signature { region } => Signer::new(secret.expose(), region).map(Stamp::Signature),
        }
    }
}

/// Reads what an OAuth 2.0 token endpoint answers.
fn granted(response: &Response<Bytes>) -> Result<Issued, TokenError> {
    let status = response.status();
    if !status.is_success() {
        let refused: Refused = serde_json::from_slice(response.body()).unwrap_or_default();
        // Entra ID's descriptions begin with a number that says more.
        let is_numbered = refused.error_description.starts_with("AADSTS");
        let reason = if is_numbered { refused.error_description } else { refused.error };
        return Err(TokenError::of_status(status, Some(&reason)));
    }
    let granted: Granted = serde_json::from_slice(response.body()).map_err(|_| TokenError::Unreadable)?;
    let seconds = match granted.expires_in {
        Seconds::Number(seconds) => Some(seconds),
        Seconds::Text(text) => text.parse().ok(),
    };
    let life = seconds.map(Duration::from_secs).filter(|life| !life.is_zero());
    Ok(Issued { secret: granted.access_token, life: life.ok_or(TokenError::Unreadable)? })
}

/// A request with a form as its body.
pub(super) fn form(url: &str, fields: &[(&str, &str)]) -> Result<Request<Bytes>, TokenError> {
    let mut body = String::new();
    for (name, value) in fields {
        body.extend([if body.is_empty() { "" } else { "&" }, name, "=", &crate::dialect::segment(value)]);
    }
    Request::post(url)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Bytes::from(body))
        .map_err(|_| TokenError::Unreadable)
}

/// The proof of a workload's identity, which its platform writes anew from time to time.
pub(super) fn proof(path: &Path) -> Result<Secret, TokenError> {
    let read = std::fs::read_to_string(path);
    let read = read.map_err(|error| TokenError::Proof { path: path.to_owned(), source: Arc::new(error) })?;
    Ok(Secret::new(read.trim()))
}

/// Whether a token endpoint can be asked at this base URL.
pub(super) fn check_url(url: &str) -> Result<(), &'static str> {
    const PROBLEM: &str = "its token endpoint is no http or https URL";
    let url: http::Uri = url.parse().map_err(|_| PROBLEM)?;
    let is_http = matches!(url.scheme_str(), Some("http" | "https"));
    let authority = url.authority().filter(|authority| !authority.as_str().contains('@'));
    (is_http && authority.is_some()).then_some(()).ok_or(PROBLEM)
}

/// Reads a text that is a secret.
pub(super) fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}
