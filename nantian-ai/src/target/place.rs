//! Where a provider is, and what it wants to know of the place.

use std::borrow::Cow;

use super::InvalidTarget;
use crate::credential::{Credential, Scheme};
use crate::dialect::Dialect;
use crate::target::azure;
use crate::target::config::TargetConfig;
use crate::target::provider::Provider;

/// What stands for the region in the base URL of a provider.
const REGION: &str = "{region}";

/// A credential in the header where the dialect's providers look for it.
pub(super) fn in_its_header(
    credential: &Credential,
    provider: Option<&Provider>,
    dialect: Dialect,
) -> Credential {
    let credential = credential.clone();
    match (dialect, credential.scheme, &credential.header) {
        (_, Scheme::ApiKey, None) if is_azure(provider) => credential.in_header(azure::KEY_HEADER),
        (Dialect::Gemini, Scheme::ApiKey, None) => credential.in_header("x-goog-api-key"),
        _ => credential,
    }
}

pub(super) fn is_azure(provider: Option<&Provider>) -> bool {
    provider.is_some_and(|provider| provider.name == azure::NAME)
}

/// Whether region and version can be what they are, and mean something to the provider.
pub(super) fn check_place(
    config: &TargetConfig,
    provider: Option<&Provider>,
    dialect: Dialect,
) -> Result<(), InvalidTarget> {
    let meaningless = |setting| InvalidTarget::Meaningless { setting, provider: config.provider.clone() };
    if let Some(region) = &config.region {
        if !is_region(region) {
            return Err(InvalidTarget::Region { region: region.clone() });
        }
        if dialect != Dialect::Bedrock && config.credential.scheme != Scheme::Aws {
            return Err(meaningless("region"));
        }
    }
    if let Some(version) = &config.api_version {
        if !azure::is_version(version) {
            return Err(InvalidTarget::ApiVersion { version: version.clone() });
        }
        if !is_azure(provider) {
            return Err(meaningless("apiVersion"));
        }
    }
    Ok(())
}

/// The base URL: the target's own, or the one that its provider has in its region.
pub(super) fn base<'c>(
    config: &'c TargetConfig,
    provider: Option<&Provider>,
    dialect: Dialect,
) -> Result<Cow<'c, str>, InvalidTarget> {
    if let Some(endpoint) = &config.endpoint {
        return Ok(endpoint.into());
    }
    let provider = provider.ok_or_else(|| unknown(config))?;
    let named = || provider.name.to_owned();
    let endpoint = provider.endpoint.filter(|_| provider.has_at_its_base(dialect));
    let endpoint =
        endpoint.ok_or_else(|| InvalidTarget::EndpointRequired { provider: named(), format: dialect })?;
    match (endpoint.contains(REGION), &config.region) {
        (false, _) => Ok(endpoint.into()),
        (true, Some(region)) => Ok(endpoint.replace(REGION, region).into()),
        (true, None) => Err(InvalidTarget::RegionRequired { provider: named() }),
    }
}

fn is_region(region: &str) -> bool {
    let is_safe = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&region.len()) && region.bytes().all(is_safe)
}

pub(super) fn unknown(config: &TargetConfig) -> InvalidTarget {
    InvalidTarget::UnknownProvider { provider: config.provider.clone() }
}
