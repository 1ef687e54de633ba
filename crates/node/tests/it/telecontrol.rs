//! Gateway and terminal on loopback: bytes unchanged, FIN and RST, fallback under a third-party IEC 104 dialogue,
//! and the program itself with keys of two sites.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::SuppliedKey;
use crypto::secret::SecretBytes;
use gateway::{Policy, Role, SupplyPlan};
use node::entropy::os_rng;
use node::failure::{Failure, Outcome};
use node::telecontrol::{EndConfig, KeySupply, PoolStore, Reports, Side, Sockets, TelecontrolStatus, serve};
use rand_core::Rng as _;
use terminal::EpochLimits;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use types::event::Event;
use types::id::{KeyId, SaeId, TerminalId};

use crate::world::{World, free_port, json, ok_of, str_of, wait_until};

const LIMIT: Duration = Duration::from_secs(20);

/// A key management entity in memory that serves both ends.
#[derive(Default)]
struct MemoryKme {
    keys: Mutex<BTreeMap<KeyId, SecretBytes>>,
    broken: AtomicBool,
}

impl KeySupply for MemoryKme {
    async fn supply(&self, number: u32, size_bits: u32) -> Outcome<Vec<SuppliedKey>> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(Failure::new("no key in stock"));
        }
        let mut supplied = Vec::new();
        for _ in 0..number {
            let mut id = [0; 16];
            os_rng().fill_bytes(&mut id);
            let id = KeyId::from_random(id);
            let key = SecretBytes::random(usize::try_from(size_bits / 8).unwrap(), &mut os_rng());
            self.keys.lock().unwrap().insert(id, key.duplicate());
            supplied.push(SuppliedKey { id, key, origin: None });
        }
        Ok(supplied)
    }

    async fn collect(&self, ids: &[KeyId]) -> Outcome<Vec<SuppliedKey>> {
        let mut keys = self.keys.lock().unwrap();
        let collected = ids.iter().map(|id| keys.remove(id).map(|key| SuppliedKey { id: *id, key, origin: None }));
        collected.collect::<Option<_>>().ok_or_else(|| Failure::new("no such key"))
    }
}

/// One running end.
struct End {
    plain: Option<SocketAddr>,
    cipher: Option<SocketAddr>,
    status: watch::Receiver<TelecontrolStatus>,
    events: Arc<Mutex<Vec<Event>>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Outcome<()>>,
}

fn start(runtime: &Runtime, role: Role, sides: (Side, Side), capacity: u64, kme: &Arc<MemoryKme>, data: &Path) -> End {
    let terminal = TerminalId::new("ftu-7").unwrap();
    let (plain, cipher) = sides;
    let config = EndConfig {
        center: SaeId::new("gateway-1").unwrap(),
        plain,
        cipher,
        policy: Policy::new(capacity),
        supply: SupplyPlan::default(),
        limits: EpochLimits::default(),
    };
    let sockets = runtime.block_on(Sockets::bind(&config)).unwrap();
    let (plain, cipher) = (sockets.plain_address(), sockets.cipher_address());
    let store = PoolStore::open(data, None, role, &terminal).unwrap();
    let (status_in, status) = watch::channel(TelecontrolStatus::new(role, terminal));
    let events = Arc::<Mutex<Vec<Event>>>::default();
    let noted = Arc::clone(&events);
    let reports = Reports { events: Box::new(move |event| noted.lock().unwrap().push(event)), status: status_in };
    let stop = CancellationToken::new();
    let task = runtime.spawn(serve(config, sockets, Arc::clone(kme), store, reports, stop.clone()));
    End { plain, cipher, status, events, stop, task }
}

/// A gateway and a terminal; `outstation` is what the dialling side reaches.
struct Pair {
    runtime: Runtime,
    kme: Arc<MemoryKme>,
    gateway: End,
    terminal: End,
    _data: [tempfile::TempDir; 2],
}

impl Pair {
    /// Masters come to the gateway, the terminal dials.
    fn usual(outstation: SocketAddr, capacity: u64) -> Self {
        Self::new(capacity, |runtime, kme, data| {
            let any = || Side::Listen("127.0.0.1:0".to_owned());
            let dial = Side::Connect(outstation.to_string());
            let terminal = start(runtime, Role::Terminal, (dial, any()), capacity, kme, data[1].path());
            let cipher = Side::Connect(terminal.cipher.unwrap().to_string());
            let gateway = start(runtime, Role::Gateway, (any(), cipher), capacity, kme, data[0].path());
            (gateway, terminal)
        })
    }

