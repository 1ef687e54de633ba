//! TLS 1.3 between two KMEs of one trusted node: each shows a certificate, and its name must be the configured one.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::config::{TlsFiles, read_secret_bytes};
use crate::failure::{Context as _, Outcome};

/// Whether a certificate has a name: a URI or DNS name of its subject alternative names, or the common name.
pub(super) fn is_named(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let alternatives = parsed.subject_alternative_name().ok().flatten();
    let mut alternatives = alternatives.iter().flat_map(|names| &names.value.general_names);
    alternatives.any(|found| matches!(found, GeneralName::URI(text) | GeneralName::DNSName(text) if *text == name))
        || parsed.subject().iter_common_name().any(|found| found.as_str() == Ok(name))
}

/// Server side: asks for a certificate of the configured authority.
pub(super) fn server(files: &TlsFiles) -> Outcome<Arc<ServerConfig>> {
    let verifier = WebPkiClientVerifier::builder(Arc::new(authorities(files)?))
        .build()
        .context(|| format!("authority file {}", files.ca.display()))?;
    let config = ServerConfig::builder_with_protocol_versions(&[&TLS13])
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&files.certificate)?, key(files)?)
        .context(|| format!("certificate {} does not fit its key", files.certificate.display()))?;
    Ok(Arc::new(config))
}

/// Client side: shows the own certificate, checks the server's chain, host and name.
pub(super) fn client(files: &TlsFiles, name: &str) -> Outcome<Arc<ClientConfig>> {
    let chain = WebPkiServerVerifier::builder(Arc::new(authorities(files)?))
        .build()
        .context(|| format!("authority file {}", files.ca.display()))?;
    let config = ClientConfig::builder_with_protocol_versions(&[&TLS13])
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Named { chain, name: name.to_owned() }))
        .with_client_auth_cert(certificates(&files.certificate)?, key(files)?)
        .context(|| format!("certificate {} does not fit its key", files.certificate.display()))?;
    Ok(Arc::new(config))
}

/// All that the usual check of a server does, and the name besides.
#[derive(Debug)]
struct Named {
    chain: Arc<WebPkiServerVerifier>,
    name: String,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.chain.verify_server_cert(certificate, intermediates, host, ocsp, now)?;
        if is_named(certificate, &self.name) {
            Ok(verified)
        } else {
            Err(Error::General(format!("the certificate does not name {}", self.name)))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn authorities(files: &TlsFiles) -> Outcome<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots.add(certificate).context(|| format!("authority file {}", files.ca.display()))?;
    }
    Ok(roots)
}

fn certificates(file: &std::path::Path) -> Outcome<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .context(|| format!("certificate file {}", file.display()))
}

fn key(files: &TlsFiles) -> Outcome<PrivateKeyDer<'static>> {
    let pem = read_secret_bytes(&files.key)?;
    PrivateKeyDer::from_pem_slice(&pem).context(|| format!("private key file {}", files.key.display()))
}
