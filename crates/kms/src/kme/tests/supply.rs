//! Supply to SAEs.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use crypto::record::Table;
use types::event::Event;
use types::id::KeyId;

use super::net::{Net, bits, ids, keys, sae, site};
use crate::message::Message;
use crate::{Input, Refusal, SupplyReply, SupplyRequest};

fn filled(names: &[&'static str]) -> Net {
    let mut net = Net::line(names, |_| {});
    net.blocks(60_000);
    net
}

#[test]
fn master_and_slave_get_the_same_bits_once() {
    let mut net = filled(&["a", "b", "c"]);
    let ours = net.encrypt("a1", "c1", 4, 256).unwrap();
    let theirs = net.decrypt("c1", "a1", &ids(&ours)).unwrap();
    assert_eq!((ids(&ours), bits(&ours)), (ids(&theirs), bits(&theirs)));
    assert_eq!(net.decrypt("c1", "a1", &ids(&ours)).unwrap_err(), Refusal::KeysNotFound);
    for (name, disk) in &net.disks {
        for key in bits(&ours) {
            assert!(!disk.holds(&key), "a delivered key is still stored at {name}");
        }
    }
    assert!(net.codes("a").contains("KEYS_SUPPLIED"));
    assert!(net.codes("c").is_superset(&BTreeSet::from(["KEYS_DELIVERED", "REQUEST_REFUSED"])));
}

#[test]
fn a_second_get_key_leaves_the_first_key_to_its_slave() {
    let mut net = filled(&["a", "b"]);
    let first = net.encrypt("a1", "b1", 1, 256).unwrap();
    let second = net.encrypt("a1", "b1", 1, 256).unwrap();
    let other = net.encrypt("a2", "b1", 1, 256).unwrap();
    for (master, key) in [("a2", &other), ("a1", &second), ("a1", &first)] {
        assert_eq!(bits(&net.decrypt("b1", master, &ids(key)).unwrap()), bits(key));
    }
}

#[test]
fn any_size_and_number_in_range_is_supplied_from_as_few_pair_keys_as_hold_it() {
    for (number, size, spent) in [(1, 64, 1), (4, 64, 1), (5, 64, 2), (1, 264, 2), (3, 384, 5), (1, 8_192, 32)] {
        let mut net = filled(&["a", "b"]);
        net.input("a", Input::Routes(Default::default()));
        let ours = net.encrypt("a1", "b1", number, size).unwrap();
        assert!(ours.iter().all(|key| key.key.len() * 8 == size as usize));
        assert_eq!(ours.len(), number as usize);
        assert_eq!(bits(&net.decrypt("b1", "a1", &ids(&ours)).unwrap()), bits(&ours));
        assert_eq!((net.ready("a", "b"), net.held("b", "a")), (64 - spent, 64 - spent), "{number} x {size}");
    }
    let mut net = Net::line(&["a", "b"], |config| config.target_keys = 2_048);
    net.blocks(400_000);
    assert_eq!(net.encrypt("a1", "b1", 1, 65_536).unwrap()[0].key.len(), 8_192);
    assert_eq!(net.encrypt("a1", "b1", 128, 256).unwrap().len(), 128);
}

#[test]
fn a_bad_request_costs_nothing() {
    let mut net = filled(&["a", "b"]);
    let base = |number, size| SupplyRequest::Encrypt {
        slave: sae("b1"),
        additional: vec![],
        number,
        size_bits: Some(size),
        wishes: crate::Wishes::default(),
    };
    let to = |slave: &str, additional: Vec<&str>| SupplyRequest::Encrypt {
        slave: sae(slave),
        additional: additional.into_iter().map(sae).collect(),
        number: 1,
        size_bits: None,
        wishes: crate::Wishes::default(),
    };
    let decrypt = |ids: Vec<KeyId>| SupplyRequest::Decrypt { master: sae("b1"), ids };
    let id = |n| KeyId::from_random([n; 16]);
    let many = SupplyRequest::Encrypt {
        slave: sae("b1"),
        additional: (0..17).map(|n| sae(&format!("b{n}"))).collect(),
        number: 1,
        size_bits: None,
        wishes: crate::Wishes::default(),
    };
    let cases = [
        (base(0, 256), "number shall be between 1 and 128"),
        (base(129, 256), "number shall be between 1 and 128"),
        (base(1, 257), "size shall be a multiple of 8"),
        (base(1, 0), "size shall be between 64 and 65536"),
        (base(1, 65_544), "size shall be between 64 and 65536"),
        (base(128, 65_536), "number times size shall be at most 524288 bits"),
        (many, "additional_slave_SAE_IDs shall name at most 16 SAEs"),
        (to("b1", vec!["b2", "b2"]), "each slave SAE shall be named once"),
        (to("b1", vec!["b1"]), "each slave SAE shall be named once"),
        (to("b1", vec!["a1"]), "master and slave SAE shall differ"),
        (to("b1", vec!["nobody"]), "SAE nobody is not known in this network"),
        (to("a1", vec![]), "master and slave SAE shall differ"),
        (to("nobody", vec![]), "SAE nobody is not known in this network"),
        (base(128, 256), "not enough key in stock for this pair"),
        (decrypt(vec![]), "key_IDs shall name 1 to 128 keys"),
        (decrypt(vec![id(1); 129]), "key_IDs shall name 1 to 128 keys"),
        (decrypt(vec![id(1), id(1)]), "key_IDs shall name each key once"),
        (decrypt(vec![id(1)]), "one or more keys specified are not found on KME"),
    ];
    for (request, text) in cases {
        let refusal = net.answer("a1", request.clone()).unwrap_err();
        assert_eq!(refusal.to_string(), text, "{request:?}");
        assert_eq!((net.ready("a", "b"), net.held("b", "a")), (64, 64), "{request:?}");
    }
    assert_eq!(net.disks[&site("b")].count(Table::Delivery), 0);
}

#[test]
fn one_missing_key_fails_the_whole_request_and_leaves_the_others() {
    let mut net = filled(&["a", "b"]);
    let ours = net.encrypt("a1", "b1", 3, 256).unwrap();
    let mut more = ids(&ours);
    more.push(KeyId::from_random([1; 16]));
    assert_eq!(net.decrypt("b1", "a1", &more).unwrap_err(), Refusal::KeysNotFound);
    assert!(matches!(net.decrypt("b2", "a1", &ids(&ours)).unwrap_err(), Refusal::NotAuthorised { .. }));
    assert_eq!(net.decrypt("b1", "a2", &ids(&ours)).unwrap_err(), Refusal::KeysNotFound);
    assert_eq!(net.decrypt("b1", "a1", &ids(&ours)).unwrap().len(), 3);
}

#[test]
fn only_registered_saes_are_served() {
    let mut net = filled(&["a", "b"]);
    let status = SupplyRequest::Status { slave: sae("b2") };
    net.input("a", Input::Request { id: types::id::RequestId(900), sae: sae("b1"), request: status.clone() });
    net.input("a", Input::Request { id: types::id::RequestId(901), sae: sae("stranger"), request: status.clone() });
    for id in [900, 901] {
        let refusal = net.answers.remove(&types::id::RequestId(id)).unwrap().unwrap_err();
        assert!(matches!(refusal, Refusal::NotAuthorised { .. }));
    }
    let refused = |(_, event): &&(_, Event)| matches!(event, Event::RequestRefused { .. });
    assert_eq!(net.events.iter().filter(refused).count(), 2);
    let Ok(SupplyReply::Status(status)) = net.answer("a1", status) else {
        panic!("status is for all SAEs of the site")
    };
    assert_eq!((status.stored_key_count, status.max_key_count, status.key_size), (64, 64, 256));
    assert_eq!((status.source_kme, status.target_kme), (site("a"), site("b")));
}

#[test]
fn two_saes_of_one_site_share_fresh_keys() {
    let mut net = filled(&["a", "b"]);
    let ours = net.encrypt("a1", "a2", 2, 512).unwrap();
    assert_eq!(bits(&net.decrypt("a2", "a1", &ids(&ours)).unwrap()), bits(&ours));
    assert_eq!(net.ready("a", "b"), 64);
}

#[test]
fn a_peer_that_is_down_costs_no_key_however_often_it_is_asked() {
    let mut net = filled(&["a", "b"]);
    net.input("a", Input::PeerDown(site("b")));
    for _ in 0..100 {
        assert!(matches!(net.encrypt("a1", "b1", 1, 256).unwrap_err(), Refusal::PeerDown { .. }));
    }
    net.input("a", Input::PeerUp(site("b")));
    net.settle();
    assert_eq!((net.ready("a", "b"), net.held("b", "a")), (64, 64));
    assert_eq!(net.encrypt("a1", "b1", 64, 256).unwrap().len(), 64);
}

#[test]
fn a_silent_peer_binds_the_keys_of_one_request_and_the_same_request_gets_them() {
    let mut net = filled(&["a", "b"]);
    net.input("a", Input::Routes(Default::default()));
    let assigned: Rc<RefCell<BTreeSet<KeyId>>> = Rc::default();
    let seen = Rc::clone(&assigned);
    net.tap = Box::new(move |_, _, bytes| {
        if let Ok(Message::Assign(assign)) = Message::decode(bytes) {
            seen.borrow_mut().insert(assign.assign);
        }
        false
    });
    for _ in 0..100 {
        assert!(matches!(net.encrypt("a1", "b1", 2, 256).unwrap_err(), Refusal::PeerDown { .. }));
        assert!(matches!(net.encrypt("a2", "b2", 1, 256).unwrap_err(), Refusal::PeerDown { .. }));
    }
    assert_eq!(assigned.borrow().len(), 1, "a silent peer is not asked again before it speaks");
    assert_eq!(net.ready("a", "b"), 62);
    net.tap = Box::new(|_, _, _| true);
    net.advance(Duration::from_secs(11));
    let ours = net.encrypt("a1", "b1", 2, 256).unwrap();
    assert_eq!((net.ready("a", "b"), net.held("b", "a")), (62, 62), "the bound keys were supplied");
    assert_eq!(bits(&net.decrypt("b1", "a1", &ids(&ours)).unwrap()), bits(&ours));
}

#[test]
fn bound_keys_that_nobody_asks_for_again_are_burned_at_both_sites() {
    let mut net = filled(&["a", "b"]);
    net.input("a", Input::Routes(Default::default()));
    // The assignment arrives, its acknowledgement does not.
    net.tap = Box::new(|_, _, bytes| !matches!(Message::decode(bytes), Ok(Message::AssignAck { .. })));
    assert!(net.encrypt("a1", "b1", 2, 256).is_err());
    assert_eq!(net.disks[&site("b")].count(Table::Delivery), 2);
    net.tap = Box::new(|_, _, _| true);
    net.advance(Duration::from_secs(70));
    assert_eq!(net.disks[&site("b")].count(Table::Delivery), 0);
    assert_eq!((net.ready("a", "b"), net.held("b", "a")), (62, 62));
    assert_eq!(net.disks[&site("a")].count(Table::PairKey), 62 + 64);
}

#[test]
fn no_key_and_no_assignment_leaves_before_it_is_durable() {
    let mut net = filled(&["a", "b"]);
    net.stalled.insert(site("b"), Default::default());
    let request = SupplyRequest::Encrypt {
        slave: sae("b1"),
        additional: vec![],
        number: 1,
        size_bits: None,
        wishes: crate::Wishes::default(),
    };
    let id = net.ask("a1", request.clone());
    assert!(net.answers.is_empty(), "the holder's delivery is not durable");
    net.crash("b");
    net.advance(Duration::from_secs(3));
    let answer = net.answers.remove(&id).unwrap();
    let ours = keys(answer).expect("the assignment was repeated after the crash");
    assert_eq!(net.decrypt("b1", "a1", &ids(&ours)).unwrap().len(), 1);
    net.stalled.insert(site("a"), Default::default());
    let id = net.ask("a1", request);
    net.advance(Duration::from_secs(3));
    assert!(!net.answers.contains_key(&id), "the owner's consumption is not durable");
}

#[test]
fn a_restart_never_issues_a_key_again() {
    let mut net = filled(&["a", "b"]);
    let mut seen = BTreeSet::new();
    for round in 0..6 {
        let ours = net.encrypt("a1", "b1", 5, 256).unwrap();
        if round % 2 == 0 {
            assert_eq!(net.decrypt("b1", "a1", &ids(&ours)).unwrap().len(), 5);
        }
        for key in bits(&ours) {
            assert!(seen.insert(key), "issued twice");
        }
        net.crash(["a", "b"][round % 2]);
        if round % 2 == 1 {
            assert_eq!(bits(&net.decrypt("b1", "a1", &ids(&ours)).unwrap()), bits(&ours), "survives the crash");
        }
        net.blocks(60_000);
    }
}

#[test]
fn keys_that_the_holder_gave_away_before_the_owner_crashed_go_to_nobody_else() {
    let mut net = filled(&["a", "b"]);
    // The owner crashes after the holder assigned and before it learnt of it.
    net.tap = Box::new(|_, _, bytes| !matches!(Message::decode(bytes), Ok(Message::AssignAck { .. })));
    net.ask(
        "a1",
        SupplyRequest::Encrypt {
            slave: sae("b1"),
            additional: vec![],
            number: 4,
            size_bits: None,
            wishes: crate::Wishes::default(),
        },
    );
    net.tap = Box::new(|_, _, _| true);
    // What the holder says it holds does not reach the owner, who believes to have all keys.
    net.tap = Box::new(|_, _, bytes| !matches!(Message::decode(bytes), Ok(Message::Held { .. })));
    net.crash("a");
    assert_eq!((net.ready("a", "b"), net.held("b", "a")), (64, 60));
    let ours = net.encrypt("a2", "b2", 2, 256).unwrap();
    assert_eq!(bits(&net.decrypt("b2", "a2", &ids(&ours)).unwrap()), bits(&ours));
    assert!(net.codes("a").contains("KEY_BURNED"));
    net.tap = Box::new(|_, _, _| true);
    net.advance(Duration::from_secs(11));
    assert_eq!((net.ready("a", "b"), net.held("b", "a")), (58, 58), "both sides agree again");
}

#[test]
fn a_holder_that_cannot_assign_gives_the_keys_back() {
    let mut net = Net::line(&["a", "b"], |config| config.deliveries_max = 3);
    net.blocks(60_000);
    net.encrypt("a1", "b1", 2, 256).unwrap();
    let before = net.ready("a", "b");
    assert!(matches!(net.encrypt("a1", "b1", 2, 256).unwrap_err(), Refusal::Busy { .. }));
    assert_eq!(net.ready("a", "b"), before);
    net.encrypt("a1", "b1", 1, 256).unwrap();
}

#[test]
fn a_key_that_nobody_fetches_is_destroyed() {
    let mut net = filled(&["a", "b"]);
    let ours = net.encrypt("a1", "b1", 1, 256).unwrap();
    net.advance(Duration::from_secs(25 * 3_600));
    assert_eq!(net.disks[&site("b")].count(Table::Delivery), 0);
    assert_eq!(net.decrypt("b1", "a1", &ids(&ours)).unwrap_err(), Refusal::KeysNotFound);
}

#[test]
fn key_ids_say_nothing_of_the_key() {
    let mut net = filled(&["a", "b"]);
    let mut other = filled(&["a", "b"]);
    // Same bits (same seed up to here), other ids: the id is drawn on its own.
    let mut skip = [0; 16];
    rand_chacha::rand_core::Rng::fill_bytes(&mut other.rng, &mut skip);
    let (a, b) = (net.encrypt("a1", "b1", 1, 256).unwrap(), other.encrypt("a1", "b1", 1, 256).unwrap());
    assert_eq!(bits(&a), bits(&b));
    assert_ne!(ids(&a), ids(&b));
}

#[test]
fn losing_the_controller_stops_no_supply_from_stock_and_none_over_the_ways_last_known() {
    let mut net = Net::line(&["a", "b", "c"], |_| {});
    net.blocks(60_000);
    // No word of the controller any more: the ways last known go on being filled.
    net.advance(Duration::from_secs(3_600));
    for _ in 0..3 {
        let keys = net.encrypt("a1", "c1", 20, 256).unwrap();
        assert_eq!(bits(&net.decrypt("c1", "a1", &ids(&keys)).unwrap()), bits(&keys));
        net.advance(Duration::from_secs(20));
        assert_eq!(net.ready("a", "c"), 64);
    }
    // Its last word is that there is no way anywhere, at every site, even after a restart.
    for name in ["a", "b", "c"] {
        net.input(name, Input::Routes(BTreeMap::new()));
    }
    let keys = net.encrypt("a1", "c1", 20, 256).unwrap();
    assert_eq!(net.decrypt("c1", "a1", &ids(&keys)).unwrap().len(), 20);
    assert_eq!(net.ready("a", "c"), 44);
    net.crash("a");
    net.input("a", Input::Routes(BTreeMap::new()));
    let keys = net.encrypt("a1", "c1", 20, 256).unwrap();
    assert_eq!(net.decrypt("c1", "a1", &ids(&keys)).unwrap().len(), 20);
}
