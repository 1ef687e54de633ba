//! Opening: connection, tables, site, root key, then the wait for the place of the writer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crypto::domain::Domain;
use crypto::secret::SecretBytes;
use postgres::config::{Host, SslMode};
use postgres::{Client, Config, NoTls};
use rand_core::CryptoRng;
use tokio_postgres_rustls::MakeRustlsConnect;
use types::id::SiteId;

use super::seal::{Kek, open_kek};
use super::session::Session;
use super::{Batch, Database, DatabaseConfig, Writer, schema};
use crate::kek::Class;
use crate::{Error, RootKey};

/// Opens a database and waits until this replica is its writer. `waiting` hears who writes, about four times in a
/// lease, and says whether to go on waiting.
pub(crate) fn open(
    config: &DatabaseConfig,
    root: RootKey,
    mut rng: Box<dyn CryptoRng + Send>,
    waiting: &mut dyn FnMut(&Writer) -> bool,
) -> Result<Database, Error> {
    let (settings, name) = settings(config)?;
    let mark = sealed_mark(&root, &config.site, &mut *rng);
    let (site, tls, lease, path) = (config.site.clone(), config.tls.clone(), config.lease, name.clone());
    let connect = move || {
        let mut client = connect(&settings, tls, lease, &path)?;
        let found = make_tables(&mut client, &site, &mark, &path)?;
        Ok((client, found))
    };
    let (session, found) = Session::start(&name, connect)?;
    if !is_of_root(&root, &config.site, &found) {
        return Err(Error::WrongRootKey { path: name });
    }
    let epoch = take_over(&session, config, &name, waiting)?;
    let mut database = Database {
        session,
        name,
        site: config.site.clone(),
        lease: config.lease,
        epoch,
        root,
        rng,
        keks: BTreeMap::new(),
        damaged: BTreeSet::new(),
        active: [None; Class::COUNT],
        next_kek: 1,
        secrets: 0,
        secret_bytes: 0,
    };
    database.load_keks()?;
    Ok(database)
}

impl Database {
    /// Reads the KEKs and how much each of them seals; those that seal nothing go.
    fn load_keks(&mut self) -> Result<(), Error> {
        let counts = self.session.counts()?;
        let sealing = u64::try_from(super::seal::OVERHEAD).unwrap_or(0);
        self.secrets = counts.secrets;
        self.secret_bytes = counts.sealed_bytes.saturating_sub(self.secrets * sealing);
        let counts = counts.pieces;
        let mut batch = Batch::default();
        for (id, class, sealed) in self.session.keks()? {
            self.next_kek = self.next_kek.max(id + 1);
            let Some(pieces) = counts.get(&id) else {
                batch.dead_keks.push(id);
                continue;
            };
            // Rows of one that does not open are reported when they are read.
            let Some(class) = class_of(class) else { continue };
            if let Some(kek) = open_kek(&self.root, &self.site, id, class, &sealed) {
                self.keks.insert(id, Kek::restored(&kek, class, *pieces));
            }
        }
        // A KEK's number is used once, also when the one that had it is gone but its rows are not.
        self.next_kek = counts.keys().copied().fold(self.next_kek, |next, id| next.max(id + 1));
        self.session.begin(self.epoch, Vec::new())?;
        self.session.finish(batch)
    }
}

/// Waits until the place is free and takes it.
fn take_over(
    session: &Session,
    config: &DatabaseConfig,
    name: &Path,
    waiting: &mut dyn FnMut(&Writer) -> bool,
) -> Result<i64, Error> {
    let lease_ms = i64::try_from(config.lease.as_millis()).unwrap_or(i64::MAX);
    loop {
        let replica = config.replica.clone();
        let taken = session.run("take over", move |peer| {
            let epoch = peer.client.query_opt(schema::TAKE_OVER, &[&replica, &lease_ms])?;
            let writer = peer.client.query_opt(schema::WRITER, &[])?;
            let writer = writer.map(|row| Writer {
                replica: row.get(0),
                silent: Duration::from_millis(row.get::<_, i64>(1).cast_unsigned()),
            });
            Ok((epoch.map(|row| row.get::<_, i64>(0)), writer))
        })?;
        match taken {
            (Some(epoch), _) => return Ok(epoch),
            (None, Some(writer)) if !waiting(&writer) => {
                return Err(Error::Standby { path: name.to_path_buf(), writer: writer.replica });
            }
            (None, _) => thread::sleep(config.lease / 4),
        }
    }
}

fn settings(config: &DatabaseConfig) -> Result<(Config, PathBuf), Error> {
    let refuse = |why: String| Error::DatabaseRefused { why };
    let mut settings: Config =
        config.connection.parse().map_err(|_| refuse("the connection string is malformed".to_owned()))?;
    if config.lease < LEASE_MIN || config.lease > LEASE_MAX {
        return Err(refuse(format!("a lease is {} to {} seconds", LEASE_MIN.as_secs(), LEASE_MAX.as_secs())));
    }
    if let Some(password) = &config.password {
        settings.password(password);
    }
    settings.application_name(&format!("qurrent {}", config.replica));
    settings.connect_timeout(config.lease).tcp_user_timeout(config.lease);
    if config.tls.is_some() {
        settings.ssl_mode(SslMode::Require);
    } else {
        settings.ssl_mode(SslMode::Disable);
        let is_local = |host: &Host| match host {
            Host::Unix(_) => true,
            Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()),
        };
        let is_local = settings.get_hosts().iter().all(is_local)
            && settings.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback)
            && !settings.get_hosts().is_empty();
        if !is_local {
            return Err(refuse("without TLS only a Unix socket or a loopback address is accepted".to_owned()));
        }
    }
    let host = settings.get_hosts().first().map_or_else(String::new, |host| match host {
        Host::Unix(path) => path.display().to_string(),
        Host::Tcp(name) => name.clone(),
    });
    let name = format!("database {} at {host}", settings.get_dbname().unwrap_or("postgres"));
    Ok((settings, PathBuf::from(name)))
}

