//! TLS 1.3 between two KMEs of one trusted node: each shows a certificate, and its name must be the configured one.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::config::{InterworkConfig, TlsFiles};
use crate::failure::{Context as _, Outcome};
use crate::tls::{Current, LiveTls, chain, client_verifier, key, server_verifier};

/// Whether a certificate has a name: a URI or DNS name of its subject alternative names, or the common name.
pub(super) fn is_named(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let alternatives = parsed.subject_alternative_name().ok().flatten();
    let mut alternatives = alternatives.iter().flat_map(|names| &names.value.general_names);
    alternatives.any(|found| matches!(found, GeneralName::URI(text) | GeneralName::DNSName(text) if *text == name))
        || parsed.subject().iter_common_name().any(|found| found.as_str() == Ok(name))
}

/// TLS towards one foreign KME, whose files are read again like the site's own.
pub(super) fn live(peer: &InterworkConfig) -> Outcome<LiveTls> {
    let name = peer.identity.clone();
    LiveTls::reading(peer.tls.clone(), BTreeMap::new(), move |files| {
        let verifier = client_verifier(files)?;
        Ok(Current { server: server(files, verifier.clone())?, client: client(files, &name)?, verifier })
    })
}

/// Server side: asks for a certificate of the configured authority.
fn server(files: &TlsFiles, verifier: Arc<dyn ClientCertVerifier>) -> Outcome<Arc<ServerConfig>> {
    let config = ServerConfig::builder_with_protocol_versions(&[&TLS13])
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(files)?, key(files)?)
        .context(|| format!("certificate {} does not fit its key", files.certificate.display()))?;
    Ok(Arc::new(config))
}

/// Client side: shows the own certificate, checks the server's chain, host and name.
fn client(files: &TlsFiles, name: &str) -> Outcome<Arc<ClientConfig>> {
    let named = Named { chain: server_verifier(files)?, name: name.to_owned() };
    let config = ClientConfig::builder_with_protocol_versions(&[&TLS13])
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(named))
        .with_client_auth_cert(chain(files)?, key(files)?)
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
