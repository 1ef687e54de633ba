//! Crashes, restored backups, lost stores: no pad is used twice, service comes back.

use gateway::Level;
use proptest::prelude::*;
use types::event::Event;

use crate::world::{COMMAND, FLOAT, SECOND, World, backup};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    // The world itself asserts that no unit of pad and no nonce appears twice.
    #[test]
    fn crashes_anywhere_reuse_nothing(
        seed in any::<u64>(),
        spans in proptest::collection::vec((1_u64..4000, any::<bool>()), 1..10),
    ) {
        let mut world = World::new(seed);
        for (millis, kme_works) in spans {
            world.kme_works = kme_works || world.ends[0].store.is_empty();
            world.connect();
            world.run(SECOND / 4);
            if world.ends.iter().all(|end| end.opened && end.closed.is_none()) {
                let stream = world.open_stream(0);
                for _ in 0..4 {
                    world.send(0, stream, &COMMAND);
                    world.send(1, stream, &FLOAT);
                }
                world.run(std::time::Duration::from_millis(millis));
            }
            world.crash();
        }
        world.kme_works = true;
        for _ in 0..2 {
            world.connect();
            world.run(SECOND * 3);
        }
        let reasons: Vec<_> = world.ends.iter().map(|end| end.closed.clone()).collect();
        prop_assert!(world.ends.iter().all(|end| end.opened && end.closed.is_none()), "{:?}", reasons);
    }
}

#[test]
fn sessions_reopen_from_slots_when_the_key_management_is_down() {
    let mut world = World::new(21);
    world.connect();
    world.run(SECOND * 60);
    world.kme_works = false;
    for round in 0..2 {
        world.crash();
        world.connect();
        world.run(SECOND);
        assert!(world.ends.iter().all(|end| end.opened && end.closed.is_none()), "round {round}");
        let status = world.ends[0].session.as_ref().unwrap().status();
        assert_eq!(status.level, Level::Otp, "the pools are still there");
        assert!(status.receive_stock.0 > 0);
    }
}

#[test]
fn a_terminal_that_lost_its_store_is_taken_back() {
    let mut world = World::new(22);
    world.connect();
    world.run(SECOND * 60);
    world.crash();
    world.ends[1].store.clear();
    world.connect();
    world.run(SECOND);
    assert_eq!(world.ends[0].closed.as_deref(), Some("refused: the terminal does not hold this opening slot"));
    world.crash();
    world.connect();
    world.run(SECOND * 60);
    assert!(world.ends.iter().all(|end| end.opened && end.closed.is_none()));
    assert_eq!(world.level(0), Level::Otp);
    assert!(world.ends[0].events.iter().any(|event| matches!(event, Event::KeyBurned { .. })));
}

#[test]
fn a_restored_backup_of_either_end_uses_nothing_twice() {
    for at in 0..2 {
        let mut world = World::new(23);
        world.connect();
        world.run(SECOND * 60);
        let old = backup(&world.ends[at].store);
        let stream = world.open_stream(0);
        for _ in 0..40 {
            world.send(0, stream, &COMMAND);
            world.send(1, stream, &COMMAND);
            world.run(SECOND / 20);
        }
        world.run(SECOND * 60);
        world.crash();
        world.ends[at].store = old;
        for _ in 0..2 {
            world.connect();
            world.run(SECOND * 60);
        }
        assert!(world.ends.iter().all(|end| end.opened && end.closed.is_none()), "end {at}");
        let stream = world.open_stream(0);
        for _ in 0..40 {
            world.send(0, stream, &COMMAND);
            world.send(1, stream, &COMMAND);
            world.run(SECOND / 20);
        }
        assert_eq!(world.ends[0].delivered[&stream].len(), 40 * COMMAND.len());
    }
}
