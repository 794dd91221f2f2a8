//! Modules in OCI registries.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use nantian_wasm::Digest;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::{FetchError, client::Client, guard::names_loopback, unpack};
use crate::{
    ir::{Secret, public},
    runtime::blocking,
};

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

/// What may stand in the query of a URL as it is (RFC 3986, 3.4), but for what separates its parts.
const QUERY: AsciiSet =
    NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':').remove(b'/');

/// Registries give the same token one name, the other, or both.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// A place in a registry.
struct Repository<'a> {
    client: &'a Client,
    /// Scheme and authority.
    origin: String,
    name: String,
    /// `user:password`.
    credentials: Option<&'a Secret>,
    authorization: Option<HeaderValue>,
}

/// How a registry wants to know who asks (RFC 9110, 11.6.1).
enum Challenge<'a> {
    Basic,
    /// A token is to be had at `realm`.
    Bearer {
        realm: &'a str,
        service: &'a str,
    },
}

/// Gets the module that `reference`, such as `ghcr.io/team/plugin:1.0`, stands for.
pub(super) async fn pull(
    client: &Client,
    reference: &str,
    credentials: Option<&Secret>,
) -> Result<Bytes, FetchError> {
    let refused = |reason| FetchError::Url { url: format!("oci://{}", public(reference)), reason };
    let (registry, path) = reference.split_once('/').ok_or_else(|| refused("it names no repository"))?;
    let (name, version) = split(path);
    if name.is_empty() {
        return Err(refused("it names no repository"));
    }
    let (registry, name) = located(registry, name);
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let scheme = if names_loopback(host.trim_matches(['[', ']'])) { "http" } else { "https" };
    let origin = format!("{scheme}://{registry}");
    let mut repository = Repository { client, origin, name, credentials, authorization: None };
    let mut manifest = repository.manifest(version).await?;
    if let Some(first) = manifest.manifests.first() {
        manifest = repository.manifest(&first.digest).await?;
    }
    let layer = choose(&manifest.layers)
        .ok_or_else(|| FetchError::Artifact { reason: "it has no layers".to_owned() })?;
    let blob = repository.get("blobs", &layer.digest, None).await?;
    let (bytes, digest) = (blob.into_body(), layer.digest.clone());
    // Of a large one it takes long, and whoever decides for all replicas is heard on this thread.
    let unpacked = blocking(move || unpack::module(verified(bytes, &digest)?)).await;
    unpacked.unwrap_or_else(|error| Err(FetchError::Artifact { reason: error.to_string() }))
}

/// Where a repository really is: Docker Hub's registry has another host than its images' names.
fn located<'a>(registry: &'a str, name: &str) -> (&'a str, String) {
    match (registry, name.contains('/')) {
        ("docker.io" | "index.docker.io", true) => ("registry-1.docker.io", name.to_owned()),
        ("docker.io" | "index.docker.io", false) => ("registry-1.docker.io", format!("library/{name}")),
        _ => (registry, name.to_owned()),
    }
}

/// The repository's name, and the digest or tag behind it.
fn split(path: &str) -> (&str, &str) {
    if let Some((name, digest)) = path.split_once('@') {
        return (name.rsplit_once(':').map_or(name, |(name, _)| name), digest);
    }
    path.rsplit_once(':').unwrap_or((path, "latest"))
}

