//! `spec.observability` of an AIService: the collectors that are told of its calls.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use nantian_crd::{AiService, Langfuse, Observability, Otel, SecretKeyRef};

use super::secret::ReferredSecret;
use crate::{
    ir::{Collector, CollectorKind, ObjectName, Secret},
    pattern::{InvalidPattern, Share},
    policy::OwnIdentities,
    telemetry,
    translate::{
        cluster_state::ClusterState,
        conditions::Reason,
        fault::{Fault, Path},
    },
};

/// Where a collector is that has no endpoint: OTLP over HTTP on this machine.
const LOCAL: &str = "http://localhost:4318";

/// The port of OTLP over HTTP.
const PORT: u16 = 4318;

/// The server of a Langfuse project where neither it nor the environment names one.
const CLOUD: &str = "https://cloud.langfuse.com";

/// The `service.name` of spans for which nobody gives another.
const SERVICE: &str = "nantian-gateway";

/// Checks what needs no other object, with expressions of this share.
pub(super) fn check(patterns: Share<'_>, service: &AiService) -> Result<(), Fault> {
    let Some(spec) = &service.spec.observability else { return Ok(()) };
    let path = Path::SPEC.field("observability");
    if let Some((at, error)) = unserved(patterns, spec, InvalidPattern::is_malformed) {
        return Err(Fault::at(Reason::Invalid, path.field("redact").index(at), error));
    }
    if let Some(otel) = &spec.otel {
        telemetry::check(&base_url(otel))
            .map_err(|error| Fault::at(Reason::Invalid, path.field("otel").field("endpoint"), error))?;
    }
    if let Some(host) = spec.langfuse.as_ref().and_then(|langfuse| langfuse.host.as_deref()) {
        telemetry::check(&langfuse_url(host))
            .map_err(|error| Fault::at(Reason::Invalid, path.field("langfuse").field("host"), error))?;
    }
    Ok(())
}

/// The first expression of `redact` that is not served for such a reason.
fn unserved(
    patterns: Share<'_>,
    spec: &Observability,
    is_meant: impl Fn(&InvalidPattern) -> bool,
) -> Option<(usize, InvalidPattern)> {
    spec.redact.iter().flatten().enumerate().find_map(|(at, pattern)| {
        let error = patterns.finder(pattern).err().filter(&is_meant)?;
        Some((at, error))
    })
}

/// What is better done otherwise.
pub(super) fn warning(service: &AiService) -> Option<&'static str> {
    let langfuse = service.spec.observability.as_ref()?.langfuse.as_ref()?;
    langfuse.secret_key.as_ref()?;
    Some(
        "spec.observability.langfuse.secretKey: whoever may read the object reads the key, prefer secretKeyRef",
    )
}

/// The collectors, with their credentials, and what keeps one from being told, or all from being told
/// contents: what cannot be blacked out is not told.
pub(super) fn collectors(
    cluster: &ClusterState<'_>,
    name: &ObjectName,
    service: &AiService,
) -> (Vec<Collector>, Option<Fault>) {
    let Some(spec) = &service.spec.observability else { return (Vec::new(), None) };
    let patterns = cluster.patterns.of(&name.namespace);
    let wants_contents = spec.capture_content.unwrap_or(false);
    let unserved = || unserved(patterns, spec, |error| !error.is_malformed());
    let mut lost = wants_contents.then(unserved).flatten().map(|(at, error)| {
        let path = Path::SPEC.field("observability");
        let problem = format!("{error}; no contents are told");
        Fault::at(Reason::Invalid, path.field("redact").index(at), problem)
    });
    let redact = (wants_contents && lost.is_none()).then(|| spec.redact.clone().unwrap_or_default());
    let mut collectors = Vec::new();
    if let Some(otel) = &spec.otel {
        collectors.push(Collector {
            kind: CollectorKind::Otlp,
            endpoint: base_url(otel),
            service_name: otel.service_name.clone().unwrap_or_else(|| SERVICE.to_owned()),
            redact: redact.clone(),
            authorization: None,
            sample_rate: None,
            environment: None,
            release: None,
        });
    }
    if let Some(langfuse) = &spec.langfuse {
        match project(cluster, name, langfuse) {
            Ok((endpoint, authorization)) => collectors.push(Collector {
                kind: CollectorKind::Langfuse,
                endpoint,
                service_name: SERVICE.to_owned(),
                redact,
                authorization: Some(authorization),
                sample_rate: langfuse.sample_rate,
                environment: langfuse.environment.clone(),
                release: langfuse.release.clone(),
            }),
            Err(fault) => lost = Some(fault),
        }
    }
    (collectors, lost)
}

