//! The session does its work: opening, streams, classes, FIN and RST, stop.

use gateway::{Input, Level, Policy};
use terminal::{Class, Suite};
use types::event::Event;

use crate::world::{COMMAND, FLOAT, SECOND, TESTFR, World};

#[test]
fn first_contact_opens_and_pools_fill() {
    let mut world = World::new(1);
    world.connect();
    world.run(SECOND);
    assert!(world.ends.iter().all(|end| end.opened && end.closed.is_none()));
    world.run(SECOND * 60);
    for at in 0..2 {
        let status = world.ends[at].session.as_ref().unwrap().status();
        assert_eq!((status.level, status.peer_level), (Level::Otp, Level::Otp));
        assert!(status.send_stock.0 > 13 * 1024 && status.send_stock.0 <= 16 * 1024, "{status:?}");
        assert!(status.receive_stock.0 > 13 * 1024);
        assert!(status.opening_slots >= 2);
        assert_eq!(status.received.refused, 0);
        assert!(world.ends[at].events.iter().any(|event| matches!(event, Event::BatchCut { .. })));
        let levels = world.ends[at].events.iter().filter(|event| matches!(event, Event::ProtectionChanged { .. }));
        assert!(levels.count() >= 2, "both directions came up");
    }
}

#[test]
fn frames_cross_unchanged_and_each_class_has_its_suite() {
    let mut world = World::new(2);
    world.connect();
    world.run(SECOND * 60);
    let stream = world.open_stream(0);
    world.run(SECOND);
    assert_eq!(world.ends[1].dialed, [stream]);
    world.suites.clear();
    for frame in [&TESTFR[..], &COMMAND, &FLOAT] {
        world.send(0, stream, frame);
        world.send(1, stream, frame);
        world.run(SECOND / 10);
    }
    let expected = [&TESTFR[..], &COMMAND, &FLOAT].concat();
    assert_eq!(world.ends[0].delivered[&stream], expected);
    assert_eq!(world.ends[1].delivered[&stream], expected);
    for (class, suite) in
        [(Class::Supervisory, Suite::Aes256Gcm), (Class::Command, Suite::OtpWc128), (Class::Telemetry, Suite::OtpWc128)]
    {
        for at in 0..2 {
            assert!(world.suites.iter().any(|(from, s, c, _)| (*from, *s, *c) == (at, suite, class)), "{class:?}");
        }
    }
    for needle in [&COMMAND[..], &FLOAT[6..12]] {
        assert!(!world.wire.windows(needle.len()).any(|window| window == needle), "plaintext on the wire");
    }
}

#[test]
fn many_streams_from_both_ends_with_fin_and_rst() {
    let mut world = World::new(3);
    world.connect();
    world.run(SECOND * 10);
    let streams: Vec<_> = (0..6).map(|index| (index % 2, world.open_stream(index % 2))).collect();
    world.run(SECOND);
    let text = |n: usize| -> Vec<u8> { (0..20_000).map(|i| u8::try_from((i * 7 + n * 13) % 251).unwrap()).collect() };
    for (n, (from, stream)) in streams.iter().enumerate() {
        world.send(*from, *stream, &text(n));
        world.send(1 - *from, *stream, &text(n + 50));
    }
    let (from, half) = streams[0];
    world.input(from, Input::PlainFinished(half));
    let (_, torn) = streams[1];
    world.run(SECOND);
    world.input(0, Input::PlainReset(torn));
    world.run(SECOND);
    for (n, (from, stream)) in streams.iter().enumerate() {
        assert_eq!(world.ends[1 - *from].delivered[stream], text(n));
        assert_eq!(world.ends[*from].delivered[stream], text(n + 50));
    }
    assert_eq!(world.ends[1 - from].finished, [half]);
    assert_eq!(world.ends[1].reset, [torn]);
    world.send(1 - from, half, b"the other half lives on");
    world.input(1 - from, Input::PlainFinished(half));
    world.run(SECOND);
    assert!(world.ends[from].delivered[&half].ends_with(b"the other half lives on"));
    assert_eq!(world.ends[0].session.as_ref().unwrap().status().streams, 4);
}

#[test]
fn a_stop_at_either_end_is_reported() {
    for at in 0..2 {
        let mut world = World::new(4);
        world.connect();
        world.run(SECOND);
        let stream = world.open_stream(0);
        world.run(SECOND);
        world.input(at, Input::Stop);
        world.run(SECOND * 2);
        let gateway = world.ends[0].closed.as_deref().unwrap();
        assert!(gateway.starts_with("closed by the terminal"), "{gateway}");
        assert!(world.ends[1].closed.is_some());
        for end in &world.ends {
            assert_eq!(end.reset, [stream]);
            assert!(end.events.iter().any(|event| matches!(event, Event::SessionClosed { refused: 0, .. })));
        }
    }
}

#[test]
fn a_silent_peer_is_noticed_and_a_quiet_one_is_not() {
    let mut world = World::new(5);
    world.connect();
    world.run(SECOND * 600);
    assert!(world.ends.iter().all(|end| end.closed.is_none()), "pings keep a quiet session");
    world.tamper = Box::new(|_, bytes| bytes.clear());
    world.run(SECOND * 40);
    assert!(world.ends.iter().all(|end| end.closed.is_some()));
}

#[test]
fn bulk_is_bounded_by_credit() {
    let mut world = World::new(6);
    for end in &mut world.ends {
        end.policy = Policy::new(4 * 1024);
    }
    world.connect();
    world.run(SECOND);
    let stream = world.open_stream(0);
    let bulk: Vec<u8> = (0..1_000_000_u32).map(|i| u8::try_from(i % 253).unwrap()).collect();
    world.send(0, stream, &bulk);
    world.run(SECOND);
    assert_eq!(world.ends[1].delivered[&stream], bulk);
}
