//! Modules in OCI registries.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use nantian_wasm::Digest;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::{
    FetchError,
    challenge::Challenge,
    client::{Client, parse},
    guard::names_loopback,
    origin::Origin,
};
use crate::{
    ir::{Secret, public},
    runtime::blocking,
};

/// Servers that are told who asks: the registry, and those that it leads to.
const MAX_AUTHORIZATIONS: usize = 3;

/// Longest answer of who gives tokens, in bytes: what is kept of it is a field of a request.
const MAX_TOKEN: usize = 64 << 10;

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
    registry: String,
    origin: Origin,
    name: String,
    /// `user:password`, for the registry.
    credentials: Option<&'a Secret>,
    /// What each server is told of who asks: the registry, and those that it redirects to.
    authorizations: Vec<(Origin, HeaderValue)>,
}

/// Gets the layer with the module that `reference`, such as `ghcr.io/team/plugin:1.0`, stands for.
/// `is_pinned` says that its bytes are compared with what they have to be.
pub(super) async fn pull(
    client: &Client,
    reference: &str,
    credentials: Option<&Secret>,
    is_pinned: bool,
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
    let mut repository = Repository::at(client, format!("{scheme}://{registry}"), name, credentials)?;
    let mut manifest = match repository.manifest(version).await {
        // Whom the operator has named may be asked without TLS; credentials are for who proves to be their
        // registry. Whoever is on the way can make it seem to speak none, so that the module has to be one
        // that nobody can change.
        Err(FetchError::NoTls { host }) if credentials.is_none() && host == repository.origin.host => {
            if !is_pinned && !is_digest(version) {
                return Err(refused("its registry speaks no TLS, and no sha256 pins the module"));
            }
            repository = Repository::at(client, format!("http://{registry}"), repository.name, None)?;
            repository.manifest(version).await?
        }
        manifest => manifest?,
    };
    if let Some(first) = manifest.manifests.first() {
        manifest = repository.manifest(&first.digest).await?;
    }
    let layer = choose(&manifest.layers)
        .ok_or_else(|| FetchError::Artifact { reason: "it has no layers".to_owned() })?;
    let blob = repository.get("blobs", &layer.digest, None).await?;
    let (bytes, digest) = (blob.into_body(), layer.digest.clone());
    // Of a large one it takes long, and whoever decides for all replicas is heard on this thread.
    let verified = blocking(move || verified(bytes, &digest)).await;
    verified.unwrap_or_else(|error| Err(FetchError::Artifact { reason: error.to_string() }))
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

/// Whether a version is one that says what its bytes are; tags have no colon.
fn is_digest(version: &str) -> bool {
    version.contains(':')
}

/// The layer that is WebAssembly by its media type; else the last, which is the uppermost of an image, and
/// where Higress has the module behind what is told of it (`application/vnd.module.wasm.spec.v1+yaml`).
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

impl<'a> Repository<'a> {
    fn at(
        client: &'a Client,
        registry: String,
        name: String,
        credentials: Option<&'a Secret>,
    ) -> Result<Self, FetchError> {
        let origin = Origin::of(&parse(&registry)?);
        Ok(Self { client, registry, origin, name, credentials, authorizations: Vec::new() })
    }

    async fn manifest(&mut self, version: &str) -> Result<Manifest, FetchError> {
        let response = self.get("manifests", version, Some(MANIFESTS)).await?;
        let mut bytes = response.into_body();
        if is_digest(version) {
            bytes = verified(bytes, version)?;
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| FetchError::Artifact { reason: format!("its manifest does not parse: {error}") })
    }

    /// Gets something, and says who asks to those on the way that want to know, once to each.
    async fn get(
        &mut self,
        what: &str,
        version: &str,
        accept: Option<&'static str>,
    ) -> Result<Response<Bytes>, FetchError> {
        let url = format!("{}/v2/{}/{what}/{version}", self.registry, self.name);
        loop {
            let (from, response) = self.client.get(&url, accept, &self.authorizations, true).await?;
            let is_new = self.authorizations.iter().all(|(known, _)| *known != from);
            match response.status() {
                StatusCode::OK => return Ok(response),
                StatusCode::UNAUTHORIZED if is_new && self.authorizations.len() < MAX_AUTHORIZATIONS => {
                    let authorization = self.authorize(&url, &from, response.headers()).await?;
                    self.authorizations.push((from, authorization));
                }
                status => return Err(FetchError::Status { url, status }),
            }
        }
    }

    /// Answers the first challenge that can be answered. Whom the registry redirects to learns nothing of the
    /// credentials, and names no place where they are shown.
    async fn authorize(
        &self,
        url: &str,
        from: &Origin,
        headers: &HeaderMap,
    ) -> Result<HeaderValue, FetchError> {
        let is_registry = *from == self.origin;
        let basic = if is_registry { self.basic() } else { None };
        let fields = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|field| field.to_str().ok());
        let can_be_answered = |challenge: &Challenge<'_>| basic.is_some() || *challenge != Challenge::Basic;
        match fields.flat_map(Challenge::all).find(can_be_answered) {
            Some(Challenge::Basic) => basic.ok_or_else(unauthorized),
            Some(Challenge::Bearer { realm, service, scope }) => {
                // Elsewhere the repository may have another name.
                let own = format!("repository:{}:pull", self.name);
                let scope = scope.filter(|_| !is_registry).unwrap_or(&own);
                self.token(&token_url(realm, service, scope), is_registry, basic).await
            }
            None if is_registry => Err(unauthorized()),
            // It is not the registry that wants to know who asks.
            None => Err(FetchError::Status { url: url.to_owned(), status: StatusCode::UNAUTHORIZED }),
        }
    }

    /// Gets a token: that which anybody may have, if there are no credentials.
    async fn token(
        &self,
        url: &str,
        is_of_registry: bool,
        basic: Option<HeaderValue>,
    ) -> Result<HeaderValue, FetchError> {
        let realm = Origin::of(&parse(url)?);
        let is_own = is_of_registry && realm == self.origin;
        // Credentials are shown to nobody in clear text but to whom they are for.
        let basic = basic.filter(|_| is_own || realm.is_encrypted);
        let authorizations: Vec<_> = basic.map(|value| (realm, value)).into_iter().collect();
        let (_, answer) = self.client.get(url, None, &authorizations, is_own).await?;
        if answer.status() != StatusCode::OK || answer.body().len() > MAX_TOKEN {
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

/// Where a token is to be had (Docker registry token authentication).
fn token_url(realm: &str, service: &str, scope: &str) -> String {
    let separator = if realm.contains('?') { '&' } else { '?' };
    let service = utf8_percent_encode(service, &QUERY);
    let scope = utf8_percent_encode(scope, &QUERY);
    format!("{realm}{separator}service={service}&scope={scope}")
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

#[cfg(test)]
mod tests;
