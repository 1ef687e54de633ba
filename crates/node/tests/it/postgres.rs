//! A PostgreSQL server of a test's own, in a folder of its own, reached over a Unix socket; killed and started at will.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::skip::install_peers;
use crate::world::{ok_of, str_of, wait_until};

/// The server and its folder; both end with the value.
pub struct Postgres {
    folder: tempfile::TempDir,
    bin: PathBuf,
    server: Option<Child>,
}

impl Postgres {
    /// Makes an empty server and starts it.
    pub fn start() -> Self {
        install_peers();
        let folder = tempfile::tempdir().unwrap();
        let versions = fs::read_dir("/usr/lib/postgresql").unwrap().flatten();
        let bin = versions.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("postgres").exists()).max();
        let mut server = Self { folder, bin: bin.expect("tests/peers/install.sh installs PostgreSQL"), server: None };
        let data = server.data();
        fs::create_dir(&data).unwrap();
        if is_root() {
            fs::set_permissions(server.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
            chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        ok_of(server.command("initdb").args(["-D", str_of(&data), "-U", "qurrent", "-A", "trust", "-N"]));
        let mut settings = OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
        writeln!(settings, "listen_addresses = ''\nunix_socket_directories = '{}'", data.display()).unwrap();
        writeln!(settings, "shared_buffers = 16MB\nmax_connections = 20\nmax_wal_size = 64MB").unwrap();
        // Otherwise recovery opens and syncs each of a thousand files.
        writeln!(settings, "recovery_init_sync_method = syncfs").unwrap();
        server.up();
        server
    }

    /// `[store.database]` of a replica.
    pub fn settings(&self, replica: &str) -> toml::Table {
        let connection = format!("host={} user=qurrent dbname=postgres", self.data().display());
        let mut database = toml::Table::new();
        database.insert("connection".into(), connection.into());
        database.insert("replica".into(), replica.into());
        database.insert("lease_s".into(), 1.into());
        [("database".to_owned(), database.into())].into_iter().collect()
    }

    /// Starts and waits until it takes connections; recovery after a crash is part of it.
    pub fn up(&mut self) {
        let data = self.data();
        wait_until(Duration::from_secs(60), "PostgreSQL takes connections", || {
            // A new server refuses the folder while children of the one that was killed still live.
            let gone = self.server.as_mut().is_none_or(|server| server.try_wait().unwrap().is_some());
            if gone {
                let log = OpenOptions::new().append(true).create(true).open(self.folder.path().join("log")).unwrap();
                let mut command = self.command("postgres");
                command.args(["-D", str_of(&data)]).stdout(log.try_clone().unwrap()).stderr(log);
                self.server = Some(command.spawn().unwrap());
            }
            let mut ready = self.command("pg_isready");
            ready.args(["-q", "-h", str_of(&data), "-U", "qurrent", "-d", "postgres"]).status().unwrap().success()
        });
    }

    /// The process dies where it stands; its children follow when they notice.
    pub fn kill_9(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// Stops it in order, closing every session.
    pub fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        drop(Command::new("kill").args(["-INT", &server.id().to_string()]).status());
        drop(server.wait());
    }

    /// What a query says.
    pub fn query(&self, sql: &str) -> String {
        let data = self.data();
        let mut command = self.command("psql");
        ok_of(command.args(["-h", str_of(&data), "-U", "qurrent", "-d", "postgres", "-Atc", sql])).trim().to_owned()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// PostgreSQL refuses to run as root; then it runs as nobody.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.current_dir("/").stdin(Stdio::null());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

const NOBODY: u32 = 65_534;
