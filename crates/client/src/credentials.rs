//! What makes a process an SAE: its certificate and key, and the authority that its KME's certificate chains to.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use zeroize::Zeroizing;

use crate::error::{Error, Source};

/// Checked credentials, ready for any number of clients.
#[derive(Clone)]
pub struct Credentials {
    pub(crate) tls: Arc<ClientConfig>,
}

impl Credentials {
    /// Reads three PEM files: authorities, own certificate chain, own private key.
    ///
    /// # Errors
    /// If a file is missing or does not fit, or if others can read the private key.
    pub fn from_files(
        authority: impl AsRef<Path>,
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, Error> {
        let read = |file: &Path| {
            let bytes =
                fs::read(file).map_err(|error| setup(format!("cannot read {}", file.display()), Some(error.into())));
            bytes.map(Zeroizing::new)
        };
        let key = key.as_ref();
        let mode = fs::metadata(key).map(|meta| meta.permissions().mode());
        if mode.is_ok_and(|mode| mode & 0o077 != 0) {
            return Err(setup(format!("private key {} can be read by others: chmod 600 it", key.display()), None));
        }
        Self::from_pem(&read(authority.as_ref())?, &read(certificate.as_ref())?, &read(key)?)
    }

    /// The same from memory.
    ///
    /// # Errors
    /// If something is no PEM or the key is not the certificate's.
    pub fn from_pem(authority: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for root in certificates(authority, "authority")? {
            roots
                .add(root)
                .map_err(|error| setup("the authority is no usable certificate".into(), Some(error.into())))?;
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| setup("the private key is no PEM".into(), Some(error.into())))?;
        let tls = ClientConfig::builder_with_protocol_versions(rustls::ALL_VERSIONS)
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(certificate, "certificate")?, key)
            .map_err(|error| setup("the certificate does not fit its key".into(), Some(error.into())))?;
        Ok(tls.into())
    }
}

impl From<ClientConfig> for Credentials {
    /// Credentials that the caller put together itself, for keys in hardware or other authorities.
    fn from(tls: ClientConfig) -> Self {
        Self { tls: Arc::new(tls) }
    }
}

impl From<Arc<ClientConfig>> for Credentials {
    fn from(tls: Arc<ClientConfig>) -> Self {
        Self { tls }
    }
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(setup(format!("the {what} holds no certificate"), None)),
        Err(error) => Err(setup(format!("the {what} is no PEM"), Some(error.into()))),
    }
}

fn setup(what: String, source: Option<Source>) -> Error {
    Error::Setup { what, source }
}
