//! The bars for fairness, and ways round a site that is gone.

use super::*;

fn setup(shape: Shape, sites: usize) -> Setup {
    Setup {
        shape,
        sites,
        link_rate: BitsPerSecond(200_000.0),
        paths: 1,
        warm_up: Duration::from_secs(60),
        time: Duration::from_secs(120),
        seed: 1,
    }
}

#[test]
fn fair_shares_are_those_of_known_networks() {
    let ring: Vec<(usize, usize)> = (0..10).map(|at| (at, (at + 1) % 10)).collect();
    let shares = fair_shares(10, &ring, 12.5);
    assert_eq!(shares.len(), 90);
    assert!(shares.values().all(|share| (share - 1.0).abs() < 1e-9), "12.5 ways over each hop: {shares:?}");
    let star: Vec<(usize, usize)> = (1..5).map(|at| (0, at)).collect();
    assert!(fair_shares(5, &star, 4.0).values().all(|share| (share - 1.0).abs() < 1e-9));
    // Three in a row: the outer pair shares each hop with the inner ones.
    assert!(fair_shares(3, &[(0, 1), (1, 2)], 2.0).values().all(|share| (share - 1.0).abs() < 1e-9));
    // A site with a hop of its own takes what the others leave.
    let chain = fair_shares(4, &[(0, 1), (1, 2), (2, 3), (1, 3)], 3.0);
    assert!(chain[&(2, 3)] > chain[&(0, 2)]);
}

#[test]
fn on_a_ring_of_ten_every_pair_gets_its_share_when_all_want_more() {
    let ring = fairness(&setup(Shape::Ring, 10));
    assert_eq!(ring.pairs, 90);
    assert!(ring.jain >= 0.9 && ring.worst >= 0.5, "{ring:?}");
    // What it reaches with this seed is 0.96, 0.80 and 1.02.
    assert!(ring.jain >= 0.95 && ring.worst >= 0.75 && ring.of_ceiling >= 0.9, "{ring:?}");
}

#[test]
fn a_silent_site_is_gone_round_within_a_second_by_all_pairs_under_load() {
    let rich = Setup { link_rate: BitsPerSecond(40_000_000.0), ..setup(Shape::Ring, 5) };
    let mut load = Load::new(&rich);
    load.run(Duration::from_secs(3));
    let muted = 2;
    let others = |stocks: BTreeMap<(usize, usize), u32>| {
        let of = |pair: &(usize, usize)| pair.0 != muted && pair.1 != muted;
        stocks.into_iter().filter(|(pair, _)| of(pair)).collect::<BTreeMap<_, _>>()
    };
    load.mute(muted);
    // What was on its way behind the site still arrives.
    load.run(Duration::from_millis(100));
    let before = others(load.stocks());
    load.run(Duration::from_millis(900));
    let after = others(load.stocks());
    assert_eq!(before.len(), 12);
    for (pair, keys) in &before {
        assert!(after[pair] > *keys, "{pair:?}: {keys} keys, then {}", after[pair]);
    }
}

#[test]
fn what_links_spent_is_told_hop_by_hop() {
    let mut load = Load::new(&Setup { link_rate: BitsPerSecond(100_000.0), ..setup(Shape::Star, 3) });
    load.run(Duration::from_secs(20));
    let hub = load.link_stock(0);
    assert!(hub.iter().all(|link| link.used.own.0 > 0 && link.used.transit.0 > 0 && link.used.tags.0 > 0), "{hub:?}");
    let leaf = &load.link_stock(1)[0];
    assert!(leaf.used.own.0 > 0 && leaf.used.transit.0 == 0 && leaf.reached, "{leaf:?}");
    let spent = leaf.used.own.0 + leaf.used.tags.0;
    assert!(leaf.used.tags.0 * 5 < spent && leaf.used.asked.0 >= spent, "{leaf:?}");
}
