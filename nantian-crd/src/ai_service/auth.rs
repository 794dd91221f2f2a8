//! How an AIService authenticates to its provider.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{
    as_written::AsWritten,
    http_token,
    schema::{Hint, Rule, enforcing, has, text},
};

/// How the gateway authenticates to a provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = enforcing(RULES))]
#[non_exhaustive]
pub struct Auth {
    /// The scheme: bearer, apiKey, basic, aws, azure, gcp or none, in any case.
    ///
    /// Default: the provider's own. Source: `spec.auth.type`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<AsWritten<AuthType>>,
    /// Name of the Secret in the namespace of the AIService; required unless type is none.
    ///
    /// Range: 1 to 253 characters. Default: with type aws, azure or gcp the gateway's own identity there, if
    /// it may be used in this namespace. Source: `spec.auth.secret`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret: Option<String>,
    /// Entry of the Secret; each of its lines is a credential, and they are used in turn.
    ///
    /// A credential is the key or token itself with type bearer and apiKey; user:password with type basic;
    /// access key:secret key, and :session token if there is one, with type aws. With type azure and gcp each
    /// object of JSON in it is one: what `az ad sp create-for-rbac` prints, or the key file of a service
    /// account of Google.
    ///
    /// Range: 1 to 253 characters. Default: its only entry; with type aws the entries aws_access_key_id,
    /// aws_secret_access_key and, if there is one, aws_session_token; with type azure the entries
    /// azure_tenant_id, azure_client_id, azure_client_secret and, if there is one, azure_authority_host; in
    /// lower or upper case. Source: `spec.auth.key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
    /// Header that carries the credential.
    ///
    /// Range: an HTTP header name of up to 253 characters; not with type aws. Default: by type and provider.
    /// Source: `spec.auth.header`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = http_token::PATTERN))]
    pub header: Option<String>,
}

/// A scheme of authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a new scheme must not compile anywhere before it is sent")]
pub enum AuthType {
    /// `Bearer`, then the secret.
    Bearer,
    /// The secret alone.
    ApiKey,
    /// `Basic`, then the base64 of the secret, which is `user:password`.
    Basic,
    /// A signature of each request by an account of AWS; an entry is `access key:secret key`, and
    /// `:session token` if needed.
    Aws,
    /// `Bearer`, then a token of Entra ID for an application, as `az ad sp create-for-rbac` prints it.
    Azure,
    /// `Bearer`, then a token of Google for a service account, by the JSON of its key file.
    Gcp,
    /// Nothing is sent.
    None,
}

/// The text is no scheme of authentication.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not one of bearer, apiKey, basic, aws, azure, gcp, none")]
#[non_exhaustive]
pub struct InvalidAuthType(pub String);

pub(crate) const RULES: &[Rule] = &[
    Rule {
        cel: "has(self.secret) || (has(self.type) && self.type.matches('^(?i:none|aws|azure|gcp)$'))",
        message: "is required unless type is none, aws, azure or gcp",
        field: Some("secret"),
        holds: |auth| {
            has(auth, "secret")
                || matches!(
                    text(auth, "type").map(str::parse),
                    Some(Ok(AuthType::None | AuthType::Aws | AuthType::Azure | AuthType::Gcp) | Err(_))
                )
        },
    },
    Rule {
        cel: "!has(self.header) || !has(self.type) || !self.type.matches('^(?i:aws)$')",
        message: "cannot carry a signature: type is aws",
        field: Some("header"),
        holds: |auth| !has(auth, "header") || text(auth, "type").map(str::parse) != Some(Ok(AuthType::Aws)),
    },
];

const PATTERN: &str = "^(?i:bearer|api-?key|basic|aws|azure|gcp|none)$";

pub(crate) const HINTS: &[Hint] =
    &[Hint { pattern: PATTERN, meaning: "one of bearer, apiKey, basic, aws, azure, gcp, none" }];

// === impl AuthType ===

impl FromStr for AuthType {
    type Err = InvalidAuthType;

    /// # Errors
    ///
    /// [`InvalidAuthType`] for any other word.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "bearer" => Ok(Self::Bearer),
            "apikey" | "api-key" => Ok(Self::ApiKey),
            "aws" => Ok(Self::Aws),
            "azure" => Ok(Self::Azure),
            "basic" => Ok(Self::Basic),
            "gcp" => Ok(Self::Gcp),
            "none" => Ok(Self::None),
            _ => Err(InvalidAuthType(text.to_owned())),
        }
    }
}

impl fmt::Display for AuthType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bearer => "bearer",
            Self::ApiKey => "apiKey",
            Self::Basic => "basic",
            Self::Aws => "aws",
            Self::Azure => "azure",
            Self::Gcp => "gcp",
            Self::None => "none",
        })
    }
}

impl JsonSchema for AuthType {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "AuthType".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "maxLength": 16 })
    }
}
