//! What clients will say of a certificate: until when it holds, and for which hosts.

use std::time::{Duration, SystemTime};

use rustls::sign::CertifiedKey;
use rustls_pki_types::{ServerName, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage};

use crate::ir::HostPattern;

/// Why clients refuse a certificate that can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CertificateRemark {
    #[error("is valid no more: it was until {}", date(*.0))]
    Expired(UnixTime),
    #[error("is not valid yet: it is from {}", date(*.0))]
    NotYetValid(UnixTime),
    #[error("names no host of the listener")]
    OtherHosts,
}

fn date(time: UnixTime) -> httpdate::HttpDate {
    (SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())).into()
}

/// The last moment at which clients take it.
pub(super) fn not_after(key: &CertifiedKey) -> Option<UnixTime> {
    match validity_at(&leaf(key)?, UnixTime::since_unix_epoch(Duration::MAX)) {
        Some(Error::CertExpired { not_after, .. }) => Some(not_after),
        _ => None,
    }
}

/// What clients have against it at a listener for `host`.
pub(super) fn remarks(key: &CertifiedKey, host: &HostPattern, now: UnixTime) -> Vec<CertificateRemark> {
    let Some(leaf) = leaf(key) else { return Vec::new() };
    let validity = match validity_at(&leaf, now) {
        Some(Error::CertExpired { not_after, .. }) => Some(CertificateRemark::Expired(not_after)),
        Some(Error::CertNotValidYet { not_before, .. }) => Some(CertificateRemark::NotYetValid(not_before)),
        _ => None,
    };
    let other_hosts = (!names_any(&leaf, host)).then_some(CertificateRemark::OtherHosts);
    validity.into_iter().chain(other_hosts).collect()
}

fn leaf(key: &CertifiedKey) -> Option<EndEntityCert<'_>> {
    EndEntityCert::try_from(key.cert.first()?).ok()
}

/// What is wrong at `time`: the period is looked at before the issuer, of whom nothing is known here.
fn validity_at(leaf: &EndEntityCert<'_>, time: UnixTime) -> Option<Error> {
    leaf.verify_for_usage(&[], &[], &[], time, KeyUsage::server_auth(), None, None).err()
}

/// Whether a client that asks for some host of `pattern` finds it in the certificate.
fn names_any(leaf: &EndEntityCert<'_>, pattern: &HostPattern) -> bool {
    match pattern {
        HostPattern::Any => true,
        HostPattern::Exact(host) => ServerName::try_from(host.as_str())
            .is_ok_and(|name| leaf.verify_is_valid_for_subject_name(&name).is_ok()),
        HostPattern::Suffix(_) => leaf
            .valid_dns_names()
            .any(|name| pattern.covers(&name.to_ascii_lowercase().replacen('*', "any", 1))),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use rustls::crypto::aws_lc_rs;

    use super::*;
    use crate::listen::certified_key;

    const YEAR: u64 = 365 * 86400;

    /// A certificate for `host`, valid in the year 1971.
    fn certificate(host: &str) -> CertifiedKey {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_before = date_time_ymd(1971, 1, 1);
        params.not_after = date_time_ymd(1972, 1, 1);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        certified_key(pem.as_bytes(), key.serialize_pem().as_bytes(), &aws_lc_rs::default_provider()).unwrap()
    }

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn it_is_told_when_a_certificate_holds() {
        let certificate = certificate("example.org");
        assert_eq!(not_after(&certificate), Some(at(2 * YEAR)));
        let told = |seconds| {
            let remarks = remarks(&certificate, &HostPattern::Any, at(seconds));
            remarks.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(told(YEAR - 1), ["is not valid yet: it is from Fri, 01 Jan 1971 00:00:00 GMT"]);
        assert!(told(YEAR).is_empty());
        assert_eq!(told(2 * YEAR + 1), ["is valid no more: it was until Sat, 01 Jan 1972 00:00:00 GMT"]);
    }

    #[test]
    fn it_is_told_when_a_certificate_names_no_host_of_its_listener() {
        let exact = |host: &str| HostPattern::Exact(host.into());
        let below = |host: &str| HostPattern::Suffix(host.into());
        for (named, listener, fits) in [
            ("a.example.org", exact("a.example.org"), true),
            ("a.example.org", exact("b.example.org"), false),
            ("*.example.org", exact("b.example.org"), true),
            ("*.example.org", exact("example.org"), false),
            ("*.Example.org", below("example.org"), true),
            ("a.example.org", below("example.org"), true),
            ("*.a.example.org", below("example.org"), true),
            ("*.example.org", below("a.example.org"), false),
            ("example.net", below("example.org"), false),
            ("example.net", HostPattern::Any, true),
        ] {
            let remarks = remarks(&certificate(named), &listener, at(YEAR + 1));
            assert_eq!(remarks.is_empty(), fits, "{named} at {listener:?}: {remarks:?}");
        }
    }
}
