//! Records that were set back to an older state.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use types::event::Event;
use types::id::{LinkId, SiteId};

use super::net::{Net, bits, ids, site};
use crate::Refusal;
use crate::message::Message;

const PLENTY: usize = 60_000;

type Drawn = Rc<RefCell<BTreeSet<(LinkId, SiteId, u64, u32)>>>;

/// Watches that no byte of a link's key is named twice, also by messages that never arrive.
fn watch(net: &mut Net) -> Drawn {
    let drawn = Drawn::default();
    let all = Rc::clone(&drawn);
    net.tap = Box::new(move |from, _, bytes| {
        if let Ok(Message::Relay(relay)) = Message::decode(bytes) {
            for range in &relay.ranges {
                for at in range.offset..range.offset + range.len {
                    let new = all.borrow_mut().insert((relay.link.clone(), from.clone(), range.seq.0, at));
                    assert!(new, "byte {at} of {range:?} of {} is used twice", relay.link);
                }
            }
        }
        true
    });
    drawn
}

fn draw_all(net: &mut Net) {
    for round in 0..6 {
        let keys = net.encrypt("a1", "c1", 40, 256).unwrap();
        if round % 2 == 0 {
            net.decrypt("c1", "a1", &ids(&keys)).unwrap();
        }
    }
}

#[test]
fn a_sender_that_was_set_back_uses_no_pad_again_not_even_what_never_arrived() {
    let mut net = Net::line(&["a", "b", "c"], |_| {});
    let drawn = watch(&mut net);
    net.blocks(PLENTY);
    net.advance(Duration::from_secs(11));
    let backup = net.disks[&site("a")].copy();
    draw_all(&mut net);
    // What is sent now is lost: the receiver's marks do not tell.
    let all = Rc::clone(&drawn);
    net.tap = Box::new(move |from, _, bytes| match Message::decode(bytes) {
        Ok(Message::Relay(relay)) if from.as_str() == "a" => {
            for range in &relay.ranges {
                let at =
                    (range.offset..range.offset + range.len).map(|at| (relay.link.clone(), site("a"), range.seq.0, at));
                all.borrow_mut().extend(at);
            }
            false
        }
        _ => true,
    });
    net.encrypt("a1", "b1", 40, 256).unwrap();
    net.advance(Duration::from_secs(11));
    let before = drawn.borrow().clone();
    net.disks.insert(site("a"), backup);
    let seen = watch(&mut net);
    *seen.borrow_mut() = before;
    net.crash("a");
    let named = |net: &Net, at: &str, whose: &str| {
        let back = |event: &Event| matches!(event, Event::StoreSetBack { site: s, .. } if *s == site(whose));
        net.events.iter().any(|(site, event)| site.as_str() == at && back(event))
    };
    assert!(named(&net, "a", "a") && named(&net, "b", "a") && named(&net, "c", "a"));
    assert_eq!((net.ready("a", "b"), net.held("b", "a"), net.ready("a", "c")), (0, 0, 0));
    net.blocks(PLENTY);
    net.advance(Duration::from_secs(20));
    for (one, other) in [("a", "b"), ("a", "c"), ("b", "a"), ("c", "a")] {
        assert_eq!((net.ready(one, other), net.held(other, one)), (64, 64), "{one} {other}");
    }
    // It is noticed once.
    let count = net.events.iter().filter(|(_, event)| matches!(event, Event::StoreSetBack { .. })).count();
    net.crash("a");
    net.advance(Duration::from_secs(11));
    let after = net.events.iter().filter(|(_, event)| matches!(event, Event::StoreSetBack { .. })).count();
    assert_eq!(count, after);
}

#[test]
fn a_holder_that_was_set_back_delivers_nothing_twice() {
    let mut net = Net::line(&["a", "b"], |_| {});
    net.blocks(PLENTY);
    let keys = net.encrypt("a1", "b1", 3, 256).unwrap();
    let backup = net.disks[&site("b")].copy();
    assert_eq!(bits(&net.decrypt("b1", "a1", &ids(&keys)).unwrap()), bits(&keys));
    for _ in 0..20 {
        let more = net.encrypt("a1", "b1", 1, 256).unwrap();
        net.decrypt("b1", "a1", &ids(&more)).unwrap();
    }
    net.blocks(PLENTY);
    net.advance(Duration::from_secs(11));
    net.disks.insert(site("b"), backup);
    net.crash("b");
    assert!(net.codes("a").contains("STORE_SET_BACK") && net.codes("b").contains("STORE_SET_BACK"));
    assert_eq!(net.decrypt("b1", "a1", &ids(&keys)).unwrap_err(), Refusal::KeysNotFound);
    net.blocks(PLENTY);
    net.advance(Duration::from_secs(20));
    let fresh = net.encrypt("a1", "b1", 3, 256).unwrap();
    assert_eq!(bits(&net.decrypt("b1", "a1", &ids(&fresh)).unwrap()), bits(&fresh));
}

#[test]
fn keys_between_two_saes_of_the_site_that_was_set_back_are_void() {
    for fetched_after in [true, false] {
        let mut net = Net::line(&["a", "b"], |_| {});
        net.blocks(PLENTY);
        let spent = net.encrypt("a1", "a2", 3, 256).unwrap();
        let waiting = net.encrypt("a1", "a2", 2, 256).unwrap();
        let abroad = net.encrypt("b1", "b2", 2, 256).unwrap();
        net.advance(Duration::from_secs(11));
        let backup = net.disks[&site("a")].copy();
        if fetched_after {
            // One fetch, and no other site has a part in it.
            assert_eq!(bits(&net.decrypt("a2", "a1", &ids(&spent)).unwrap()), bits(&spent));
        } else {
            draw(&mut net);
        }
        net.advance(Duration::from_secs(11));
        net.disks.insert(site("a"), backup);
        net.crash("a");
        assert!(net.codes("a").contains("STORE_SET_BACK") && net.codes("b").contains("STORE_SET_BACK"));
        for keys in [&spent, &waiting] {
            assert_eq!(net.decrypt("a2", "a1", &ids(keys)).unwrap_err(), Refusal::KeysNotFound, "{fetched_after}");
        }
        // What the other site alone has was not forgotten by anybody.
        assert_eq!(bits(&net.decrypt("b2", "b1", &ids(&abroad)).unwrap()), bits(&abroad));
        let fresh = net.encrypt("a1", "a2", 1, 256).unwrap();
        assert_eq!(bits(&net.decrypt("a2", "a1", &ids(&fresh)).unwrap()), bits(&fresh));
    }
}

fn draw(net: &mut Net) {
    for _ in 0..20 {
        let keys = net.encrypt("a1", "b1", 1, 256).unwrap();
        net.decrypt("b1", "a1", &ids(&keys)).unwrap();
    }
}

#[test]
fn crashes_and_lost_connections_are_no_set_back() {
    let mut net = Net::line(&["a", "b", "c"], |_| {});
    net.blocks(PLENTY);
    for round in 0..12 {
        draw_all(&mut net);
        net.crash(["a", "b", "c"][round % 3]);
        net.blocks(PLENTY);
        if round % 2 == 0 {
            net.advance(Duration::from_secs(11));
        }
        net.input("a", crate::Input::PeerDown(site("b")));
        net.meet("a");
    }
    assert!(!net.events.iter().any(|(_, event)| matches!(event, Event::StoreSetBack { .. })));
}
