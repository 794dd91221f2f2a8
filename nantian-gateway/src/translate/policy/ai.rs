//! AIService: models at providers, with their credentials.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use http::HeaderValue;
use k8s_openapi::api::core::v1::Secret;
use nantian_crd::{AiService, Auth, AuthType, Backoff, Format};

use super::attach;
use crate::{
    gates::Feature,
    ir::{self, AiAuth, AiAuthType, ObjectName, Policies, Retry, RetryBackoff},
    source::ObjectRef,
    translate::{
        conditions::{Condition, ConditionType, Conditions, Reason},
        fault::{Fault, Path},
        status::{ObjectStatus, PlainStatus},
        world::{Report, World, secret_entry},
    },
};

/// The AIServices, each ready to use or with the reason why it is not.
#[derive(Default)]
pub(in crate::translate) struct AiServices {
    by_name: BTreeMap<ObjectName, Result<ir::AiService, Fault>>,
}

/// The pause that the words `exponential`, `linear` and `fixed` stand for.
const DEFAULT_PAUSE: Duration = Duration::from_millis(500);

// === impl AiServices ===

impl AiServices {
    /// Reads every AIService and writes its status.
    pub(in crate::translate) fn read(world: &World<'_>, report: &mut Report) -> Self {
        let mut services = Self::default();
        if !world.gates.is_open(Feature::AIService) {
            report.ignore(Feature::AIService, &world.objects.ai_services);
            return services;
        }
        for (name, service) in &world.objects.ai_services {
            let accepted = attach::validate(&**service).and_then(|()| refuse_the_unserved(service));
            let auth = auth(world, name, service);
            let object = ObjectRef { kind: Feature::AIService.name(), name: name.clone() };
            let conditions = conditions(service, &accepted, &auth);
            report.status(object, ObjectStatus::Plain(PlainStatus { conditions }));
            let service = accepted.and(auth).map(|auth| to_ir(service, auth));
            services.by_name.insert(name.clone(), service);
        }
        services
    }

    pub(in crate::translate) fn get(&self, name: &ObjectName) -> Option<&Result<ir::AiService, Fault>> {
        self.by_name.get(name)
    }
}

fn refuse_the_unserved(service: &AiService) -> Result<(), Fault> {
    if service.spec.observability.is_some() {
        let path = Path::SPEC.field("observability");
        return Err(Fault::new(Reason::Unsupported, format!("{path}: not served yet")));
    }
    Ok(())
}

fn conditions(service: &AiService, accepted: &Result<(), Fault>, auth: &Result<AiAuth, Fault>) -> Conditions {
    let mut conditions = Conditions::new(service.metadata.generation);
    conditions.set(match accepted {
        Ok(()) => Condition::holds(ConditionType::Accepted, Reason::Accepted, "the AIService is valid"),
        Err(fault) => fault.condition(ConditionType::Accepted),
    });
    conditions.set(match auth {
        Ok(_) => {
            Condition::holds(ConditionType::ResolvedRefs, Reason::ResolvedRefs, "all references resolve")
        }
        Err(fault) => fault.condition(ConditionType::ResolvedRefs),
    });
    conditions.set(match (accepted, auth) {
        (Ok(()), Ok(_)) => {
            Condition::holds(ConditionType::Programmed, Reason::Programmed, "routes that name it can use it")
        }
        (Err(_), _) => {
            Condition::fails(ConditionType::Programmed, Reason::Invalid, "the AIService is not accepted")
        }
        (Ok(()), Err(_)) => {
            Condition::fails(ConditionType::Programmed, Reason::Invalid, "its references do not resolve")
        }
    });
    conditions
}

fn to_ir(service: &AiService, auth: AiAuth) -> ir::AiService {
    let spec = &service.spec;
    let retry = spec.retry.as_ref().map(|retry| Retry {
        max_retries: retry.max_retries.unwrap_or_default(),
        backoff: retry.backoff.as_ref().map(|backoff| pauses(*backoff.value())).unwrap_or_default(),
    });
    let timeout = spec.timeout.as_ref().map(|timeout| timeout.as_std());
    ir::AiService {
        provider: spec.provider.clone(),
        format: spec.format.map(|format| format_name(format).to_owned()),
        model: spec.model.clone(),
        endpoint: spec.endpoint.clone(),
        auth,
        timeout: timeout.filter(|timeout| !timeout.is_zero()),
        retry: retry.unwrap_or_default(),
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

fn format_name(format: Format) -> &'static str {
    match format {
        Format::OpenAi => "openai",
        Format::OpenAiCompat => "openai-compat",
        Format::Anthropic => "anthropic",
        Format::Ollama => "ollama",
    }
}

fn auth(world: &World<'_>, name: &ObjectName, service: &AiService) -> Result<AiAuth, Fault> {
    let Some(spec) = &service.spec.auth else { return Ok(AiAuth::default()) };
    let kind = match spec.type_.as_ref().map(|kind| *kind.value()) {
        Some(AuthType::Bearer) => AiAuthType::Bearer,
        Some(AuthType::ApiKey) => AiAuthType::ApiKey,
        Some(AuthType::Basic) => AiAuthType::Basic,
        Some(AuthType::None) => return Ok(AiAuth::default()),
        None => providers_own(service),
    };
    let path = Path::SPEC.field("auth");
    let secret = credential(world, name, spec)
        .map_err(|problem| Fault::new(Reason::SecretNotFound, format!("{path}: {problem}")))?;
    Ok(AiAuth {
        kind,
        header: spec.header.as_ref().map(|header| header.to_ascii_lowercase()),
        secret: Some(secret),
    })
}

/// The scheme of a provider where `auth.type` names none.
fn providers_own(service: &AiService) -> AiAuthType {
    let is_anthropic = match service.spec.format {
        Some(format) => format == Format::Anthropic,
        None => service.spec.provider == "anthropic",
    };
    if is_anthropic { AiAuthType::ApiKey } else { AiAuthType::Bearer }
}

/// The credential, without the line break that files tend to end in.
fn credential(world: &World<'_>, service: &ObjectName, spec: &Auth) -> Result<ir::Secret, String> {
    let Some(secret) = &spec.secret else { return Err("secret is missing".to_owned()) };
    let name = ObjectName::new(service.namespace.as_str(), secret.as_str());
    let Some(secret) = world.objects.secrets.get(&name) else {
        return Err(format!("Secret {name} does not exist"));
    };
    let key = match &spec.key {
        Some(key) => key,
        None => only_key(secret)
            .ok_or_else(|| format!("Secret {name} has not exactly one entry, so key is needed"))?,
    };
    let value = secret_entry(secret, key).ok_or_else(|| format!("Secret {name} has no entry {key:?}"))?;
    let value = value.trim_ascii_end();
    if value.is_empty() || HeaderValue::from_bytes(value).is_err() {
        return Err(format!("entry {key:?} of Secret {name} cannot be sent in a header"));
    }
    Ok(ir::Secret(value.to_vec()))
}

fn only_key(secret: &Secret) -> Option<&String> {
    let data = secret.data.iter().flat_map(BTreeMap::keys);
    let keys: BTreeSet<_> = data.chain(secret.string_data.iter().flat_map(BTreeMap::keys)).collect();
    match keys.len() {
        1 => keys.into_iter().next(),
        _ => None,
    }
}
