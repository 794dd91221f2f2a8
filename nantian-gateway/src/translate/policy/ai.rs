//! AIService: models at providers, with their credentials.

use std::{collections::BTreeMap, time::Duration};

use http::HeaderValue;
use nantian_ai::{InvalidTarget, Provider, Scheme};
use nantian_crd::{AiService, Auth, AuthType, Backoff, Format};

use super::{attach, secret::ReferredSecret, telemetry};
use crate::{
    gates::Feature,
    ir::{self, AiAuth, BackendTransport, ObjectName, Policies, Retry, RetryBackoff},
    policy::{InvalidAiService, check_ai_service, check_identity},
    source::ObjectRef,
    translate::{
        cluster_state::{ClusterState, Report},
        conditions::{Condition, ConditionType, Conditions, Reason},
        fault::{Fault, Path},
        status::{ObjectStatus, PlainStatus},
    },
};

/// The AIServices, each ready to use or with the reason why it is not.
#[derive(Default)]
pub(in crate::translate) struct AiServices {
    by_name: BTreeMap<ObjectName, Result<ir::AiService, Fault>>,
}

/// The time that `spec.timeout` stands for where it is absent.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// The pause that the words `exponential`, `linear` and `fixed` stand for.
const DEFAULT_PAUSE: Duration = Duration::from_millis(500);

// === impl AiServices ===

impl AiServices {
    /// Reads every AIService and writes its status.
    pub(in crate::translate) fn read(cluster: &ClusterState<'_>, report: &mut Report) -> Self {
        let mut services = Self::default();
        if !cluster.gates.is_open(Feature::AIService) {
            report.ignore(Feature::AIService, &cluster.objects.ai_services);
            return services;
        }
        for (name, service) in &cluster.objects.ai_services {
            let draft = to_ir(service);
            let accepted = attach::validate(&**service)
                .and_then(|()| telemetry::check(cluster.patterns.of(&name.namespace), service))
                .and_then(|()| usable(name, &draft));
            let (collectors, unobserved) = telemetry::collectors(cluster, name, service);
            let resolved = resolve(cluster, name, service, ir::AiService { collectors, ..draft });
            let object = ObjectRef { kind: Feature::AIService.name(), name: name.clone() };
            let identified = resolved.as_ref().map_or(Ok(()), |ready| {
                cluster.identities.map_or(Ok(()), |own| check_identity(name, ready, own))
            });
            // Who is told of calls is on no call's path.
            let unresolved = resolved.as_ref().err().or(unobserved.as_ref());
            let conditions = conditions(service, &accepted, &resolved, unresolved, identified);
            if let Some(warning) = telemetry::warning(service) {
                report.warn(&object, warning);
            }
            report.status(object, ObjectStatus::Plain(PlainStatus { conditions }));
            services.by_name.insert(name.clone(), accepted.and(resolved));
        }
        services
    }

    pub(in crate::translate) fn get(&self, name: &ObjectName) -> Option<&Result<ir::AiService, Fault>> {
        self.by_name.get(name)
    }
}

/// Whether the service could be an upstream once its credential is there.
fn usable(name: &ObjectName, draft: &ir::AiService) -> Result<(), Fault> {
    let secret = Some(ir::Secret(b"access:secret".to_vec()));
    // A token is shown as a key is.
    let kind = match draft.auth.kind {
        AuthType::Azure | AuthType::Gcp => AuthType::Bearer,
        kind => kind,
    };
    let service = ir::AiService { auth: AiAuth { kind, secret, ..draft.auth.clone() }, ..draft.clone() };
    check_ai_service(name, &service).map_err(|error| refusal(&error))
}

fn refusal(error: &InvalidAiService) -> Fault {
    let field = match error {
        InvalidAiService::Target(InvalidTarget::UnknownProvider { .. }) => "spec.provider",
        InvalidAiService::Target(InvalidTarget::EndpointRequired { .. } | InvalidTarget::Endpoint(_))
        | InvalidAiService::Endpoint => "spec.endpoint",
        InvalidAiService::Target(
            InvalidTarget::RegionRequired { .. }
            | InvalidTarget::Region { .. }
            | InvalidTarget::Meaningless { setting: "region", .. },
        ) => "spec.region",
        InvalidAiService::Target(InvalidTarget::ApiVersion { .. } | InvalidTarget::Meaningless { .. }) => {
            "spec.apiVersion"
        }
        InvalidAiService::Target(InvalidTarget::EmptyModel | InvalidTarget::Model { .. }) => "spec.model",
        // The placeholder can be sent, so it is the header that cannot carry it.
        InvalidAiService::Target(InvalidTarget::Credential(_)) | InvalidAiService::Credential => {
            "spec.auth.header"
        }
        InvalidAiService::Own | InvalidAiService::NoIdentity { .. } => "spec.auth",
        InvalidAiService::Target(_) => "spec",
    };
    Fault::at(Reason::Invalid, field, error)
}

