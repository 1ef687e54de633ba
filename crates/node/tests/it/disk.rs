//! A site whose disk runs full or turns read-only: it stops and says why, has lost nothing that it acknowledged, and
//! goes on when there is space.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::world::{World, ok_of, run, str_of, wait_until};

/// Keys as they were supplied: id and base64.
type Keys = Vec<(String, String)>;

fn keys(printed: &[u8]) -> Keys {
    let parsed: Value = serde_json::from_slice(printed).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = parsed["keys"].as_array().cloned().unwrap_or_default();
    list.iter().map(|key| (text(&key["key_ID"]), text(&key["key"]))).collect()
}

/// Takes keys in the east.
fn take(world: &World) -> Keys {
    let sae = world.sae("east", "app-east").join("sae.toml");
    keys(&run(&["key", "--sae", str_of(&sae), "--json", "get", "app-west", "--number", "2", "--size", "8192"]).stdout)
}

/// Takes keys until the site ends by itself; gives what it acknowledged and how it ended.
fn take_until_it_stops(world: &mut World) -> (Keys, std::process::ExitStatus) {
    let (mut taken, mut status) = (Vec::new(), None);
    wait_until(Duration::from_secs(120), "the site stops", || {
        taken.extend(take(world));
        status = world.exited("east");
        status.is_some()
    });
    (taken, status.unwrap())
}

/// Every key is at its slave, with the same bits.
fn all_delivered(world: &World, taken: &[(String, String)]) {
    let sae = world.sae("west", "app-west").join("sae.toml");
    for (id, bits) in taken {
        let found = keys(&run(&["key", "--sae", str_of(&sae), "--json", "fetch", "app-east", id]).stdout);
        assert_eq!(found, [(id.clone(), bits.clone())], "{id} is lost");
    }
}

/// It stops with exit code 1 and one error that names the folder, the reason and what to do.
fn said_why(world: &World, status: std::process::ExitStatus, reason: &str) {
    let log = world.log("east");
    assert_eq!(status.code(), Some(1), "{log}");
    let error = log.lines().find(|line| line.contains("ERROR")).unwrap_or_else(|| panic!("no error in\n{log}"));
    assert!(error.contains("nothing can be made durable") && error.contains(reason), "{error}");
    let said = log.split("site east stopped").nth(1).unwrap_or_else(|| panic!("no last word in\n{log}"));
    assert!(said.contains(reason) && said.contains("what to do"), "{said}");
    fs::remove_file(world.dir.path().join("east.log")).unwrap();
}

/// A small file system of its own, gone with the value.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// `None` where this process may mount nothing.
    fn mount(folder: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=48m", "tmpfs", str_of(folder)]).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| Self(folder.to_owned()))
    }

    fn remount(&self, how: &str) {
        ok_of(Command::new("mount").args(["-o", &format!("remount,{how}"), str_of(&self.0)]));
    }

    fn free_kib(&self) -> u64 {
        let said = ok_of(Command::new("df").args(["-k", "--output=avail", str_of(&self.0)]));
        said.lines().nth(1).unwrap().trim().parse().unwrap()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still runs there is killed right after; the mount goes when the last file is closed.
        drop(Command::new("umount").args(["--lazy", str_of(&self.0)]).status());
    }
}

#[test]
fn a_disk_that_is_full_or_read_only_stops_the_site_and_loses_nothing() {
    let mut world = World::provision();
    let data = world.path("sites/east/data");
    let disk = SmallDisk::mount(&data);
    world.spawn("fibre", &["fibre", "--config", str_of(&world.path("fibre.toml"))]);
    ["east", "middle", "west"].iter().for_each(|site| world.spawn_site(site));
    world.wait_for_keys("east", "app-west", 64);
    match &disk {
        Some(disk) => full_and_read_only(&mut world, disk, &data),
        None => files_that_may_not_grow(&mut world, &data),
    }
}

fn full_and_read_only(world: &mut World, disk: &SmallDisk, data: &Path) {
    // Another program takes all but a little.
    let ballast = data.join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    let leave = 64;
    std::io::copy(&mut std::io::Read::take(std::io::repeat(1), (disk.free_kib() - leave) * 1_024), &mut file).unwrap();
    drop(file);
    let (mut taken, status) = take_until_it_stops(world);
    said_why(world, status, "the disk is full; free space");
    // As long as it is full it says so again, or runs until it has to write.
    world.spawn_site("east");
    let (more, status) = take_until_it_stops(world);
    assert_eq!(status.code(), Some(1));
    assert!(world.log("east").contains("the disk is full; free space"), "{}", world.log("east"));
    taken.extend(more);

    fs::remove_file(&ballast).unwrap();
    fs::remove_file(world.dir.path().join("east.log")).unwrap();
    goes_on(world, &mut taken);

    // The kernel lets no file system turn read-only under files that are open for writing.
    assert!(world.terminate("east").success());
    disk.remount("ro");
    fs::remove_file(world.dir.path().join("east.log")).unwrap();
    world.spawn_site("east");
    wait_until(Duration::from_secs(60), "a start without a disk to write to fails", || world.exited("east").is_some());
    assert!(world.log("east").contains("read-only"), "{}", world.log("east"));
    fs::remove_file(world.dir.path().join("east.log")).unwrap();
    disk.remount("rw");
    goes_on(world, &mut taken);
    all_delivered(world, &taken);
}

/// Where nothing can be mounted: files reach the length that the process may give them.
fn files_that_may_not_grow(world: &mut World, data: &Path) {
    assert!(world.terminate("east").success());
    let longest = longest_kib(data);
    let node = world.node("east");
    world.spawn_under(
        "east",
        &["sh", "-c", &format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", 2 * (longest + 8))],
        &["node", "--config", &node],
    );
    world.wait_for_keys("east", "app-west", 1);
    let (mut taken, status) = take_until_it_stops(world);
    said_why(world, status, "check the disk");
    goes_on(world, &mut taken);
    all_delivered(world, &taken);
}

fn longest_kib(folder: &Path) -> u64 {
    let lengths = fs::read_dir(folder).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() { longest_kib(&path) } else { fs::metadata(&path).unwrap().len().div_ceil(1_024) }
    });
    lengths.max().unwrap_or_default()
}

fn goes_on(world: &mut World, taken: &mut Keys) {
    world.spawn_site("east");
    wait_until(Duration::from_secs(90), "keys again", || {
        let more = take(world);
        taken.extend(more.iter().cloned());
        !more.is_empty()
    });
}
