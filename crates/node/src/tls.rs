//! TLS: mutual certificates, TLS 1.3 with X25519MLKEM768 preferred, TLS 1.2 for older SAEs, and who the
//! other side is.
//!
//! An identity stands in the certificate as SAN URI `urn:qurrent:kme:<site>` or `urn:qurrent:sae:<id>`; for
//! SAEs of other makers the subject's common name counts when there is no such URI. A certificate whose fingerprint
//! stands in `node.toml` is that SAE, whatever it says itself.

mod live;

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use types::id::{SaeId, SiteId};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

pub use self::live::{Current, LiveTls, Peers};
use crate::config::TlsFiles;
use crate::failure::{Context as _, Failure, Outcome};

/// Prefix of a KME's SAN URI.
pub const KME_URN: &str = "urn:qurrent:kme:";
/// Prefix of an SAE's SAN URI.
pub const SAE_URN: &str = "urn:qurrent:sae:";

/// Who a certificate names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A key management entity.
    Kme(SiteId),
    /// A secure application entity.
    Sae(SaeId),
}

/// Server side: asks every client for a certificate of the authority that is not revoked.
fn server(files: &TlsFiles, verifier: Arc<dyn ClientCertVerifier>) -> Outcome<Arc<ServerConfig>> {
    let config = ServerConfig::builder_with_protocol_versions(rustls::ALL_VERSIONS)
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(files)?, key(files)?)
        .context(|| format!("certificate {} does not fit its key", files.certificate.display()))?;
    Ok(Arc::new(config))
}

/// What a server's certificate is held against.
pub(crate) fn server_verifier(files: &TlsFiles) -> Outcome<Arc<WebPkiServerVerifier>> {
    let mut verifier = WebPkiServerVerifier::builder(Arc::new(authorities(files)?)).only_check_end_entity_revocation();
    if let Some(file) = &files.crl {
        verifier = verifier.with_crls(revoked(file)?);
    }
    verifier.build().context(|| format!("authority file {}", files.ca.display()))
}

/// What a client's certificate is held against.
pub(crate) fn client_verifier(files: &TlsFiles) -> Outcome<Arc<dyn ClientCertVerifier>> {
    let mut builder = WebPkiClientVerifier::builder(Arc::new(authorities(files)?)).only_check_end_entity_revocation();
    if let Some(file) = &files.crl {
        builder = builder.with_crls(revoked(file)?);
    }
    builder.build().context(|| format!("authority file {}", files.ca.display()))
}

/// Client side: shows the own certificate and checks the server's, which must not be revoked.
///
/// # Errors
/// If a file is missing or does not fit; it is named.
pub fn client(files: &TlsFiles) -> Outcome<Arc<ClientConfig>> {
    let config = ClientConfig::builder_with_protocol_versions(rustls::ALL_VERSIONS)
        .with_webpki_verifier(server_verifier(files)?)
        .with_client_auth_cert(chain(files)?, key(files)?)
        .context(|| format!("certificate {} does not fit its key", files.certificate.display()))?;
    Ok(Arc::new(config))
}

/// The name that a server certificate must hold for an address.
#[must_use]
pub fn server_name(address: IpAddr) -> ServerName<'static> {
    ServerName::IpAddress(address.into())
}

/// Who a verified certificate names, if anybody that we know the form of.
#[must_use]
pub fn identity(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    if let Ok(Some(names)) = parsed.subject_alternative_name() {
        for name in &names.value.general_names {
            if let GeneralName::URI(uri) = name {
                if let Some(site) = uri.strip_prefix(KME_URN) {
                    return SiteId::new(site).ok().map(Identity::Kme);
                }
                if let Some(sae) = uri.strip_prefix(SAE_URN) {
                    return SaeId::new(sae).ok().map(Identity::Sae);
                }
            }
        }
    }
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    SaeId::new(name).ok().map(Identity::Sae)
}

/// The SAE that the own certificate names.
///
/// # Errors
/// If the file is missing or names none.
pub fn own_sae(files: &TlsFiles) -> Outcome<SaeId> {
    match chain(files)?.first().and_then(identity) {
        Some(Identity::Sae(sae)) => Ok(sae),
        _ => Err(Failure::new(format!("certificate {} names no SAE", files.certificate.display()))
            .remedy("the QKD device's maker issues it; its subject's common name is the SAE id")),
    }
}

fn authorities(files: &TlsFiles) -> Outcome<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots.add(certificate).context(|| format!("authority file {}", files.ca.display()))?;
    }
    Ok(roots)
}

pub(crate) fn chain(files: &TlsFiles) -> Outcome<Vec<CertificateDer<'static>>> {
    certificates(&files.certificate)
}

fn certificates(file: &std::path::Path) -> Outcome<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .context(|| format!("certificate file {}", file.display()))?;
    if found.is_empty() {
        return Err(Failure::new(format!("certificate file {} holds no certificate", file.display())));
    }
    Ok(found)
}

fn revoked(file: &std::path::Path) -> Outcome<Vec<CertificateRevocationListDer<'static>>> {
    let lists = CertificateRevocationListDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .context(|| format!("revocation list {}", file.display()))?;
    if lists.is_empty() {
        return Err(Failure::new(format!("revocation list {} holds no list", file.display()))
            .remedy("write it as PEM (`openssl crl -outform PEM`), or take `crl` out of node.toml"));
    }
    Ok(lists)
}

pub(crate) fn key(files: &TlsFiles) -> Outcome<PrivateKeyDer<'static>> {
    let pem = crate::config::read_secret_bytes(&files.key)?;
    PrivateKeyDer::from_pem_slice(&pem).context(|| format!("private key file {}", files.key.display()))
}
