//! The rules one by one.

use crypto::secret::SecretBytes;
use etsi::etsi020::{
    AckContainer, AckContainers, AckStatus, CallbackUrl, ExtKeyContainer, Extension, Key, KeyEntry, Problem,
    TransferSae, VoidContainer,
};
use types::id::KeyId;
use types::units::Time;

use super::world::{Fault, PASSED_ON, World, config, sae, secs};
use crate::interwork::{Answer, Input, Interwork, PeerRequest, Reply};
use crate::{Error, ExportFailure, Refusal};

fn wire(name: &str) -> TransferSae {
    TransferSae::new(sae(name)).unwrap()
}

fn url(text: &str) -> Option<CallbackUrl> {
    Some(CallbackUrl::new(text).unwrap())
}

fn callback() -> Option<CallbackUrl> {
    url("https://a.test/kmapi/v1/ext_keys/ack")
}

fn key(n: u8) -> KeyId {
    KeyId::from_random([n; 16])
}

/// A transfer from A to B: key `n` with bits `[n; 32]` for each `n`.
fn transfer(keys: &[u8]) -> ExtKeyContainer {
    ExtKeyContainer {
        keys: keys
            .iter()
            .map(|n| Key { id: key(*n), value: SecretBytes::copy_of(&[*n; 32]), extension: None })
            .collect(),
        initiator: wire("a1"),
        targets: vec![wire("b1")],
        ack_callback_url: callback(),
        extension_mandatory: None,
        extension_optional: None,
    }
}

fn synchronous(keys: &[u8]) -> ExtKeyContainer {
    ExtKeyContainer { ack_callback_url: None, ..transfer(keys) }
}

fn void(keys: &[u8]) -> VoidContainer {
    VoidContainer {
        key_ids: keys.iter().map(|n| key(*n)).collect(),
        initiator: wire("a1"),
        targets: vec![wire("b1")],
        ack_callback_url: None,
        extension: None,
        all_confirmation: None,
    }
}

/// What A would send to B.
fn send(world: &mut World, request: PeerRequest) -> Reply {
    let reply = world.request(1, request);
    world.run(secs(1));
    reply.unwrap_or_else(|| world.sides[1].replies.last().cloned().unwrap())
}

fn problem(reply: Reply) -> (u16, String) {
    let Reply::Refused(Problem { status, details, .. }) = reply else { panic!("{reply:?}") };
    (status.unwrap(), details.into_keys().next().unwrap())
}

fn statuses(reply: Reply) -> Vec<(AckStatus, usize)> {
    let Reply::Resolved(AckContainers(acks)) = reply else { panic!("{reply:?}") };
    acks.iter().map(|ack| (ack.status, ack.keys.len())).collect()
}

#[test]
fn keys_go_over_and_both_kmes_hold_the_same_bits() {
    let mut world = World::new(1);
    let export = world.export_fresh(0, "a1", "b1", 3);
    world.run(secs(1));
    let exporting = &world.sides[0].kme.exports[&export];
    assert_eq!(exporting.result, Some(Ok(())));
    for (id, bits) in &exporting.keys {
        let held = &world.sides[1].kme.held[id];
        assert_eq!((&held.bits, &held.initiator, held.targets.as_slice()), (bits, &sae("a1"), &[sae("b1")][..]));
    }
    // One transfer, one acknowledgement. What the SAE said besides went along unchanged.
    assert_eq!(world.calls.len(), 2);
    assert_eq!(world.optional, [Some(PASSED_ON.to_owned())]);
    assert_eq!(world.sides[0].core.as_ref().unwrap().counters().exported_keys, 3);
    assert_eq!(world.sides[1].core.as_ref().unwrap().counters().imported_keys, 3);
}

#[test]
fn the_same_transfer_again_gives_the_same_result() {
    let mut world = World::of_b();
    assert_eq!(statuses(send(&mut world, PeerRequest::Transfer(synchronous(&[1, 2])))), [(AckStatus::Relayed, 2)]);
    assert_eq!(statuses(send(&mut world, PeerRequest::Transfer(synchronous(&[1, 2])))), [(AckStatus::Relayed, 2)]);
    // Part of it, and more than it.
    assert_eq!(statuses(send(&mut world, PeerRequest::Transfer(synchronous(&[2, 3])))), [(AckStatus::Relayed, 2)]);
    world.restart(1);
    assert_eq!(statuses(send(&mut world, PeerRequest::Transfer(synchronous(&[3, 1])))), [(AckStatus::Relayed, 2)]);
    assert_eq!(world.sides[1].kme.held.len(), 3);
    assert_eq!(send(&mut world, PeerRequest::Transfer(transfer(&[1]))), Reply::Accepted);
    assert_eq!(world.calls.len(), 1, "an acknowledgement of what was resolved before");
}

