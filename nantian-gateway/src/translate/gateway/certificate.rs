//! Certificates in Secrets.

use k8s_openapi::api::core::v1::Secret;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{
    ir::{self, Certificate, ObjectName},
    translate::{
        cluster_state::{ClusterState, secret_entry},
        conditions::Reason,
        fault::{Fault, Path},
        grants::GroupKind,
    },
};

/// The type of a Secret that holds a certificate.
const SECRET_TYPE: &str = "kubernetes.io/tls";

/// A reference to a certificate.
pub(super) struct Reference<'a> {
    pub(super) group: Option<&'a str>,
    pub(super) kind: Option<&'a str>,
    pub(super) namespace: Option<&'a str>,
    pub(super) name: &'a str,
}

/// Reads a reference; every place that may hold one has a Rust type of its own for it.
macro_rules! reference {
    ($spec:expr) => {
        $crate::translate::gateway::certificate::Reference {
            group: $spec.group.as_deref(),
            kind: $spec.kind.as_deref(),
            namespace: $spec.namespace.as_deref(),
            name: &$spec.name,
        }
    };
}

pub(super) use reference;

/// Resolves a reference of an object of this kind and namespace; `bad` is the reason if it leads to no
/// certificate.
pub(super) fn resolve(
    cluster: &ClusterState<'_>,
    (owner, own): (GroupKind<'_>, &str),
    reference: &Reference<'_>,
    bad: Reason,
    path: &Path<'_>,
) -> Result<Certificate, Fault> {
    let invalid = |message: String| Fault::at(bad, path, message);
    let group = reference.group.unwrap_or(GroupKind::SECRET.group);
    let kind = GroupKind::new(group, reference.kind.unwrap_or(GroupKind::SECRET.kind));
    if kind != GroupKind::SECRET {
        return Err(invalid(format!("{kind} is not supported, only Secret is")));
    }
    let namespace = reference.namespace.unwrap_or(own);
    let name = ObjectName::new(namespace, reference.name);
    cluster.grants.check((owner, own), (GroupKind::SECRET, namespace, &name.name), path)?;
    let secret = cluster
        .objects
        .secrets
        .get(&name)
        .ok_or_else(|| invalid(format!("Secret {name} does not exist, or is not valid")).absent())?;
    let (chain, key) = read(secret).map_err(|problem| invalid(format!("Secret {name}: {problem}")))?;
    Ok(Certificate { secret: name, chain: chain.to_vec(), key: ir::Secret(key.to_vec()) })
}

/// What is wrong with a Secret that says it holds a certificate.
pub(crate) fn fault(secret: &Secret) -> Option<String> {
    let claims = secret.type_.as_deref() == Some(SECRET_TYPE);
    claims.then(|| read(secret).err()).flatten()
}

/// The chain and the key, both well-formed PEM.
fn read(secret: &Secret) -> Result<(&[u8], &[u8]), String> {
    if let Some(other) = secret.type_.as_deref().filter(|kind| *kind != SECRET_TYPE) {
        return Err(format!("its type is {other:?}, not {SECRET_TYPE}"));
    }
    let chain = secret_entry(secret, "tls.crt").ok_or("it has no entry tls.crt")?;
    let key = secret_entry(secret, "tls.key").ok_or("it has no entry tls.key")?;
    let certificates = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            return Err("tls.crt holds no certificate in PEM".to_owned());
        }
        Ok(_) => {}
        Err(error) => return Err(format!("tls.crt: {error}")),
    }
    // The error may quote the text, which is secret.
    PrivateKeyDer::from_pem_slice(key).map_err(|_| "tls.key holds no private key in PEM")?;
    Ok((chain, key))
}
