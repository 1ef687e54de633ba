//! Two replicas of a site at one PostgreSQL: one serves, the other takes over, and one that slept through it writes
//! nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::postgres::Postgres;
use crate::raw::{Https, tls};
use crate::world::{World, free_port, ok, ok_of, run, str_of, wait_until};

/// The address of a site that moves from one machine to another: connections go to whom it points at when they begin.
struct Address {
    at: SocketAddr,
    to: Arc<Mutex<SocketAddr>>,
}

impl Address {
    fn new(first: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (at, to) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(first)));
        let target = to.clone();
        std::thread::spawn(move || {
            for outer in listener.incoming().flatten() {
                let target = *target.lock().unwrap();
                std::thread::spawn(move || {
                    let Ok(inner) = TcpStream::connect(target) else { return };
                    let (Ok(from), Ok(to)) = (inner.try_clone(), outer.try_clone()) else { return };
                    std::thread::spawn(move || carry(from, to));
                    carry(outer, inner);
                });
            }
        });
        Self { at, to }
    }

    fn point_at(&self, replica: SocketAddr) {
        *self.to.lock().unwrap() = replica;
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 16_384];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _closed = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// What a replica listens on.
const PORTS: [&str; 3] = ["kme", "kx", "classical"];

/// Three sites in a line; the first has two replicas behind addresses that move.
struct Replicated {
    world: World,
    database: Postgres,
    addresses: [Address; 3],
    replicas: [[SocketAddr; 3]; 2],
}

impl Replicated {
    fn start() -> Self {
        let mut world = World::provision();
        let database = Postgres::start();
        let replicas = [0, 1].map(|_| PORTS.map(|_| free_port()));
        let addresses = replicas[0].map(Address::new);
        for site in ["middle", "west"] {
            world.configure(site, |config| {
                for peer in config["peer"].as_array_mut().unwrap() {
                    if peer["site"].as_str() == Some("east") {
                        peer["kx"] = addresses[1].at.to_string().into();
                    }
                }
                for link in config["link"].as_array_mut().unwrap() {
                    if link["id"].as_str() == Some("east-middle") {
                        link["classical"] = addresses[2].at.to_string().into();
                    }
                }
            });
        }
        // The second replica has a folder of its own, as on a machine of its own.
        copy(&world.path("sites/east"), &world.path("sites/east-2"));
        for (site, name, ports) in [("east", "east-1", replicas[0]), ("east-2", "east-2", replicas[1])] {
            let settings = database.settings(name);
            world.configure(site, |config| {
                config.insert("store".to_owned(), settings.into());
                config["listen"]["kme"] = ports[0].to_string().into();
                config["listen"]["kx"] = ports[1].to_string().into();
                let listen = config["listen"].as_table_mut().unwrap();
                ["dashboard", "metrics"].iter().for_each(|page| _ = listen.remove(*page));
                config["etsi004"]["listen"] = free_port().to_string().into();
                config["link"][0]["classical"] = ports[2].to_string().into();
            });
        }
        let sae = world.sae("east", "app-east").join("sae.toml");
        let mut config: toml::Table = fs::read_to_string(&sae).unwrap().parse().unwrap();
        config["kme"] = addresses[0].at.to_string().into();
        fs::write(&sae, toml::to_string(&config).unwrap()).unwrap();
        world.spawn("fibre", &["fibre", "--config", str_of(&world.path("fibre.toml"))]);
        ["east", "middle", "west"].iter().for_each(|site| world.spawn_site(site));
        world.wait_for_keys("east", "app-west", 16);
        let mut network = Self { world, database, addresses, replicas };
        network.stand_by("east-2", "east-1");
        network
    }

    /// Starts a replica, which waits for the writer's place.
    fn stand_by(&mut self, replica: &str, writer: &str) {
        fs::remove_file(self.world.dir.path().join(format!("{replica}.log"))).unwrap_or_default();
        self.world.spawn_site(replica);
        wait_until(Duration::from_secs(60), &format!("{replica} waits"), || {
            let log = self.world.log(replica);
            log.contains("another replica of the site writes") && log.contains(writer)
        });
    }

    /// The addresses move to a replica that has taken over.
    fn move_to(&self, replica: usize, name: &str) {
        wait_until(Duration::from_secs(60), &format!("{name} serves"), || self.world.log(name).contains("site is up"));
        for (address, at) in self.addresses.iter().zip(self.replicas[replica]) {
            address.point_at(at);
        }
    }

    /// Number of the writer's term, and who it is.
    fn writer(&self) -> String {
        self.database.query("SELECT epoch || ' ' || replica FROM qurrent.owner")
    }

    fn take(&self) -> (String, String) {
        let sae = self.world.sae("east", "app-east").join("sae.toml");
        let mut taken = Vec::new();
        wait_until(Duration::from_secs(90), "a key from the east", || {
            taken = keys(&run(&["key", "--sae", str_of(&sae), "--json", "get", "app-west"]).stdout);
            taken.len() == 1
        });
        taken.remove(0)
    }

    fn collect(&self, site: &str, master: &str, id: &str) -> Option<(String, String)> {
        let sae = self.world.sae(site, &format!("app-{site}")).join("sae.toml");
        keys(&run(&["key", "--sae", str_of(&sae), "--json", "fetch", master, id]).stdout).pop()
    }
}

fn keys(printed: &[u8]) -> Vec<(String, String)> {
    let parsed: Value = serde_json::from_slice(printed).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = parsed["keys"].as_array().cloned().unwrap_or_default();
    list.iter().map(|key| (text(&key["key_ID"]), text(&key["key"]))).collect()
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    ok_of(Command::new("cp").args(["-a", str_of(from), str_of(to)]));
}

