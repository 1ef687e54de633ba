//! The open KME `qkd_kme_server` as a rival in the same run: two of its processes, linked with each other, under the
//! same load with the same certificates.
//!
//! It is configured as its documentation's example of two KMEs: keys in memory, read at the start from one file for each
//! pair of SAEs, no debugging interface. Its SAEs are numbers and are known by the serial number of their certificate:
//! 1 and 2 live at the first KME, 3 at the second.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio::time::sleep;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::ground::Ground;
use super::load::{Load, Paths, Told};
use super::{Container, LONGEST, middle, site};
use crate::bench::{Better, Effort, Row};
use crate::config::{SaeConfig, TlsFiles};
use crate::entropy::os_rng;
use crate::failure::{Context as _, Failure, Outcome};

/// Two running KMEs of the rival; they end with this value.
pub(super) struct Rival {
    /// The load of SAE 1, at the first, and of SAE 3, at the second.
    pub(super) loads: [Load; 2],
    processes: Vec<Child>,
}

impl Rival {
    /// Starts both with so many keys for every pair of SAEs, and waits until they have them.
    ///
    /// # Errors
    /// If the program is not there or does not start.
    pub(super) async fn start(ground: &Ground, keys: u64) -> Outcome<Self> {
        let program = program()?;
        let folder = ground.folder().join("rival");
        let what = || folder.display().to_string();
        fs::create_dir_all(&folder).context(what)?;
        for pair in ["first", "both", "second"] {
            fs::create_dir_all(folder.join(pair)).context(what)?;
            let bytes = usize::try_from(keys).unwrap_or_default() * KEY_BYTES;
            let mut material = vec![0; bytes];
            rand_core::Rng::fill_bytes(&mut os_rng(), &mut material);
            fs::write(folder.join(pair).join("keys.cor"), material).context(what)?;
        }
        let ports = (0..4).map(|_| free_port()).collect::<Outcome<Vec<_>>>()?;
        let names = [site("a")?, site("b")?];
        let mut rival = Self { loads: [ground.load(&names[0], 1)?, ground.load(&names[1], 1)?], processes: Vec::new() };
        for (at, name) in names.iter().enumerate() {
            rival.loads[at].address = ports[at];
            rival.loads[at].connections = super::CONNECTIONS;
            let tls = ground.server(name)?;
            let identity = folder.join(format!("{name}.pfx"));
            bundle(&tls, &identity)?;
            let saes =
                ["app-a", "vault-a", "app-b"].map(|sae| ground.sae_config(&names[usize::from(sae == "app-b")], sae));
            let saes = saes.into_iter().collect::<Outcome<Vec<_>>>()?;
            let file = folder.join(format!("{name}.json5"));
            let text = configuration(at, &folder, &ports, &tls, &identity, &saes)?;
            fs::write(&file, text.to_string()).context(what)?;
            let child = Command::new(&program)
                .arg(&file)
                // Whom its KMEs trust as each other.
                .env("SSL_CERT_FILE", &tls.ca)
                .current_dir(&folder)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context(|| format!("cannot start {}", program.display()))?;
            rival.processes.push(child);
        }
        rival.wait_for_stock(0, "3", keys).await?;
        rival.wait_for_stock(1, "1", keys).await?;
        Ok(rival)
    }

