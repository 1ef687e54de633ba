//! nginx with a constant answer over mutual TLS: the rival for new connections.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::config::TlsFiles;
use crate::failure::{Context as _, Failure, Outcome};

/// A running nginx; ends with this value.
pub(super) struct Nginx {
    child: Child,
    address: SocketAddr,
}

impl Nginx {
    /// Starts it with a site's certificate, asking clients for one of the same authority.
    ///
    /// # Errors
    /// If it is not installed or does not start.
    pub(super) async fn start(folder: &Path, tls: &TlsFiles) -> Outcome<Self> {
        let what = || "nginx".to_owned();
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).context(what)?;
        let file = folder.join("nginx.conf");
        fs::write(&file, configuration(folder, address, tls)).context(what)?;
        let child = Command::new("nginx")
            .arg("-e")
            .arg(folder.join("nginx.log"))
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| {
                Failure::new("nginx cannot be started").source(error).remedy("bash tests/peers/install.sh installs it")
            })?;
        let nginx = Self { child, address };
        for _ in 0..100 {
            if TcpStream::connect(address).await.is_ok() {
                return Ok(nginx);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = fs::read_to_string(folder.join("nginx.log")).unwrap_or_default();
        Err(Failure::new(format!("nginx did not come up: {}", log.lines().last().unwrap_or_default())))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its processes: the master and its workers.
    ///
    /// # Errors
    /// If it is gone.
    pub(super) fn pids(&self) -> Outcome<Vec<u32>> {
        let master = self.child.id();
        let children = format!("/proc/{master}/task/{master}/children");
        let told = fs::read_to_string(children).context(|| "workers of nginx".to_owned())?;
        Ok(told.split_whitespace().filter_map(|pid| pid.parse().ok()).chain([master]).collect())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // On the signal its master ends the workers too; killed at once, it would leave them behind.
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _already_gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        drop(self.child.wait());
    }
}

fn configuration(folder: &Path, address: SocketAddr, tls: &TlsFiles) -> String {
    format!(
        "daemon off;\nworker_processes 2;\npid {folder}/nginx.pid;\nevents {{ worker_connections 1024; }}\nhttp {{\n\
         access_log off;\nkeepalive_requests 10000000;\nserver {{\nlisten {address} ssl;\nssl_certificate {certificate};\n\
         ssl_certificate_key {key};\nssl_client_certificate {ca};\nssl_verify_client on;\nssl_protocols TLSv1.3;\n\
         ssl_session_tickets off;\nlocation / {{ default_type application/json; return 200 '{{\"keys\":[]}}'; }}\n}}\n}}\n",
        folder = folder.display(),
        certificate = tls.certificate.display(),
        key = tls.key.display(),
        ca = tls.ca.display(),
    )
}
