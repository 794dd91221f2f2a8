//! BackendTLSPolicy: how the certificates of a Service or an AIService are verified.

use gateway_api::backendtlspolicies::{
    BackendTlsPolicySpec, BackendTlsPolicyValidation, BackendTlsPolicyValidationSubjectAltNames,
    BackendTlsPolicyValidationSubjectAltNamesType as NameType,
};

use super::{
    PolicySet,
    attach::{self, Claims},
    outcome::{PolicyOutcome, References},
    target::Target,
};
use crate::{
    ir::{Authorities, BackendTls, BackendTransport, ObjectName, SubjectName},
    source::ObjectRef,
    translate::{
        authorities,
        cluster_state::{ClusterState, oldest_first},
        conditions::Reason,
        fault::{Fault, Faults, Path},
        grants::GroupKind,
        hostname,
    },
};

/// Attaches every BackendTLSPolicy to its targets, the oldest first.
///
/// One that is not valid has its targets all the same, and nothing is sent to them: what was to be encrypted
/// and verified must not be sent in any other way.
pub(super) fn read(cluster: &ClusterState<'_>, set: &mut PolicySet) {
    let mut claims = Claims::default();
    for (name, policy) in oldest_first(&cluster.objects.backend_tls_policies) {
        let object = ObjectRef { kind: GroupKind::BACKEND_TLS_POLICY.kind, name: name.clone() };
        let targets = policy.spec.target_refs.iter().map(|target| {
            let kind = GroupKind::new(&target.group, &target.kind);
            let target_name = ObjectName::new(name.namespace.as_str(), target.name.as_str());
            Target::resolve_connected(cluster, kind, target_name, target.section_name.clone())
        });
        let targets = targets.collect();
        let mut unresolved = Faults::default();
        let tls = match cluster.objects.unreadable.get(&object) {
            Some(reason) => Err(Fault::new(Reason::Invalid, reason.clone())),
            None => backend_tls(cluster, name, &policy.spec, &mut unresolved),
        };
        let (transport, refused) = match tls {
            Ok(tls) => (BackendTransport::Tls(tls), None),
            Err(fault) => (BackendTransport::Refused, Some(fault)),
        };
        let outcomes = claims.claim(&object, targets);
        for place in attach::won(&outcomes) {
            set.transports.insert(place.clone(), transport.clone());
        }
        let (kind, generation) = (GroupKind::BACKEND_TLS_POLICY, policy.metadata.generation);
        let outcome = PolicyOutcome::new(object, kind, generation, refused, outcomes);
        set.records.push(PolicyOutcome { references: References::Authorities(unresolved), ..outcome });
    }
}

fn backend_tls(
    cluster: &ClusterState<'_>,
    policy: &ObjectName,
    spec: &BackendTlsPolicySpec,
    unresolved: &mut Faults,
) -> Result<BackendTls, Fault> {
    if let Some(option) = spec.options.as_ref().and_then(|options| options.keys().next()) {
        let message = format!("{option:?} is not supported, no option is");
        return Err(Fault::at(Reason::Invalid, Path::SPEC.field("options"), message));
    }
    let validation = &spec.validation;
    let path = Path::SPEC.field("validation");
    let authorities = trusted(cluster, policy, validation, &path, unresolved)?;
    if !hostname::is_name(&validation.hostname) {
        let message = format!("{:?} is not a host name", validation.hostname);
        return Err(Fault::at(Reason::Invalid, path.field("hostname"), message));
    }
    let path = path.field("subjectAltNames");
    let names = validation.subject_alt_names.iter().flatten().enumerate();
    let subject_names = names.map(|(index, name)| subject_name(name, &path.index(index)));
    let subject_names = subject_names.collect::<Result<_, _>>()?;
    Ok(BackendTls { hostname: validation.hostname.to_ascii_lowercase(), authorities, subject_names })
}

/// The authorities that a policy names; `None` is those of the operating system.
fn trusted(
    cluster: &ClusterState<'_>,
    policy: &ObjectName,
    validation: &BackendTlsPolicyValidation,
    path: &Path<'_>,
    unresolved: &mut Faults,
) -> Result<Option<Authorities>, Fault> {
    let invalid = |field, message: &str| Fault::at(Reason::Invalid, path.field(field), message);
    let refs = validation.ca_certificate_refs.as_deref().unwrap_or_default();
    let well_known = validation.well_known_ca_certificates.as_deref().filter(|name| !name.is_empty());
    match (refs, well_known) {
        ([], None) => {
            return Err(invalid("caCertificateRefs", "this or wellKnownCACertificates is required"));
        }
        ([], Some("System")) => return Ok(None),
        ([], Some(other)) => {
            let message = format!("{other:?} is not known, only System is");
            return Err(invalid("wellKnownCACertificates", &message));
        }
        (_, Some(_)) => {
            let message = "not possible together with caCertificateRefs";
            return Err(invalid("wellKnownCACertificates", message));
        }
        (_, None) => {}
    }
    let path = path.field("caCertificateRefs");
    let mut authorities = Authorities::default();
    for (index, reference) in refs.iter().enumerate() {
        let path = path.index(index);
        let kind = GroupKind::new(&reference.group, &reference.kind);
        let added = if kind == GroupKind::CONFIG_MAP {
            let name = ObjectName::new(policy.namespace.as_str(), reference.name.as_str());
            authorities::add(cluster, name, &path, &mut authorities)
        } else {
            let message = format!("{kind} is not supported, only ConfigMap is");
            Err(Fault::at(Reason::InvalidKind, path, message))
        };
        unresolved.keep(added);
    }
    if authorities.certificates.is_empty() {
        let message = "none of them holds a certificate, so nothing is sent to the targets";
        let fault = Fault::at(Reason::NoValidCACertificate, path, message);
        // What is wrong with each of them is told by another condition.
        return Err(fault.absent());
    }
    Ok(Some(authorities))
}

fn subject_name(
    spec: &BackendTlsPolicyValidationSubjectAltNames,
    path: &Path<'_>,
) -> Result<SubjectName, Fault> {
    let invalid = |field, message: String| Fault::at(Reason::Invalid, path.field(field), message);
    match spec.r#type {
        NameType::Hostname => {
            let text = spec.hostname.as_deref().unwrap_or_default();
            let pattern = hostname::pattern(text);
            let pattern =
                pattern.ok_or_else(|| invalid("hostname", format!("{text:?} is not a host name")))?;
            Ok(SubjectName::Hostname(pattern))
        }
        NameType::Uri => match spec.uri.as_deref() {
            Some(uri) if !uri.is_empty() => Ok(SubjectName::Uri(uri.to_owned())),
            _ => Err(invalid("uri", "is required".to_owned())),
        },
    }
}