#[test]
fn other_bits_or_other_saes_under_a_known_id_are_refused() {
    let mut world = World::of_b();
    let other_bits = |mut container: ExtKeyContainer| {
        container.keys[0].value = SecretBytes::copy_of(&[9; 32]);
        PeerRequest::Transfer(container)
    };
    let other_sae =
        |container: ExtKeyContainer| PeerRequest::Transfer(ExtKeyContainer { targets: vec![wire("b2")], ..container });
    let in_use = (503, "key_id_in_use".to_owned());
    // While it is pending, when it is resolved, after a restart.
    world.request(1, PeerRequest::Transfer(transfer(&[1])));
    for step in 0..3 {
        let reply = world.request(1, other_bits(transfer(&[1]))).unwrap();
        assert_eq!(problem(reply), in_use, "{step}");
        let reply = world.request(1, other_sae(transfer(&[1]))).unwrap();
        assert_eq!(problem(reply), in_use, "{step}");
        world.run(secs(1));
        if step == 1 {
            world.restart(1);
        }
    }
    assert_eq!(world.sides[1].kme.held[&key(1)].bits, SecretBytes::copy_of(&[1; 32]));
    // Of another KME nothing is kept, so it is told so.
    let theirs = ExtKeyContainer { initiator: wire("c1"), ack_callback_url: url("https://c.test/x"), ..transfer(&[1]) };
    let reply = world.request_of(1, "kme-c", PeerRequest::Transfer(theirs)).unwrap();
    assert_eq!(problem(reply), (400, "key_id_in_use".to_owned()));
}

