//! TLS of a running site: certificates, authorities and revocations that are replaced without a restart.
//!
//! The files are read again on SIGHUP and when one of them changes. New connections use what is new; a connection
//! whose client is not accepted any more is closed. Files that do not fit leave everything as it is, with a warning.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use crypto::hash::sha256;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use types::id::SaeId;

use super::{Identity, client, client_verifier, identity, server};
use crate::config::{NodeConfig, SaeFingerprint, TlsFiles};
use crate::failure::{Failure, Outcome};
use crate::fresh::{Seen, Watch};

/// Handle to a site's TLS; cheap to clone.
#[derive(Clone)]
pub struct LiveTls {
    shared: Arc<Shared>,
}

struct Shared {
    files: TlsFiles,
    read: Box<Read>,
    /// The files as they were before they were read at the start.
    seen: Seen,
    /// SAEs by the SHA-256 of their certificate.
    known: BTreeMap<[u8; 32], SaeId>,
    current: RwLock<Arc<Current>>,
    generation: watch::Sender<u64>,
}

/// What one reading of the files gave.
pub struct Current {
    /// For connections that are accepted.
    pub server: Arc<ServerConfig>,
    /// For connections that are opened.
    pub client: Arc<ClientConfig>,
    /// What clients are held against.
    pub verifier: Arc<dyn ClientCertVerifier>,
}

type Read = dyn Fn(&TlsFiles) -> Outcome<Current> + Send + Sync;

/// Tells a connection when its client must be looked at again.
pub struct Peers {
    tls: LiveTls,
    chain: Vec<CertificateDer<'static>>,
    changes: watch::Receiver<u64>,
}

impl LiveTls {
    /// Reads a site's files.
    ///
    /// # Errors
    /// If a file is missing or does not fit, or a fingerprint is none; it is named.
    pub fn open(config: &NodeConfig) -> Outcome<Self> {
        let known = config.saes.iter().map(fingerprint).collect::<Outcome<_>>()?;
        Self::reading(config.tls.clone(), known, Current::of_site)
    }

    /// Reads files in a way of its own.
    ///
    /// # Errors
    /// What `read` says.
    pub fn reading(
        files: TlsFiles,
        known: BTreeMap<[u8; 32], SaeId>,
        read: impl Fn(&TlsFiles) -> Outcome<Current> + Send + Sync + 'static,
    ) -> Outcome<Self> {
        let seen = Seen::now(paths(&files));
        let current = RwLock::new(Arc::new(read(&files)?));
        let generation = watch::Sender::new(0);
        Ok(Self { shared: Arc::new(Shared { files, read: Box::new(read), seen, known, current, generation }) })
    }

    /// How often the files were read again.
    #[must_use]
    pub fn generation(&self) -> u64 {
        *self.shared.generation.borrow()
    }

    /// For a connection that is accepted now.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        self.current().server.clone()
    }

    /// For a connection that is opened now.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        self.current().client.clone()
    }

    /// Who a verified certificate names.
    #[must_use]
    pub fn identity(&self, certificate: &CertificateDer<'_>) -> Option<Identity> {
        match self.shared.known.get(&sha256(certificate)) {
            Some(sae) => Some(Identity::Sae(sae.clone())),
            None => identity(certificate),
        }
    }

    /// Tells of every reload from now on; to be asked for before a handshake begins.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.generation.subscribe()
    }

    /// Watches over a connection whose client showed a chain. `changes` is from before its handshake.
    #[must_use]
    pub fn watch_over(&self, chain: &[CertificateDer<'_>], changes: watch::Receiver<u64>) -> Peers {
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Peers { tls: self.clone(), chain, changes }
    }

    /// Reads the files again; when they do not fit, what was read before stays.
    ///
    /// # Errors
    /// As [`LiveTls::open`].
    pub fn reload(&self) -> Outcome<()> {
        let fresh = Arc::new((self.shared.read)(&self.shared.files)?);
        *self.shared.current.write().expect("no holder of this lock panics") = fresh;
        self.shared.generation.send_modify(|generation| *generation += 1);
        Ok(())
    }

    /// Reloads on SIGHUP and when a file changes, until the token is cancelled.
    pub async fn keep_fresh(self, stop: CancellationToken) {
        let mut watch = Watch::new(self.shared.seen.clone());
        loop {
            tokio::select! {
                () = watch.changed() => {}
                () = stop.cancelled() => return,
            }
            let certificate = self.shared.files.certificate.display();
            match self.reload() {
                Ok(()) => tracing::info!(%certificate, "certificates, authorities and revocations were reloaded"),
                Err(failure) => {
                    let text = "certificates were not reloaded; those from before stay in use";
                    tracing::warn!(%certificate, %failure, "{text}");
                }
            }
        }
    }

    fn current(&self) -> Arc<Current> {
        self.shared.current.read().expect("no holder of this lock panics").clone()
    }

    fn accepts(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((end, between)) = chain.split_first() else { return false };
        self.current().verifier.verify_client_cert(end, between, UnixTime::now()).is_ok()
    }
}

impl Peers {
    /// Returns when the client is not accepted any more.
    pub async fn refused(&mut self) {
        while self.changes.changed().await.is_ok() {
            if !self.tls.accepts(&self.chain) {
                return;
            }
        }
        // The site's TLS is gone, and nothing will change.
        std::future::pending::<()>().await;
    }
}

impl Current {
    fn of_site(files: &TlsFiles) -> Outcome<Self> {
        let verifier = client_verifier(files)?;
        Ok(Self { server: server(files, verifier.clone())?, client: client(files)?, verifier })
    }
}

fn paths(files: &TlsFiles) -> Vec<PathBuf> {
    let TlsFiles { ca, certificate, key, crl } = files;
    [Some(ca), Some(certificate), Some(key), crl.as_ref()].into_iter().flatten().cloned().collect()
}

fn fingerprint(sae: &SaeFingerprint) -> Outcome<([u8; 32], SaeId)> {
    let digits: String = sae.fingerprint.chars().filter(|c| *c != ':').collect();
    let bytes = hex::decode(digits).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let bytes = bytes.ok_or_else(|| {
        Failure::new(format!("node.toml: the fingerprint of {} is not 32 bytes in hexadecimal", sae.id))
            .remedy("openssl x509 -in cert.pem -noout -fingerprint -sha256 prints it")
    })?;
    Ok((bytes, sae.id.clone()))
}