    /// Its process ids; the first KME's is the first.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Child::id).collect()
    }

    async fn wait_for_stock(&self, at: usize, sae: &str, keys: u64) -> Outcome<()> {
        for _ in 0..WAITS_MAX {
            if let Ok(mut call) = self.loads[at].call().await
                && call.stock(sae).await.is_ok_and(|stock| stock >= keys)
            {
                return Ok(());
            }
            sleep(WAIT).await;
        }
        Err(Failure::new("qkd_kme_server did not come up with its keys"))
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        for child in &mut self.processes {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Requests for each processor second, ours over theirs, in turn; each kind of request at both in the same minutes.
///
/// # Errors
/// If ours does not answer. If the rival cannot be started the rows say so.
pub(super) async fn rows(ground: &Ground, ours: &Load, effort: Effort) -> Outcome<Vec<Row>> {
    let kinds = [Kind::EncOne, Kind::EncTwo, Kind::Dec, Kind::Status];
    let rival = match Rival::start(ground, STOCK).await {
        Ok(rival) => rival,
        Err(failure) => {
            let missing = |kind: Kind| Row::missing(kind.name(), "", Better::Higher, 1.0, failure.to_string());
            return Ok(kinds.into_iter().map(missing).collect());
        }
    };
    let far = ground.load(&site("b")?, super::CONNECTIONS)?;
    let both = ground.pids(&["a", "b"]);
    let our_side = Side { near: ours, far: &far, pids: &both, sae: ["app-a", "vault-a", "app-b"], bulk: 100 };
    let their_pids = rival.pids();
    let [near, far] = &rival.loads;
    let their_side = Side { near, far, pids: &their_pids, sae: ["1", "2", "3"], bulk: 10 };
    let mut rows = Vec::new();
    for kind in kinds {
        let (mut our_rounds, mut their_rounds) = (Vec::new(), Vec::new());
        for _ in 0..effort.of(5, 1) {
            our_rounds.push(our_side.round(kind, effort.of(3_000, 30)).await?);
            their_rounds.push(their_side.round(kind, effort.of(300, 30)).await?);
        }
        let (our_rate, their_rate) = (middle(&our_rounds), middle(&their_rounds));
        let how = format!(
            "{our_rate:.0} and {their_rate:.0} requests per processor second, in turn, same load and certificates; \
             qkd_kme_server 4d53a3d with {STOCK} keys in memory for each pair, ours with its stock on disk"
        );
        rows.push(Row::at_least(kind.name(), our_rate / their_rate, "", 1.0, how));
    }
    Ok(rows)
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    EncOne,
    EncTwo,
    Dec,
    Status,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::EncOne => "kms.enc_one.vs_kme",
            Self::EncTwo => "kms.enc_two.vs_kme",
            Self::Dec => "kms.dec.vs_kme",
            Self::Status => "kms.status.vs_kme",
        }
    }
}

/// Two KMEs of one maker.
struct Side<'a> {
    near: &'a Load,
    far: &'a Load,
    pids: &'a [u32],
    /// Two SAEs of the near one, one of the far one.
    sae: [&'static str; 3],
    /// Keys that one request may ask for.
    bulk: usize,
}

impl Side<'_> {
    async fn round(&self, kind: Kind, count: usize) -> Outcome<Told> {
        let [first, second, third] = self.sae;
        let (near, far) = (self.pids.split_at(1).0, self.pids.split_at(1).1);
        let same = |path: String| Paths::Same(path, count);
        match kind {
            Kind::EncOne => self.near.run(near, same(format!("/api/v1/keys/{second}/enc_keys")), LONGEST).await,
            Kind::EncTwo => self.near.run(self.pids, same(format!("/api/v1/keys/{third}/enc_keys")), LONGEST).await,
            Kind::Status => self.near.run(near, same(format!("/api/v1/keys/{third}/status")), LONGEST).await,
            Kind::Dec => {
                let mut paths = Vec::new();
                let mut call = self.near.call().await?;
                while paths.len() < count {
                    let number = self.bulk.min(count - paths.len());
                    let body = call.get(&format!("/api/v1/keys/{third}/enc_keys?number={number}")).await?;
                    let container: Container =
                        serde_json::from_slice(&body).context(|| "an answer of a KME".to_owned())?;
                    let path = |id: String| format!("/api/v1/keys/{first}/dec_keys?key_ID={id}");
                    paths.extend(container.keys.into_iter().map(|key| path(key.id)));
                }
                self.far.run(far, Paths::Each(paths), LONGEST).await
            }
        }
    }
}

