//! The network's own certificate authority: one root, ECDSA P-256, a certificate for every KME and SAE.
//!
//! For a utility with an authority of its own this module is not needed: any certificate that carries the
//! identity URI (see [`crate::tls`]) and chains to the configured authority is as good.

use std::net::IpAddr;
use std::path::Path;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use types::id::{SaeId, SiteId};
use zeroize::Zeroizing;

use crate::config::write_secret;
use crate::failure::{Context as _, Outcome};
use crate::tls::{KME_URN, SAE_URN};

/// A certificate authority with its key in memory.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// Makes a new authority.
    ///
    /// # Errors
    /// If the key cannot be made.
    pub fn create(network: &str) -> Outcome<Self> {
        let what = || "cannot make the certificate authority".to_owned();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context(what)?;
        let mut params = CertificateParams::new(Vec::new()).context(what)?;
        params.distinguished_name.push(DnType::CommonName, format!("Qurrent network {network}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).context(what)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Writes the authority's certificate and its private key.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, certificate: &Path, key: &Path) -> Outcome<()> {
        write_public(certificate, &self.pem)?;
        write_secret(key, Zeroizing::new(self.issuer.key().serialize_pem()).as_bytes())
    }

    /// Makes and writes a KME's certificate and key; good as server and as client.
    ///
    /// # Errors
    /// If it cannot be made or written.
    pub fn issue_kme(&self, site: &SiteId, address: IpAddr, certificate: &Path, key: &Path) -> Outcome<()> {
        let names = vec![SanType::IpAddress(address), uri(&format!("{KME_URN}{site}"))?];
        self.issue(site.as_str(), names, certificate, key)
    }

    /// Makes and writes an SAE's certificate and key.
    ///
    /// # Errors
    /// If it cannot be made or written.
    pub fn issue_sae(&self, sae: &SaeId, certificate: &Path, key: &Path) -> Outcome<()> {
        self.issue(sae.as_str(), vec![uri(&format!("{SAE_URN}{sae}"))?], certificate, key)
    }

    fn issue(&self, name: &str, names: Vec<SanType>, certificate: &Path, key: &Path) -> Outcome<()> {
        let what = || format!("cannot make the certificate of {name}");
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context(what)?;
        let mut params = CertificateParams::new(Vec::new()).context(what)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = names;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let signed = params.signed_by(&pair, &self.issuer).context(what)?;
        write_public(certificate, &signed.pem())?;
        write_secret(key, Zeroizing::new(pair.serialize_pem()).as_bytes())
    }
}

fn uri(text: &str) -> Outcome<SanType> {
    Ok(SanType::URI(Ia5String::try_from(text).context(|| format!("certificate name {text}"))?))
}

fn write_public(file: &Path, text: &str) -> Outcome<()> {
    std::fs::write(file, text).context(|| format!("cannot write {}", file.display()))
}
