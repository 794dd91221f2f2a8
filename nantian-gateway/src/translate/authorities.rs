//! Certificate authorities in ConfigMaps.

use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::{
    cluster_state::ClusterState,
    conditions::Reason,
    fault::{Fault, Path},
};
use crate::ir::{Authorities, ObjectName};

/// The entry that holds the certificates.
const ENTRY: &str = "ca.crt";

/// Adds the authorities in a ConfigMap.
pub(super) fn add(
    cluster: &ClusterState<'_>,
    name: ObjectName,
    path: &Path<'_>,
    authorities: &mut Authorities,
) -> Result<(), Fault> {
    let invalid = |problem: String| {
        Fault::at(Reason::InvalidCACertificateRef, path, format_args!("ConfigMap {name}{problem}"))
    };
    let config_map = cluster.objects.config_maps.get(&name);
    let config_map = config_map.ok_or_else(|| invalid(" does not exist".to_owned()).absent())?;
    let binary = config_map.binary_data.as_ref().and_then(|data| data.get(ENTRY));
    let text = config_map.data.as_ref().and_then(|data| data.get(ENTRY));
    let pem = binary.map(|bytes| bytes.0.as_slice()).or_else(|| text.map(String::as_bytes));
    let pem = pem.ok_or_else(|| invalid(format!(" has no entry {ENTRY}")))?;
    let certificates = parse(pem).map_err(|problem| invalid(format!(": {ENTRY} {problem}")))?;
    authorities.certificates.extend(certificates);
    authorities.config_maps.push(name);
    Ok(())
}

/// Certificates in PEM, each of which can vouch for others.
fn parse(pem: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("cannot be read: {error}"))?;
        webpki::anchor_from_trusted_cert(&certificate)
            .map_err(|error| format!("holds a certificate that is none: {error}"))?;
        certificates.push(certificate.to_vec());
    }
    if certificates.is_empty() {
        return Err("holds no certificate in PEM".to_owned());
    }
    Ok(certificates)
}