    /// The other way round: connections come to the terminal, the gateway dials; the terminal makes the cipher side.
    fn reverse(master: SocketAddr, capacity: u64) -> Self {
        Self::new(capacity, |runtime, kme, data| {
            let any = || Side::Listen("127.0.0.1:0".to_owned());
            let dial = Side::Connect(master.to_string());
            let gateway = start(runtime, Role::Gateway, (dial, any()), capacity, kme, data[0].path());
            let cipher = Side::Connect(gateway.cipher.unwrap().to_string());
            let terminal = start(runtime, Role::Terminal, (any(), cipher), capacity, kme, data[1].path());
            (gateway, terminal)
        })
    }

    fn new(capacity: u64, ends: impl FnOnce(&Runtime, &Arc<MemoryKme>, &[tempfile::TempDir; 2]) -> (End, End)) -> Self {
        let runtime = Runtime::new().unwrap();
        let kme = Arc::<MemoryKme>::default();
        let data = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (gateway, terminal) = ends(&runtime, &kme, &data);
        let pair = Self { runtime, kme, gateway, terminal, _data: data };
        wait_until(LIMIT, "full pools at both ends", || {
            [&pair.gateway, &pair.terminal].iter().all(|end| {
                let status = end.status.borrow();
                status.connected && status.level == "otp" && status.pool_out_bytes > capacity * 3 / 4
            })
        });
        pair
    }

    /// Stops both ends cleanly.
    fn stop(self) {
        for end in [self.gateway, self.terminal] {
            end.stop.cancel();
            self.runtime.block_on(end.task).unwrap().unwrap();
        }
    }
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i * 31 + seed * 7 + i / 251) % 256).unwrap()).collect()
}

/// Sends everything and FIN, and reads to the other's FIN.
fn exchange(mut tcp: TcpStream, send: &[u8]) -> Vec<u8> {
    tcp.set_read_timeout(Some(LIMIT)).unwrap();
    let mut writer = tcp.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            writer.write_all(send).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        tcp.read_to_end(&mut got).unwrap();
        got
    })
}

fn bytes_cross(listener: &TcpListener, entrance: SocketAddr) {
    let sizes = [1, 300, 70_000, 200_000];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in sizes {
                let (tcp, _) = listener.accept().unwrap();
                scope.spawn(move || {
                    let mut len = [0; 4];
                    let mut head = tcp.try_clone().unwrap();
                    head.read_exact(&mut len).unwrap();
                    let len = usize::try_from(u32::from_be_bytes(len)).unwrap();
                    assert_eq!(exchange(tcp, &pattern(len / 2, 2)), pattern(len, 1));
                });
            }
        });
        for len in sizes {
            scope.spawn(move || {
                let mut tcp = TcpStream::connect(entrance).unwrap();
                tcp.write_all(&u32::try_from(len).unwrap().to_be_bytes()).unwrap();
                assert_eq!(exchange(tcp, &pattern(len, 1)), pattern(len / 2, 2));
            });
        }
    });
}

#[test]
fn bytes_cross_unchanged_on_several_connections_in_both_arrangements() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let pair = Pair::usual(listener.local_addr().unwrap(), 16 * 1024);
    bytes_cross(&listener, pair.gateway.plain.unwrap());
    pair.stop();
    let pair = Pair::reverse(listener.local_addr().unwrap(), 16 * 1024);
    bytes_cross(&listener, pair.terminal.plain.unwrap());
    pair.stop();
}

