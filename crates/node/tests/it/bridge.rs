//! Key-id notifications with curl, and bridges: two processes at two sites that keep files, a real WireGuard tunnel and a
//! file of IKE secrets in step, through kill -9 of each of them and of a site.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::skip::{ask, install_peers};
use crate::world::{World, fails, ok_of, run, str_of, wait_until};

#[test]
fn only_holders_of_a_key_tell_each_other_of_it() {
    let mut world = World::start();
    let east = |path: &str, more: &[&str]| ask(&world, "east", "app-east", path, more);
    let west = |path: &str, more: &[&str]| ask(&world, "west", "app-west", path, more);
    let (_, taken) = east("/api/v1/keys/app-west/enc_keys", &[]);
    let id = taken["keys"][0]["key_ID"].as_str().unwrap();
    let body = json!({ "key_IDs": [{ "key_ID": id }], "note": "for you" }).to_string();

    let start = west("/qurrent/v1/notifications", &[]).1["next"].as_u64().unwrap();
    let (code, told) = east("/qurrent/v1/notify/app-west", &["--data", &body]);
    assert_eq!(code, 200, "{told}");
    let (code, page) = west(&format!("/qurrent/v1/notifications?from={start}&wait=10"), &[]);
    assert_eq!(code, 200);
    let heard = &page["notifications"][0];
    assert_eq!((&heard["from_SAE_ID"], &heard["note"]), (&"app-east".into(), &"for you".into()));
    assert_eq!((&heard["key_IDs"][0]["key_ID"], &heard["sequence"]), (&id.into(), &told["sequence"]));
    assert!(!page.to_string().contains(taken["keys"][0]["key"].as_str().unwrap()), "ids, never keys");
    let next = page["next"].as_u64().unwrap();
    let (_, empty) = west(&format!("/qurrent/v1/notifications?from={next}"), &[]);
    assert_eq!((empty["notifications"].as_array().unwrap().len(), &empty["gap"]), (0, &Value::from(false)));

    // The slave answers once it has the key, and not before.
    let answer = json!({ "key_IDs": [id], "note": "thanks" }).to_string();
    assert_eq!(west("/qurrent/v1/notify/app-east", &["--data", &answer]).0, 401);
    assert_eq!(west(&format!("/api/v1/keys/app-east/dec_keys?key_ID={id}"), &[]).0, 200);
    assert_eq!(west("/qurrent/v1/notify/app-east", &["--data", &answer]).0, 200);
    let stream = east("/qurrent/v1/notifications?wait=5", &[]).1;
    assert_eq!(stream["notifications"][0]["note"], "thanks");

    let long = json!({ "key_IDs": [id], "note": "x".repeat(65) }).to_string();
    for (sae, to, body, expected) in [
        ("app-east", "app-middle", &body, 401),
        ("app-east", "nobody", &body, 401),
        ("vault-east", "app-west", &body, 401),
        ("app-east", "app-west", &"{}".to_owned(), 400),
        ("app-east", "app-west", &json!({ "key_IDs": [] }).to_string(), 400),
        ("app-east", "app-west", &json!({ "key_IDs": ["no-uuid"] }).to_string(), 400),
        ("app-east", "app-west", &long, 400),
    ] {
        let (code, answer) = ask(&world, "east", sae, &format!("/qurrent/v1/notify/{to}"), &["--data", body]);
        assert_eq!(code, expected, "{sae} to {to}: {body}: {answer}");
    }
    assert_eq!(west("/qurrent/v1/notifications?from=x", &[]).0, 400);

    // As server-sent events, from a cursor on; curl ends the endless stream by its time limit.
    let folder = world.sae("west", "app-west");
    let file = |name: &str| str_of(&folder.join(name)).to_owned();
    let url = format!("https://{}/qurrent/v1/notifications?from={start}", world.listen("west", "kme"));
    let mut command = Command::new("curl");
    command.args(["-sSN", "--max-time", "2", "--header", "Accept: text/event-stream", "--cacert", &file("ca.pem")]);
    let streamed = command.args(["--cert", &file("cert.pem"), "--key", &file("key.pem"), &url]).output().unwrap();
    let streamed = String::from_utf8(streamed.stdout).unwrap();
    assert!(streamed.contains("event: notification") && streamed.contains(id), "{streamed}");

    // A restart forgets; the cursor from before shows a gap. A site that is down does not keep.
    world.kill_9("west");
    let (code, answer) = ask(&world, "east", "app-east", "/qurrent/v1/notify/app-west", &["--data", &body]);
    assert_eq!(code, 503, "{answer}");
    world.spawn_site("west");
    wait_until(Duration::from_secs(20), "the west again", || {
        let sae = world.sae("west", "app-west").join("sae.toml");
        run(&["key", "--sae", str_of(&sae), "status", "app-east"]).status.success()
    });
    let (_, page) = ask(&world, "west", "app-west", &format!("/qurrent/v1/notifications?from={next}"), &[]);
    assert_eq!(page["gap"], true);
}

