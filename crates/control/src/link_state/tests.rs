//! Routes on the reference ring and on random networks.

use proptest::prelude::*;
use types::network::Network;
use types::units::BitsPerSecond;

use super::*;

const TTL: Duration = Duration::from_secs(30);
const RICH: BitLen = BitLen(1 << 30);

fn site(name: &str) -> SiteId {
    SiteId::new(name).unwrap()
}

fn report(link: &LinkId, up: bool, stock: BitLen) -> LinkReport {
    LinkReport { link: link.clone(), up, stock, rate: BitsPerSecond(0.0), demand: BitsPerSecond(0.0) }
}

/// The reference ring; `stock` says what a site has to spend on a link, or that the link is down.
fn ring(stock: impl Fn(&str, &str) -> Option<BitLen>) -> LinkStateTable {
    let network = Network::parse(include_str!("../../../../networks/shanxi.toml")).unwrap();
    let mut table = LinkStateTable::new(Topology::from(&network), TTL);
    for origin in network.sites().keys() {
        let links = network.links_of(origin).map(|(link, _)| {
            let stock = stock(origin.as_str(), link.id.as_str());
            report(&link.id, stock.is_some(), stock.unwrap_or_default())
        });
        let advertisement = Advertisement { origin: origin.clone(), seq: 1, links: links.collect() };
        assert_eq!(table.accept(Time::ZERO, advertisement), Ok(Accepted::New));
    }
    table
}

fn way(table: &LinkStateTable, from: &str, to: &str) -> Option<String> {
    let path = table.routes(Time::ZERO, &site(from)).remove(&site(to))?;
    Some(path.iter().map(SiteId::as_str).collect::<Vec<_>>().join(" "))
}

#[test]
fn the_short_way_wins_until_it_is_poor_broken_or_empty() {
    let table = ring(|_, _| Some(RICH));
    assert_eq!(way(&table, "taiyuan", "changzhi").unwrap(), "taiyuan jinzhong changzhi");
    assert_eq!(table.routes(Time::ZERO, &site("taiyuan")).len(), 4);
    let poor =
        |at: &str, link: &str| Some(if link.contains("jinzhong") && at != "changzhi" { BitLen(4_000) } else { RICH });
    assert_eq!(way(&ring(poor), "taiyuan", "changzhi").unwrap(), "taiyuan luliang linfen changzhi");
    assert_eq!(way(&ring(poor), "changzhi", "jinzhong").unwrap(), "changzhi jinzhong", "the other direction has key");
    let down = |at: &str, link: &str| (link != "taiyuan-jinzhong" || at != "jinzhong").then_some(RICH);
    assert_eq!(way(&ring(down), "taiyuan", "jinzhong").unwrap(), "taiyuan luliang linfen changzhi jinzhong");
    let empty = |at: &str, _: &str| Some(if at == "taiyuan" { BitLen(2_303) } else { RICH });
    assert!(ring(empty).routes(Time::ZERO, &site("taiyuan")).is_empty());
    assert_eq!(way(&ring(empty), "luliang", "taiyuan").unwrap(), "luliang taiyuan");
}

#[test]
fn a_link_that_makes_no_key_is_used_while_its_stock_lasts_and_one_without_stock_while_it_makes_key() {
    let mut table = ring(|_, _| Some(RICH));
    let link = LinkId::new("taiyuan-jinzhong").unwrap();
    let other = LinkId::new("luliang-taiyuan").unwrap();
    let say = |stock, rate, demand| {
        let report = |link: &LinkId, stock, rate| LinkReport {
            link: link.clone(),
            up: true,
            stock: BitLen(stock),
            rate: BitsPerSecond(rate),
            demand: BitsPerSecond(demand),
        };
        vec![report(&link, stock, rate), report(&other, 1 << 30, 0.0)]
    };
    let mut seq = 1;
    let mut to_jinzhong = |links: Vec<LinkReport>| {
        seq += 1;
        table.accept(Time::ZERO, Advertisement { origin: site("taiyuan"), seq, links }).unwrap();
        way(&table, "taiyuan", "changzhi")
    };
    assert_eq!(to_jinzhong(say(1 << 30, 0.0, 0.0)).unwrap(), "taiyuan jinzhong changzhi");
    assert_eq!(to_jinzhong(say(0, 5_000.0, 0.0)).unwrap(), "taiyuan jinzhong changzhi");
    assert_eq!(to_jinzhong(say(0, 0.0, 0.0)).unwrap(), "taiyuan luliang linfen changzhi");
    assert_eq!(to_jinzhong(say(0, 5_000.0, 40_000.0)).unwrap(), "taiyuan luliang linfen changzhi", "overloaded");
}

