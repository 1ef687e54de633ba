//! The database back end against a real PostgreSQL, which the tests start and kill themselves.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use crypto::record::Table;
use crypto::secret::Key256;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::*;
use crate::model::{Model, apply, as_model, delete, put};
use crate::store::Store;

/// A server of its own in a folder of its own, reached over a Unix socket.
struct Server {
    folder: tempfile::TempDir,
    bin: PathBuf,
}

impl Server {
    fn start() -> Self {
        Self::start_with(|_| String::new())
    }

    /// With more settings, which may need files in the folder of the data.
    fn start_with(settings_of: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bin = binaries();
        let server = Self { folder, bin };
        // PostgreSQL refuses to run as root; then it runs as nobody.
        if rustix::process::geteuid().is_root() {
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(server.folder.path(), open).unwrap();
            std::fs::create_dir(server.path("data")).unwrap();
            std::os::unix::fs::chown(server.path("data"), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let data = server.path("data");
        let made = server.command("initdb").arg("-D").arg(&data).args(["-U", "qurrent", "-A", "trust", "-N"]).output();
        let made = made.unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut settings = std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
        writeln!(settings, "listen_addresses = ''\nunix_socket_directories = '{}'", data.display()).unwrap();
        writeln!(settings, "shared_buffers = 16MB\nmax_connections = 20\nmax_wal_size = 64MB").unwrap();
        // Otherwise recovery opens and syncs each of a thousand files.
        writeln!(settings, "recovery_init_sync_method = syncfs\n{}", settings_of(&data)).unwrap();
        server.up();
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        if rustix::process::geteuid().is_root() {
            std::os::unix::process::CommandExt::uid(&mut command, NOBODY);
            std::os::unix::process::CommandExt::gid(&mut command, NOBODY);
        }
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    /// Starts and waits until it takes connections; recovery after a crash is part of it.
    fn up(&self) {
        let data = self.path("data");
        let mut command = self.command("pg_ctl");
        command.arg("-D").arg(&data).arg("-l").arg(data.join("log")).args(["-w", "-t", "60", "start"]);
        // The server keeps what it inherits open: a pipe would never end.
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{}", std::fs::read_to_string(data.join("log")).unwrap_or_default());
    }

    /// The process dies where it stands; its children follow when they notice.
    fn kill(&self) {
        let text = std::fs::read_to_string(self.path("data/postmaster.pid")).unwrap();
        let pid = text.lines().next().unwrap().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        // A new server refuses the folder while children of the old one live.
        while rustix::process::test_kill_process(pid).is_ok() {
            std::thread::yield_now();
        }
    }

    fn config(&self, site: &str, replica: &str) -> DatabaseConfig {
        DatabaseConfig {
            connection: format!("host={} user=qurrent dbname=postgres", self.path("data").display()),
            password: None,
            tls: None,
            site: SiteId::new(site).unwrap(),
            replica: replica.into(),
            lease: Duration::from_secs(1),
        }
    }

    fn open(&self, replica: &str, seed: u64) -> Result<Store, Error> {
        Store::open_database(&self.config("taiyuan", replica), root(7), rng(seed), |_| true)
    }

    fn client(&self) -> postgres::Client {
        postgres::Client::connect(&self.config("x", "test").connection, postgres::NoTls).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.path("data");
        let mut command = self.command("pg_ctl");
        command.arg("-D").arg(data).args(["-m", "immediate", "-w", "stop"]);
        drop(command.stdout(Stdio::null()).stderr(Stdio::null()).status());
    }
}

fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let bin = versions.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("postgres").exists()).max();
    bin.expect("PostgreSQL is installed by tests/peers/install.sh")
}

fn root(n: u8) -> RootKey {
    RootKey::from_key(Key256::copy_of(&[n; 32]))
}

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn model_of(store: &Store) -> Model {
    let (records, damaged) = store.sorted().unwrap();
    assert_eq!(damaged, []);
    as_model(records)
}

fn random_change(model: &Model, rng: &mut ChaCha20Rng) -> Change {
    let mut below = |n: u64| rng.next_u64() % n;
    let table = Table::ALL[usize::try_from(below(3)).unwrap() + 4];
    let key = vec![0xaa; usize::try_from(below(6)).unwrap()];
    let value = vec![1; usize::try_from(below(30)).unwrap()];
    match below(5) {
        0 if model.contains_key(&(table, key.clone())) => Change::Update { table, key, value },
        1 | 2 => Change::Delete { table, key },
        _ => {
            let mut secret = vec![0; usize::try_from(below(3) * 40).unwrap()];
            rng.fill_bytes(&mut secret);
            put(table, &key, &value, (!secret.is_empty()).then_some(&secret[..]))
        }
    }
}

#[test]
fn a_database_is_a_map_seals_everything_and_belongs_to_one_site() {
    let server = Server::start();
    let (mut model, mut random) = (Model::new(), rng(3));
    let mut store = server.open("a", 1).unwrap();
    for step in 0..60 {
        if step % 20 == 19 {
            drop(store);
            store = server.open("a", step).unwrap();
            assert_eq!(model_of(&store), model, "step {step}");
        }
        let mut next = model.clone();
        let changes: Vec<Change> = (0..4)
            .map(|_| {
                let change = random_change(&next, &mut random);
                apply(&mut next, &change);
                change
            })
            .collect();
        store.commit(&changes).unwrap();
        model = next;
        assert_eq!(store.stats().secrets, model.values().filter(|(_, s)| s.is_some()).count() as u64);
    }
    assert_eq!(model_of(&store), model);
    for table in Table::ALL {
        let found = store.records_of(table).unwrap().count();
        assert_eq!(found, model.keys().filter(|(t, _)| *t == table).count(), "{table:?}");
    }

    // What is refused changes nothing, and the store goes on.
    let refused = [
        put(Table::PairKey, b"new", b"", None),
        Change::Update { table: Table::PairKey, key: b"?".to_vec(), value: vec![] },
    ];
    assert!(matches!(store.commit(&refused), Err(Error::ApiMisuse(_))));
    assert_eq!(model_of(&store), model);

    // Nothing that is ours is readable in the server's files.
    let (secret, value) = (b"canary key bytes, thirty-two!!!!", b"a value that nobody shall see");
    store.commit(&[put(Table::PairKey, b"canary", value, Some(secret))]).unwrap();
    server.client().batch_execute("CHECKPOINT").unwrap();
    let mut folders = vec![server.path("data")];
    let mut seen_row_key = false;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(content) = std::fs::read(&path) {
                let has = |needle: &[u8]| content.windows(needle.len()).any(|window| window == needle);
                assert!(!has(secret) && !has(value), "{}", path.display());
                seen_row_key |= has(b"\x06canary");
            }
        }
    }
    assert!(seen_row_key, "the scan finds what is public");

    // A backup of a database goes into a folder, and the other way round.
    let (site, file) = (SiteId::new("taiyuan").unwrap(), server.path("1.backup"));
    store.commit(&[put(Table::ModelKey, b"m", b"v", Some(b"model key"))]).unwrap();
    assert_eq!(store.backup(&site, 5, &file).unwrap().sequence, 1);
    let all: Vec<Change> = model_of(&store).into_keys().map(|(table, key)| Change::Delete { table, key }).collect();
    store.commit(&all).unwrap();
    let mut folder = Store::open_folder(&server.path("folder"), root(7), rng(8)).unwrap();
    folder.restore(&site, &file).unwrap();
    folder.backup(&site, 6, &server.path("2.backup")).unwrap();
    store.restore(&site, &server.path("2.backup")).unwrap();
    assert_eq!(model_of(&store).into_keys().collect::<Vec<_>>(), [(Table::ModelKey, b"m".to_vec())]);
    assert_eq!(store.incarnation().unwrap().unwrap().number, 2);
    drop(store);

    let other = Store::open_database(&server.config("linfen", "a"), root(7), rng(1), |_| true);
    assert!(matches!(&other, Err(Error::OtherSite { found, .. }) if found == "taiyuan"), "{other:?}");
    let wrong = Store::open_database(&server.config("taiyuan", "a"), root(8), rng(1), |_| true);
    assert!(matches!(wrong, Err(Error::WrongRootKey { .. })));
}

