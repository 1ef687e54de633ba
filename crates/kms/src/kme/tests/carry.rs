//! Keys for several slaves, keys from and to other networks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crypto::record::Table;
use crypto::secret::SecretBytes;
use types::id::KeyId;

use super::net::{Exported, Net, bits, ids, keys, sae, site};
use crate::message::{AssignFailure, Message};
use crate::{ExportFailure, Input, Refusal, SuppliedKey, SupplyRequest, Wishes};

fn filled(names: &[&'static str]) -> Net {
    let mut net = Net::line(names, |_| {});
    net.blocks(200_000);
    net
}

fn request(slave: &str, additional: &[&str], number: u32) -> SupplyRequest {
    let additional = additional.iter().map(|name| sae(name)).collect();
    SupplyRequest::Encrypt { slave: sae(slave), additional, number, size_bits: Some(256), wishes: Wishes::default() }
}

fn multicast(net: &mut Net, slave: &str, additional: &[&str], number: u32) -> Result<Vec<SuppliedKey>, Refusal> {
    keys(net.answer("a1", request(slave, additional, number)))
}

fn id(n: u8) -> KeyId {
    KeyId::from_random([n; 16])
}

fn given(n: u8, len: usize) -> (KeyId, SecretBytes) {
    (id(n), SecretBytes::copy_of(&vec![n ^ 0x5a; len]))
}

#[test]
fn slaves_at_several_sites_get_the_identical_key_once_each() {
    let mut net = filled(&["a", "b", "c"]);
    let ours = multicast(&mut net, "b1", &["b2", "c1", "a2"], 3).unwrap();
    for slave in ["b1", "c1", "a2", "b2"] {
        let theirs = net.decrypt(slave, "a1", &ids(&ours)).unwrap();
        assert_eq!((ids(&theirs), bits(&theirs)), (ids(&ours), bits(&ours)), "{slave}");
        assert_eq!(net.decrypt(slave, "a1", &ids(&ours)).unwrap_err(), Refusal::KeysNotFound, "{slave}");
        if slave == "c1" {
            assert_eq!(theirs[0].origin.hops(), 1);
            assert_eq!((&theirs[0].origin.source, &theirs[0].origin.target), (&site("a"), &site("c")));
        }
    }
    assert!(matches!(net.decrypt("c2", "a1", &ids(&ours)).unwrap_err(), Refusal::KeysNotFound));
    for (name, disk) in &net.disks {
        assert_eq!(disk.count(Table::Delivery), 0);
        assert!(bits(&ours).iter().all(|key| !disk.holds(key)), "a delivered key is still stored at {name}");
    }
    for other in ["b", "c"] {
        assert_eq!(net.ready("a", other), net.held(other, "a"));
    }
}

#[test]
fn several_slaves_of_one_site_share_a_key_that_survives_a_crash_between_them() {
    let mut net = filled(&["a", "b"]);
    let ours = multicast(&mut net, "b1", &["b2"], 2).unwrap();
    assert_eq!(net.decrypt("b2", "a1", &ids(&ours)).unwrap().len(), 2);
    net.crash("b");
    assert_eq!(net.decrypt("b2", "a1", &ids(&ours)).unwrap_err(), Refusal::KeysNotFound);
    let theirs = net.decrypt("b1", "a1", &ids(&ours)).unwrap();
    assert_eq!(bits(&theirs), bits(&ours));
    assert_eq!(net.disks[&site("b")].count(Table::Delivery), 0);
}

#[test]
fn a_site_that_is_down_or_refuses_voids_the_key_everywhere() {
    let mut net = filled(&["a", "b", "c"]);
    net.input("a", Input::Routes(Default::default()));
    let before = (net.ready("a", "b"), net.ready("a", "c"));
    net.input("a", Input::PeerDown(site("c")));
    assert!(matches!(multicast(&mut net, "b1", &["c1"], 1).unwrap_err(), Refusal::PeerDown { .. }));
    assert_eq!((net.ready("a", "b"), net.ready("a", "c")), before, "a request that cannot be met costs nothing");
    net.input("a", Input::PeerUp(site("c")));
    net.settle();
    // Site c gets nothing: b, which has its part, must give it up.
    net.tap = Box::new(|_, to, bytes| {
        to.as_str() != "c" || !matches!(Message::decode(bytes), Ok(Message::Assign(_) | Message::AssignVoid { .. }))
    });
    let id = net.ask("a1", request("b1", &["c1", "a2"], 1));
    assert_eq!(net.disks[&site("b")].count(Table::Delivery), 1);
    assert!(!net.answers.contains_key(&id));
    net.advance(Duration::from_secs(3));
    assert!(matches!(net.answers.remove(&id), Some(Err(Refusal::PeerDown { .. }))));
    for name in ["a", "b", "c"] {
        assert_eq!(net.disks[&site(name)].count(Table::Delivery), 0, "{name}");
    }
    net.tap = Box::new(|_, _, _| true);
    net.advance(Duration::from_secs(30));
    for other in ["b", "c"] {
        assert_eq!(net.ready("a", other), net.held(other, "a"), "the pads are gone at both ends");
    }
    let ours = multicast(&mut net, "b1", &["c1"], 1).unwrap();
    assert_eq!(bits(&net.decrypt("c1", "a1", &ids(&ours)).unwrap()), bits(&ours));
}

#[test]
fn a_bit_flipped_on_the_way_of_carried_keys_is_noticed() {
    let mut net = filled(&["a", "b", "c"]);
    net.tap = Box::new(|_, to, bytes| {
        if to.as_str() == "c"
            && let Ok(Message::Assign(mut assign)) = Message::decode(bytes)
        {
            assign.carried.as_mut().unwrap().sealed[3] ^= 1;
            *bytes = Message::Assign(assign).encode();
        }
        true
    });
    assert!(multicast(&mut net, "b1", &["c1"], 1).is_err());
    assert!(!net.misbehaved.is_empty());
    for name in ["a", "b", "c"] {
        assert_eq!(net.disks[&site(name)].count(Table::Delivery), 0, "{name}");
    }
}

#[test]
fn imported_keys_wait_at_every_target_and_the_same_import_again_changes_nothing() {
    let mut net = filled(&["a", "b", "c"]);
    let targets = ["b1", "c1", "a2"];
    let import = |net: &mut Net, keys: Vec<(KeyId, SecretBytes)>| net.import("a", "far", &targets, keys);
    let give = || vec![given(1, 32), given(2, 32), given(3, 64)];
    assert_eq!(import(&mut net, give()), Ok(()));
    assert_eq!(import(&mut net, give()), Ok(()));
    let other = vec![(id(1), SecretBytes::copy_of(&[9; 32]))];
    assert!(matches!(import(&mut net, other), Err(Refusal::BadParameter { .. })));
    for slave in targets {
        let theirs = net.decrypt(slave, "far", &[id(1), id(3)]).unwrap();
        assert_eq!(bits(&theirs), [vec![1 ^ 0x5a; 32], vec![3 ^ 0x5a; 64]], "{slave}");
    }
    // All have the key: it is gone, its id is not.
    assert!(net.disks.values().all(|disk| !disk.holds(&[3 ^ 0x5a; 64])));
    assert_eq!(import(&mut net, give()), Ok(()));
    for slave in targets {
        assert_eq!(net.decrypt(slave, "far", &[id(1)]).unwrap_err(), Refusal::KeysNotFound, "{slave}");
    }
    net.crash("c");
    assert_eq!(import(&mut net, give()), Ok(()));
    assert_eq!(net.decrypt("c1", "far", &[id(1)]).unwrap_err(), Refusal::KeysNotFound, "not given twice");
    assert_eq!(net.decrypt("c1", "far", &[id(2)]).unwrap().len(), 1);
}

#[test]
fn an_import_that_cannot_be_met_has_no_effect() {
    let mut net = filled(&["a", "b", "c"]);
    let bad = |result: Result<(), Refusal>| assert!(matches!(result, Err(Refusal::BadParameter { .. })), "{result:?}");
    bad(net.import("a", "b1", &["c1"], vec![given(1, 32)]));
    bad(net.import("a", "a1", &["c1"], vec![given(1, 32)]));
    bad(net.import("a", "far", &[], vec![given(1, 32)]));
    bad(net.import("a", "far", &["c1", "c1"], vec![given(1, 32)]));
    bad(net.import("a", "far", &["c1"], vec![]));
    bad(net.import("a", "far", &["c1"], vec![given(1, 32), given(1, 32)]));
    bad(net.import("a", "far", &["c1"], vec![given(1, 7)]));
    let unknown = net.import("a", "far", &["c1", "nobody"], vec![given(1, 32)]);
    assert_eq!(unknown, Err(Refusal::UnknownSae { sae: sae("nobody") }));
    net.input("a", Input::PeerDown(site("c")));
    let down = net.import("a", "far", &["c1", "b1"], vec![given(1, 32)]);
    assert!(matches!(down, Err(Refusal::PeerDown { .. })));
    assert!(net.disks.values().all(|disk| disk.count(Table::Delivery) == 0));
    // More than one message holds.
    net.input("a", Input::PeerUp(site("c")));
    net.settle();
    let many: Vec<_> = (0..60).map(|n| given(n, 16)).collect();
    assert_eq!(net.import("a", "far", &["b2"], many), Ok(()));
    let all: Vec<KeyId> = (0..60).map(id).collect();
    assert_eq!(net.decrypt("b2", "far", &all).unwrap().len(), 60);
}

#[test]
fn keys_are_withdrawn_from_all_sites_or_none() {
    let mut net = filled(&["a", "b", "c"]);
    let give = || vec![given(1, 32), given(2, 32)];
    assert_eq!(net.import("a", "far", &["b1", "c1"], give()), Ok(()));
    assert_eq!(net.withdraw("a", "other", &["b1", "c1"], &[id(1)]), Err(Refusal::KeysNotFound));
    assert_eq!(net.withdraw("a", "far", &["b1", "c1"], &[id(9)]), Err(Refusal::KeysNotFound));
    net.decrypt("c1", "far", &[id(1)]).unwrap();
    assert_eq!(net.withdraw("a", "far", &["b1", "c1"], &[id(1), id(2)]), Err(Refusal::KeyDelivered));
    assert_eq!(net.decrypt("b1", "far", &[id(1)]).unwrap().len(), 1, "nothing was destroyed");
    assert_eq!(net.withdraw("a", "far", &["b1", "c1"], &[id(2)]), Ok(()));
    assert_eq!(net.withdraw("a", "far", &["b1", "c1"], &[id(2)]), Err(Refusal::KeysNotFound));
    for slave in ["b1", "c1"] {
        assert_eq!(net.decrypt(slave, "far", &[id(2)]).unwrap_err(), Refusal::KeysNotFound);
    }
    assert!(net.disks.values().all(|disk| !disk.holds(&[2 ^ 0x5a; 32])));
    // One site and at home.
    assert_eq!(net.import("a", "far", &["a1"], vec![given(5, 32)]), Ok(()));
    assert_eq!(net.withdraw("a", "far", &["a1"], &[id(5)]), Ok(()));
    assert_eq!(net.decrypt("a1", "far", &[id(5)]).unwrap_err(), Refusal::KeysNotFound);
}

#[test]
fn a_withdrawal_whose_answer_is_lost_is_asked_again_and_ends_well() {
    let mut net = filled(&["a", "b"]);
    assert_eq!(net.import("a", "far", &["b1"], vec![given(1, 32)]), Ok(()));
    let mut lost = 0;
    net.tap = Box::new(move |_, _, bytes| {
        let answer = matches!(Message::decode(bytes), Ok(Message::Withdrawn { .. }));
        lost += u32::from(answer);
        !answer || lost > 2
    });
    assert_eq!(net.withdraw("a", "far", &["b1"], &[id(1)]), Ok(()));
}

#[test]
fn a_key_that_is_being_withdrawn_is_not_given_away() {
    let mut net = filled(&["a", "b", "c"]);
    assert_eq!(net.import("a", "far", &["b1", "c1"], vec![given(1, 32)]), Ok(()));
    // Site c does not hear of it: b waits for the decision.
    net.tap =
        Box::new(|_, to, bytes| to.as_str() != "c" || !matches!(Message::decode(bytes), Ok(Message::Withdraw { .. })));
    let request = net.begin_withdraw("a", "far", &["b1", "c1"], &[id(1)]);
    assert!(matches!(net.decrypt("b1", "far", &[id(1)]).unwrap_err(), Refusal::Busy { .. }));
    net.advance(Duration::from_secs(3));
    assert!(matches!(net.withdrawn.remove(&request), Some(Err(Refusal::PeerDown { .. }))));
    assert_eq!(net.decrypt("b1", "far", &[id(1)]).unwrap().len(), 1, "the hold ended");
}

fn with_gateway(names: &[&'static str], gateway: &str) -> Net {
    let mut net = filled(names);
    net.foreign = BTreeMap::from([(sae("far"), site(gateway))]);
    names.iter().for_each(|name| net.tell(name));
    net
}

#[test]
fn a_key_for_another_network_is_the_masters_only_when_it_was_taken_there() {
    let mut net = with_gateway(&["a", "b", "c"], "c");
    let said = crate::PassedOn::new(r#"{"E32473_x": 1}"#);
    let asked = |wishes| SupplyRequest::Encrypt {
        slave: sae("far"),
        additional: Vec::new(),
        number: 2,
        size_bits: Some(256),
        wishes,
    };
    let id = net.ask("a1", asked(crate::Wishes { passed_on: said.clone(), ..crate::Wishes::default() }));
    assert_eq!(net.exports.len(), 1);
    assert!(!net.answers.contains_key(&id));
    let Exported { export, peer, master, slave, keys: out, passed_on } = net.exports.pop().unwrap();
    assert_eq!(passed_on, said);
    assert_eq!((peer.as_str(), master, slave), ("kme-of-c", sae("a1"), sae("far")));
    // Longer than a KME may take to answer, not longer than a network may.
    net.advance(Duration::from_secs(4));
    assert!(!net.answers.contains_key(&id));
    net.input("c", Input::Exported { export, result: Ok(()) });
    net.settle();
    let ours = keys(net.answers.remove(&id).unwrap()).unwrap();
    assert_eq!(ours.iter().map(|key| key.id).collect::<Vec<_>>(), out.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    assert_eq!(bits(&ours), out.iter().map(|(_, key)| key.expose(<[u8]>::to_vec)).collect::<Vec<_>>());
    for key in bits(&ours) {
        assert!(net.disks.values().all(|disk| !disk.holds(&key)), "an exported key is still stored");
    }
    let theirs = SupplyRequest::Decrypt { master: sae("a1"), ids: ids(&ours) };
    net.input("c", Input::Request { id: types::id::RequestId(900), sae: sae("far"), request: theirs });
    let refusal = net.answers.remove(&types::id::RequestId(900)).unwrap().unwrap_err();
    assert!(matches!(refusal, Refusal::NotAuthorised { .. }), "the other network serves its own SAE");
}

#[test]
fn a_key_that_another_network_does_not_take_is_burned_at_both_sites() {
    for (owner, failure) in [("a", ExportFailure::NotTaken), ("c", ExportFailure::Voided)] {
        let mut net = with_gateway(&["a", "b", "c"], "c");
        net.input("a", Input::Routes(Default::default()));
        let id = net.ask(&format!("{owner}1"), request("far", &[], 1));
        let Exported { export, keys, .. } = net.exports.pop().unwrap();
        net.input("c", Input::Exported { export, result: Err(failure) });
        net.settle();
        assert!(matches!(net.answers.remove(&id), Some(Err(Refusal::NotExported { .. }))));
        assert_eq!(net.disks[&site("c")].count(Table::Delivery), 0);
        let key = keys[0].1.expose(<[u8]>::to_vec);
        assert!(net.disks.values().all(|disk| !disk.holds(&key)));
        assert_eq!(net.ready("a", "c"), net.held("c", "a"));
        assert!(net.codes("c").contains("KEY_BURNED"));
    }
}

#[test]
fn an_export_comes_again_after_a_restart_until_it_is_answered() {
    let mut net = with_gateway(&["a", "b"], "b");
    let id = net.ask("a1", request("far", &[], 1));
    let first = net.exports.pop().unwrap();
    net.crash("b");
    let again = net.exports.pop().unwrap();
    assert_eq!((first.export, &first.keys[0].1), (again.export, &again.keys[0].1));
    net.input("b", Input::Exported { export: again.export, result: Ok(()) });
    net.settle();
    assert_eq!(keys(net.answers.remove(&id).unwrap()).unwrap().len(), 1);
    net.crash("b");
    assert!(net.exports.is_empty());
}

#[test]
fn an_export_that_the_owner_gives_up_is_voided_also_after_restarts() {
    let mut net = with_gateway(&["a", "b"], "b");
    let id = net.ask("a1", request("far", &[], 1));
    let Exported { export, .. } = net.exports.pop().unwrap();
    net.advance(Duration::from_secs(12));
    assert!(matches!(net.answers.remove(&id), Some(Err(Refusal::NotExported { .. }))));
    // Somebody may ask the same again for a while; then it is over.
    net.advance(Duration::from_secs(70));
    assert_eq!(net.export_voids, [export]);
    net.crash("b");
    assert_eq!(net.export_voids, [export, export]);
    net.input("b", Input::Exported { export, result: Err(ExportFailure::Voided) });
    net.crash("b");
    assert_eq!((net.export_voids.len(), net.disks[&site("b")].count(Table::Delivery)), (2, 0));
    // One that this site asked for itself and forgot in a crash.
    let mut net = with_gateway(&["a", "b"], "b");
    net.ask("b1", request("far", &[], 1));
    net.crash("b");
    assert_eq!((net.export_voids.len(), net.exports.len()), (1, 1));
}

#[test]
fn an_sae_of_another_network_shares_no_key() {
    let mut net = with_gateway(&["a", "b"], "b");
    for (asker, slave, more) in [("a1", "far", "b1"), ("b1", "far", "b2"), ("a1", "b1", "far")] {
        let refusal = net.answer(asker, request(slave, &[more], 1)).unwrap_err();
        assert!(matches!(refusal, Refusal::BadParameter { .. }), "{asker} {slave} {more}: {refusal}");
    }
    assert!(net.exports.is_empty());
    assert_eq!((net.ready("a", "b"), net.held("b", "a")), (64, 64));
    // In transit: from another network beside a to the one beside b.
    let request = net.begin_import("a", "near", &["far"], vec![given(1, 32)]);
    let Exported { export, master, keys, .. } = net.exports.pop().unwrap();
    assert_eq!((master, keys[0].0), (sae("near"), id(1)));
    net.input("b", Input::Exported { export, result: Ok(()) });
    net.settle();
    assert_eq!(net.imported.remove(&request), Some(Ok(())));
}

#[test]
fn the_reasons_of_a_holder_are_told_apart() {
    let texts: BTreeSet<String> = [
        AssignFailure::Missing,
        AssignFailure::Refused,
        AssignFailure::InUse,
        AssignFailure::Foreign,
        AssignFailure::NotExported,
    ]
    .map(|reason| crate::kme::owner::refusal_of(reason).to_string())
    .into();
    assert_eq!(texts.len(), 5);
}
