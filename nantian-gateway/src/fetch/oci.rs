//! Modules in OCI registries.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use nantian_wasm::Digest;
use serde::Deserialize;

use super::{FetchError, client::Client, guard::names_loopback, unpack};

/// What a registry may answer for a reference.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// An index names manifests, a manifest names layers.
#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
}

#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: String,
}

/// A place in a registry.
struct Repository<'a> {
    client: &'a Client,
    /// Scheme and authority.
    origin: String,
    name: &'a str,
    authorization: Option<HeaderValue>,
}

/// Gets the module that `reference`, such as `ghcr.io/team/plugin:1.0`, stands for.
pub(super) async fn pull(client: &Client, reference: &str) -> Result<Bytes, FetchError> {
    let refused = |reason| FetchError::Url { url: format!("oci://{reference}"), reason };
    let (registry, path) = reference.split_once('/').ok_or_else(|| refused("it names no repository"))?;
    let (name, version) = split(path);
    if name.is_empty() {
        return Err(refused("it names no repository"));
    }
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let scheme = if names_loopback(host.trim_matches(['[', ']'])) { "http" } else { "https" };
    let origin = format!("{scheme}://{registry}");
    let mut repository = Repository { client, origin, name, authorization: None };
    let mut manifest = repository.manifest(version).await?;
    if let Some(first) = manifest.manifests.first() {
        manifest = repository.manifest(&first.digest).await?;
    }
    let layer = choose(&manifest.layers)
        .ok_or_else(|| FetchError::Artifact { reason: "it has no layers".to_owned() })?;
    let blob = repository.get("blobs", &layer.digest, None).await?;
    let bytes = verified(blob.into_body(), &layer.digest)?;
    unpack::module(bytes)
}

/// The repository's name, and the digest or tag behind it.
fn split(path: &str) -> (&str, &str) {
    if let Some((name, digest)) = path.split_once('@') {
        return (name.rsplit_once(':').map_or(name, |(name, _)| name), digest);
    }
    path.rsplit_once(':').unwrap_or((path, "latest"))
}

/// The layer that says it is WebAssembly; else the last, which is the uppermost of an image.
fn choose(layers: &[Descriptor]) -> Option<&Descriptor> {
    layers.iter().find(|layer| layer.media_type.contains("wasm")).or_else(|| layers.last())
}

/// Bytes whose digest is the one they were asked for by.
fn verified(bytes: Bytes, digest: &str) -> Result<Bytes, FetchError> {
    match digest.strip_prefix("sha256:") {
        Some(expected) if Digest::of(&bytes).to_string() == expected.to_ascii_lowercase() => Ok(bytes),
        Some(_) => Err(FetchError::Artifact { reason: format!("its bytes are not those of {digest}") }),
        None => Err(FetchError::Artifact { reason: format!("{digest:?} is no sha256") }),
    }
}

// === impl Repository ===

impl Repository<'_> {
    async fn manifest(&mut self, version: &str) -> Result<Manifest, FetchError> {
        let response = self.get("manifests", version, Some(MANIFESTS)).await?;
        let mut bytes = response.into_body();
        if version.starts_with("sha256:") {
            bytes = verified(bytes, version)?;
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| FetchError::Artifact { reason: format!("its manifest does not parse: {error}") })
    }

    /// Gets something, with a token if the registry wants one.
    async fn get(
        &mut self,
        what: &str,
        version: &str,
        accept: Option<&'static str>,
    ) -> Result<Response<Bytes>, FetchError> {
        let url = format!("{}/v2/{}/{what}/{version}", self.origin, self.name);
        loop {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            }
            headers.extend(self.authorization.clone().map(|value| (header::AUTHORIZATION, value)));
            let response = self.client.get(&url, headers, true).await?;
            match response.status() {
                StatusCode::OK => return Ok(response),
                StatusCode::UNAUTHORIZED if self.authorization.is_none() => {
                    self.authorization = Some(self.token(&response).await?);
                }
                status => return Err(FetchError::Status { url, status }),
            }
        }
    }

    /// Gets the token that anybody may have.
    async fn token(&self, response: &Response<Bytes>) -> Result<HeaderValue, FetchError> {
        let challenge =
            response.headers().get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let unreadable = || FetchError::Artifact { reason: "its registry wants credentials".to_owned() };
        let parameters = challenge.and_then(|text| text.strip_prefix("Bearer ")).ok_or_else(unreadable)?;
        let parameter = |name: &str| {
            parameters.split(',').find_map(|pair| {
                let (key, value) = pair.trim().split_once('=')?;
                (key == name).then(|| value.trim_matches('"'))
            })
        };
        let realm = parameter("realm").ok_or_else(unreadable)?;
        let service = parameter("service").unwrap_or_default();
        let url = format!("{realm}?service={service}&scope=repository:{}:pull", self.name);
        let answer = self.client.get(&url, HeaderMap::new(), realm.starts_with(&self.origin)).await?;
        if answer.status() != StatusCode::OK {
            return Err(unreadable());
        }
        let token: Token = serde_json::from_slice(answer.body()).map_err(|_| unreadable())?;
        HeaderValue::try_from(format!("Bearer {}", token.token)).map_err(|_| unreadable())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_name_a_tag_a_digest_or_the_latest() {
        assert_eq!(split("team/plugin:1.0"), ("team/plugin", "1.0"));
        assert_eq!(split("team/plugin"), ("team/plugin", "latest"));
        assert_eq!(split("team/plugin@sha256:ab"), ("team/plugin", "sha256:ab"));
        assert_eq!(split("team/plugin:1.0@sha256:ab"), ("team/plugin", "sha256:ab"));
    }

    #[test]
    fn bytes_of_another_digest_are_refused() {
        let digest = format!("sha256:{}", Digest::of(b"module"));
        assert!(verified(Bytes::from_static(b"module"), &digest).is_ok());
        assert!(verified(Bytes::from_static(b"other"), &digest).is_err());
        assert!(verified(Bytes::from_static(b"module"), "md5:00").is_err());
    }
}