#[test]
fn the_second_replica_takes_over_and_a_paused_one_writes_nothing() {
    let mut network = Replicated::start();
    // One waits at its slave's site, one at this site for this site's SAE.
    let to_west = network.take();
    let west = network.world.sae("west", "app-west").join("sae.toml");
    network.world.wait_for_keys("west", "app-east", 1);
    let to_east = keys(&run(&["key", "--sae", str_of(&west), "--json", "get", "app-east"]).stdout).remove(0);
    let refused = run(&["audit", "log", "--config", &network.world.node("east-2"), "--last", "1"]);
    assert!(!refused.status.success(), "a replica that waits has written nothing");
    assert_eq!(network.writer(), "1 east-1");

    // The first dies; the second has its keys, also what waits for its slave.
    network.world.kill_9("east");
    network.move_to(1, "east-2");
    assert_eq!(network.writer(), "2 east-2");
    assert_eq!(network.collect("east", "app-west", &to_east.0).as_ref(), Some(&to_east));
    assert!(network.collect("east", "app-west", &to_east.0).is_none(), "delivered twice");
    assert_eq!(network.collect("west", "app-east", &to_west.0).as_ref(), Some(&to_west));
    let second = network.take();
    assert_eq!(network.collect("west", "app-east", &second.0).as_ref(), Some(&second));

    // The first comes back and waits; the second falls asleep in the middle of its work.
    network.stand_by("east", "east-2");
    let waits = network.take();
    signal("STOP", network.world.pid("east-2"));
    network.move_to(0, "east");
    assert_eq!(network.writer(), "3 east-1");
    assert_eq!(network.collect("west", "app-east", &waits.0).as_ref(), Some(&waits));
    let third = network.take();
    assert_eq!(network.collect("west", "app-east", &third.0).as_ref(), Some(&third));
    wait_until(Duration::from_secs(60), "the others leave its connections, which are still open", || {
        ["middle", "west"].iter().all(|site| network.world.log(site).contains("the peer does not answer any more"))
    });
    network.world.wait_for_keys("west", "app-east", 4);
    let blocks = blocks_filed(&network.world);
    wait_until(Duration::from_secs(120), "the link makes key at the replica that took over", || {
        blocks_filed(&network.world) > blocks + 1
    });

    // It wakes up with requests in its hands: none is served, nothing is written, and it says why it stops.
    let before = network.database.query("SELECT count(*), min(epoch) FROM qurrent.owner");
    let asked = Https::open(network.replicas[1][0], tls(&network.world.sae("east", "app-east"))).map(|mut sleeping| {
        let body = json!({ "number": 1 }).to_string();
        let head = format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let request = format!("POST /api/v1/keys/app-west/enc_keys HTTP/1.1\r\nhost: kme\r\n{head}");
        std::thread::spawn(move || {
            let answer = sleeping.send(request.as_bytes()).and_then(|()| sleeping.answer(false));
            answer.map(|answer| answer.status).ok()
        })
    });
    signal("CONT", network.world.pid("east-2"));
    let mut status = None;
    wait_until(Duration::from_secs(30), "the replica that slept stops", || {
        status = network.world.exited("east-2");
        status.is_some()
    });
    assert!(!status.unwrap().success());
    let log = network.world.log("east-2");
    assert!(log.contains("has another writer now") && log.contains("not its writer any more"), "{log}");
    let answered = asked.unwrap().join().unwrap();
    assert!(!matches!(answered, Some(200)), "a replica without its place served a key");
    assert_eq!(network.database.query("SELECT count(*), min(epoch) FROM qurrent.owner"), before);
    assert_eq!(network.writer(), "3 east-1");
    let last = network.take();
    assert_eq!(network.collect("west", "app-east", &last.0).as_ref(), Some(&last));
    let all = [to_west, to_east, second, waits, third, last];
    assert_eq!(all.iter().map(|(_, bits)| bits).collect::<BTreeSet<_>>().len(), all.len(), "bits were supplied twice");
    both_logs_verify(&network.world);
}

fn signal(name: &str, pid: u32) {
    ok_of(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]));
}

fn blocks_filed(world: &World) -> usize {
    let printed = ok(&["audit", "log", "--config", &world.node("east"), "--last", "1000000", "--json"]);
    let entries: Value = serde_json::from_str(&printed).unwrap();
    entries.as_array().unwrap().iter().filter(|entry| entry["code"] == "BLOCK_FILED").count()
}

/// Each replica has written a log of its own, under its own name and the site's key.
fn both_logs_verify(world: &World) {
    let (export, trust) = (world.dir.path().join("audit.export"), world.dir.path().join("trust.toml"));
    let nodes = ["east", "east-2", "middle", "west"].map(|site| world.node(site));
    let mut args = vec!["audit", "export", "--out", str_of(&export)];
    nodes.iter().for_each(|node| args.extend(["--config", node]));
    ok(&args);
    let named = fs::read_to_string(world.path("trust.toml")).unwrap();
    let line = named.lines().find(|line| line.contains("line/east/audit")).unwrap();
    let of = |replica: &str| line.replace("line/east/audit", &format!("line/east/audit/{replica}"));
    fs::write(&trust, named.replace(line, &format!("{}\n{}", of("east-1"), of("east-2")))).unwrap();
    let verified = ok(&["audit", "verify", "--json", "--trust", str_of(&trust), str_of(&export)]);
    let report: Value = serde_json::from_str(&verified).unwrap();
    assert_eq!((&report["verified"], report["logs"].as_array().map(Vec::len)), (&json!(true), Some(4)), "{report:#}");
}
