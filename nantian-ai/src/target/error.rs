//! What makes a target one that cannot work.

use super::endpoint::InvalidEndpoint;
use crate::credential::InvalidCredential;
use crate::dialect::Dialect;

/// A target that cannot work, found before any request is sent.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTarget {
    /// The provider is not known, so both dialect and base URL must be given.
    #[error("provider `{provider}` is not known: format and endpoint are required")]
    UnknownProvider {
        /// The name as given.
        provider: String,
    },
    /// The provider has no base URL for all of its customers, or it does not speak the format.
    #[error("provider `{provider}` has no base URL of its own for {format}: endpoint is required")]
    EndpointRequired {
        /// The provider.
        provider: String,
        /// The format asked for.
        format: Dialect,
    },
    /// The region is needed for the provider's base URL or for signatures, and the endpoint does not tell it.
    #[error("provider `{provider}` is asked in a region, which is not named")]
    RegionRequired {
        /// The provider.
        provider: String,
    },
    /// The region cannot be part of a host's name.
    #[error("the region `{region}` is not lower-case letters, digits and `-`")]
    Region {
        /// The region as given.
        region: String,
    },
    /// The version of an API cannot be part of a query.
    #[error("the version `{version}` is not letters, digits, `-`, `.` and `_`")]
    ApiVersion {
        /// The version as given.
        version: String,
    },
    /// A setting that this provider knows nothing of.
    #[error("{setting} means nothing to provider `{provider}`")]
    Meaningless {
        /// The setting: `region` or `apiVersion`.
        setting: &'static str,
        /// The provider.
        provider: String,
    },
    /// The base URL cannot be used.
    #[error(transparent)]
    Endpoint(#[from] InvalidEndpoint),
    /// No model is named.
    #[error("the model's name is empty")]
    EmptyModel,
    /// The dialect names the model in the path, and this name cannot be part of one.
    #[error("the model's name `{model}` cannot be part of a path")]
    Model {
        /// The name as given.
        model: String,
    },
    /// The credential cannot be sent.
    #[error(transparent)]
    Credential(#[from] InvalidCredential),
}
