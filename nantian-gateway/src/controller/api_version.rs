//! Which version of the Gateway API the cluster has.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::try_join_all;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, Error};
use tokio::time::Instant;

use crate::translate::conditions::{Condition, ConditionType, Reason};

/// The CRDs of the kinds that are read; the gateway may get these, and no other.
const CRDS: [&str; 10] = [
    "backendtlspolicies",
    "gatewayclasses",
    "gateways",
    "grpcroutes",
    "httproutes",
    "listenersets",
    "referencegrants",
    "tcproutes",
    "tlsroutes",
    "udproutes",
];

/// Where a CRD says of which version of the Gateway API it is.
const BUNDLE_VERSION: &str = "gateway.networking.k8s.io/bundle-version";

/// Versions 1.0 to 1.6 are known: each has what is read of those before it.
const NEWEST_MINOR: u32 = 6;

/// How long what was seen is believed.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What is known of the version, and since when.
#[derive(Debug, Default)]
pub(super) struct ApiVersion {
    condition: Option<Condition>,
    seen_at: Option<Instant>,
    obstacle: Option<String>,
}

// === impl ApiVersion ===

impl ApiVersion {
    /// What a GatewayClass says of it; nothing before it was seen.
    pub(super) fn condition(&self) -> Option<&Condition> {
        self.condition.as_ref()
    }

    /// Looks if the last time is long ago. Returns whether there is something else to say; where the CRDs
    /// cannot be read, what was said stays.
    pub(super) async fn refresh(&mut self, client: &Client) -> bool {
        if self.seen_at.is_some_and(|at| at.elapsed() < LOOK_AGAIN) {
            return false;
        }
        self.seen_at = Some(Instant::now());
        let versions = match versions(client).await {
            Ok(versions) => versions,
            Err(error) => {
                self.warn(&error);
                return false;
            }
        };
        self.obstacle = None;
        let condition = judge(&versions);
        if condition == self.condition {
            return false;
        }
        if let Some(unknown) = condition.as_ref().filter(|it| it.reason == Reason::UnsupportedVersion) {
            tracing::warn!(reason = unknown.message, "the version of the Gateway API is not known");
        }
        self.condition = condition;
        true
    }

    /// Says once what is in the way. That the server is away is told already.
    fn warn(&mut self, error: &Error) {
        let Error::Api(status) = error else { return };
        if self.obstacle.as_ref() != Some(&status.message) {
            tracing::warn!(error = status.message, "the version of the Gateway API cannot be read");
            self.obstacle = Some(status.message.clone());
        }
    }
}

/// The version of each CRD that is there, `None` where it says none.
async fn versions(client: &Client) -> Result<BTreeSet<Option<String>>, Error> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let names = CRDS.map(|plural| format!("{plural}.gateway.networking.k8s.io"));
    let crds = try_join_all(names.iter().map(|name| api.get_metadata_opt(name))).await?;
    let annotations = crds.into_iter().flatten().map(|crd| crd.metadata.annotations.unwrap_or_default());
    Ok(annotations.map(|mut annotations| annotations.remove(BUNDLE_VERSION)).collect())
}

fn judge(versions: &BTreeSet<Option<String>>) -> Option<Condition> {
    let names = versions.iter().map(|version| version.as_deref().unwrap_or("no version"));
    let names = names.collect::<Vec<_>>().join(", ");
    if versions.is_empty() {
        return None;
    }
    let kind = ConditionType::SupportedVersion;
    if versions.iter().all(|version| version.as_deref().is_some_and(is_known)) {
        return Some(Condition::holds(kind, Reason::SupportedVersion, format!("the CRDs are of {names}")));
    }
    let message = format!(
        "the CRDs are of {names}, and v1.0 to v1.{NEWEST_MINOR} are known; what is known of others is served all the same"
    );
    Some(Condition::fails(kind, Reason::UnsupportedVersion, message))
}

fn is_known(version: &str) -> bool {
    let mut numbers = version.strip_prefix('v').unwrap_or(version).split('.');
    let is_first = numbers.next() == Some("1");
    is_first
        && numbers.next().and_then(|minor| minor.parse().ok()).is_some_and(|minor: u32| minor <= NEWEST_MINOR)
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;
    use tower::service_fn;

    use super::*;

    /// A client of a server whose CRD of GatewayClasses says this, if it is there; the others are of v1.6.1.
    fn client(of_classes: &Arc<Mutex<Option<Option<&'static str>>>>) -> Client {
        let of_classes = Arc::clone(of_classes);
        let answer = move |request: Request<Body>| {
            let name = request.uri().path().rsplit('/').next().unwrap().to_owned();
            let version = match name.starts_with("gatewayclasses.") {
                true => *of_classes.lock().unwrap(),
                false => Some(Some("v1.6.1")),
            };
            let (code, body) = match version {
                Some(version) => {
                    let annotations = version.map(|version| json!({ BUNDLE_VERSION: version }));
                    (200, json!({ "metadata": { "name": name, "annotations": annotations } }))
                }
                None => {
                    (403, json!({ "status": "Failure", "code": 403, "reason": "Forbidden", "message": "no" }))
                }
            };
            let body = Body::from(body.to_string().into_bytes());
            async move { Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap()) }
        };
        Client::new(service_fn(answer), "default")
    }

    #[tokio::test(start_paused = true)]
    async fn the_version_is_looked_at_again_and_stays_where_it_cannot_be() {
        let of_classes = Arc::new(Mutex::new(None));
        let (client, mut version) = (client(&of_classes), ApiVersion::default());
        assert!(!version.refresh(&client).await && version.condition().is_none());
        for (said, is_known) in [
            (Some("v1.6.1"), true),
            (None, false),
            (Some("v1.6.0-rc.2"), true),
            (Some("v0.0.0"), false),
            (Some("v1.0.0"), true),
            (Some("v1.7.0"), false),
        ] {
            *of_classes.lock().unwrap() = Some(said);
            assert!(!version.refresh(&client).await, "not yet");
            tokio::time::advance(LOOK_AGAIN).await;
            assert!(version.refresh(&client).await, "{said:?}");
            let condition = version.condition().unwrap().clone();
            assert_eq!(condition.reason == Reason::SupportedVersion, is_known, "{condition:?}");
            let name = said.unwrap_or("no version");
            assert!(
                condition.message.contains(name) && condition.message.contains("v1.6.1"),
                "{condition:?}"
            );
        }
        *of_classes.lock().unwrap() = None;
        tokio::time::advance(LOOK_AGAIN).await;
        assert!(!version.refresh(&client).await && version.condition().is_some());
    }
}
