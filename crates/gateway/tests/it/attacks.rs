//! Somebody on the wire: whatever is changed, dropped, repeated or moved ends the session; nothing wrong is delivered.

use std::cell::Cell;
use std::rc::Rc;

use proptest::prelude::*;

use crate::world::{COMMAND, SECOND, World};

/// A session with traffic both ways, during which the wire misbehaves once.
fn attacked(seed: u64, tamper: impl FnMut(usize, &mut Vec<u8>) + 'static) -> World {
    let mut world = World::new(seed);
    world.connect();
    world.run(SECOND * 3);
    let stream = world.open_stream(0);
    world.run(SECOND);
    world.tamper = Box::new(tamper);
    for _ in 0..10 {
        for at in 0..2 {
            if world.ends[at].closed.is_none() && world.ends[at].ready.contains(&stream) {
                world.send(at, stream, &COMMAND);
            }
        }
        world.run(SECOND / 20);
    }
    world.run(SECOND * 3);
    for end in &world.ends {
        let got = end.delivered.get(&stream).cloned().unwrap_or_default();
        let whole = COMMAND.repeat(10);
        assert_eq!(got, whole[..got.len()], "what is delivered is a prefix of what was sent");
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_flipped_bit_ends_the_session(victim in 0_usize..2, skip in 0_usize..5, bit in any::<usize>()) {
        let seen = Rc::new(Cell::new(0));
        let hit = Rc::new(Cell::new(false));
        let (count, done) = (Rc::clone(&seen), Rc::clone(&hit));
        let world = attacked(31, move |from, bytes| {
            if from == victim && !bytes.is_empty() {
                if count.get() == skip {
                    let bit = bit % (bytes.len() * 8);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    done.set(true);
                }
                count.set(count.get() + 1);
            }
        });
        prop_assert!(hit.get());
        // A longer length makes the receiver wait for more; it may wait until the silence limit.
        let closed = world.ends.iter().any(|end| end.closed.is_some());
        let short = world.ends.iter().any(|end| end.delivered.values().any(|bytes| bytes.len() < 10 * COMMAND.len()) || end.delivered.is_empty());
        prop_assert!(closed || short, "the change was not noticed");
    }
}

#[test]
fn a_dropped_or_repeated_record_ends_the_session() {
    for repeat in [false, true] {
        let count = Cell::new(0);
        let world = attacked(32, move |from, bytes| {
            if from == 0 && !bytes.is_empty() {
                if count.get() == 2 {
                    if repeat {
                        bytes.extend_from_within(..);
                    } else {
                        bytes.clear();
                    }
                }
                count.set(count.get() + 1);
            }
        });
        assert!(world.ends[1].closed.as_deref().unwrap().starts_with("a record was refused"), "repeat {repeat}");
    }
}

#[test]
fn an_old_session_cannot_be_replayed() {
    let mut world = World::new(33);
    world.connect();
    world.run(SECOND * 10);
    let stream = world.open_stream(0);
    world.send(0, stream, &COMMAND);
    world.run(SECOND);
    // The attacker keeps everything the gateway sent, and later plays it to the terminal in the gateway's place.
    world.crash();
    let record: Rc<Cell<Vec<u8>>> = Rc::default();
    let tape = Rc::clone(&record);
    world.tamper = Box::new(move |from, bytes| {
        if from == 0 {
            let mut all = tape.take();
            all.extend_from_slice(bytes);
            tape.set(all);
        }
    });
    world.connect();
    world.run(SECOND * 2);
    let stream = world.open_stream(0);
    world.send(0, stream, &COMMAND);
    world.run(SECOND);
    assert_eq!(world.ends[1].delivered[&stream], COMMAND);
    world.crash();
    let mut tape = record.take();
    assert!(tape.len() > 200);
    world.tamper = Box::new(move |from, bytes| {
        if from == 0 {
            *bytes = std::mem::take(&mut tape);
        }
    });
    world.connect();
    world.run(SECOND * 2);
    assert!(!world.ends[1].opened);
    assert!(world.ends[1].delivered.is_empty());
}

proptest! {
    #[test]
    fn no_bytes_from_outside_panic_or_open(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 1..5)) {
        let mut world = World::new(34);
        let mut chunks = chunks.into_iter();
        world.tamper = Box::new(move |_, bytes| *bytes = chunks.next().unwrap_or_default());
        world.connect();
        world.run(SECOND * 30);
        prop_assert!(world.ends.iter().all(|end| !end.opened && end.closed.is_some()));
    }
}