/// The address of a collector as a URL.
fn base_url(otel: &Otel) -> String {
    let Some(endpoint) = &otel.endpoint else { return LOCAL.to_owned() };
    if endpoint.contains("://") {
        return endpoint.clone();
    }
    let (host, path) = endpoint.split_at(endpoint.find('/').unwrap_or(endpoint.len()));
    if host.contains(':') { format!("http://{host}{path}") } else { format!("http://{host}:{PORT}{path}") }
}

fn langfuse_url(host: &str) -> String {
    format!("{}/api/public/otel", host.trim_end_matches('/'))
}

/// The address of a Langfuse project, and what it is shown.
///
/// What the object does not say is the environment's to say. Its keys are for its own server alone: else who
/// may write an AIService could have them sent anywhere.
fn project(
    cluster: &ClusterState<'_>,
    service: &ObjectName,
    langfuse: &Langfuse,
) -> Result<(String, Secret), Fault> {
    let path = Path::SPEC.field("observability");
    let path = path.field("langfuse");
    let own = cluster.identities.map(OwnIdentities::langfuse);
    let own_host = own.and_then(|own| own.host.as_deref()).unwrap_or(CLOUD);
    let endpoint = langfuse_url(langfuse.host.as_deref().unwrap_or(own_host));
    telemetry::check(&endpoint).map_err(|error| match &langfuse.host {
        Some(_) => Fault::at(Reason::Invalid, path.field("host"), error),
        // Who may read the object need not learn what the environment says.
        None => {
            let problem = "the host that the gateway's environment names is no http or https URL";
            Fault::at(Reason::Invalid, path, problem)
        }
    })?;
    let own = own.filter(|_| endpoint == langfuse_url(own_host));
    let referred = |reference: &SecretKeyRef, field| -> Result<Vec<u8>, Fault> {
        let path = path.field(field);
        let secret = ReferredSecret::find(cluster, &service.namespace, &reference.name, path)?;
        let (_, entry) = secret.entry(reference.key.as_deref())?;
        Ok(entry.trim_ascii_end().to_vec())
    };
    let of_environment = |key: Option<&Secret>, field| {
        let missing = || {
            let problem = "is missing, and the gateway's environment has none for this server";
            Fault::at(Reason::SecretNotFound, path.field(field), problem).absent()
        };
        key.map(|key| key.0.clone()).ok_or_else(missing)
    };
    let public_key = match (&langfuse.public_key, &langfuse.public_key_ref) {
        (Some(key), _) => key.clone().into_bytes(),
        (None, Some(reference)) => referred(reference, "publicKeyRef")?,
        (None, None) => of_environment(own.and_then(|own| own.public_key.as_ref()), "publicKey")?,
    };
    let secret_key = match (&langfuse.secret_key, &langfuse.secret_key_ref) {
        (Some(key), _) => key.expose().as_bytes().to_vec(),
        (None, Some(reference)) => referred(reference, "secretKeyRef")?,
        (None, None) => of_environment(own.and_then(|own| own.secret_key.as_ref()), "secretKeyRef")?,
    };
    let pair = [public_key.as_slice(), b":", &secret_key].concat();
    Ok((endpoint, Secret(format!("Basic {}", STANDARD.encode(pair)).into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_scheme_is_one_of_otlp_over_http() {
        for (endpoint, url) in [
            (None, LOCAL),
            (Some("collector"), "http://collector:4318"),
            (Some("collector:9"), "http://collector:9"),
            (Some("collector/tenant"), "http://collector:4318/tenant"),
            (Some("https://collector"), "https://collector"),
        ] {
            let mut otel = Otel::default();
            otel.endpoint = endpoint.map(str::to_owned);
            assert_eq!(base_url(&otel), url);
        }
    }
}