#[test]
fn a_reset_and_a_refusal_reach_the_other_side() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let pair = Pair::usual(listener.local_addr().unwrap(), 8 * 1024);
    let entrance = pair.gateway.plain.unwrap();
    let mut master = TcpStream::connect(entrance).unwrap();
    let (outstation, _) = listener.accept().unwrap();
    master.write_all(b"never read").unwrap();
    wait_until(LIMIT, "bytes to wait at the outstation", || outstation.peek(&mut [0; 1]).unwrap_or(0) > 0);
    // Closing with unread bytes sends RST.
    drop(outstation);
    master.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(master.read(&mut [0; 8]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    drop(listener);
    let mut refused = TcpStream::connect(entrance).unwrap();
    refused.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(refused.read(&mut [0; 8]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    pair.stop();
}

/// The Python of the third-party peers, installed if it is not there.
fn peer_python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    ok_of(&mut Command::new(root.join("tests/peers/install.sh")));
    root.join("target/peers/venv/bin/python")
}

fn peer_script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers/iec104_peer.py")
}

#[test]
fn a_third_party_104_dialogue_survives_the_fallback_and_nothing_is_readable() {
    let python = peer_python();
    let outstation = free_port();
    let pair = Pair::usual(outstation, 16 * 1024);
    let mut wire = Command::new(&python)
        .arg(peer_script())
        .args(["wire", "--port", &pair.terminal.cipher.unwrap().port().to_string(), "--secs", "12"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let dialogue = Command::new(&python)
        .arg(peer_script())
        .args(["selftest", "--secs", "9", "--rate", "200", "--commands", "30"])
        .args(["--port", &outstation.port().to_string(), "--via", &pair.gateway.plain.unwrap().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let level = |status: &watch::Receiver<TelecontrolStatus>| status.borrow().level.clone();
    wait_until(LIMIT, "telemetry under one-time pad", || pair.terminal.status.borrow().records.sent_otp > 50);
    pair.kme.broken.store(true, Ordering::Relaxed);
    wait_until(LIMIT, "the fallback", || level(&pair.terminal.status) != "otp");
    let at_fallback = pair.terminal.status.borrow().records;
    wait_until(LIMIT, "traffic under epoch keys", || {
        pair.terminal.status.borrow().records.sent_aead > at_fallback.sent_aead + 20
    });
    pair.kme.broken.store(false, Ordering::Relaxed);
    wait_until(LIMIT, "the way back", || level(&pair.terminal.status) == "otp");

    let dialogue = dialogue.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&dialogue.stdout);
    assert!(dialogue.status.success(), "{said}");
    let mut captured = String::new();
    wire.stdout.take().unwrap().read_to_string(&mut captured).unwrap();
    assert!(wire.wait().unwrap().success(), "{captured}");
    for end in [&pair.gateway, &pair.terminal] {
        assert_eq!(end.status.borrow().records.refused, 0);
        let events = end.events.lock().unwrap();
        let changes = events.iter().filter(|event| matches!(event, Event::ProtectionChanged { .. })).count();
        assert!(changes >= 4, "both ends log up, down and up again: {events:?}");
    }
    pair.stop();
}

#[test]
fn the_program_protects_with_keys_of_two_sites_and_comes_back_after_kill_9() {
    let mut world = World::start();
    let outstation = TcpListener::bind("127.0.0.1:0").unwrap();
    let (plain, cipher) = (free_port().to_string(), free_port().to_string());
    let target = outstation.local_addr().unwrap().to_string();
    let data = |end: &str| world.dir.path().join(end);
    let (gateway_data, terminal_data) = (data("gateway"), data("terminal"));
    let (east, west) = (world.sae("east", "app-east").join("sae.toml"), world.sae("west", "app-west").join("sae.toml"));
    let mut gateway = vec!["gateway", "run", "--sae", str_of(&east), "--data", str_of(&gateway_data)];
    gateway.extend(["--terminal-sae", "app-west", "--plain-listen", &plain, "--cipher-connect", &cipher]);
    gateway.extend(["--terminal", "ftu-7", "--pool-target", "4096", "--keys-per-order", "32", "--opening-slots", "2"]);
    let mut terminal = vec!["terminal", "run", "--sae", str_of(&west), "--data", str_of(&terminal_data)];
    terminal.extend(["--gateway", "app-east", "--cipher-listen", &cipher, "--plain-connect", &target]);
    terminal.extend(["--terminal", "ftu-7"]);

    world.spawn("terminal", &terminal);
    world.spawn("gateway", &gateway);
    for round in 0..3 {
        let status = || json(&["gateway", "status", "--json", "--data", str_of(&gateway_data)]);
        wait_until(Duration::from_secs(60), "a session with pad", || {
            gateway_data.join("status.json").exists()
                && status()["connected"] == true
                && status()["pool_out_bytes"].as_u64().unwrap() > 1024
        });
        bytes_cross_once(&outstation, &plain, round);
        match round {
            0 => world.kill_9("terminal"),
            1 => world.kill_9("gateway"),
            _ => continue,
        }
        if round == 0 {
            world.spawn("terminal", &terminal)
        } else {
            world.spawn("gateway", &gateway)
        }
        wait_until(LIMIT, "the other session", || {
            let end = if round == 0 { "gateway" } else { "terminal" };
            let folder = if round == 0 { &gateway_data } else { &terminal_data };
            json(&[end, "status", "--json", "--data", str_of(folder)])["sessions"].as_u64().unwrap() >= 2
        });
    }
    assert!(world.terminate("gateway").success());
    assert!(world.terminate("terminal").success());
    let last = json(&["terminal", "status", "--json", "--data", str_of(&terminal_data)]);
    assert!(last["records"]["received_otp"].as_u64().unwrap() > 0, "{last}");
    assert_eq!(last["records"]["refused"], 0, "{last}");
}

fn bytes_cross_once(outstation: &TcpListener, entrance: &str, seed: usize) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (tcp, _) = outstation.accept().unwrap();
            assert_eq!(exchange(tcp, &pattern(900, seed)), pattern(1500, seed + 1));
        });
        let tcp = TcpStream::connect(entrance).unwrap();
        assert_eq!(exchange(tcp, &pattern(1500, seed + 1)), pattern(900, seed));
    });
}
