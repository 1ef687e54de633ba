//! Key streams over real KMEs in virtual time.

mod lab;
mod model;

use std::collections::BTreeSet;
use std::time::Duration;

use crypto::record::Table;
use etsi::etsi004::{Ksid, Mimetype, Qos, Request, Status};
use types::id::SiteId;

use self::lab::{Lab, chunks_of, get, got, id, open, opened};
use super::net::site;
use crate::stream::Input;

#[test]
fn both_ends_read_the_same_stream_in_any_order_and_each_index_once() {
    let mut lab = Lab::new(&["a", "b", "c"], 1);
    let ksid = lab.both("a1", "c1", chunks_of(32));
    let mut seen = BTreeSet::new();
    for index in [0, 1, 2, 3, 9, 4, 8, 5, u32::MAX, 7, 6] {
        let (first, second) = if index % 2 == 0 { ("a1", "c1") } else { ("c1", "a1") };
        let chunk = lab.chunk(first, ksid, index);
        assert_eq!(lab.chunk(second, ksid, index), chunk, "index {index}");
        assert!(chunk.len() == 32 && seen.insert(chunk), "index {index} repeats bytes");
    }
    for name in ["a1", "c1"] {
        assert_eq!(lab.get(name, ksid, 4).status, Status::InsufficientKey, "{name} got index 4 before");
    }
    assert_eq!((lab.close("a1", ksid), lab.close("c1", ksid)), (Status::Success, Status::Success));
    assert_eq!((lab.ends("a"), lab.ends("c")), (0, 0));
    assert_eq!(lab.net.disks[&site("c")].count(Table::Delivery), 0, "leftovers are burned");
    assert!(lab.misbehaved.is_empty());
}

#[test]
fn one_end_may_read_far_ahead_of_the_other() {
    let mut lab = Lab::new(&["a", "b"], 2);
    let ksid = lab.both("a1", "b1", chunks_of(16));
    let ahead: Vec<_> = (0..300).map(|index| lab.chunk("b1", ksid, index)).collect();
    let behind: Vec<_> = (0..300).map(|index| lab.chunk("a1", ksid, index)).collect();
    assert!(ahead == behind);
    assert_eq!(ahead.iter().collect::<BTreeSet<_>>().len(), 300);
}

#[test]
fn every_chunk_size_is_supplied() {
    for size in [1, 7, 8, 31, 33, 4_096, 8_192, 8_193, 10_000] {
        let mut lab = Lab::new(&["a", "b"], 3);
        let ksid = lab.both("a1", "b1", chunks_of(size));
        let chunk = lab.chunk("a1", ksid, 0);
        assert_eq!((chunk.len(), &lab.chunk("b1", ksid, 0)), (size as usize, &chunk));
    }
}

#[test]
fn two_applications_of_one_site_have_a_stream_too() {
    let mut lab = Lab::new(&["a", "b"], 4);
    let ksid = lab.both("a1", "a2", chunks_of(32));
    for index in 0..20 {
        assert_eq!(lab.chunk("a2", ksid, index), lab.chunk("a1", ksid, index));
    }
    assert_eq!((lab.close("a2", ksid), lab.close("a1", ksid)), (Status::Success, Status::Success));
    assert_eq!(lab.ends("a"), 0);
}

#[test]
fn a_given_id_waits_for_the_peer_and_a_new_one_does_not() {
    let mut lab = Lab::new(&["a", "b"], 5);
    let call = lab.call("a1", open("a1", "b1", chunks_of(32), id(1)));
    assert!(lab.answers.is_empty(), "it waits for the peer");
    let second = lab.open("b1", "a1", Qos { key_chunk_size: 99, ..Qos::default() }, id(1));
    assert_eq!((second.status, second.qos.key_chunk_size), (Status::Success, 32));
    assert_eq!(opened(lab.wait(call)).status, Status::Success);

    let began = lab.net.now;
    assert_eq!(lab.open("a1", "b1", chunks_of(32), id(2)).status, Status::PeerNotConnected);
    assert!(lab.net.now.since(began) >= Duration::from_secs(5), "Timeout 0 is the server's default");
    let began = lab.net.now;
    assert_eq!(lab.open("a1", "b1", chunks_of(32), Ksid::NULL).status, Status::PeerNotConnected);
    assert_eq!(lab.net.now, began);
    // Again by the same application: the same stream.
    assert_eq!(lab.open("b1", "a1", Qos::default(), id(2)).status, Status::Success);
    assert_eq!(lab.open("a1", "b1", chunks_of(64), id(2)).qos.key_chunk_size, 32);
}