fn conditions(
    service: &AiService,
    accepted: &Result<(), Fault>,
    resolved: &Result<ir::AiService, Fault>,
    unresolved: Option<&Fault>,
    identified: Result<(), InvalidAiService>,
) -> Conditions {
    let mut conditions = Conditions::new(service.metadata.generation);
    conditions.set(match accepted {
        Ok(()) => Condition::holds(ConditionType::Accepted, Reason::Accepted, "the AIService is valid"),
        Err(fault) => fault.condition(ConditionType::Accepted),
    });
    conditions.set(match unresolved {
        None => Condition::holds(ConditionType::ResolvedRefs, Reason::ResolvedRefs, "all references resolve"),
        Some(fault) => fault.condition(ConditionType::ResolvedRefs),
    });
    let programmed = match (accepted, resolved, identified) {
        (Ok(()), Ok(_), Ok(())) => Ok("routes that name it can use it"),
        (Ok(()), Ok(_), Err(error)) => Err(error.to_string()),
        (Err(_), ..) => Err("the AIService is not accepted".to_owned()),
        (Ok(()), Err(_), _) => Err("its references do not resolve".to_owned()),
    };
    conditions.set(match programmed {
        Ok(message) => Condition::holds(ConditionType::Programmed, Reason::Programmed, message),
        Err(message) => Condition::fails(ConditionType::Programmed, Reason::Invalid, message),
    });
    conditions
}

/// The service without its credential.
fn to_ir(service: &AiService) -> ir::AiService {
    let spec = &service.spec;
    let retry = spec.retry.as_ref().map(|retry| Retry {
        max_retries: retry.max_retries.unwrap_or_default(),
        backoff: retry.backoff.as_ref().map(|backoff| pauses(*backoff.value())).unwrap_or_default(),
    });
    let timeout = spec.timeout.as_ref().map_or(DEFAULT_TIMEOUT, |timeout| timeout.as_std());
    ir::AiService {
        provider: spec.provider.clone(),
        format: spec.format,
        model: spec.model.clone(),
        endpoint: spec.endpoint.clone(),
        transport: BackendTransport::default(),
        region: spec.region.clone(),
        api_version: spec.api_version.clone(),
        auth: scheme(service),
        timeout: Some(timeout).filter(|timeout| !timeout.is_zero()),
        retry: retry.unwrap_or_default(),
        collectors: Vec::new(),
        policies: Policies::default(),
    }
}

fn pauses(backoff: Backoff) -> RetryBackoff {
    match backoff {
        Backoff::From(pause) => RetryBackoff::Exponential(pause.as_std()),
        Backoff::Exponential => RetryBackoff::Exponential(DEFAULT_PAUSE),
        Backoff::Linear => RetryBackoff::Linear(DEFAULT_PAUSE),
        Backoff::Fixed => RetryBackoff::Fixed(DEFAULT_PAUSE),
    }
}

/// How the credential is sent.
fn scheme(service: &AiService) -> AiAuth {
    let Some(spec) = &service.spec.auth else { return AiAuth::default() };
    let kind = match spec.type_.as_ref().map(|kind| *kind.value()) {
        Some(AuthType::None) => return AiAuth::default(),
        Some(kind) => kind,
        None => providers_own(service),
    };
    AiAuth { kind, header: spec.header.as_ref().map(|header| header.to_ascii_lowercase()), secret: None }
}

/// Adds the credential, where the service has one.
fn resolve(
    cluster: &ClusterState<'_>,
    name: &ObjectName,
    service: &AiService,
    mut draft: ir::AiService,
) -> Result<ir::AiService, Fault> {
    let kind = draft.auth.kind;
    // Without a secret it is the gateway itself; whether it may be is decided where its identity is known.
    let is_own = |spec: &Auth| spec.secret.is_none() && is_exchanged(kind);
    if let Some(spec) = service.spec.auth.as_ref().filter(|spec| kind != AuthType::None && !is_own(spec)) {
        draft.auth.secret = Some(credential(cluster, name, spec, kind)?);
        if matches!(kind, AuthType::Azure | AuthType::Gcp) {
            check_ai_service(name, &draft).map_err(|error| unusable(&error))?;
        }
    }
    Ok(draft)
}