#[test]
fn one_writer_at_a_time_and_a_paused_one_writes_nothing() {
    let server = Server::start();
    let mut first = server.open("first", 1).unwrap();
    first.commit(&[put(Table::PairKey, b"1", b"", Some(b"one"))]).unwrap();
    // While it lives, others wait and hear of it.
    let mut heard = Vec::new();
    let second = Store::open_database(&server.config("taiyuan", "second"), root(7), rng(2), |writer| {
        heard.push(writer.replica.clone());
        false
    });
    assert!(matches!(second, Err(Error::Standby { ref writer, .. }) if writer == "first"), "{second:?}");
    assert_eq!(heard, ["first"]);
    // It is paused: its lease runs out by the database's clock, and the second takes over.
    let mut second = server.open("second", 2).unwrap();
    second.commit(&[put(Table::PairKey, b"2", b"", Some(b"two")), delete(Table::PairKey, b"1")]).unwrap();
    assert!(matches!(first.commit(&[put(Table::PairKey, b"3", b"", Some(b"three"))]), Err(Error::Fenced { .. })));
    assert!(matches!(first.commit(&[]), Err(Error::Poisoned)));
    drop(first);
    assert!(second.heartbeat().is_ok(), "a fenced writer's end does not free the place");
    assert_eq!(model_of(&second).into_keys().collect::<Vec<_>>(), [(Table::PairKey, b"2".to_vec())]);
    // One that ends in order gives its place up at once, long before its lease runs out.
    let mut long = server.config("taiyuan", "long");
    long.lease = Duration::from_secs(300);
    drop(second);
    let third = Store::open_database(&long, root(7), rng(3), |_| false).unwrap();
    drop(third);
    let fourth = Store::open_database(&server.config("taiyuan", "fourth"), root(7), rng(4), |_| false).unwrap();
    assert_eq!(model_of(&fourth).len(), 1);
}