#[test]
fn an_id_of_others_is_in_use() {
    let mut lab = Lab::new(&["a", "b"], 6);
    let ksid = lab.both("a1", "b1", chunks_of(32));
    for (name, other) in [("a2", "b1"), ("b2", "a1"), ("a2", "b2"), ("b2", "a2")] {
        assert_eq!(lab.open(name, other, chunks_of(32), ksid).status, Status::KsidInUse, "{name}");
        assert_eq!(lab.get(name, ksid, 0).status, Status::NoConnection, "{name}");
        assert_eq!(lab.close(name, ksid), Status::NoConnection, "{name}");
    }
    // Known at the other site only.
    let third = lab.open("b1", "b2", chunks_of(32), id(9));
    assert_eq!(third.status, Status::PeerNotConnected);
    assert_eq!(lab.open("a1", "b1", chunks_of(32), id(9)).status, Status::KsidInUse);
    assert_eq!(lab.close("a1", ksid), Status::Success);
    assert_eq!(lab.open("a1", "b1", chunks_of(32), ksid).status, Status::KsidInUse, "the peer still has leftovers");
    assert_eq!(lab.close("b1", ksid), Status::Success);
    assert_eq!(lab.open("a1", "b1", chunks_of(32), ksid).status, Status::PeerNotConnected);
}

#[test]
fn openings_that_cannot_be_met() {
    let mut lab = Lab::new(&["a", "b"], 7);
    lab.input("a", Input::Forecast([(site("b"), 1_000)].into()));
    let counter = lab.open("a1", "b1", Qos { key_chunk_size: 70_000, min_bps: 2_000, ..Qos::default() }, Ksid::NULL);
    assert_eq!(counter.status, Status::QosNotMet);
    assert_eq!((counter.qos.key_chunk_size, counter.qos.min_bps), (65_536, 1_000));
    let xml = Qos { mimetype: Mimetype::new("text/xml").unwrap(), ..Qos::default() };
    let counter = lab.open("a1", "b1", xml, Ksid::NULL);
    assert_eq!((counter.status, counter.qos.mimetype), (Status::QosNotMet, Mimetype::json()));
    assert_eq!(lab.open("a1", "nobody", Qos::default(), Ksid::NULL).status, Status::NoConnection);
    assert_eq!(lab.open("a1", "a1", Qos::default(), Ksid::NULL).status, Status::NoConnection);
    assert_eq!(lab.get("a1", id(3), 0).status, Status::NoConnection);
    assert_eq!((lab.ends("a"), lab.ends("b")), (0, 0));
}

#[test]
fn a_site_that_is_not_reached_is_no_connection() {
    let mut lab = Lab::new(&["a", "b"], 8);
    let ksid = lab.both("a1", "b1", chunks_of(32));
    lab.part("a", "b");
    assert_eq!(lab.open("a1", "b1", chunks_of(32), Ksid::NULL).status, Status::NoConnection);
    assert_eq!(lab.get("a1", ksid, 0).status, Status::NoConnection);
    lab.meet("a");
    let chunk = lab.chunk("a1", ksid, 0);
    assert_eq!(lab.chunk("b1", ksid, 0), chunk);
}