#[test]
fn transfers_that_cannot_be_met_are_refused_and_leave_nothing() {
    let mut world = World::of_b();
    let extension = || Some(Extension::new(r#"{"E32473_ext1":1,"E32473_ext2":{}}"#).unwrap());
    let cases = [
        (400, "invalid_routing", ExtKeyContainer { targets: vec![wire("a2")], ..transfer(&[1]) }),
        (400, "invalid_routing", ExtKeyContainer { initiator: wire("b2"), ..transfer(&[1]) }),
        (
            400,
            "target_sae_id_not_recognized",
            ExtKeyContainer { targets: vec![wire("b1"), wire("x")], ..transfer(&[1]) },
        ),
        (400, "initiator_sae_id_not_recognized", ExtKeyContainer { initiator: wire("x"), ..transfer(&[1]) }),
        (400, "initiator_sae_id_not_recognized", ExtKeyContainer { initiator: wire("c1"), ..transfer(&[1]) }),
        (503, "no_known_route", ExtKeyContainer { targets: vec![wire("c1")], ..transfer(&[1]) }),
        (
            503,
            "unsupported_mandatory_extension",
            ExtKeyContainer { extension_mandatory: extension(), ..transfer(&[1]) },
        ),
        (400, "ack_callback_url", ExtKeyContainer { ack_callback_url: url("https://c.test/x"), ..transfer(&[1]) }),
        (400, "ack_callback_url", ExtKeyContainer { ack_callback_url: url("https://a.test:444/x"), ..transfer(&[1]) }),
        (400, "ack_callback_url", ExtKeyContainer { ack_callback_url: url("https://a.test.evil/x"), ..transfer(&[1]) }),
    ];
    for (status, topic, container) in cases {
        let reply = world.request(1, PeerRequest::Transfer(container)).unwrap();
        assert_eq!(problem(reply), (status, topic.to_owned()));
    }
    world.run(secs(60));
    assert!(world.sides[1].records().is_empty() && world.sides[1].kme.held.is_empty() && world.calls.is_empty());
    // What is passed on unchanged is no obstacle, and the port of HTTPS may be written.
    let fine = ExtKeyContainer {
        extension_optional: extension(),
        ack_callback_url: url("https://A.test:443/other/path?x=1"),
        ..transfer(&[1])
    };
    assert_eq!(send(&mut world, PeerRequest::Transfer(fine)), Reply::Accepted);
    assert_eq!(world.calls, [(1, "/other/path?x=1".to_owned())]);
    // An unknown KME.
    let reply = world.request_of(1, "kme-x", PeerRequest::Transfer(transfer(&[5]))).unwrap();
    assert_eq!(problem(reply), (401, "unauthorized".to_owned()));
}

#[test]
fn a_bad_request_about_kept_keys_is_not_answered_400() {
    let mut world = World::of_b();
    send(&mut world, PeerRequest::Transfer(transfer(&[1])));
    let bad = ExtKeyContainer { ack_callback_url: url("https://c.test/x"), ..transfer(&[1, 2]) };
    let reply = world.request(1, PeerRequest::Transfer(bad)).unwrap();
    assert_eq!(problem(reply), (503, "ack_callback_url".to_owned()));
}

#[test]
fn several_targets_get_the_key_up_to_the_limit() {
    let mut world = World::new(1);
    let both = ExtKeyContainer { targets: vec![wire("b1"), wire("b2")], ..synchronous(&[1]) };
    assert_eq!(statuses(send(&mut world, PeerRequest::Transfer(both))), [(AckStatus::Relayed, 1)]);
    assert_eq!(world.sides[1].kme.held[&key(1)].targets, [sae("b1"), sae("b2")]);
    let mut small = config(1);
    small.targets_max = 1;
    world.sides[1].core = Some(Interwork::restore(world.now, small, world.sides[1].records()).unwrap());
    let both = ExtKeyContainer { targets: vec![wire("b1"), wire("b2")], ..synchronous(&[2]) };
    let reply = world.request(1, PeerRequest::Transfer(both)).unwrap();
    assert_eq!(problem(reply), (503, "no_route_multiple_targets".to_owned()));
}

#[test]
fn an_import_is_tried_again_or_fails() {
    let mut world = World::new(1);
    world.sides[1].kme.refusals =
        vec![Refusal::PeerDown { retry_after: secs(1) }, Refusal::Busy { retry_after: secs(1) }];
    world.request(1, PeerRequest::Transfer(synchronous(&[1])));
    world.run(secs(5));
    assert_eq!(statuses(world.sides[1].replies[0].clone()), [(AckStatus::Relayed, 1)]);
    world.sides[1].kme.refusals = vec![Refusal::BadParameter { message: "too long".to_owned() }];
    assert_eq!(statuses(send(&mut world, PeerRequest::Transfer(synchronous(&[2, 3])))), [(AckStatus::Failed, 2)]);
    assert_eq!(statuses(send(&mut world, PeerRequest::Transfer(synchronous(&[2, 3])))), [(AckStatus::Failed, 2)]);
    // One that takes too long is answered, and goes on.
    world.sides[1].kme.refusals = (0..40).map(|_| Refusal::Busy { retry_after: secs(1) }).collect();
    world.request(1, PeerRequest::Transfer(synchronous(&[4])));
    world.run(secs(12));
    assert_eq!(problem(world.sides[1].replies.last().cloned().unwrap()), (503, "server_side_general_error".to_owned()));
    world.run(secs(60));
    assert_eq!(statuses(send(&mut world, PeerRequest::Transfer(synchronous(&[4])))), [(AckStatus::Failed, 1)]);
}

#[test]
fn a_void_destroys_what_no_sae_has_and_tells_the_fate_of_each() {
    let mut world = World::of_b();
    send(&mut world, PeerRequest::Transfer(transfer(&[1, 2, 3])));
    world.sides[1].kme.held.get_mut(&key(2)).unwrap().fetched = true;
    let reply = send(&mut world, PeerRequest::Void(void(&[1, 2, 4])));
    let expected = [(AckStatus::Voided, 1), (AckStatus::FailedToVoid, 1), (AckStatus::KeyNotPresent, 1)];
    assert_eq!(statuses(reply), expected);
    assert!(!world.sides[1].kme.held.contains_key(&key(1)) && world.sides[1].kme.held.contains_key(&key(2)));
    // What was voided, before or after it came, is refused from then on, after a restart too.
    for restart in [false, true] {
        if restart {
            world.restart(1);
        }
        for n in [1, 4] {
            let reply = world.request(1, PeerRequest::Transfer(transfer(&[n]))).unwrap();
            assert_eq!(problem(reply), (400, "key_id_voided".to_owned()));
        }
        // Beside a key that is kept it is told as void.
        let reply = send(&mut world, PeerRequest::Transfer(synchronous(&[1, 3])));
        assert_eq!(statuses(reply), [(AckStatus::Relayed, 1), (AckStatus::Voided, 1)]);
    }
    assert_eq!(statuses(send(&mut world, PeerRequest::Void(void(&[1])))), [(AckStatus::Voided, 1)]);
    // In asynchronous mode the fate comes as an acknowledgement.
    let asynchronous = VoidContainer { ack_callback_url: callback(), ..void(&[3]) };
    assert_eq!(send(&mut world, PeerRequest::Void(asynchronous)), Reply::Accepted);
    assert!(
        world.sides[1].kme.held.len() == 1 && world.calls.last() == Some(&(1, "/kmapi/v1/ext_keys/ack".to_owned()))
    );
}

#[test]
fn an_empty_void_needs_its_confirmation() {
    let mut world = World::of_b();
    send(&mut world, PeerRequest::Transfer(transfer(&[1, 2])));
    for all_confirmation in [None, Some(false)] {
        let reply = world.request(1, PeerRequest::Void(VoidContainer { all_confirmation, ..void(&[]) })).unwrap();
        let Reply::Refused(problem) = reply else { panic!("{reply:?}") };
        let topics: Vec<_> = problem.details.keys().map(String::as_str).collect();
        assert_eq!((problem.status, topics), (Some(400), vec!["no_all_confirmation", "no_key_ids_or_confirmation"]));
    }
    let of_others = VoidContainer { targets: vec![wire("b2")], all_confirmation: Some(true), ..void(&[]) };
    assert!(statuses(send(&mut world, PeerRequest::Void(of_others))).is_empty());
    assert_eq!(world.sides[1].kme.held.len(), 2);
    let all = VoidContainer { all_confirmation: Some(true), ..void(&[]) };
    assert_eq!(statuses(send(&mut world, PeerRequest::Void(all))), [(AckStatus::Voided, 2)]);
    assert!(world.sides[1].kme.held.is_empty());
}

#[test]
fn a_void_of_a_pending_key_waits_for_its_import() {
    let mut world = World::new(1);
    world.sides[1].kme.refusals = vec![Refusal::Busy { retry_after: secs(3) }];
    world.request(1, PeerRequest::Transfer(transfer(&[1])));
    world.request(1, PeerRequest::Void(void(&[1])));
    world.run(secs(9));
    assert_eq!(statuses(world.sides[1].replies.last().cloned().unwrap()), [(AckStatus::Voided, 1)]);
    assert!(world.sides[1].kme.held.is_empty());
    // The key is told as void and as nothing else.
    assert!(world.calls.is_empty(), "{:?}", world.calls);
}

#[test]
fn a_void_against_the_direction_of_the_keys() {
    let mut world = World::new(1);
    let export = world.export_fresh(0, "a1", "b1", 1);
    let id = world.sides[0].kme.exports[&export].keys[0].0;
    let container = || VoidContainer { key_ids: vec![id], ..void(&[]) };
    // B asks A before A heard that the key is relayed.
    let reply = world.request(0, PeerRequest::Void(container())).unwrap();
    assert_eq!(statuses(reply), [(AckStatus::Voided, 1)]);
    assert_eq!(world.sides[0].kme.exports[&export].result, Some(Err(ExportFailure::InDoubt)));
    world.run(secs(60));
    assert!(world.sides[1].kme.held.is_empty());
    // And after: the master SAE may have it.
    let export = world.export_fresh(0, "a1", "b1", 1);
    world.run(secs(1));
    let id = world.sides[0].kme.exports[&export].keys[0].0;
    let reply = world.request(0, PeerRequest::Void(VoidContainer { key_ids: vec![id], ..void(&[]) })).unwrap();
    assert_eq!(statuses(reply), [(AckStatus::FailedToVoid, 1)]);
}

#[test]
fn only_a_refusal_of_the_first_sending_frees_the_bits() {
    let outcome = |script: Vec<Fault>| {
        let mut world = World::new(1);
        world.script = script;
        let export = world.export_fresh(0, "a1", "b1", 1);
        world.run(secs(10));
        let voids = world.calls.iter().filter(|(_, path)| path.ends_with("void")).count();
        (world.sides[0].kme.exports[&export].result.unwrap(), voids)
    };
    for status in [400, 401] {
        assert_eq!(outcome(vec![Fault::Status(status)]), (Err(ExportFailure::NotTaken), 0));
        let later = outcome(vec![Fault::Drop, Fault::Status(status)]);
        assert_eq!(later, (Err(ExportFailure::InDoubt), 1), "{status} after a call that may have arrived");
    }
    for status in [402, 404, 408, 500, 502, 503] {
        assert_eq!(outcome(vec![Fault::Status(status)]), (Ok(()), 0), "{status} is tried again");
    }
    // After a restart it is not known whether it was sent before.
    let mut world = World::new(1);
    world.script = vec![Fault::Drop, Fault::Status(400)];
    let export = world.export_fresh(0, "a1", "b1", 1);
    world.restart(0);
    world.run(secs(10));
    assert_eq!(world.sides[0].kme.exports[&export].result, Some(Err(ExportFailure::InDoubt)));
}

#[test]
fn a_lasting_problem_ends_an_export_at_once() {
    let mut world = World::new(1);
    // The KME at B has no such SAE.
    let mut other = config(1);
    other.saes = [sae("b2")].into();
    world.sides[1].core = Some(Interwork::restore(Time::ZERO, other, Vec::new()).unwrap());
    let export = world.export_fresh(0, "a1", "b1", 1);
    world.run(secs(1));
    assert_eq!(world.sides[0].kme.exports[&export].result, Some(Err(ExportFailure::NotTaken)));
    // An SAE that lies behind a third KME there: 503, so its keys are voided, not kept for others.
    let mut own = config(0);
    own.peers.get_mut("kme-b").unwrap().saes.insert(sae("c1"));
    world.sides[0].core = Some(Interwork::restore(world.now, own, Vec::new()).unwrap());
    let export = world.export_fresh(0, "a1", "c1", 1);
    world.run(secs(1));
    assert_eq!(world.sides[0].kme.exports[&export].result, Some(Err(ExportFailure::InDoubt)));
    assert!(world.calls.iter().any(|(_, path)| path.ends_with("void")));
}

#[test]
fn exports_that_cannot_be_sent_are_not_taken() {
    let mut world = World::new(1);
    let not_taken = |world: &World, export: KeyId| {
        assert_eq!(world.sides[0].kme.exports[&export].result, Some(Err(ExportFailure::NotTaken)));
        assert!(world.calls.is_empty());
    };
    for (master, slave) in [("a1", "x"), ("x", "b1"), ("b1", "a1")] {
        let export = world.export_fresh(0, master, slave, 1);
        not_taken(&world, export);
    }
    let export = world.export(0, "a1", "b1", Vec::new());
    not_taken(&world, export);
    let twice = || (key(1), SecretBytes::copy_of(&[1; 32]));
    let export = world.export(0, "a1", "b1", vec![twice(), twice()]);
    not_taken(&world, export);
    let mut full = config(0);
    full.transfers_max = 1;
    world.sides[0].core = Some(Interwork::restore(Time::ZERO, full, Vec::new()).unwrap());
    world.script = vec![Fault::Drop; 50];
    world.export_fresh(0, "a1", "b1", 1);
    world.calls.clear();
    let export = world.export_fresh(0, "a1", "b1", 1);
    not_taken(&world, export);
}

#[test]
fn acknowledgements_of_unknown_keys_and_of_others_have_no_effect() {
    let mut world = World::new(1);
    let ack = |keys: &[KeyId], initiator: &str| {
        PeerRequest::Ack(AckContainers(vec![AckContainer {
            keys: keys.iter().map(|id| KeyEntry { id: *id, extension: None }).collect(),
            status: AckStatus::Relayed,
            initiator: wire(initiator),
            targets: vec![wire("b1")],
            message: None,
            extension: None,
        }]))
    };
    world.script = vec![Fault::Drop; 3];
    let export = world.export_fresh(0, "a1", "b1", 1);
    let id = world.sides[0].kme.exports[&export].keys[0].0;
    let unknown = (400, "key_not_present".to_owned());
    assert_eq!(problem(world.request(0, ack(&[key(9)], "a1")).unwrap()), unknown);
    assert_eq!(problem(world.request(0, ack(&[id], "a2")).unwrap()), unknown);
    let reply = world.request_of(0, "kme-c", ack(&[id], "a1")).unwrap();
    assert_eq!(problem(reply), (401, "unauthorized".to_owned()));
    assert_eq!(world.sides[0].kme.exports[&export].result, None);
    assert_eq!(world.request(0, ack(&[], "a1")), Some(Reply::Taken));
    assert_eq!(world.request(0, ack(&[id, key(9)], "a1")), Some(Reply::Taken));
    assert_eq!(world.sides[0].kme.exports[&export].result, Some(Ok(())));
    assert_eq!(world.request(0, ack(&[id], "a1")), Some(Reply::Taken), "again");
}

#[test]
fn an_acknowledgement_that_is_refused_voids_at_both_ends() {
    let mut world = World::new(1);
    // A knows nothing of the key that B relayed.
    assert_eq!(send(&mut world, PeerRequest::Transfer(transfer(&[1]))), Reply::Accepted);
    world.run(secs(10));
    assert!(world.sides[1].kme.held.is_empty());
    let paths: Vec<_> = world.calls.iter().map(|(side, path)| (*side, path.rsplit('/').next().unwrap())).collect();
    assert!(paths.contains(&(1, "ack")) && paths.contains(&(1, "void")), "{paths:?}");
    assert_eq!(world.sides[1].count(6) + world.sides[1].count(7), 0);
}

#[test]
fn limits_hold_and_fates_are_forgotten_in_time() {
    let mut world = World::of_b();
    let mut small = config(1);
    (small.transfers_max, small.tombstones_max) = (2, 5);
    world.sides[1].core = Some(Interwork::restore(Time::ZERO, small.clone(), Vec::new()).unwrap());
    world.request(1, PeerRequest::Transfer(transfer(&[1])));
    world.request(1, PeerRequest::Transfer(transfer(&[2])));
    let full = (503, "server_side_general_error".to_owned());
    assert_eq!(problem(world.request(1, PeerRequest::Transfer(transfer(&[3]))).unwrap()), full);
    world.run(secs(1));
    send(&mut world, PeerRequest::Void(void(&[4, 5, 6])));
    assert_eq!(problem(world.request(1, PeerRequest::Transfer(transfer(&[7]))).unwrap()), full);
    assert_eq!(problem(world.request(1, PeerRequest::Void(void(&[8]))).unwrap()), full);
    assert_eq!(statuses(send(&mut world, PeerRequest::Void(void(&[4, 5])))), [(AckStatus::Voided, 2)]);
    assert_eq!(world.sides[1].count(4), 5);
    world.run(small.void_ttl + secs(60));
    assert_eq!(world.sides[1].records().len(), 0);
    assert_eq!(statuses(send(&mut world, PeerRequest::Transfer(synchronous(&[7])))), [(AckStatus::Relayed, 1)]);
}

#[test]
fn at_most_so_many_calls_at_once_and_all_come_through() {
    let mut world = World::new(1);
    for _ in 0..40 {
        world.export_fresh(0, "a1", "b1", 1);
    }
    assert_eq!(world.calls.len(), config(0).calls_max);
    world.run(secs(5));
    assert!(world.sides[0].kme.exports.values().all(|export| export.result == Some(Ok(()))));
    // Answers to calls that are not under way have no effect.
    world.input(0, Input::Answer { call: crate::interwork::CallId(9_999), answer: Answer::Lost });
}

#[test]
fn corrupt_records_are_refused() {
    let mut world = World::new(1);
    world.script = vec![Fault::Drop; 9];
    world.export_fresh(0, "a1", "b1", 2);
    let restored = |change: &dyn Fn(&mut crypto::record::Record)| {
        let mut records = world.sides[0].records();
        change(&mut records[0]);
        Interwork::restore(Time::ZERO, config(0), records).map(|_| ())
    };
    assert_eq!(restored(&|_| ()), Ok(()));
    let refused = |result: Result<(), Error>| matches!(result, Err(Error::Corrupt { what: "interworking", .. }));
    assert!(refused(restored(&|record| record.secret = None)));
    assert!(refused(restored(&|record| record.secret = Some(SecretBytes::copy_of(&[0; 63])))));
    assert!(refused(restored(&|record| record.key[0] = 99)));
    assert!(refused(restored(&|record| record.value[0] = 2)));
    assert!(refused(restored(&|record| record.value.push(0))));
    assert!(refused(restored(&|record| record.value.truncate(20))));
    assert!(refused(restored(&|record| record.table = crypto::record::Table::Delivery)));
}
