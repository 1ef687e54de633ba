//! A small network in a temporary folder: provisioned, started, and ended by id when the test is over.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The program under test.
pub const QURRENT: &str = env!("CARGO_BIN_EXE_qurrent");

/// A provisioned network and its processes.
pub struct World {
    pub dir: tempfile::TempDir,
    /// How much processes log.
    pub level: &'static str,
    children: BTreeMap<String, Child>,
}

impl World {
    /// Provisions the three-site line; nothing runs yet.
    pub fn provision() -> Self {
        Self::provision_file("line.toml", 30)
    }

    /// Provisions a network file of `tests/data`; nothing runs yet.
    pub fn provision_file(file: &str, time_scale: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file);
        let net_dir = dir.path().join("net");
        let scale = time_scale.to_string();
        ok(&["network", "init", "--time-scale", &scale, "--network", str_of(&network), "--dir", str_of(&net_dir)]);
        Self { dir, level: "info", children: BTreeMap::new() }
    }

    /// Provisions and starts everything, and waits until `east` and `west` have key for each other.
    pub fn start() -> Self {
        let mut world = Self::provision();
        world.spawn("fibre", &["fibre", "--config", str_of(&world.path("fibre.toml"))]);
        for site in ["east", "middle", "west"] {
            world.spawn_site(site);
        }
        world.wait_for_keys("east", "app-west", 8);
        world.wait_for_keys("west", "app-east", 8);
        world
    }

    /// A path in the network's folder.
    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join("net").join(below)
    }

    /// A site's configuration.
    pub fn node(&self, site: &str) -> String {
        str_of(&self.path(&format!("sites/{site}/node.toml"))).to_owned()
    }

    /// The folder of an SAE.
    pub fn sae(&self, site: &str, sae: &str) -> PathBuf {
        self.path(&format!("sites/{site}/sae/{sae}"))
    }

    /// A value of a site's configuration.
    pub fn listen(&self, site: &str, name: &str) -> SocketAddr {
        let text = fs::read_to_string(self.node(site)).unwrap();
        let config: toml::Table = text.parse().unwrap();
        config["listen"][name].as_str().unwrap().parse().unwrap()
    }

    /// Starts a process of the program; its log goes to the temporary folder.
    pub fn spawn(&mut self, name: &str, args: &[&str]) {
        self.spawn_under(name, &[], args);
    }

    /// As [`World::spawn`], as the arguments of another command.
    pub fn spawn_under(&mut self, name: &str, command: &[&str], args: &[&str]) {
        let log = File::options().create(true).append(true).open(self.dir.path().join(format!("{name}.log"))).unwrap();
        let (program, before) = command.split_first().unwrap_or((&QURRENT, &[]));
        let child = Command::new(program)
            .args(before)
            .args((!command.is_empty()).then_some(QURRENT))
            .args(["--log", self.level])
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.children.insert(name.to_owned(), child);
    }

    /// Starts a site's process.
    pub fn spawn_site(&mut self, site: &str) {
        let node = self.node(site);
        self.spawn(site, &["node", "--config", &node]);
    }

    /// The id of a process.
    pub fn pid(&self, name: &str) -> u32 {
        self.children[name].id()
    }

    /// Changes a site's configuration.
    pub fn configure(&self, site: &str, change: impl FnOnce(&mut toml::Table)) {
        let node = self.node(site);
        let mut config: toml::Table = fs::read_to_string(&node).unwrap().parse().unwrap();
        change(&mut config);
        fs::write(&node, toml::to_string(&config).unwrap()).unwrap();
    }

    /// Starts one site alone, which serves keys between its own SAEs, and waits until it answers.
    pub fn start_alone(&mut self, site: &str) {
        self.spawn_site(site);
        self.wait_for_keys(site, &format!("vault-{site}"), 1);
    }

    /// Kills a process at once, as a power cut would.
    pub fn kill_9(&mut self, name: &str) {
        let mut child = self.children.remove(name).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// How a process ended, if it did by itself.
    pub fn exited(&mut self, name: &str) -> Option<std::process::ExitStatus> {
        let status = self.children.get_mut(name)?.try_wait().unwrap()?;
        self.children.remove(name);
        Some(status)
    }

    /// Asks a process to stop and gives its exit status.
    pub fn terminate(&mut self, name: &str) -> std::process::ExitStatus {
        let mut child = self.children.remove(name).unwrap();
        ok_of(Command::new("kill").args(["-TERM", &child.id().to_string()]));
        child.wait().unwrap()
    }

    /// What a process logged.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    /// Waits until the KME of a site has `count` keys ready from its `app` SAE to another SAE.
    pub fn wait_for_keys(&self, site: &str, slave: &str, count: u64) {
        let sae = self.sae(site, &format!("app-{site}")).join("sae.toml");
        wait_until(Duration::from_secs(90), &format!("{count} keys at {site} for {slave}"), || {
            let output = run(&["key", "--sae", str_of(&sae), "--json", "status", slave]);
            let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            status["stored_key_count"].as_u64().unwrap_or_default() >= count
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in self.children.keys() {
                let log = self.log(name);
                let tail: Vec<_> = log.lines().rev().take(25).collect();
                eprintln!("--- end of {name}.log");
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
        for child in self.children.values_mut() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Runs the program to its end.
pub fn run(args: &[&str]) -> Output {
    Command::new(QURRENT).args(args).stdin(Stdio::null()).output().unwrap()
}

/// Runs the program, which must succeed; gives its standard output.
pub fn ok(args: &[&str]) -> String {
    ok_of(Command::new(QURRENT).args(args))
}

/// Runs the program, which must fail; gives its standard error.
pub fn fails(args: &[&str]) -> String {
    let output = run(args);
    assert!(!output.status.success(), "{args:?} must fail");
    String::from_utf8(output.stderr).unwrap()
}

/// Runs a command, which must succeed; gives its standard output.
pub fn ok_of(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the program, which must print JSON.
pub fn json(args: &[&str]) -> Value {
    serde_json::from_str(&ok(args)).unwrap()
}

/// Polls until a condition holds.
pub fn wait_until(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < limit, "not within {} s: {what}", limit.as_secs());
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// A free loopback port.
pub fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A path as text.
pub fn str_of(path: &Path) -> &str {
    path.to_str().unwrap()
}