/// Many replicas at once, each writing as long as it may: every acknowledged write is there, none is doubled.
#[test]
fn replicas_that_contend_never_write_at_the_same_time_slow_() {
    let server = Server::start();
    drop(server.open("first", 1).unwrap());
    let acknowledged = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for replica in 0..4_u8 {
            let (server, acknowledged) = (&server, &acknowledged);
            scope.spawn(move || {
                for turn in 0..3_u8 {
                    let mut store =
                        server.open(&replica.to_string(), u64::from(replica) * 10 + u64::from(turn)).unwrap();
                    for n in 0..10_u8 {
                        let key = [replica, turn, n];
                        store.commit(&[put(Table::PairKey, &key, b"", Some(&key))]).unwrap();
                        acknowledged.lock().unwrap().push((Table::PairKey, key.to_vec()));
                    }
                }
            });
        }
    });
    let store = server.open("last", 99).unwrap();
    let mut acknowledged = acknowledged.into_inner().unwrap();
    acknowledged.sort();
    assert_eq!(model_of(&store).into_keys().collect::<Vec<_>>(), acknowledged);
}

/// Kills the server at random points of a script and checks that what was acknowledged is there, and no more than
/// one commit that was not.
fn crashes(times: u64, seed: u64) {
    let server = Server::start();
    let mut random = rng(seed);
    let mut model = Model::new();
    let mut lost_last = 0;
    for round in 0..times {
        let mut store = server.open("a", round).unwrap();
        let found = model_of(&store);
        assert_eq!(found, model, "SEED={seed} round {round}");
        let mut next = model.clone();
        // At a random commit, and then at a random point of it.
        let (at_commit, turns) = (random.next_u64() % 30, random.next_u64() % 400);
        let begun = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while begun.load(Ordering::Relaxed) <= at_commit {
                    std::thread::yield_now();
                }
                (0..turns).for_each(|_| std::thread::yield_now());
                server.kill();
            });
            loop {
                let changes: Vec<Change> = (0..3)
                    .map(|_| {
                        let change = random_change(&next, &mut random);
                        apply(&mut next, &change);
                        change
                    })
                    .collect();
                begun.fetch_add(1, Ordering::Relaxed);
                match store.commit(&changes) {
                    Ok(()) => model.clone_from(&next),
                    Err(error) => {
                        assert!(matches!(error, Error::Database { .. }), "{error:?}");
                        assert!(matches!(store.commit(&changes), Err(Error::Poisoned)));
                        break;
                    }
                }
            }
        });
        drop(store);
        server.up();
        let found = model_of(&server.open("b", round).unwrap());
        assert!(found == model || found == next, "SEED={seed} round {round}");
        lost_last += u64::from(found != next);
        model = found;
    }
    assert!(times < 20 || lost_last > 0, "the server was never killed before a commit was whole");
}

