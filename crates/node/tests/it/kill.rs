//! kill -9 of sites, relay and database under load: what was acknowledged is there, once, the same at both ends.

mod load;

use std::fs;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde_json::Value;

use self::load::{Load, State};
use crate::postgres::Postgres;
use crate::world::{World, json, ok, str_of, wait_until};

/// The sites, their quantum channels and the database of the first, as a supervisor sees them.
struct Network {
    world: World,
    database: Postgres,
}

impl Network {
    fn start() -> Self {
        let mut world = World::provision_file("line.toml", 60);
        let database = Postgres::start();
        let settings = database.settings("east-1");
        world.configure("east", |config| drop(config.insert("store".to_owned(), settings.into())));
        world.spawn("fibre", &["fibre", "--config", str_of(&world.path("fibre.toml"))]);
        SITES.iter().for_each(|site| world.spawn_site(site));
        world.wait_for_keys("east", "app-west", 64);
        world.wait_for_keys("west", "app-east", 64);
        Self { world, database }
    }

    fn kill_9(&mut self, victim: &str) {
        if victim == DATABASE {
            self.database.kill_9();
            self.database.up();
        } else {
            self.world.kill_9(victim);
            self.world.spawn_site(victim);
        }
    }

    /// Starts what ended by itself again, which only the site on the database may do, and only without it.
    fn supervise(&mut self) {
        for site in SITES {
            if let Some(status) = self.world.exited(site) {
                assert_eq!(site, "east", "{site} ended by itself: {status}\n{}", self.world.log(site));
                self.world.spawn_site(site);
            }
        }
    }
}

/// The whole: `SEED=n` repeats a schedule.
#[test]
fn a_hundred_kills_under_load_issue_nothing_twice_and_lose_nothing() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    eprintln!("SEED={seed}");
    let mut network = Network::start();
    let load = Load::start(&network.world, seed);
    let mut random = ChaCha20Rng::seed_from_u64(seed);
    let mut below = |n: u64| random.next_u64() % n;
    let mut kills = [0_u32; VICTIMS.len()];
    let begun = Instant::now();
    for round in 1..=KILLS {
        let pause = Instant::now() + Duration::from_millis(100 + below(1_400));
        wait_until(Duration::from_secs(10), "the moment of the next kill", || {
            network.supervise();
            load.check();
            Instant::now() >= pause
        });
        let at = usize::try_from(below(VICTIMS.len() as u64)).unwrap();
        kills[at] += 1;
        network.kill_9(VICTIMS[at]);
        if round % 10 == 0 {
            let before = load.delivered();
            wait_until(Duration::from_secs(90), &format!("keys flow both ways after kill {round}"), || {
                network.supervise();
                load.check();
                load.delivered().iter().zip(before).all(|(now, before)| *now > before)
            });
        }
    }
    eprintln!("SEED={seed}: {kills:?} kills of {VICTIMS:?} in {:?}, {}", begun.elapsed(), load.summary());
    let Network { world, database } = &mut network;
    world.wait_for_keys("east", "app-west", 16);
    world.wait_for_keys("west", "app-east", 16);
    let book = load.finish();
    eprintln!("SEED={seed}: {}", book.summary());
    assert_eq!(kills.iter().sum::<u32>(), 100);
    assert!(kills.iter().all(|kills| *kills >= 10), "{kills:?}");
    assert_eq!(book.count(|key| key.state == State::Waiting), 0, "all were asked for");
    assert!(book.count(|key| key.state == State::Delivered) > 100, "there was load");
    the_audit_logs_agree(world, &book);
    assert_ne!(database.query("SELECT epoch FROM qurrent.owner"), "1");
}

/// Every log verifies, every key that a master got stands in its site's log, and no more was supplied than was asked.
fn the_audit_logs_agree(world: &World, book: &load::Book) {
    let export = world.dir.path().join("audit.export");
    let nodes = SITES.map(|site| world.node(site));
    let mut args = vec!["audit", "export", "--out", str_of(&export)];
    nodes.iter().for_each(|node| args.extend(["--config", node]));
    ok(&args);
    // The site on the database writes the log of a replica.
    let trust = world.dir.path().join("trust.toml");
    let named = fs::read_to_string(world.path("trust.toml")).unwrap();
    fs::write(&trust, named.replace("line/east/audit", "line/east/audit/east-1")).unwrap();
    let report = json(&["audit", "verify", "--json", "--trust", str_of(&trust), str_of(&export)]);
    assert_eq!(report["verified"], true, "{report:#}");
    assert_eq!(report["logs"].as_array().map(Vec::len), Some(3), "{report:#}");
    for (direction, site) in ["east", "west"].into_iter().enumerate() {
        let printed = ok(&["audit", "log", "--config", &world.node(site), "--last", "1000000", "--json"]);
        let entries: Value = serde_json::from_str(&printed).unwrap();
        let supplied: Vec<String> = entries
            .as_array()
            .unwrap()
            .iter()
            .filter(|entry| entry["code"] == "KEYS_SUPPLIED")
            .map(|entry| entry["fields"]["first"].as_str().unwrap().to_owned())
            .collect();
        let firsts = book.firsts(direction);
        for first in &firsts {
            let times = supplied.iter().filter(|supplied| *supplied == first).count();
            assert_eq!(times, 1, "{first}, which a master of {site} got, stands {times} times in the log");
        }
        let unanswered = supplied.len() - firsts.len();
        assert!(
            unanswered <= book.unanswered[direction],
            "{unanswered} supplied, {} asked",
            book.unanswered[direction]
        );
    }
}

const KILLS: u32 = 100;
const SITES: [&str; 3] = ["east", "middle", "west"];
const DATABASE: &str = "database";
const VICTIMS: [&str; 4] = ["east", "middle", "west", DATABASE];