fn connect(
    settings: &Config,
    tls: Option<rustls::ClientConfig>,
    lease: Duration,
    name: &Path,
) -> Result<Client, Error> {
    let failed = Error::database("connect to", name);
    let mut client = match tls {
        Some(tls) => settings.connect(MakeRustlsConnect::new(tls)),
        None => settings.connect(NoTls),
    }
    .map_err(failed)?;
    let refuse = |why: &str| Err(Error::DatabaseRefused { why: format!("{} {why}", name.display()) });
    let show = |client: &mut Client, setting: &str| -> Result<String, Error> {
        let row = client.query_one(&format!("SHOW {setting}"), &[]).map_err(Error::database("read", name))?;
        Ok(row.get(0))
    };
    if show(&mut client, "fsync")? != "on" {
        return refuse("runs with fsync off: what it acknowledges is lost at a power cut; switch it on");
    }
    if show(&mut client, "full_page_writes")? != "on" {
        return refuse("runs with full_page_writes off: a power cut can tear its pages; switch it on");
    }
    if ["off", "local"].contains(&show(&mut client, "synchronous_commit")?.as_str()) {
        client.batch_execute("SET synchronous_commit = on").map_err(Error::database("set up", name))?;
    }
    // A writer that is paused inside a transaction must not keep the others waiting for longer than its lease.
    let (idle, longest) = (lease.as_millis(), STATEMENT_MAX.as_millis());
    let limits = format!(
        "SET idle_in_transaction_session_timeout = {idle}; SET lock_timeout = {longest}; SET statement_timeout = {longest}"
    );
    client.batch_execute(&limits).map_err(Error::database("set up", name))?;
    Ok(client)
}

/// Makes or migrates the tables and checks whose they are; returns the proof of the root key.
fn make_tables(client: &mut Client, site: &SiteId, mark: &[u8], name: &Path) -> Result<Vec<u8>, Error> {
    let corrupt = |reason| Error::Corrupt { what: "the store's mark".into(), path: name.to_path_buf(), reason };
    let failed = || Error::database("make the tables of", name);
    let mut transaction = client.transaction().map_err(failed())?;
    transaction.batch_execute(schema::LOCK).map_err(failed())?;
    let is_there: bool = transaction.query_one(schema::EXISTS, &[]).map_err(failed())?.get(0);
    if !is_there {
        for step in schema::MIGRATIONS {
            transaction.batch_execute(step).map_err(failed())?;
        }
        let version = schema::VERSION.to_be_bytes().to_vec();
        let site = site.as_str().as_bytes().to_vec();
        for (name, value) in [(FORMAT, &version), (SITE, &site), (ROOT, &mark.to_vec())] {
            transaction.execute(schema::SET_MARK, &[&name, value]).map_err(failed())?;
        }
    }
    let mut read = |what: &str| -> Result<Vec<u8>, Error> {
        let row = transaction.query_opt(schema::MARK, &[&what]).map_err(failed())?;
        row.map(|row| row.get(0)).ok_or_else(|| corrupt("it is missing"))
    };
    if read(FORMAT)? != schema::VERSION.to_be_bytes() {
        return Err(corrupt("its tables are of another version of this program"));
    }
    let found = read(SITE)?;
    if found != site.as_str().as_bytes() {
        let found = String::from_utf8_lossy(&found).into_owned();
        return Err(Error::OtherSite { path: name.to_path_buf(), found, wanted: site.to_string() });
    }
    let root = read(ROOT)?;
    transaction.commit().map_err(failed())?;
    Ok(root)
}

/// A proof of the root key.
pub(super) fn sealed_mark(root: &RootKey, site: &SiteId, mut rng: &mut (dyn CryptoRng + Send)) -> Vec<u8> {
    let nothing = SecretBytes::from_vec(Vec::new());
    root.seal(Domain::StoreSegmentKek, &[MARK_CONTEXT, site.as_str().as_bytes()], &nothing, &mut rng)
}

fn is_of_root(root: &RootKey, site: &SiteId, mark: &[u8]) -> bool {
    root.open(Domain::StoreSegmentKek, &[MARK_CONTEXT, site.as_str().as_bytes()], mark).is_ok()
}

pub(super) fn class_of(number: i16) -> Option<Class> {
    Class::from_number(u8::try_from(number).ok()?)
}

const FORMAT: &str = "format";
const SITE: &str = "site";
pub(super) const ROOT: &str = "root";
const MARK_CONTEXT: &[u8] = b"database mark";
const LEASE_MIN: Duration = Duration::from_secs(1);
const LEASE_MAX: Duration = Duration::from_secs(300);
/// A server that takes longer for one statement is taken as failed.
const STATEMENT_MAX: Duration = Duration::from_secs(60);