#[test]
fn a_server_killed_at_any_point_loses_nothing_acknowledged() {
    crashes(3, 5);
}

#[test]
fn a_server_killed_twenty_times_loses_nothing_acknowledged_slow_() {
    crashes(20, 11);
}

#[test]
fn keks_end_with_their_last_piece_and_sparse_ones_are_emptied() {
    let server = Server::start();
    let mut store = server.open("a", 1).unwrap();
    let keys: Vec<[u8; 2]> = (0..3_000_u16).map(u16::to_be_bytes).collect();
    let puts: Vec<Change> = keys.iter().map(|key| put(Table::PairKey, key, b"v", Some(&[key[1]; 32]))).collect();
    store.commit(&puts).unwrap();
    assert_eq!(store.stats().segments, 6_000_u64.div_ceil(PIECES_MAX));
    let deletes: Vec<Change> = keys.iter().filter(|key| key[1] != 0).map(|key| delete(Table::PairKey, key)).collect();
    store.commit(&deletes).unwrap();
    while store.compact().unwrap() {}
    let stats = store.stats();
    assert_eq!((stats.secrets, stats.live_bytes), (12, 12 * 32));
    assert!(stats.segments <= 2, "{stats:?}");
    let keks =
        |server: &Server| -> i64 { server.client().query_one("SELECT count(*) FROM qurrent.kek", &[]).unwrap().get(0) };
    assert_eq!(keks(&server), stats.segments.cast_signed());
    // Another root key opens all of it, the old one nothing.
    store.rekey(root(9)).unwrap();
    store.commit(&[put(Table::ModelKey, b"m", b"", Some(b"sealed under a KEK of the new root key"))]).unwrap();
    drop(store);
    assert!(matches!(server.open("a", 2), Err(Error::WrongRootKey { .. })));
    let mut store = Store::open_database(&server.config("taiyuan", "a"), root(9), rng(3), |_| true).unwrap();
    assert_eq!(model_of(&store).len(), 13);
    let all: Vec<Change> = model_of(&store).into_keys().map(|(table, key)| Change::Delete { table, key }).collect();
    store.commit(&all).unwrap();
    while store.compact().unwrap() {}
    assert_eq!((store.stats().secrets, keks(&server)), (0, 0));
}

#[test]
fn a_row_that_was_moved_or_changed_does_not_open() {
    let server = Server::start();
    let mut store = server.open("a", 1).unwrap();
    for n in 0..4_u8 {
        store.commit(&[put(Table::PairKey, &[n], b"value", Some(&[n; 32]))]).unwrap();
    }
    let mut client = server.client();
    let mut bend = |statement: &str| client.batch_execute(statement).unwrap();
    bend("UPDATE qurrent.rows SET secret = set_byte(secret, 9, get_byte(secret, 9) # 1) WHERE row = '\\x0600'");
    bend(
        "UPDATE qurrent.rows a SET secret = b.secret FROM qurrent.rows b WHERE a.row = '\\x0601' AND b.row = '\\x0602'",
    );
    bend("UPDATE qurrent.rows SET value = secret WHERE row = '\\x0602'");
    drop(store);
    let mut store = server.open("a", 2).unwrap();
    let (records, damaged) = store.sorted().unwrap();
    assert_eq!(records.iter().map(|record| record.key[0]).collect::<Vec<_>>(), [3]);
    assert_eq!(damaged.iter().map(|lost| lost.key[0]).collect::<Vec<_>>(), [0, 1, 2]);
    store.commit(&(0..3).map(|n| delete(Table::PairKey, &[n])).collect::<Vec<_>>()).unwrap();
    assert_eq!(model_of(&store).len(), 1);
}