#[test]
fn both_sides_of_the_ring_are_offered_the_better_first() {
    let table = ring(|_, _| Some(RICH));
    let ways = &table.ways(Time::ZERO, &site("taiyuan"))[&site("changzhi")];
    let names: Vec<String> =
        ways.iter().map(|way| way.iter().map(SiteId::as_str).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(names, ["taiyuan jinzhong changzhi", "taiyuan luliang linfen changzhi"]);
}

#[test]
fn only_the_newest_fresh_and_honest_word_counts() {
    let mut table = ring(|_, _| Some(RICH));
    let link = LinkId::new("taiyuan-jinzhong").unwrap();
    let say = |origin: &str, seq, links: Vec<LinkReport>| Advertisement { origin: site(origin), seq, links };
    let now = Time::ZERO.after(Duration::from_secs(20));
    assert_eq!(table.accept(now, say("taiyuan", 1, vec![])), Ok(Accepted::Old));
    assert!(way(&table, "taiyuan", "jinzhong").is_some());
    let twice = vec![report(&link, true, RICH), report(&link, true, RICH)];
    for wrong in
        [say("luliang", 9, vec![report(&link, true, RICH)]), say("taiyuan", 9, twice), say("beijing", 9, vec![])]
    {
        assert!(table.accept(now, wrong).is_err());
    }
    assert_eq!(table.accept(now, say("taiyuan", 2, vec![report(&link, true, RICH)])), Ok(Accepted::New));
    assert_eq!(table.next_expiry(now), Some(Time::ZERO.after(TTL)));
    assert_eq!(table.routes(now, &site("taiyuan"))[&site("luliang")].len(), 5, "one link is left");
    let later = Time::ZERO.after(TTL);
    assert!(table.routes(later, &site("taiyuan")).is_empty(), "the others have fallen silent");
}

/// Whether it is there; up and stock at its one end, at its other end.
type MaybeLink = (bool, bool, u64, bool, u64);

/// A network of up to eight sites; each possible link may be missing, and each end says something of its own.
fn networks() -> impl Strategy<Value = (usize, Vec<MaybeLink>)> {
    (2..8_usize).prop_flat_map(|n| {
        let link = (
            prop::bool::weighted(0.6),
            prop::bool::weighted(0.8),
            0..200_000_u64,
            prop::bool::weighted(0.8),
            0..200_000_u64,
        );
        (Just(n), proptest::collection::vec(link, n * (n - 1) / 2))
    })
}

proptest! {
    #[test]
    fn routes_are_the_cheapest_usable_ways_and_reach_all_that_can_be_reached((n, links) in networks()) {
        let names: Vec<SiteId> = (0..n).map(|i| site(&format!("s{i}"))).collect();
        let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
        let present: Vec<_> = pairs.zip(&links).filter(|(_, link)| link.0).collect();
        let id = |i: usize, j: usize| LinkId::new(&format!("l{i}-{j}")).unwrap();
        let ends = present.iter().map(|&((i, j), _)| (id(i, j), names[i].clone(), names[j].clone()));
        let topology = Topology::new(ends).unwrap();
        let mut table = LinkStateTable::new(topology.clone(), TTL);
        for origin in topology.sites() {
            let reports = present.iter().filter_map(|&((i, j), &(_, up_i, stock_i, up_j, stock_j))| {
                let link = id(i, j);
                (names[i] == *origin).then(|| report(&link, up_i, BitLen(stock_i)))
                    .or_else(|| (names[j] == *origin).then(|| report(&link, up_j, BitLen(stock_j))))
            });
            table.accept(Time::ZERO, Advertisement { origin: origin.clone(), seq: 1, links: reports.collect() }).unwrap();
        }
        // The same by Floyd and Warshall.
        let mut cost = vec![vec![None; n]; n];
        for &((i, j), &(_, up_i, stock_i, up_j, stock_j)) in &present {
            for (from, to, stock) in [(i, j, stock_i), (j, i, stock_j)] {
                if up_i && up_j && BitLen(stock) >= EMPTY_BELOW {
                    cost[from][to] = Some(price(&report(&id(i, j), true, BitLen(stock))));
                }
            }
        }
        let hop = cost.clone();
        for k in 0..n {
            for i in 0..n {
                for j in 0..n {
                    if let (Some(x), Some(y)) = (cost[i][k], cost[k][j]) {
                        cost[i][j] = Some(cost[i][j].unwrap_or(u64::MAX).min(x + y));
                    }
                }
            }
        }
        let index = |site: &SiteId| names.iter().position(|name| name == site).unwrap();
        for from in topology.sites() {
            let routes = table.routes(Time::ZERO, from);
            for to in topology.sites().iter().filter(|to| *to != from) {
                let expected = cost[index(from)][index(to)];
                prop_assert_eq!(routes.contains_key(to), expected.is_some());
                let Some(path) = routes.get(to) else { continue };
                prop_assert_eq!((path.first(), path.last()), (Some(from), Some(to)));
                prop_assert_eq!(path.iter().collect::<BTreeSet<_>>().len(), path.len(), "no site twice");
                let total = path.windows(2).map(|hop_| hop[index(&hop_[0])][index(&hop_[1])].unwrap()).sum::<u64>();
                prop_assert_eq!(Some(total), expected);
            }
            prop_assert_eq!(routes, table.clone().routes(Time::ZERO, from));
        }
    }
}