/// Where the rival's program is.
fn program() -> Outcome<PathBuf> {
    let named = std::env::var_os("QURRENT_PEER_KME").map(PathBuf::from);
    let file = named.unwrap_or_else(|| PathBuf::from("target/peers/qkd_kme_server/bin/qkd_kme_server"));
    // Its processes run in a folder of their own.
    std::path::absolute(&file).ok().filter(|file| file.is_file()).ok_or_else(|| {
        Failure::new(format!("qkd_kme_server is not at {}", file.display()))
            .remedy("sh tests/peers/kme.sh builds it, or QURRENT_PEER_KME names its binary")
    })
}

/// The configuration of the first (0) or the second (1).
fn configuration(
    at: usize,
    folder: &Path,
    ports: &[SocketAddr],
    tls: &TlsFiles,
    identity: &Path,
    saes: &[SaeConfig],
) -> Outcome<Value> {
    let text = |path: &Path| path.display().to_string();
    let listener = |address: SocketAddr| {
        json!({
            "listen_address": address.to_string(),
            "ca_client_cert_path": text(&tls.ca),
            "server_cert_path": text(&tls.certificate),
            "server_key_path": text(&tls.key),
        })
    };
    let mut known = Vec::new();
    for (number, sae) in (1_u64..).zip(saes) {
        let home = if number == 3 { 1 } else { 0 };
        let mut entry = json!({ "id": number, "kme_id": home + 1 });
        if home == at {
            entry["https_client_certificate_serial"] = json!(serial(&sae.tls.certificate)?);
        }
        known.push(entry);
    }
    let other = 1 - at;
    Ok(json!({
        "this_kme": {
            "id": at + 1,
            "db_uri": ":memory:",
            "delete_key_file_after_read": false,
            "key_directory_to_watch": text(&folder.join(["first", "second"][at])),
            "saes_https_interface": listener(ports[at]),
            "kmes_https_interface": listener(ports[2 + at]),
        },
        "other_kmes": [{
            "id": other + 1,
            "key_directory_to_watch": text(&folder.join("both")),
            "inter_kme_bind_address": ports[2 + other].to_string(),
            "ignore_system_proxy_settings": true,
            "https_client_authentication_certificate": text(identity),
            "https_client_authentication_certificate_password": PASSWORD,
        }],
        "saes": known,
    }))
}

/// A certificate's serial number as it stands there.
fn serial(certificate: &Path) -> Outcome<Vec<u8>> {
    let what = || certificate.display().to_string();
    let der = CertificateDer::from_pem_file(certificate).context(what)?;
    let (_, parsed) = X509Certificate::from_der(&der).context(what)?;
    Ok(parsed.raw_serial().to_vec())
}

/// Certificate and key in one file, as the rival wants those of its connections to other KMEs.
fn bundle(tls: &TlsFiles, to: &Path) -> Outcome<()> {
    let made = Command::new("openssl")
        .args(["pkcs12", "-export", "-passout"])
        .arg(format!("pass:{PASSWORD}"))
        .arg("-in")
        .arg(&tls.certificate)
        .arg("-inkey")
        .arg(&tls.key)
        .arg("-out")
        .arg(to)
        .stdin(Stdio::null())
        .output()
        .context(|| "openssl, which tests/peers/install.sh installs".to_owned())?;
    if made.status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("openssl: {}", String::from_utf8_lossy(&made.stderr))))
}

fn free_port() -> Outcome<SocketAddr> {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).context(|| "a free port".to_owned())
}

/// Keys that the rival has for every pair, as in what was published of it; its cost grows with them.
const STOCK: u64 = 6_400;
const KEY_BYTES: usize = 32;
const PASSWORD: &str = "bench";
const WAIT: Duration = Duration::from_millis(100);
const WAITS_MAX: usize = 600;