/// The layer that is WebAssembly by its media type; else the last, which is the uppermost of an image, and where Higress has
/// the module behind what is told of it (`application/vnd.module.wasm.spec.v1+yaml`).
fn choose(layers: &[Descriptor]) -> Option<&Descriptor> {
    layers.iter().find(|layer| layer.media_type.ends_with("wasm")).or_else(|| layers.last())
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

    /// Gets something, and says who asks if the registry wants to know.
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
                    self.authorization = Some(self.authorize(response.headers()).await?);
                }
                status => return Err(FetchError::Status { url, status }),
            }
        }
    }

    /// Answers a challenge.
    async fn authorize(&self, headers: &HeaderMap) -> Result<HeaderValue, FetchError> {
        let challenges = headers.get_all(header::WWW_AUTHENTICATE).iter();
        let challenge = challenges.filter_map(|value| Challenge::read(value.to_str().ok()?)).next();
        match challenge {
            Some(Challenge::Basic) => self.basic().ok_or_else(unauthorized),
            Some(Challenge::Bearer { realm, service }) => self.token(realm, service).await,
            None => Err(unauthorized()),
        }
    }

    /// Gets a token: that which anybody may have, if there are no credentials.
    async fn token(&self, realm: &str, service: &str) -> Result<HeaderValue, FetchError> {
        let is_own = realm.strip_prefix(&self.origin).is_some_and(|path| path.starts_with('/'));
        let mut headers = HeaderMap::new();
        // Credentials are shown to nobody in clear text but to whom they are for.
        if is_own || realm.starts_with("https://") {
            headers.extend(self.basic().map(|value| (header::AUTHORIZATION, value)));
        }
        let url = token_url(realm, service, &self.name);
        let answer = self.client.get(&url, headers, is_own).await?;
        if answer.status() != StatusCode::OK {
            return Err(unauthorized());
        }
        let Token { token, access_token } =
            serde_json::from_slice(answer.body()).map_err(|_| unauthorized())?;
        let token = token.or(access_token).ok_or_else(unauthorized)?;
        secret_value(&format!("Bearer {token}")).ok_or_else(unauthorized)
    }

    fn basic(&self) -> Option<HeaderValue> {
        let Secret(credentials) = self.credentials?;
        secret_value(&format!("Basic {}", BASE64_STANDARD.encode(credentials)))
    }
}

/// Where a token to pull a repository is to be had (Docker registry token authentication).
fn token_url(realm: &str, service: &str, repository: &str) -> String {
    let separator = if realm.contains('?') { '&' } else { '?' };
    let service = utf8_percent_encode(service, &QUERY);
    let repository = utf8_percent_encode(repository, &QUERY);
    format!("{realm}{separator}service={service}&scope=repository:{repository}:pull")
}

/// A header's value that no log shows.
fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn unauthorized() -> FetchError {
    FetchError::Artifact { reason: "its registry wants other credentials".to_owned() }
}

// === impl Challenge ===

impl<'a> Challenge<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (scheme, parameters) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        let parameter = |name: &str| {
            parameters.split(',').find_map(|pair| {
                let (key, value) = pair.trim().split_once('=')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim_matches('"'))
            })
        };
        let is_bearer = scheme.eq_ignore_ascii_case("bearer");
        let realm = parameter("realm").filter(|_| is_bearer)?;
        Some(Self::Bearer { realm, service: parameter("service").unwrap_or_default() })
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
    fn images_of_docker_hub_are_where_they_are() {
        assert_eq!(located("docker.io", "plugin"), ("registry-1.docker.io", "library/plugin".to_owned()));
        assert_eq!(located("docker.io", "team/plugin"), ("registry-1.docker.io", "team/plugin".to_owned()));
        assert_eq!(located("ghcr.io", "team/plugin"), ("ghcr.io", "team/plugin".to_owned()));
    }

    #[test]
    fn what_a_registry_says_of_itself_keeps_its_place_in_the_url_of_the_token() {
        let url = token_url("https://auth.test/token?account=x", "a&scope=b c", "team/plugin");
        assert_eq!(
            url,
            "https://auth.test/token?account=x&service=a%26scope%3Db%20c&scope=repository:team/plugin:pull"
        );
    }

    #[test]
    fn bytes_of_another_digest_are_refused() {
        let digest = format!("sha256:{}", Digest::of(b"module"));
        assert!(verified(Bytes::from_static(b"module"), &digest).is_ok());
        assert!(verified(Bytes::from_static(b"other"), &digest).is_err());
        assert!(verified(Bytes::from_static(b"module"), "md5:00").is_err());
    }
}