#[test]
fn no_key_without_the_peer_and_none_after_it_closed_but_leftovers() {
    let mut lab = Lab::new(&["a", "b"], 9);
    let ksid = lab.open("a1", "b1", chunks_of(32), Ksid::NULL).ksid;
    let stock = lab.net.ready("a", "b");
    assert_eq!(lab.get("a1", ksid, 0).status, Status::GetPeerNotConnected);
    assert_eq!(lab.net.ready("a", "b"), stock, "nothing was consumed");
    // The peer comes while a call waits.
    let call = lab.call("a1", get(ksid, 0, 0));
    assert_eq!(lab.open("b1", "a1", Qos::default(), ksid).status, Status::Success);
    assert_eq!(got(lab.wait(call)).status, Status::Success);
    let chunks: Vec<_> = (1..4).map(|index| lab.chunk("a1", ksid, index)).collect();

    assert_eq!(lab.close("a1", ksid), Status::Success);
    assert_eq!(lab.get("a1", ksid, 4).status, Status::NoConnection);
    assert_eq!(lab.close("a1", ksid), Status::NoConnection);
    for (index, chunk) in (1..).zip(&chunks) {
        assert_eq!(lab.chunk("b1", ksid, index), *chunk, "leftovers are kept for the peer");
    }
    assert_eq!(lab.get("b1", ksid, 1_000).status, Status::GetPeerNotConnected);
    assert_eq!(lab.close("b1", ksid), Status::Success);
    assert_eq!((lab.ends("a"), lab.ends("b")), (0, 0));
}

#[test]
fn a_stream_closed_before_the_peer_came_leaves_nothing() {
    let mut lab = Lab::new(&["a", "b"], 10);
    let ksid = lab.open("a1", "b1", chunks_of(32), Ksid::NULL).ksid;
    assert_eq!((lab.ends("a"), lab.ends("b")), (1, 1));
    assert_eq!(lab.close("a1", ksid), Status::Success);
    assert_eq!((lab.ends("a"), lab.ends("b")), (0, 0));
}