/// Writes one end's configuration; gives its path.
fn configure(world: &World, site: &str, name: &str, role: &str, target: &str) -> PathBuf {
    let peer = if site == "east" { "west" } else { "east" };
    let sae = world.sae(site, &format!("app-{site}")).join("sae.toml");
    let file = world.dir.path().join(format!("{name}-{site}.toml"));
    let text = format!(
        "name = \"{name}\"\nsae = \"{}\"\npeer = \"app-{peer}\"\nrole = \"{role}\"\ninterval_s = 2\n{target}",
        sae.display()
    );
    fs::write(&file, text).unwrap();
    file
}

fn spawn(world: &mut World, site: &str, config: &Path) {
    world.spawn(&format!("bridge-{site}"), &["bridge", "--json", "run", "--config", str_of(config)]);
}

/// Key ids that an end reported as switched to, in order.
fn switched(world: &World, site: &str) -> Vec<String> {
    let log = world.log(&format!("bridge-{site}"));
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events
        .filter(|event| event["event"] == "switched")
        .map(|event| event["key_ID"].as_str().unwrap().to_owned())
        .collect()
}

/// Waits until both files hold the same key, which is not one of `seen`; gives it.
fn wait_for_new(files: &[PathBuf; 2], seen: &BTreeSet<String>) -> String {
    let mut found = String::new();
    wait_until(Duration::from_secs(60), "the same new key in both files", || {
        let [east, west] = [0, 1].map(|end: usize| fs::read_to_string(&files[end]).unwrap_or_default());
        found.clone_from(&east);
        east == west && !east.is_empty() && !seen.contains(&east)
    });
    found
}

#[test]
fn files_at_two_sites_change_together_and_survive_kill_9_slow_() {
    let mut world = World::start();
    let files = ["east", "west"].map(|site| world.dir.path().join(format!("key-{site}")));
    let commands = ["east", "west"].map(|site| world.dir.path().join(format!("ran-{site}")));
    let configs: Vec<_> = [("east", "initiator", 0), ("west", "responder", 1)]
        .into_iter()
        .map(|(site, role, end)| {
            let script = format!("umask 077; cat >> {0}; echo $QURRENT_KEY_ID >> {0}.ids", commands[end].display());
            let target = format!(
                "[hook]\nfile = \"{}\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\nformat = \"hex\"\n",
                files[end].display()
            );
            configure(&world, site, "files", role, &target)
        })
        .collect();
    spawn(&mut world, "east", &configs[0]);
    spawn(&mut world, "west", &configs[1]);
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        seen.insert(wait_for_new(&files, &seen));
    }
    for file in &files {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(file).unwrap().trim_end().len(), 64);
    }
    for (victim, config) in
        [("bridge-east", Some(&configs[0])), ("bridge-west", Some(&configs[1])), ("west", None), ("east", None)]
    {
        world.kill_9(victim);
        match config {
            Some(config) => spawn(&mut world, victim.trim_start_matches("bridge-"), config),
            None => world.spawn_site(victim),
        }
        for _ in 0..2 {
            let key = wait_for_new(&files, &seen);
            assert!(seen.insert(key), "{victim}: a key came back");
        }
    }
    // Each key once at each end, whatever was killed, and the command saw what the file held.
    for (end, site) in ["east", "west"].into_iter().enumerate() {
        let ran = fs::read_to_string(&commands[end]).unwrap();
        let keys: Vec<_> = ran.lines().collect();
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len(), "{site} used a key twice");
        let ids = switched(&world, site);
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
        for key in &seen {
            assert!(keys.contains(&key.trim_end()), "{site} did not run the command for each key");
        }
    }
    no_key_in_logs(&world, &seen);
    for site in ["east", "west"] {
        let status = world.terminate(&format!("bridge-{site}"));
        assert!(status.success() && world.log(&format!("bridge-{site}")).contains("\"stopped\""), "{site}: {status}");
    }
    bad_configurations_say_what_to_do(&world, &configs[0]);
    secrets_of_ike(&mut world);
}

fn no_key_in_logs(world: &World, keys: &BTreeSet<String>) {
    for name in ["bridge-east", "bridge-west", "east", "middle", "west"] {
        let log = world.log(name);
        assert!(keys.iter().all(|key| !log.contains(key.trim_end())), "{name} logged a key");
    }
}

