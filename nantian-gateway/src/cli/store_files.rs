//! What connections to the store of the limits are opened with: files, which are read for each.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use clap::Args;
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::upstream::{Roots, tls_client_config, tls_client_config_presenting};

/// The files of a store.
#[derive(Debug, Clone, Args)]
pub(super) struct StoreFiles {
    /// A file with the password of the store, in place of that in its address, whose user stays. It is read
    /// for each connection, so that the password may change.
    #[arg(
        long = "ratelimit-store-password-file",
        env = "NANTIAN_RATELIMIT_STORE_PASSWORD_FILE",
        value_name = "PATH"
    )]
    password: Option<PathBuf>,
    /// A file with the authorities, in PEM, of which one must vouch for a store over TLS, in place of those
    /// that the system trusts. It is read for each connection.
    #[arg(long = "ratelimit-store-ca", env = "NANTIAN_RATELIMIT_STORE_CA", value_name = "PATH")]
    ca: Option<PathBuf>,
    /// A file with the certificate, in PEM, for a store over TLS that asks for one, as Redis does by default.
    /// It is read for each connection.
    #[arg(
        long = "ratelimit-store-cert",
        env = "NANTIAN_RATELIMIT_STORE_CERT",
        value_name = "PATH",
        requires = "key"
    )]
    cert: Option<PathBuf>,
    /// A file with the key of that certificate.
    #[arg(
        long = "ratelimit-store-key",
        env = "NANTIAN_RATELIMIT_STORE_KEY",
        value_name = "PATH",
        requires = "cert"
    )]
    key: Option<PathBuf>,
}

impl StoreFiles {
    /// Whether there are any.
    pub(super) fn are_given(&self) -> bool {
        self.password.is_some() || self.are_for_tls()
    }

    /// Whether TLS is expected.
    pub(super) fn are_for_tls(&self) -> bool {
        self.ca.is_some() || self.cert.is_some()
    }

    /// The password, if a file has it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn password(&self) -> anyhow::Result<Option<String>> {
        let Some(path) = &self.password else { return Ok(None) };
        let password = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Ok(Some(password.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// Whom to trust, and whom to be.
    ///
    /// # Errors
    /// When a file cannot be read, or holds something else.
    pub(super) fn tls(&self, system: &Roots) -> anyhow::Result<Arc<ClientConfig>> {
        let roots = match &self.ca {
            Some(path) => Roots::of(certificates(path)?).with_context(|| path.display().to_string())?,
            None => system.clone(),
        };
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else { return Ok(tls_client_config(&roots)?) };
        // The error may quote the text, which is secret.
        let Ok(private_key) = PrivateKeyDer::from_pem_file(key) else {
            bail!("{}: no private key in PEM can be read", key.display());
        };
        tls_client_config_presenting(&roots, certificates(cert)?, private_key)
            .with_context(|| format!("{} and {}", cert.display(), key.display()))
    }
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match certificates.with_context(|| path.display().to_string())? {
        certificates if certificates.is_empty() => {
            bail!("{}: there is no certificate in PEM", path.display())
        }
        certificates => Ok(certificates),
    }
}