#[test]
fn settings_that_would_lose_or_show_something_are_refused() {
    let config = |connection: &str, lease| DatabaseConfig {
        connection: connection.into(),
        password: None,
        tls: None,
        site: SiteId::new("taiyuan").unwrap(),
        replica: "a".into(),
        lease: Duration::from_secs(lease),
    };
    for (name, connection, lease) in [
        ("not a connection string", "host", 10),
        ("another machine without TLS", "host=db.example user=q", 10),
        ("another machine behind a local one", "host=localhost,db.example user=q", 10),
        ("an address without TLS", "hostaddr=192.0.2.1 host=localhost user=q", 10),
        ("no host", "user=q", 10),
        ("no lease", "host=localhost user=q", 0),
        ("a lease of an hour", "host=localhost user=q", 3600),
    ] {
        let refused = Store::open_database(&config(connection, lease), root(7), rng(1), |_| false);
        assert!(matches!(refused, Err(Error::DatabaseRefused { .. })), "{name}: {refused:?}");
    }
    assert!(!format!("{:?}", config("host=localhost password=hunter2", 1)).contains("hunter2"));
}

const NOBODY: u32 = 65_534;

#[test]
fn over_a_network_the_servers_certificate_is_checked() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Server::start_with(|data| {
        for (name, text) in [("server.crt", made.cert.pem()), ("server.key", made.signing_key.serialize_pem())] {
            let path = data.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            if rustix::process::geteuid().is_root() {
                std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        format!("listen_addresses = '127.0.0.1'\nport = {port}\nssl = on")
    });
    let with = |certificate: &rcgen::Certificate, host: &str| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let mut config = server.config("taiyuan", "a");
        config.connection = format!("host={host} hostaddr=127.0.0.1 port={port} user=qurrent dbname=postgres");
        config.tls = Some(tls);
        Store::open_database(&config, root(7), rng(1), |_| true)
    };
    let mut store = with(&made.cert, "localhost").unwrap();
    store.commit(&[put(Table::PairKey, b"1", b"", Some(b"one"))]).unwrap();
    let sessions =
        "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE s.ssl AND usename = 'qurrent'";
    let own = format!("host={} port={port} user=qurrent dbname=postgres", server.path("data").display());
    let mut client = postgres::Client::connect(&own, postgres::NoTls).unwrap();
    assert_eq!(client.query_one(sessions, &[]).unwrap().get::<_, i64>(0), 1);
    drop(store);
    let stranger = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    assert!(matches!(with(&stranger.cert, "localhost"), Err(Error::Database { .. })), "another authority");
    assert!(matches!(with(&made.cert, "db.example"), Err(Error::Database { .. })), "another name");
    client.batch_execute("ALTER SYSTEM SET ssl = off").unwrap();
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    wait_for_ssl_off(&mut client);
    assert!(matches!(with(&made.cert, "localhost"), Err(Error::Database { .. })), "a server that stopped TLS");
}

/// A reload reaches the server's process a moment later.
fn wait_for_ssl_off(client: &mut postgres::Client) {
    let start = std::time::Instant::now();
    while client.query_one("SHOW ssl", &[]).unwrap().get::<_, String>(0) == "on" {
        assert!(start.elapsed() < Duration::from_secs(20), "the server did not read its settings again");
        std::thread::yield_now();
    }
}
