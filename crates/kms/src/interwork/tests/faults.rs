//! Every fault: dropped, late, doubled and half-answered calls, and a kill at every commit. A key ends with both SAEs
//! of one pair or with nobody, and bits that are free again never meet those of an earlier pair.

use std::collections::BTreeMap;

use crypto::secret::SecretBytes;
use proptest::prelude::*;
use types::id::KeyId;
use types::units::Time;

use super::world::{Crash, Fault, World, sae, secs};
use crate::{ExportFailure, Refusal};

/// Exports, some withdrawn by their KME, while faults last; then peace, long enough for every retry.
fn play(seed: u64, crashes: &[Crash]) -> World {
    let mut world = World::new(seed);
    let mut crashes = crashes.to_vec();
    crashes.reverse();
    world.crash = crashes.pop();
    world.faults_until = Time::ZERO.after(secs(40));
    let mut reused = Vec::new();
    for step in 0..8_u32 {
        let count = 1 + usize::try_from((seed + u64::from(step)) % 3).unwrap();
        if (seed + u64::from(step)).is_multiple_of(5) {
            world.sides[1].kme.refusals.push(Refusal::Busy { retry_after: secs(1) });
        }
        if (seed + u64::from(step)).is_multiple_of(7) {
            world.sides[1].kme.refusals.push(Refusal::BadParameter { message: "never".to_owned() });
        }
        let export = world.export_fresh(0, "a1", "b1", count);
        if step % 3 == 2 {
            world.export_fresh(1, "b2", "a2", count);
        }
        world.run(secs(4));
        if step % 4 == 3 {
            // The KME that asked gives up at a moment of its own.
            let exporting = &world.sides[0].kme.exports[&export];
            let ids = exporting.keys.iter().map(|(key, _)| *key).collect();
            let (master, slave) = (exporting.master.clone(), exporting.slave.clone());
            if exporting.result.is_none() {
                let peer = "kme-b".to_owned();
                world.input(0, crate::interwork::Input::ExportVoid { export, peer, master, slave, ids });
            }
        }
        if world.crash.is_none() {
            world.crash = crashes.pop();
        }
        reuse(&mut world, &mut reused);
    }
    world.run(secs(400));
    reuse(&mut world, &mut reused);
    world.run(secs(400));
    world
}

/// Gives bits that did not come to the other network to another pair, as only a KME that is told so may.
fn reuse(world: &mut World, reused: &mut Vec<KeyId>) {
    let free = |result: Option<Result<(), ExportFailure>>| {
        matches!(result, Some(Err(ExportFailure::NotTaken | ExportFailure::Voided)))
    };
    let mut again = Vec::new();
    for (id, export) in &world.sides[0].kme.exports {
        if free(export.result) && !reused.contains(id) {
            reused.push(*id);
            again.push(export.keys.iter().map(|(_, bits)| bits.duplicate()).collect::<Vec<_>>());
        }
    }
    for bits in again {
        let keys = bits.into_iter().map(|bits| (world.id(), bits)).collect();
        let id = world.export(0, "a2", "b2", keys);
        reused.push(id);
    }
}

fn check(world: &World, what: &str) {
    let mut pairs: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    for (from, to) in [(0, 1), (1, 0)] {
        let kme = &world.sides[to].kme;
        for (id, export) in &world.sides[from].kme.exports {
            let result = export.result.unwrap_or_else(|| panic!("{what}: export {id} has no end"));
            for (key, bits) in &export.keys {
                match (result, kme.held.get(key)) {
                    (Ok(()), Some(held)) => {
                        assert_eq!(held.bits, *bits, "{what}");
                        assert_eq!((&held.initiator, &held.targets), (&export.master, &vec![export.slave.clone()]));
                        let pair = format!("{} {}", export.master, export.slave);
                        let before = pairs.insert(bits.expose(<[u8]>::to_vec), pair);
                        assert!(before.is_none(), "{what}: the bits of {key} are in two pairs' hands");
                    }
                    (Ok(()), None) => panic!("{what}: {key} is supplied here and not there"),
                    (Err(why), Some(_)) => panic!("{what}: {key} is void here ({why:?}) and held there"),
                    (Err(_), None) => {}
                }
            }
        }
        // Nothing is left to be done, and no bits but those that a KME holds.
        for kind in [1, 3, 5, 6, 7] {
            assert_eq!(world.sides[from].count(kind), 0, "{what}: records of kind {kind} are left");
        }
        let bits = |side: &super::world::Side, bits: &SecretBytes| bits.expose(|bits| side.stores(bits));
        let exports = world.sides[from].kme.exports.values().flat_map(|export| &export.keys);
        assert!(exports.into_iter().all(|(_, key)| !bits(&world.sides[0], key) && !bits(&world.sides[1], key)));
    }
}

