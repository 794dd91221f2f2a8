//! Credentials of registries, in the Secrets that `kubectl create secret docker-registry` makes.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;

use super::secret::ReferredSecret;
use crate::{ir::Secret, translate::fault::Fault};

/// `.dockerconfigjson`: what `docker login` writes.
#[derive(Deserialize)]
struct DockerConfig {
    auths: BTreeMap<String, Login>,
}

/// What is known of one registry.
#[derive(Deserialize)]
struct Login {
    username: Option<String>,
    password: Option<String>,
    /// Both of them, as base64 of `user:password`.
    auth: Option<String>,
    /// What clouds give for a login, in the place of a password: Azure takes it as one.
    #[serde(rename = "identitytoken")]
    identity_token: Option<String>,
}

/// What the registry of an OCI URL is to be told, as `user:password`.
pub(super) fn credentials(secret: &ReferredSecret<'_>, url: &str) -> Result<Secret, Fault> {
    let logins = match secret.get(".dockerconfigjson") {
        Some(json) => serde_json::from_slice::<DockerConfig>(json).map(|config| config.auths),
        None => {
            let json =
                secret.get(".dockercfg").ok_or_else(|| secret.fault("has no entry \".dockerconfigjson\""))?;
            serde_json::from_slice(json)
        }
    };
    // What the parser says may quote the credentials.
    let logins = logins.map_err(|_| secret.fault("holds no docker configuration"))?;
    let login = find(&logins, url)
        .ok_or_else(|| secret.fault("has no credentials for the registry of spec.wasm.url"))?;
    login
        .credentials()
        .ok_or_else(|| secret.fault("has no user name and password for the registry of spec.wasm.url"))
}

/// The login that names most of the URL: its host, in which a label may be `*`, and the beginning of its
/// path.
fn find<'l>(logins: &'l BTreeMap<String, Login>, url: &str) -> Option<&'l Login> {
    let reference = bare(url);
    let fitting = logins.iter().filter(|(registry, _)| fits(bare(registry), reference));
    fitting.max_by_key(|(registry, _)| bare(registry).len()).map(|(_, login)| login)
}

/// Without its scheme and the version of the registry's API, which are written in front of and behind some
/// names.
fn bare(name: &str) -> &str {
    let name = name.split_once("://").map_or(name, |(_, rest)| rest).trim_end_matches('/');
    name.strip_suffix("/v1").or_else(|| name.strip_suffix("/v2")).unwrap_or(name)
}

fn fits(registry: &str, reference: &str) -> bool {
    let parts = |name: &'_ str| -> (String, String) {
        let (host, path) = name.split_once('/').unwrap_or((name, ""));
        // Three names of one registry.
        let host = match host {
            "index.docker.io" | "registry-1.docker.io" => "docker.io",
            host => host,
        };
        (host.to_ascii_lowercase(), path.to_owned())
    };
    let ((host, path), (wanted_host, wanted_path)) = (parts(registry), parts(reference));
    let labels_fit = host.split('.').count() == wanted_host.split('.').count()
        && host.split('.').zip(wanted_host.split('.')).all(|(label, wanted)| label == "*" || label == wanted);
    let rest = wanted_path.strip_prefix(&path);
    labels_fit
        && rest.is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with(['/', ':', '@']))
}

// === impl Login ===

impl Login {
    fn credentials(&self) -> Option<Secret> {
        let mut both = match (&self.username, &self.password, &self.auth) {
            (Some(username), Some(password), _) => format!("{username}:{password}").into_bytes(),
            (_, _, auth) => BASE64_STANDARD.decode(auth.as_deref()?.trim()).ok()?,
        };
        if let Some(token) = &self.identity_token
            && both.iter().position(|byte| *byte == b':') == both.len().checked_sub(1)
        {
            both.extend_from_slice(token.as_bytes());
        }
        both.contains(&b':').then_some(Secret(both))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_that_names_most_of_the_url_is_used() {
        let logins: BTreeMap<String, Login> = serde_json::from_value(serde_json::json!({
            "ghcr.io": {"username": "a", "password": "host"},
            "https://ghcr.io/team": {"username": "a", "password": "path"},
            "*.example.com": {"auth": "YTpsYWJlbA=="},
            "https://index.docker.io/v1/": {"username": "a", "password": "hub"},
            "registry.test:5000": {"username": "a", "password": "port"},
            "token.test": {"identitytoken": "t"},
            "r.azurecr.io": {"auth": "MDAwMDAwMDAtMDAwMC0wMDAwLTAwMDAtMDAwMDAwMDAwMDAwOg==", "identitytoken": "t"},
            "both.test": {"auth": "YTpsYWJlbA==", "identitytoken": "t"},
        }))
        .unwrap();
        for (url, expected) in [
            ("oci://ghcr.io/other/plugin:1", Some("a:host")),
            ("oci://ghcr.io/team/plugin:1", Some("a:path")),
            ("oci://ghcr.io/teams/plugin:1", Some("a:host")),
            ("oci://r.example.com/plugin", Some("a:label")),
            ("oci://a.r.example.com/plugin", None),
            ("oci://docker.io/team/plugin", Some("a:hub")),
            ("oci://registry.test:5000/plugin", Some("a:port")),
            ("oci://registry.test/plugin", None),
            ("oci://token.test/plugin", None),
            ("oci://r.azurecr.io/plugin:1", Some("00000000-0000-0000-0000-000000000000:t")),
            ("oci://both.test/plugin:1", Some("a:label")),
            ("oci://ghcr.io.evil.test/plugin", None),
        ] {
            let found = find(&logins, url).and_then(Login::credentials);
            let found = found.map(|secret| String::from_utf8(secret.0.clone()).unwrap());
            assert_eq!(found.as_deref(), expected, "{url}");
        }
    }
}