fn bad_configurations_say_what_to_do(world: &World, good: &Path) {
    let text = fs::read_to_string(good).unwrap();
    let wrong = |text: &str| {
        let file = world.dir.path().join("wrong.toml");
        fs::write(&file, text).unwrap();
        fails(&["bridge", "run", "--config", str_of(&file)])
    };
    assert!(wrong(&text.replace("interval_s = 2", "interval_s = 0")).contains("interval_s"));
    assert!(wrong(&text.replace("[hook]", "[hock]")).contains("line 6"));
    let folder = wrong(&text.replace("key-east", "no-folder/key"));
    assert!(folder.contains("no folder") && folder.contains("what to do"), "{folder}");
    // Nobody at the other end.
    let once = text.replace("interval_s = 2", "interval_s = 2\nmax_age_s = 4");
    let file = world.dir.path().join("once.toml");
    fs::write(&file, once).unwrap();
    let ended = run(&["bridge", "run", "--once", "--config", str_of(&file)]);
    assert_eq!(ended.status.code(), Some(3), "{}", String::from_utf8_lossy(&ended.stderr));
}

/// The same PPK at both ends, one round, by flags.
fn secrets_of_ike(world: &mut World) {
    let ends = [("east", "initiator"), ("west", "responder")].map(|(site, role)| {
        let peer = if site == "east" { "app-west" } else { "app-east" };
        let sae = world.sae(site, &format!("app-{site}")).join("sae.toml");
        let (file, reloaded) =
            (world.dir.path().join(format!("ppk-{site}.conf")), world.dir.path().join(format!("reloaded-{site}")));
        let child = Command::new(crate::world::QURRENT)
            .args(["bridge", "--once", "ike", "--sae", str_of(&sae), "--peer", peer, "--role", role, "--name", "ike"])
            .args(["--ppk-id", "grid", "--file", str_of(&file), "--reload", "touch", str_of(&reloaded)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        (child, file, reloaded)
    });
    let texts = ends.map(|(child, file, reloaded)| {
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        let said = [stdout, stderr].concat();
        assert!(status.success(), "{}", String::from_utf8_lossy(&said));
        assert!(reloaded.exists(), "the daemon was not told");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::read_to_string(file).unwrap()
    });
    assert_eq!(texts[0], texts[1]);
    assert!(texts[0].contains("ppk-ike {") && texts[0].contains("secret = 0x"), "{}", texts[0]);
}

/// Two network namespaces, joined by a cable, each with a userspace WireGuard interface. Needs root and /dev/net/tun.
struct Tunnel {
    spaces: Vec<Child>,
    daemons: Vec<Child>,
    public: [String; 2],
    interfaces: [String; 2],
}

impl Tunnel {
    fn new(folder: &Path) -> Self {
        let tag = std::process::id() % 100_000;
        let interfaces = [format!("qa{tag}"), format!("qb{tag}")];
        let spaces: Vec<_> = (0..2)
            .map(|_| Command::new("unshare").args(["--net", "sleep", "600"]).stdin(Stdio::null()).spawn().unwrap())
            .collect();
        let pids = [spaces[0].id().to_string(), spaces[1].id().to_string()];
        // A namespace of its own is there when its id differs from ours.
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        wait_until(Duration::from_secs(10), "two network namespaces (root is needed)", || {
            pids.iter().all(|pid| fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|space| space != own))
        });
        let cable = format!("qc{tag}");
        inside(&pids[0], &["ip", "link", "add", &cable, "type", "veth", "peer", "name", "far", "netns", &pids[1]]);
        let mut tunnel = Self { spaces, daemons: Vec::new(), public: Default::default(), interfaces };
        let keys = [0, 1].map(|end| {
            let file = folder.join(format!("wg-{end}.key"));
            write_secret(&file, ok_of(Command::new("wg").arg("genkey")).as_bytes());
            let public = Command::new("wg").arg("pubkey").stdin(fs::File::open(&file).unwrap()).output().unwrap();
            tunnel.public[end] = String::from_utf8(public.stdout).unwrap().trim().to_owned();
            file
        });
        for end in 0..2 {
            let (pid, interface) = (&pids[end], tunnel.interfaces[end].clone());
            let (near, far) = (format!("10.213.0.{}", end + 1), format!("10.213.0.{}", 2 - end));
            let port = if end == 0 { &cable } else { "far" };
            inside(pid, &["ip", "link", "set", "lo", "up"]);
            inside(pid, &["ip", "address", "add", &format!("{near}/24"), "dev", port]);
            inside(pid, &["ip", "link", "set", port, "up"]);
            let daemon = Command::new("nsenter")
                .args(["--net", "--target", pid, "wireguard-go", "--foreground", &interface])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(fs::File::create(folder.join(format!("wg-{end}.log"))).unwrap())
                .spawn()
                .unwrap();
            tunnel.daemons.push(daemon);
            wait_until(Duration::from_secs(10), "wireguard-go (it needs /dev/net/tun)", || {
                Command::new("wg").args(["show", &interface]).output().is_ok_and(|output| output.status.success())
            });
            let (peer, endpoint) = (tunnel.public[1 - end].clone(), format!("{far}:51820"));
            let mut set = Command::new("wg");
            set.args(["set", &interface, "listen-port", "51820", "private-key", str_of(&keys[end]), "peer", &peer]);
            ok_of(set.args(["endpoint", &endpoint, "allowed-ips", "10.214.0.0/24"]));
            inside(pid, &["ip", "address", "add", &format!("10.214.0.{}/24", end + 1), "dev", &interface]);
            inside(pid, &["ip", "link", "set", &interface, "up"]);
        }
        tunnel
    }

    /// Sends through the tunnel, which sets it up if both ends agree on the keys.
    fn reaches(&self, seconds: &str) -> bool {
        let pid = self.spaces[0].id().to_string();
        let ping = ["--net", "--target", &pid, "ping", "-c", "1", "-w", seconds, "10.214.0.2"];
        Command::new("nsenter").args(ping).output().is_ok_and(|output| output.status.success())
    }

    fn preshared(&self, end: usize) -> String {
        let shown = ok_of(Command::new("wg").args(["show", &self.interfaces[end], "preshared-keys"]));
        shown.split_whitespace().last().unwrap_or_default().to_owned()
    }

    fn agree(&self) -> Option<String> {
        let (one, other) = (self.preshared(0), self.preshared(1));
        (one == other && one != "(none)").then_some(one)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        for child in self.daemons.iter_mut().chain(&mut self.spaces) {
            drop(child.kill());
            drop(child.wait());
        }
        for interface in &self.interfaces {
            drop(fs::remove_file(format!("/var/run/wireguard/{interface}.sock")));
        }
    }
}

fn inside(pid: &str, words: &[&str]) {
    ok_of(Command::new("nsenter").args(["--net", "--target", pid]).args(words));
}

fn write_secret(file: &Path, bytes: &[u8]) {
    fs::write(file, bytes).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_wireguard_tunnel_gets_fresh_preshared_keys_and_carries_traffic() {
    install_peers();
    let mut world = World::start();
    let tunnel = Tunnel::new(world.dir.path());
    // The west expects a preshared key that the east does not have: no tunnel.
    let lone = ok_of(Command::new("wg").arg("genpsk"));
    let file = world.dir.path().join("lone.psk");
    write_secret(&file, lone.as_bytes());
    ok_of(Command::new("wg").args([
        "set",
        &tunnel.interfaces[1],
        "peer",
        &tunnel.public[0],
        "preshared-key",
        str_of(&file),
    ]));
    assert!(!tunnel.reaches("2"));

    let target = |end: usize| {
        format!("[wireguard]\ninterface = \"{}\"\npeer = \"{}\"\n", tunnel.interfaces[end], tunnel.public[1 - end])
    };
    let head = "fallback = \"shut\"\nmax_age_s = 4\n";
    let east = configure(&world, "east", "wg", "initiator", &format!("{head}{}", target(0)));
    let west = configure(&world, "west", "wg", "responder", &format!("{head}{}", target(1)));
    spawn(&mut world, "east", &east);
    spawn(&mut world, "west", &west);
    let mut keys = BTreeSet::new();
    let mut next = |tunnel: &Tunnel| {
        wait_until(Duration::from_secs(60), "the same new preshared key at both ends", || {
            tunnel.agree().is_some_and(|key| keys.insert(key))
        });
    };
    next(&tunnel);
    // WireGuard tries again every five seconds.
    assert!(tunnel.reaches("20"), "both ends have the key, so the tunnel must come up");
    next(&tunnel);
    next(&tunnel);
    assert!(tunnel.reaches("5"));

    // The initiator dies: no fresh key, and the responder shuts with a key that nobody has.
    world.kill_9("bridge-east");
    wait_until(Duration::from_secs(30), "the responder's fallback", || {
        world.log("bridge-west").contains("\"fallback\"")
    });
    assert!(tunnel.agree().is_none());
    spawn(&mut world, "east", &east);
    next(&tunnel);
    assert!(tunnel.reaches("20"));

    // An interface that is not there is said at the start.
    let wrong = fs::read_to_string(&east).unwrap().replace(&tunnel.interfaces[0], "qurrent-none");
    let file = world.dir.path().join("none.toml");
    fs::write(&file, wrong).unwrap();
    let said = fails(&["bridge", "run", "--config", str_of(&file)]);
    assert!(said.contains("WireGuard interface qurrent-none") && said.contains("what to do"), "{said}");
    // Keys are read through a pipe, so nothing that ran held one in its arguments; the log does not either.
    let logs = [world.log("bridge-east"), world.log("bridge-west")].concat();
    assert!(keys.iter().all(|key| !logs.contains(key.as_str())));
}
