//! Seeds. Replay one with `SEED=n cargo test -p sim network`.

use std::time::Duration;

use types::network::Network;

use super::{Chaos, Report, World};

fn world(seed: u64, chaos: Chaos) -> World {
    let network = Network::parse(include_str!("../../../../networks/shanxi.toml")).unwrap();
    World::new(network, seed, chaos)
}

fn run(seed: u64, chaos: Chaos, seconds: u64) -> Report {
    let mut world = world(seed, chaos);
    world.run(Duration::from_secs(seconds));
    world.finish()
}

#[test]
fn no_key_is_used_twice_lost_or_mixed_up_whatever_goes_wrong() {
    #[expect(clippy::disallowed_methods, reason = "a test replays the seed that failed")]
    let seeds: Vec<u64> = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => (0..24).collect(),
    };
    let mut total = Report::default();
    for seed in seeds {
        let report = run(seed, Chaos::ROUGH, 30);
        let shown = report.violations.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
        assert!(
            report.violations.is_empty(),
            "replay with SEED={seed}: {} violations\n{shown}",
            report.violations.len()
        );
        assert!(report.supplied > 0 && report.delivered > 0 && report.crashes > 0, "SEED={seed}: {report:?}");
        total.supplied += report.supplied;
        total.steps += report.steps;
    }
    assert!(total.steps >= 1_000 && total.supplied >= 50, "the world is not idle: {total:?}");
}

#[test]
fn keys_of_several_ways_are_as_safe() {
    for seed in 100..106 {
        let network = Network::parse(include_str!("../../../../networks/shanxi.toml")).unwrap();
        let mut world = World::with_paths(network, seed, Chaos::ROUGH, 2);
        world.run(Duration::from_secs(30));
        let report = world.finish();
        assert!(report.violations.is_empty(), "seed {seed}: {:#?}", report.violations);
        assert!(report.supplied > 0, "seed {seed}: {report:?}");
    }
}

#[test]
fn in_a_calm_world_nothing_gets_lost_and_stocks_are_full() {
    let report = run(1, Chaos::CALM, 60);
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
    assert_eq!((report.crashes, report.lost), (0, 0));
    assert!(report.supplied > 500, "{report:?}");
    assert_eq!(report.delivered, report.supplied);
}

#[test]
fn the_same_seed_gives_the_same_world() {
    let (one, other) = (run(7, Chaos::ROUGH, 10), run(7, Chaos::ROUGH, 10));
    assert_eq!(one, other);
    assert_ne!(one.trace, run(8, Chaos::ROUGH, 10).trace);
}
