//! Schemes of credentials, and what they are called.

use std::fmt;
use std::str::FromStr;

/// How a credential is written into a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Scheme {
    /// The secret as it is, in `x-api-key` unless another header is named.
    ApiKey,
    /// A signature of the request by an account of AWS; the secret is `access key:secret key` or
    /// `access key:secret key:session token`. Needs the feature `aws`.
    Aws,
    /// `Bearer` and a token of Entra ID; the secret is an application as `az ad sp create-for-rbac` prints
    /// it, an object of JSON.
    Azure,
    /// `Basic` and the base64 of the secret, which is `user:password`.
    Basic,
    /// `Bearer` and the secret.
    Bearer,
    /// `Bearer` and a token of Google; the secret is the key of a service account, an object of JSON. Needs
    /// the feature `gcp`.
    Gcp,
    /// No credential at all.
    None,
}

/// A scheme's name that is not known.
#[derive(Clone, Debug, thiserror::Error)]
#[error("unknown auth type `{name}`, expected bearer, apiKey, basic, aws, azure, gcp or none")]
#[non_exhaustive]
pub struct UnknownScheme {
    /// The name as given.
    pub name: String,
}

// === impl Scheme ===

impl FromStr for Scheme {
    type Err = UnknownScheme;

    /// Reads a scheme's name in any case, with or without a dash.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name.to_ascii_lowercase().replace(['-', '_'], "").as_str() {
            "apikey" => Ok(Self::ApiKey),
            "aws" => Ok(Self::Aws),
            "azure" => Ok(Self::Azure),
            "basic" => Ok(Self::Basic),
            "bearer" => Ok(Self::Bearer),
            "gcp" => Ok(Self::Gcp),
            "none" => Ok(Self::None),
            _ => Err(UnknownScheme { name: name.to_owned() }),
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ApiKey => "apiKey",
            Self::Aws => "aws",
            Self::Azure => "azure",
            Self::Basic => "basic",
            Self::Bearer => "bearer",
            Self::Gcp => "gcp",
            Self::None => "none",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheme_names_are_read_in_any_case() {
        for (name, scheme) in [
            ("bearer", Scheme::Bearer),
            ("Bearer", Scheme::Bearer),
            ("apiKey", Scheme::ApiKey),
            ("api-key", Scheme::ApiKey),
            ("BASIC", Scheme::Basic),
            ("AZURE", Scheme::Azure),
            ("gcp", Scheme::Gcp),
            ("none", Scheme::None),
        ] {
            assert_eq!(name.parse::<Scheme>().unwrap(), scheme);
        }
        let error = "digest".parse::<Scheme>().unwrap_err();
        assert!(error.to_string().contains("digest"), "{error}");
    }
}