/// Whether the gateway's own identity can stand for a credential.
fn is_exchanged(kind: AuthType) -> bool {
    matches!(kind, AuthType::Aws | AuthType::Azure | AuthType::Gcp)
}

fn unusable(error: &InvalidAiService) -> Fault {
    Fault::at(Reason::SecretNotFound, Path::SPEC.field("auth"), format!("the Secret cannot be used: {error}"))
}

/// The scheme of a provider where `auth.type` names none.
fn providers_own(service: &AiService) -> AuthType {
    let spec = &service.spec;
    let known = Provider::find(&spec.provider).map(|provider| provider.scheme);
    match (spec.format, known) {
        (_, Some(Scheme::Aws)) | (Some(Format::Bedrock), _) => AuthType::Aws,
        (Some(Format::Anthropic | Format::Gemini), _) | (None, Some(Scheme::ApiKey)) => AuthType::ApiKey,
        _ if spec.provider.eq_ignore_ascii_case("azure-openai") => AuthType::ApiKey,
        _ => AuthType::Bearer,
    }
}

/// The credential, without the line break that files tend to end in.
fn credential(
    cluster: &ClusterState<'_>,
    service: &ObjectName,
    spec: &Auth,
    kind: AuthType,
) -> Result<ir::Secret, Fault> {
    let path = Path::SPEC.field("auth");
    let fault = |problem: String| Fault::at(Reason::SecretNotFound, path, problem);
    let Some(name) = &spec.secret else { return Err(fault("secret is missing".to_owned())) };
    let secret = ReferredSecret::find(cluster, &service.namespace, name, path)?;
    match kind {
        AuthType::Aws if spec.key.is_none() => account(&secret)
            .ok_or_else(|| secret.fault("has not the entries of an account of AWS, or they cannot be sent")),
        AuthType::Azure if spec.key.is_none() && secret.only_key().is_none() => application(&secret)
            .ok_or_else(|| secret.fault("has not the entries of an application of Entra ID")),
        _ => {
            let (key, value) = secret.entry(spec.key.as_deref())?;
            let value = value.trim_ascii_end();
            if !is_sendable(value, kind) {
                let shown = &secret.shown;
                return Err(fault(format!("entry {key:?} of {shown} cannot be sent in a header")));
            }
            Ok(ir::Secret(value.to_vec()))
        }
    }
}

/// Whether each of the credential's lines can be sent: in a header, by Basic as base64, by AWS as keys.
fn is_sendable(value: &[u8], kind: AuthType) -> bool {
    let is_sendable = |line: &str| match kind {
        AuthType::Basic | AuthType::Azure | AuthType::Gcp => true,
        AuthType::Aws => {
            let mut parts = line.splitn(3, ':');
            let filled = parts.clone().all(|part| !part.is_empty());
            parts.nth(1).is_some() && filled && HeaderValue::from_str(line).is_ok()
        }
        _ => HeaderValue::from_str(line).is_ok(),
    };
    !value.is_empty() && std::str::from_utf8(value).is_ok_and(|text| text.lines().all(is_sendable))
}

/// The keys of an account of AWS, from the entries that AWS's own tools know, as one credential.
fn account(secret: &ReferredSecret<'_>) -> Option<ir::Secret> {
    let keys = [secret.either_case("aws_access_key_id")?, secret.either_case("aws_secret_access_key")?];
    let mut keys = keys.join(&b':');
    if let Some(token) = secret.either_case("aws_session_token") {
        keys.push(b':');
        keys.extend_from_slice(token);
    }
    let is_one = !keys.contains(&b'\n') && is_sendable(&keys, AuthType::Aws);
    is_one.then_some(ir::Secret(keys))
}

/// An application of Entra ID, from the entries that Azure's own tools know, as one credential.
fn application(secret: &ReferredSecret<'_>) -> Option<ir::Secret> {
    let entry = |name: &str| std::str::from_utf8(secret.either_case(name)?).ok();
    let application = serde_json::json!({
        "tenant": entry("azure_tenant_id")?,
        "appId": entry("azure_client_id")?,
        "password": entry("azure_client_secret")?,
        "authority": entry("azure_authority_host"),
    });
    Some(ir::Secret(application.to_string().into_bytes()))
}
