//! Fallback without stall, and back.

use gateway::{Input, Level, StreamId};
use terminal::{Class, Strength, Suite};
use types::event::Event;

use crate::world::{COMMAND, FLOAT, SECOND, World};

#[test]
fn a_starved_session_degrades_class_by_class_and_recovers() {
    let mut world = World::new(11);
    world.connect();
    world.run(SECOND * 60);
    let stream = world.open_stream(0);
    world.run(SECOND);
    world.kme_works = false;

    let (mut sent, mut levels, mut command_suites) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..1200 {
        world.suites.clear();
        for frame in [&FLOAT[..], &COMMAND] {
            let before = world.now;
            world.send(1, stream, frame);
            sent.extend_from_slice(frame);
            world.run(SECOND / 50);
            assert_eq!(world.ends[0].delivered[&stream].len(), sent.len(), "round {round}: stalled");
            assert!(world.ends[0].last_delivery.since(before) < SECOND, "round {round}");
        }
        let level = world.level(1);
        if levels.last() != Some(&level) {
            levels.push(level);
        }
        command_suites
            .extend(world.suites.iter().filter(|(_, _, class, _)| *class == Class::Command).map(|(_, s, ..)| *s));
    }
    assert_eq!(levels, [Level::Otp, Level::Economy, Level::Commands, Level::Aead]);
    assert_eq!(command_suites.first(), Some(&Suite::OtpWc128));
    assert_eq!(command_suites.last(), Some(&Suite::Aes256Gcm));
    assert_eq!(world.ends[0].delivered[&stream], sent);
    assert_eq!(world.ends[0].session.as_ref().unwrap().status().peer_level, Level::Aead);

    world.kme_works = true;
    world.run(SECOND * 120);
    assert_eq!(world.level(1), Level::Otp);
    let seen = |at: usize| {
        world.ends[at]
            .events
            .iter()
            .filter_map(|event| match event {
                Event::ProtectionChanged { to, reason, .. } if reason.starts_with("from the terminal") => {
                    Some(to.as_str())
                }
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(seen(0), seen(1), "both ends log the same changes");
    assert!(seen(0).ends_with(&["otp"]) && seen(0).contains(&"aead"));
}

#[test]
fn no_keys_at_all_still_means_epoch_keys_from_the_opening() {
    let mut world = World::new(12);
    world.connect();
    world.run(SECOND / 10);
    world.kme_works = false;
    world.run(SECOND);
    assert!(world.ends.iter().all(|end| end.opened));
    let stream = world.open_stream(0);
    world.send(0, stream, &COMMAND);
    world.run(SECOND);
    assert_eq!(world.ends[1].delivered[&stream], COMMAND);
}

/// A session whose gateway lets no command go without pad, out of key, with one stream open.
fn starved_under_a_strict_floor(seed: u64) -> (World, StreamId) {
    let mut world = World::new(seed);
    let policy = &mut world.ends[0].policy;
    policy.floor = policy.floor.with(Class::Command, Strength::InformationTheoretic);
    world.connect();
    world.run(SECOND / 10);
    world.kme_works = false;
    world.run(SECOND);
    let stream = world.open_stream(0);
    (world, stream)
}

#[test]
fn a_strict_floor_waits_bounded_and_then_ends_the_session() {
    let (mut world, stream) = starved_under_a_strict_floor(13);
    world.run(SECOND);
    // The terminal took the gateway's floor: its commands wait too.
    world.suites.clear();
    world.send(1, stream, &COMMAND);
    world.run(SECOND * 2);
    assert!(world.ends[1].closed.is_none());
    world.run(SECOND * 5);
    assert_eq!(world.ends[1].closed.as_deref(), Some("no pad is left for a class that must not go without"));
    assert!(world.suites.iter().all(|(_, _, class, _)| *class != Class::Command), "no command went without pad");
    assert!(world.ends[0].closed.is_some());
}

#[test]
fn a_waiting_record_is_forgotten_with_its_stream() {
    let (mut world, stream) = starved_under_a_strict_floor(14);
    world.send(0, stream, &COMMAND);
    world.run(SECOND);
    world.input(0, Input::PlainReset(stream));
    world.run(SECOND * 20);
    assert!(world.ends[0].closed.is_none());
}
