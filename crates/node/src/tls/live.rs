//! TLS of a running site: certificates, authorities and revocations that are replaced without a restart.
//!
//! The files are read again on SIGHUP and when one of them changes. New connections use what is new; a connection
//! whose client is not accepted any more is closed. Files that do not fit leave everything as it is, with a warning.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use crypto::hash::sha256;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, ServerConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use types::id::SaeId;

use super::{Identity, client, identity, server, verifier};
use crate::config::{NodeConfig, SaeFingerprint, TlsFiles};
use crate::failure::{Failure, Outcome};

/// Handle to a site's TLS; cheap to clone.
#[derive(Clone)]
pub struct LiveTls {
    shared: Arc<Shared>,
}

struct Shared {
    files: TlsFiles,
    /// SAEs by the SHA-256 of their certificate.
    known: BTreeMap<[u8; 32], SaeId>,
    current: RwLock<Arc<Current>>,
    generation: watch::Sender<u64>,
}

/// What one reading of the files gave.
struct Current {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
}

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
        let current = RwLock::new(Arc::new(Current::read(&config.tls)?));
        let generation = watch::Sender::new(0);
        Ok(Self { shared: Arc::new(Shared { files: config.tls.clone(), known, current, generation }) })
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
        let fresh = Arc::new(Current::read(&self.shared.files)?);
        *self.shared.current.write().expect("no holder of this lock panics") = fresh;
        self.shared.generation.send_modify(|generation| *generation += 1);
        Ok(())
    }

    /// Reloads on SIGHUP and when a file changes, until the token is cancelled.
    pub async fn keep_fresh(self, stop: CancellationToken) {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            tracing::warn!("cannot listen for SIGHUP; certificates are reloaded when their files change");
            return;
        };
        let mut tick = interval(POLL);
        let mut seen = self.stamps();
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    let now = self.stamps();
                    if now == seen {
                        continue;
                    }
                    seen = now;
                }
                _ = hangup.recv() => seen = self.stamps(),
                () = stop.cancelled() => return,
            }
            match self.reload() {
                Ok(()) => tracing::info!("certificates, authorities and revocations were reloaded"),
                Err(failure) => {
                    tracing::warn!(%failure, "certificates were not reloaded; those from before stay in use")
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

    /// What tells that a file changed.
    fn stamps(&self) -> Vec<Option<(SystemTime, u64, u64)>> {
        use std::os::unix::fs::MetadataExt as _;
        let TlsFiles { ca, certificate, key, crl } = &self.shared.files;
        let stamp = |file: &Path| {
            let meta = fs::metadata(file).ok()?;
            Some((meta.modified().ok()?, meta.len(), meta.ino()))
        };
        [Some(ca), Some(certificate), Some(key), crl.as_ref()].into_iter().flatten().map(|file| stamp(file)).collect()
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
    fn read(files: &TlsFiles) -> Outcome<Self> {
        let verifier = verifier(files)?;
        Ok(Self { server: server(files, verifier.clone())?, client: client(files)?, verifier })
    }
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

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(2);