#[test]
fn a_key_ends_at_both_or_at_none_over_many_seeds() {
    let (mut relayed, mut void) = (0, 0);
    for seed in 0..400 {
        let world = play(seed, &[]);
        check(&world, &format!("seed {seed}"));
        let exports = world.sides.iter().flat_map(|side| side.kme.exports.values());
        for export in exports {
            *if export.result == Some(Ok(())) { &mut relayed } else { &mut void } += 1;
        }
    }
    // Both ends of a key's life are really seen.
    assert!(relayed > 1_500 && void > 300, "{relayed} relayed, {void} void");
}

#[test]
fn a_kill_at_every_commit_of_either_side() {
    for seed in 0..3 {
        let commits = play(seed, &[]).commits();
        for (side, commits) in commits.into_iter().enumerate() {
            for commit in 1..=commits {
                for durable in [false, true] {
                    let crash = Crash { side, commit, durable };
                    check(&play(seed, &[crash]), &format!("seed {seed}, {crash:?}"));
                }
            }
        }
    }
}

#[test]
fn each_fault_at_each_call() {
    let faults = [
        Fault::Drop,
        Fault::Status(408),
        Fault::Status(503),
        Fault::Status(500),
        Fault::LostAnswer,
        Fault::Late,
        Fault::Twice,
    ];
    for first in faults {
        for second in faults {
            for calls in 0..3 {
                let mut world = World::new(7);
                world.script = vec![Fault::None; calls];
                world.script.extend([first, second]);
                world.export_fresh(0, "a1", "b1", 2);
                world.run(secs(200));
                check(&world, &format!("{first:?}, {second:?} after {calls} calls"));
                let export = world.sides[0].kme.exports.values().next().unwrap();
                assert_eq!(export.result, Some(Ok(())), "{first:?}, {second:?} after {calls} calls");
            }
        }
    }
}

#[test]
fn a_lasting_outage_ends_void_at_both() {
    for fault in [Fault::Drop, Fault::LostAnswer, Fault::Status(503)] {
        let mut world = World::new(9);
        world.script = vec![fault; 10];
        world.faults_until = Time::ZERO;
        let export = world.export_fresh(0, "a1", "b1", 2);
        // Every call is lost until the export is given up.
        while world.sides[0].kme.exports[&export].result.is_none() {
            world.script = vec![fault; 10];
            world.run(secs(1));
            assert!(world.now < Time::ZERO.after(secs(60)), "the export is given up");
        }
        let keys: Vec<_> = world.sides[0].kme.exports[&export].keys.iter().map(|(key, _)| *key).collect();
        // A fault that loses only answers lets the other side acknowledge, but for those lost too.
        world.script.clear();
        world.run(secs(400));
        check(&world, &format!("{fault:?}"));
        assert!(keys.iter().all(|key| world.sides[1].kme.held.get(key).is_none_or(|held| held.initiator == sae("a1"))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_schedule_of_faults_and_kills(
        seed in 1_000..1_000_000_u64,
        crashes in prop::collection::vec((0..2_usize, 1..80_u64, any::<bool>()), 0..6),
    ) {
        let mut crashes: Vec<_> =
            crashes.into_iter().map(|(side, commit, durable)| Crash { side, commit, durable }).collect();
        crashes.sort_by_key(|crash| crash.commit);
        check(&play(seed, &crashes), &format!("seed {seed}, {crashes:?}"));
    }
}
