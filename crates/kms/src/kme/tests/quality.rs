//! Wishes, classes, quotas, waiting.

use std::collections::BTreeMap;
use std::time::Duration;

use types::id::RequestId;

use super::net::{Net, bits, ids, keys, sae, site};
use crate::{
    Input, Priority, Refusal, RouteWish, SaePolicy, SuppliedKey, SupplyReply, SupplyRequest, TokenRate, Wishes,
};

fn wishing(slave: &str, number: u32, wishes: Wishes) -> SupplyRequest {
    SupplyRequest::Encrypt { slave: sae(slave), additional: vec![], number, size_bits: Some(256), wishes }
}

fn waiting(slave: &str, number: u32, seconds: u64) -> SupplyRequest {
    wishing(slave, number, Wishes { wait: Some(Duration::from_secs(seconds)), ..Wishes::default() })
}

fn classed(class: Priority) -> SaePolicy {
    SaePolicy { priority: class, ..SaePolicy::default() }
}

fn got(net: &mut Net, id: RequestId) -> Option<Result<Vec<SuppliedKey>, Refusal>> {
    net.answers.remove(&id).map(keys)
}

type Change = fn(&mut Wishes);

/// Stocks are full, and no more key is made.
fn dry(names: &[&'static str]) -> Net {
    let mut net = Net::line(names, |_| {});
    net.blocks(60_000);
    for name in names {
        net.input(name, Input::Routes(Default::default()));
    }
    net
}

#[test]
fn keys_tell_where_they_come_from_and_wishes_are_kept() {
    let mut net = Net::line(&["a", "b", "c"], |_| {});
    net.blocks(60_000);
    net.advance(Duration::from_secs(5));
    let near = net.encrypt("a1", "b1", 1, 256).unwrap();
    assert_eq!(
        (near[0].origin.paths.as_slice(), near[0].origin.combined),
        ([vec![site("a"), site("b")]].as_slice(), 1)
    );
    assert!((5..7).contains(&near[0].origin.age.as_secs()), "{:?}", near[0].origin.age);
    let far = net.encrypt("a1", "c1", 1, 256).unwrap();
    let theirs = net.decrypt("c1", "a1", &ids(&far)).unwrap();
    assert_eq!((theirs[0].origin.hops(), far[0].origin.hops()), (1, 1));
    assert_eq!(theirs[0].origin.paths, far[0].origin.paths);
    let home = net.encrypt("a1", "a2", 1, 256).unwrap();
    assert!(home[0].origin.paths.is_empty());
    let cases: [(&str, Change, Option<Refusal>); 10] = [
        ("b1", |w| w.route = RouteWish::Direct, None),
        ("b1", |w| w.route = RouteWish::Indirect, Some(Refusal::WishUnmeetable)),
        ("c1", |w| w.route = RouteWish::Indirect, None),
        ("c1", |w| w.max_hops = Some(0), Some(Refusal::WishUnmeetable)),
        ("c1", |w| w.min_hops = Some(2), Some(Refusal::WishUnmeetable)),
        ("c1", |w| w.paths = 2, Some(Refusal::WishUnmeetable)),
        ("a2", |w| w.route = RouteWish::Direct, None),
        ("a2", |w| w.paths = 2, Some(Refusal::WishUnmeetable)),
        ("c1", |w| w.max_age = Some(Duration::from_secs(60)), None),
        ("b1", |w| w.max_age = Some(Duration::from_secs(60)), None),
    ];
    for (slave, change, refusal) in cases {
        let mut wishes = Wishes::default();
        change(&mut wishes);
        let answer = keys(net.answer("a1", wishing(slave, 1, wishes.clone())));
        assert_eq!(answer.err(), refusal, "{slave} {wishes:?}");
    }
}

#[test]
fn who_wants_young_key_gets_it_made() {
    let mut net = Net::line(&["a", "b"], |_| {});
    net.blocks(200_000);
    net.advance(Duration::from_secs(100));
    let young = |wait| Wishes { max_age: Some(Duration::from_secs(10)), wait, ..Wishes::default() };
    let refusal = net.answer("a1", wishing("b1", 1, young(None))).unwrap_err();
    assert!(matches!(refusal, Refusal::NotEnoughKey { .. }), "{refusal}");
    let ours = keys(net.answer("a1", wishing("b1", 1, young(Some(Duration::from_secs(5)))))).unwrap();
    assert!(ours[0].origin.age < Duration::from_secs(10));
    let theirs = net.decrypt("b1", "a1", &ids(&ours)).unwrap();
    assert_eq!(bits(&theirs), bits(&ours));
    // The age of what is stored is known after a restart.
    net.advance(Duration::from_secs(100));
    net.crash("a");
    let old = net.encrypt("a1", "b1", 1, 256).unwrap();
    assert!(old[0].origin.age >= Duration::from_secs(100), "{:?}", old[0].origin.age);
}

#[test]
fn a_request_waits_for_key_and_is_answered_when_it_comes() {
    let mut net = Net::line(&["a", "b"], |_| {});
    let id = net.ask("a1", waiting("b1", 100, 30));
    let late = net.ask("a2", waiting("b2", 5, 3));
    net.advance(Duration::from_secs(5));
    assert!(!net.answers.contains_key(&id));
    assert!(matches!(got(&mut net, late), Some(Err(Refusal::NotEnoughKey { .. }))));
    // More than the stock is filled up to without a request.
    net.blocks(60_000);
    let ours = got(&mut net, id).expect("at once").unwrap();
    assert_eq!(bits(&net.decrypt("b1", "a1", &ids(&ours)).unwrap()), bits(&ours));
    // Who asks later does not overtake, unless it is more urgent.
    let policies = BTreeMap::from([(sae("a1"), classed(Priority::Model)), (sae("a2"), classed(Priority::Telecontrol))]);
    net.input("a", Input::Saes(policies));
    net.advance(Duration::from_secs(1));
    net.input("a", Input::Routes(Default::default()));
    let big = net.ask("a1", waiting("b1", 60, 20));
    assert!(!net.answers.contains_key(&big));
    let small = net.ask("a1", waiting("b1", 1, 0));
    assert!(matches!(got(&mut net, small), Some(Err(Refusal::NotEnoughKey { .. }))));
    let urgent = net.ask("a2", waiting("b1", 1, 0));
    assert_eq!(got(&mut net, urgent).unwrap().unwrap().len(), 1);
    let flow = net.kmes[&site("a")].pairs();
    assert_eq!((flow[0].waiting, flow[0].peer.as_str()), (1, "b"));
    assert!(flow[0].taken_per_second[0] > 0.0 && flow[0].taken_per_second[1] == 0.0);
}

#[test]
fn a_wait_that_the_forecast_calls_hopeless_is_refused_at_once() {
    let mut net = Net::line(&["a", "b"], |_| {});
    // Less than the stock holds is made each second.
    for _ in 0..20 {
        net.blocks(1_200);
        net.advance(Duration::from_secs(1));
    }
    let made = net.kmes[&site("a")].pairs()[0].made_per_second;
    assert!((1.0..40.0).contains(&made), "{made}");
    let id = net.ask("a1", waiting("b1", 128, 2));
    let Some(Err(Refusal::NotEnoughKey { retry_after })) = got(&mut net, id) else { panic!("it is hopeless") };
    assert!(retry_after > Duration::from_secs(2) && retry_after <= Duration::from_secs(3_600), "{retry_after:?}");
    let id = net.ask("a1", waiting("b1", 128, 60));
    for _ in 0..60 {
        net.blocks(1_200);
        net.advance(Duration::from_secs(1));
    }
    assert_eq!(got(&mut net, id).unwrap().unwrap().len(), 128);
}

#[test]
fn a_peer_that_makes_no_key_is_not_waited_for_and_the_retry_is_at_most_an_hour() {
    let mut net = dry(&["a", "b"]);
    net.encrypt("a1", "b1", 64, 256).unwrap();
    net.advance(Duration::from_secs(3_600));
    let id = net.ask("a1", waiting("b1", 128, 600));
    let Some(Err(Refusal::NotEnoughKey { retry_after })) = got(&mut net, id) else { panic!("it is hopeless") };
    assert!(retry_after > Duration::from_secs(600) && retry_after <= Duration::from_secs(3_600), "{retry_after:?}");
}

#[test]
fn less_urgent_classes_leave_the_reserve_and_a_wish_only_lowers_the_class() {
    let mut net = dry(&["a", "b"]);
    let policies = BTreeMap::from([
        (sae("a1"), classed(Priority::Telecontrol)),
        (sae("a2"), classed(Priority::Model)),
        (sae("b1"), classed(Priority::Telecontrol)),
    ]);
    net.input("a", Input::Saes(policies));
    let status =
        |net: &mut Net, sae: &str| match net.answer(sae, SupplyRequest::Status { slave: super::net::sae("b1") }) {
            Ok(SupplyReply::Status(status)) => status.stored_key_count,
            other => panic!("{other:?}"),
        };
    // 30 percent of 64 are kept from models.
    assert_eq!((status(&mut net, "a1"), status(&mut net, "a2")), (64, 45));
    assert!(matches!(net.encrypt("a2", "b1", 46, 256), Err(Refusal::NotEnoughKey { .. })));
    let raised = Wishes { priority: Some(Priority::Telecontrol), ..Wishes::default() };
    assert!(net.answer("a2", wishing("b1", 46, raised)).is_err());
    assert_eq!(net.encrypt("a2", "b1", 45, 256).unwrap().len(), 45);
    assert!(net.encrypt("a2", "b1", 1, 256).is_err());
    let lowered = Wishes { priority: Some(Priority::Other), ..Wishes::default() };
    assert!(net.answer("a1", wishing("b1", 1, lowered)).is_err());
    assert_eq!(net.encrypt("a1", "b1", 19, 256).unwrap().len(), 19);
}

#[test]
fn telecontrol_is_not_starved_by_models() {
    let mut net = Net::line(&["a", "b"], |_| {});
    let policies = BTreeMap::from([(sae("a1"), classed(Priority::Telecontrol)), (sae("a2"), classed(Priority::Model))]);
    net.input("a", Input::Saes(policies));
    net.blocks(20_000);
    let (mut models, mut refused, mut commands) = (Vec::new(), 0, 0);
    for _ in 0..120 {
        // About eight keys a second are made, models want eighty.
        net.blocks(1_200);
        for _ in 0..10 {
            models.push(net.ask("a2", waiting("b2", 8, 20)));
        }
        let id = net.ask("a1", waiting("b1", 2, 0));
        match got(&mut net, id) {
            Some(Ok(ours)) => {
                commands += 1;
                assert_eq!(net.decrypt("b1", "a1", &ids(&ours)).unwrap().len(), 2);
            }
            other => panic!("telecontrol was refused: {other:?}"),
        }
        net.advance(Duration::from_millis(990));
    }
    net.advance(Duration::from_secs(30));
    let mut served = 0;
    for id in models {
        match got(&mut net, id).expect("everybody is answered in time") {
            Ok(_) => served += 1,
            Err(Refusal::NotEnoughKey { .. } | Refusal::Busy { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(commands == 120 && served > 20 && refused > 200, "{commands} {served} {refused}");
}

#[test]
fn the_list_of_those_who_wait_is_bounded_and_the_urgent_find_room() {
    let mut net = Net::line(&["a", "b"], |config| config.waiters_max = 3);
    let policies = BTreeMap::from([(sae("a1"), classed(Priority::Telecontrol)), (sae("a2"), classed(Priority::Model))]);
    net.input("a", Input::Saes(policies));
    let models: Vec<RequestId> = (0..4).map(|_| net.ask("a2", waiting("b1", 1, 5))).collect();
    assert!(matches!(got(&mut net, models[3]), Some(Err(Refusal::Busy { .. }))));
    let urgent = net.ask("a1", waiting("b1", 1, 5));
    assert!(matches!(got(&mut net, models[2]), Some(Err(Refusal::Busy { .. }))), "the last made room");
    net.blocks(20_000);
    assert!(matches!(got(&mut net, urgent), Some(Ok(_))));
    assert!(matches!(got(&mut net, models[0]), Some(Ok(_))));
}

#[test]
fn quotas_bind_one_sae_and_a_refused_request_costs_no_token() {
    let mut net = dry(&["a", "b"]);
    let rate = Some(TokenRate { keys_per_second: 1.0, burst: 10 });
    let share = SaePolicy { stock_share_percent: 50, ..SaePolicy::default() };
    let policies = BTreeMap::from([
        (sae("a1"), SaePolicy { rate, priority: Priority::Telecontrol, ..SaePolicy::default() }),
        (sae("a2"), SaePolicy { priority: Priority::Telecontrol, ..share }),
    ]);
    net.input("a", Input::Saes(policies));
    net.input("a", Input::PeerDown(site("b")));
    for _ in 0..20 {
        assert!(matches!(net.encrypt("a1", "b1", 10, 256), Err(Refusal::PeerDown { .. })));
    }
    net.input("a", Input::PeerUp(site("b")));
    net.settle();
    assert_eq!(net.encrypt("a1", "b1", 8, 256).unwrap().len(), 8);
    let refusal = net.encrypt("a1", "b1", 4, 256).unwrap_err();
    assert_eq!(refusal, Refusal::OverQuota { retry_after: Duration::from_secs(2) });
    assert!(matches!(net.encrypt("a1", "b1", 11, 256), Err(Refusal::BadParameter { .. })));
    net.advance(Duration::from_secs(2));
    assert_eq!(net.encrypt("a1", "b1", 4, 256).unwrap().len(), 4);
    assert_eq!(net.encrypt("a2", "b1", 32, 256).unwrap().len(), 32);
    assert!(matches!(net.encrypt("a2", "b1", 1, 256), Err(Refusal::OverQuota { .. })));
    assert_eq!(net.encrypt("a1", "a2", 1, 256).err(), Some(Refusal::OverQuota { retry_after: Duration::from_secs(1) }));
}

#[test]
fn keys_combined_from_two_ways_are_made_for_who_asks_and_nobody_else() {
    let mut net = Net::ring(&["a", "b", "c", "d"], |_| {});
    net.blocks(200_000);
    let plain = net.encrypt("a1", "c1", 1, 256).unwrap();
    assert_eq!(plain[0].origin.combined, 1);
    let wish = |paths, seconds| Wishes { paths, wait: Some(Duration::from_secs(seconds)), ..Wishes::default() };
    let refusal = net.answer("a1", wishing("c1", 1, wish(3, 9))).unwrap_err();
    assert_eq!(refusal, Refusal::WishUnmeetable, "there are two ways round a ring");
    let ours = keys(net.answer("a1", wishing("c1", 3, wish(2, 20)))).unwrap();
    let theirs = net.decrypt("c1", "a1", &ids(&ours)).unwrap();
    assert_eq!(bits(&ours), bits(&theirs));
    for key in ours.iter().chain(&theirs) {
        assert_eq!((key.origin.combined, key.origin.paths.len(), key.origin.hops()), (2, 2, 1));
    }
    assert_eq!(net.encrypt("a1", "c1", 1, 256).unwrap()[0].origin.combined, 1, "plain requests leave them");
    // Also when the key itself is carried to several sites.
    let multicast = SupplyRequest::Encrypt {
        slave: sae("c1"),
        additional: vec![sae("a2")],
        number: 1,
        size_bits: None,
        wishes: wish(2, 20),
    };
    assert_eq!(keys(net.answer("a1", multicast)).unwrap()[0].origin.combined, 2);
}

#[test]
fn keys_of_a_way_that_plain_keys_do_not_take_are_made_for_who_asks() {
    let mut net = Net::of(&["a", "b", "c"], &[("a", "c"), ("a", "b"), ("b", "c")], |_| {});
    net.blocks(200_000);
    assert_eq!(net.encrypt("a1", "c1", 1, 256).unwrap()[0].origin.hops(), 0, "plain keys take the direct way");
    let indirect = |number| {
        let wait = Some(Duration::from_secs(20));
        wishing("c1", number, Wishes { route: RouteWish::Indirect, wait, ..Wishes::default() })
    };
    // More than a stock is filled up to: as many as are asked for.
    for number in [3, 100] {
        let ours = keys(net.answer("a1", indirect(number))).unwrap();
        assert!(ours.iter().all(|key| (key.origin.hops(), key.origin.combined) == (1, 1)));
        assert_eq!(bits(&net.decrypt("c1", "a1", &ids(&ours)).unwrap()), bits(&ours));
    }
    net.advance(Duration::from_secs(1));
    assert!(net.ready("a", "c") > 64, "some of both kinds are kept");
}