#[test]
fn metadata_that_does_not_fit_costs_nothing() {
    let mut lab = Lab::new(&["a", "b", "c"], 11);
    let ksid = lab.both("a1", "c1", chunks_of(32));
    let call = lab.call("a1", get(ksid, 0, 10));
    let small = got(lab.wait(call));
    assert_eq!((small.status, small.key.len(), small.metadata.len()), (Status::MetadataTooSmall, 0, 0));
    lab.advance(Duration::from_millis(1_234));
    let call = lab.call("a1", get(ksid, 0, small.needed));
    let fits = got(lab.wait(call));
    assert_eq!(fits.status, Status::Success);
    let text = String::from_utf8(fits.metadata).unwrap();
    assert_eq!(text, r#"{"age":1234,"hops":1,"qurrent_path":["a","b","c"]}"#);
    assert_eq!(lab.chunk("c1", ksid, 0), fits.key.expose(<[u8]>::to_vec), "size 0: none returned");

    let plain = lab.both("a1", "c1", Qos { key_chunk_size: 32, ..Qos::default() });
    let call = lab.call("a1", get(plain, 0, 1));
    let none = got(lab.wait(call));
    assert_eq!((none.status, none.metadata.len()), (Status::Success, 0), "no mimetype: none reported");
}

#[test]
fn without_key_a_call_waits_its_time_and_is_met_when_key_comes() {
    let mut lab = Lab::new(&["a", "b"], 12);
    let ksid = lab.both("a1", "b1", Qos { timeout_ms: 3_000, ..chunks_of(8_192) });
    let mut index = 0;
    let last = loop {
        let began = lab.net.now;
        let response = lab.get("b1", ksid, index);
        if response.status != Status::Success {
            assert!(lab.net.now.since(began) >= Duration::from_secs(3));
            break response.status;
        }
        index += 1;
    };
    assert_eq!(last, Status::InsufficientKey);
    assert_eq!(lab.get("a1", ksid, index).status, Status::InsufficientKey);
    let call = lab.call("b1", get(ksid, index, 0));
    lab.net.blocks(200_000);
    assert_eq!(got(lab.wait(call)).status, Status::Success);
}

#[test]
fn the_rate_of_the_stream_is_kept() {
    let mut lab = Lab::new(&["a", "b"], 13);
    // 4 chunks a second after the first 4.
    let ksid = lab.both("a1", "b1", Qos { max_bps: 1_024, timeout_ms: 400, ..chunks_of(32) });
    let began = lab.net.now;
    for index in 0..12 {
        lab.chunk("a1", ksid, index);
    }
    let took = lab.net.now.since(began);
    assert!((Duration::from_millis(1_900)..Duration::from_millis(2_500)).contains(&took), "{took:?}");
    for index in 0..4 {
        lab.chunk("b1", ksid, index);
    }
    let slow = lab.both("a1", "b1", Qos { max_bps: 32, timeout_ms: 400, ..chunks_of(32) });
    lab.chunk("a1", slow, 0);
    assert_eq!(lab.get("a1", slow, 1).status, Status::Timeout);
    lab.advance(Duration::from_secs(8));
    lab.chunk("a1", slow, 1);
}

#[test]
fn unused_key_is_erased_after_its_time() {
    let mut lab = Lab::new(&["a", "b"], 14);
    let ksid = lab.both("a1", "b1", Qos { ttl_s: 10, ..chunks_of(32) });
    let first = lab.chunk("a1", ksid, 0);
    lab.chunk("a1", ksid, 1);
    assert!(lab.net.disks[&site("b")].holds(&first));
    lab.advance(Duration::from_secs(11));
    assert!(!lab.net.disks[&site("b")].holds(&first));
    assert_eq!(lab.net.disks[&site("b")].count(Table::Delivery), 0);
    for name in ["a1", "b1"] {
        assert_eq!(lab.get(name, ksid, 1).status, Status::InsufficientKey, "{name}");
    }
    assert_eq!(lab.chunk("a1", ksid, 50), lab.chunk("b1", ksid, 50), "the stream goes on");
}

#[test]
fn a_stream_that_nobody_uses_ends() {
    let mut lab = Lab::adjusted(&["a", "b"], 15, |config| config.idle_max = Duration::from_secs(100));
    let ksid = lab.both("a1", "b1", chunks_of(32));
    lab.advance(Duration::from_secs(60));
    lab.chunk("a1", ksid, 0);
    lab.advance(Duration::from_secs(60));
    assert_eq!((lab.ends("a"), lab.ends("b")), (1, 1));
    lab.advance(Duration::from_secs(60));
    assert_eq!((lab.ends("a"), lab.ends("b")), (0, 0));
    assert_eq!(lab.get("a1", ksid, 1).status, Status::NoConnection);
}

#[test]
fn simultaneous_openings_meet_in_one_stream() {
    for (one, other) in [("a1", "b1"), ("b1", "a1")] {
        let mut lab = Lab::new(&["a", "b"], 16);
        // Neither hears the other until both have opened.
        lab.part("a", "b");
        let first = lab.call(one, open(one, other, chunks_of(32), id(4)));
        let second = lab.call(other, open(other, one, chunks_of(48), id(4)));
        lab.meet("a");
        let (first, second) = (opened(lab.wait(first)), opened(lab.wait(second)));
        assert_eq!((first.status, second.status), (Status::Success, Status::Success));
        let winner = if one == "a1" { 32 } else { 48 };
        assert_eq!((first.qos.key_chunk_size, second.qos.key_chunk_size), (winner, winner), "site a wins");
        assert_eq!(lab.chunk(one, id(4), 3), lab.chunk(other, id(4), 3));
    }
}

#[test]
fn a_restart_ends_the_streams_and_no_byte_comes_again() {
    for victim in ["a", "b"] {
        let mut lab = Lab::new(&["a", "b"], 17);
        let ksid = lab.both("a1", "b1", chunks_of(32));
        let mut seen = BTreeSet::new();
        for index in 0..5 {
            assert!(seen.insert(lab.chunk("a1", ksid, index)));
        }
        assert!(!seen.insert(lab.chunk("b1", ksid, 0)));
        lab.crash(victim);
        // Whoever asks first finds out; the other learns it from the restarted site.
        for name in ["a1", "b1"] {
            let mut statuses = (0..20).map(|n| lab.get(name, ksid, 100 + n).status);
            assert!(statuses.any(|status| status == Status::NoConnection), "{victim} died, {name} is not told");
        }
        let waiting = lab.call("b1", open("b1", "a1", chunks_of(32), ksid));
        assert_eq!(lab.open("a1", "b1", chunks_of(32), ksid).status, Status::Success);
        assert_eq!(opened(lab.wait(waiting)).status, Status::Success);
        for index in 0..20 {
            let chunk = lab.chunk("b1", ksid, index);
            assert_eq!(lab.chunk("a1", ksid, index), chunk);
            assert!(seen.insert(chunk), "{victim} died: bytes came again at {index}");
        }
    }
}

#[test]
fn a_caller_that_left_consumes_nothing() {
    let mut lab = Lab::new(&["a", "b"], 18);
    let ksid = lab.open("a1", "b1", chunks_of(32), Ksid::NULL).ksid;
    let call = lab.call("a1", get(ksid, 0, 0));
    lab.input("a", Input::Abandoned(call));
    assert_eq!(lab.open("b1", "a1", Qos::default(), ksid).status, Status::Success);
    lab.advance(Duration::from_secs(1));
    assert!(lab.answers.is_empty());
    assert_eq!(lab.chunk("a1", ksid, 0), lab.chunk("b1", ksid, 0));
}

#[test]
fn calls_and_streams_of_one_application_are_bounded() {
    let mut lab = Lab::adjusted(&["a", "b"], 19, |config| {
        (config.ends_per_sae_max, config.ends_per_pair_max, config.calls_per_sae_max) = (3, 3, 4);
    });
    let ids: Vec<_> = (0..3).map(|_| lab.open("a1", "b1", chunks_of(32), Ksid::NULL).ksid).collect();
    assert_eq!(lab.open("a1", "b1", chunks_of(32), Ksid::NULL).status, Status::NoConnection);
    // What others opened to an application does not keep it from opening its own, nor more of them than the limit.
    assert_eq!(lab.close("a1", ids[2]), Status::Success);
    for _ in 0..2 {
        lab.open("b1", "a2", chunks_of(32), Ksid::NULL);
    }
    assert_eq!(lab.open("b1", "a1", chunks_of(32), Ksid::NULL).status, Status::PeerNotConnected);
    assert_eq!(lab.open("a1", "b1", chunks_of(32), Ksid::NULL).status, Status::PeerNotConnected);
    for _ in 0..4 {
        lab.call("a1", get(ids[0], 0, 0));
    }
    assert!(lab.answers.is_empty());
    let call = lab.call("a1", get(ids[0], 0, 0));
    assert_eq!(got(lab.answers.remove(&call).unwrap()).status, Status::InsufficientKey);
    assert_eq!(lab.call("a1", Request::Close { ksid: ids[1] }).0, call.0 + 1);
}

#[test]
fn another_site_cannot_speak_for_a_stream() {
    let mut lab = Lab::new(&["a", "b", "c"], 20);
    let ksid = lab.both("a1", "b1", chunks_of(32));
    // Site c repeats whatever site a says, in its own name.
    let stranger: SiteId = site("c");
    for bytes in [vec![], vec![1], vec![9; 40]] {
        lab.input("b", Input::Message { from: stranger.clone(), bytes });
    }
    assert_eq!(lab.misbehaved.len(), 3);
    for body in forged() {
        let message = crate::stream::message::Message { ksid, run: 1, body };
        lab.input("b", Input::Message { from: stranger.clone(), bytes: message.encode() });
        lab.input("a", Input::Message { from: stranger.clone(), bytes: message.encode() });
    }
    assert_eq!(lab.chunk("a1", ksid, 0), lab.chunk("b1", ksid, 0));
    assert_eq!((lab.ends("a"), lab.ends("b"), lab.ends("c")), (1, 1, 0));
}

fn forged() -> Vec<crate::stream::message::Body> {
    use crate::stream::message::{Body, Objection, Party, Role};
    let (owner, guest) = (super::net::sae("a1"), super::net::sae("b1"));
    let mut bodies = vec![
        Body::Announce { known: false, owner: owner.clone(), guest: guest.clone(), qos: Qos::default() },
        Body::Announced,
        Body::Refused { reason: Objection::InUse },
        Body::Want { index: 7 },
        Body::Accepted { first: 0, taken: true },
        Body::Chunks { owner, guest, first: 0, per: 1, ids: vec![types::id::KeyId::from_random([1; 16])] },
    ];
    for to in [Role::Owner, Role::Guest] {
        bodies.extend([Body::Gone { to }, Body::Presence { to, party: Party::Closed }]);
    }
    bodies
}
