//! A site dies at each of its commits in turn, before the commit is durable or just after: no key is given twice,
//! none mismatched, none that a master got is lost to its slave.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crypto::secret::SecretBytes;
use types::id::{KeyId, RequestId};

use super::net::{Answer, Doom, Net, bits, ids, keys, sae, site};
use crate::{Input, SupplyRequest, Wishes};

/// Runs a story once for each site, commit and side of the commit, until the site no longer dies in it.
fn at_every_commit(names: &[&'static str], story: impl Fn(&mut Net) -> bool) {
    let mut deaths = 0;
    for name in names {
        for durable in [false, true] {
            for commits in 0.. {
                let mut net = Net::line(names, |_| {});
                net.foreign = BTreeMap::from([(sae("far"), site("c"))]);
                names.iter().for_each(|name| net.tell(name));
                net.blocks(60_000);
                net.doom = Some(Doom { site: site(name), commits, durable });
                if !story(&mut net) {
                    break;
                }
                deaths += 1;
                assert!(commits < 100, "a story has an end");
            }
        }
    }
    assert!(deaths >= 2 * names.len(), "every site dies on both sides of a commit: {deaths}");
}

/// Starts whoever is dead, lets all settle, and sees that both ends of every pair agree. Says whether anybody died.
fn recover(net: &mut Net) -> bool {
    let died = !net.dead.is_empty();
    net.doom.iter_mut().for_each(|doom| doom.commits = doom.commits.saturating_add(1_000));
    for name in net.names.clone() {
        if net.dead.contains(&site(name)) {
            for other in net.names.clone() {
                if other != name {
                    net.input(other, Input::PeerDown(site(name)));
                }
            }
            net.crash(name);
        }
    }
    net.advance(Duration::from_secs(100));
    let names = net.names.clone();
    for (a, b) in names.iter().flat_map(|a| names.iter().map(move |b| (a, b))).filter(|(a, b)| a != b) {
        assert_eq!(net.ready(a, b), net.held(b, a), "{a} {b}");
    }
    died
}

/// What masters got must be new, and for their slaves just the same, once.
fn check(net: &mut Net, seen: &mut BTreeSet<Vec<u8>>, master: &str, slaves: &[&str], answer: Option<Answer>) {
    let Some(Ok(answer)) = answer else { return };
    let ours = keys(Ok(answer)).unwrap();
    for key in bits(&ours) {
        assert!(seen.insert(key), "given twice");
    }
    for slave in slaves {
        let theirs = net.decrypt(slave, master, &ids(&ours)).expect("what the master got waits for its slave");
        assert_eq!((ids(&theirs), bits(&theirs)), (ids(&ours), bits(&ours)), "{slave}");
        assert!(net.decrypt(slave, master, &ids(&ours)).is_err(), "{slave} got it twice");
    }
}

fn request(slave: &str, additional: &[&str]) -> SupplyRequest {
    let additional = additional.iter().map(|name| sae(name)).collect();
    SupplyRequest::Encrypt { slave: sae(slave), additional, number: 2, size_bits: None, wishes: Wishes::default() }
}

/// After everything each pair supplies on, with other keys.
fn go_on(net: &mut Net, seen: &mut BTreeSet<Vec<u8>>) {
    for (master, slave) in [("a1", "b1"), ("a1", "c1"), ("b1", "c1"), ("b1", "a1")] {
        let ours = net.encrypt(master, slave, 2, 256).expect("there is key");
        for key in bits(&ours) {
            assert!(seen.insert(key), "given twice");
        }
        assert_eq!(bits(&net.decrypt(slave, master, &ids(&ours)).unwrap()), bits(&ours));
    }
}

#[test]
fn plain_keys() {
    at_every_commit(&["a", "b", "c"], |net| {
        let id = net.ask("a1", request("c1", &["c2"]));
        let other = net.ask("b1", request("a1", &[]));
        net.advance(Duration::from_secs(3));
        let died = recover(net);
        let mut seen = BTreeSet::new();
        let (answer, other) = (net.answers.remove(&id), net.answers.remove(&other));
        check(net, &mut seen, "a1", &["c1", "c2"], answer);
        check(net, &mut seen, "b1", &["a1"], other);
        go_on(net, &mut seen);
        died
    });
}

#[test]
fn keys_for_several_sites() {
    at_every_commit(&["a", "b", "c"], |net| {
        let id = net.ask("a1", request("b1", &["c1", "a2"]));
        net.advance(Duration::from_secs(3));
        let died = recover(net);
        let mut seen = BTreeSet::new();
        let answer = net.answers.remove(&id);
        check(net, &mut seen, "a1", &["b1", "c1", "a2"], answer);
        go_on(net, &mut seen);
        died
    });
}

#[test]
fn keys_from_another_network() {
    let given = || vec![(KeyId::from_random([7; 16]), SecretBytes::copy_of(&[7; 32]))];
    at_every_commit(&["a", "b", "c"], |net| {
        let ids: Vec<KeyId> = given().into_iter().map(|(id, _)| id).collect();
        net.begin_import("a", "far2", &["b1", "c1"], given());
        net.advance(Duration::from_secs(3));
        let fetched = keys(net.answers_to("b1", SupplyRequest::Decrypt { master: sae("far2"), ids: ids.clone() }));
        let died = recover(net);
        // The other network asks again, as it must when it has no answer.
        net.import("a", "far2", &["b1", "c1"], given()).expect("all sites run again");
        let again = net.decrypt("b1", "far2", &ids);
        assert!(fetched.is_err() || again.is_err(), "fetched twice");
        assert_eq!(bits(&net.decrypt("c1", "far2", &ids).unwrap()), [vec![7; 32]]);
        assert!(net.withdraw("a", "far2", &["b1", "c1"], &ids).is_err());
        go_on(net, &mut BTreeSet::new());
        died
    });
}

#[test]
fn keys_that_another_network_takes_back() {
    let given = || vec![(KeyId::from_random([7; 16]), SecretBytes::copy_of(&[7; 32]))];
    at_every_commit(&["a", "b", "c"], |net| {
        let ids: Vec<KeyId> = given().into_iter().map(|(id, _)| id).collect();
        net.begin_import("a", "far2", &["b1", "c1"], given());
        net.advance(Duration::from_secs(3));
        let request = net.begin_withdraw("a", "far2", &["b1", "c1"], &ids);
        net.advance(Duration::from_secs(3));
        let first = net.withdrawn.remove(&request);
        let died = recover(net);
        if first != Some(Ok(())) {
            let _nothing_left = net.withdraw("a", "far2", &["b1", "c1"], &ids);
        }
        assert!(net.disks.values().all(|disk| !disk.holds(&[7; 32])), "taken back");
        go_on(net, &mut BTreeSet::new());
        died
    });
}

#[test]
fn keys_into_another_network() {
    at_every_commit(&["a", "b", "c"], |net| {
        let id = net.ask("a1", request("far", &[]));
        let own = net.ask("c1", request("far", &[]));
        let mut abroad: BTreeMap<KeyId, Vec<u8>> = BTreeMap::new();
        let take = |net: &mut Net, abroad: &mut BTreeMap<KeyId, Vec<u8>>| {
            for exported in std::mem::take(&mut net.exports) {
                abroad.extend(exported.keys.iter().map(|(id, key)| (*id, key.expose(<[u8]>::to_vec))));
                net.input("c", Input::Exported { export: exported.export, result: Ok(()) });
                net.settle();
            }
        };
        take(net, &mut abroad);
        net.advance(Duration::from_secs(3));
        let died = recover(net);
        take(net, &mut abroad);
        net.advance(Duration::from_secs(100));
        let mut seen: BTreeSet<Vec<u8>> = BTreeSet::new();
        for id in [id, own] {
            let Some(Ok(answer)) = net.answers.remove(&id) else { continue };
            let ours = keys(Ok(answer)).unwrap();
            for (id, key) in ids(&ours).into_iter().zip(bits(&ours)) {
                assert_eq!(abroad.get(&id), Some(&key), "the other network has what the master has");
            }
        }
        seen.extend(abroad.into_values());
        go_on(net, &mut seen);
        died
    });
}

impl Net {
    /// Asks and waits a little; no answer counts as a refusal.
    fn answers_to(&mut self, name: &str, request: SupplyRequest) -> Answer {
        let id: RequestId = self.ask(name, request);
        self.answers.remove(&id).unwrap_or(Err(crate::Refusal::KeysNotFound))
    }
}
