//! Seeded schedules with lost, doubled and reordered messages, partings and crashes, against a model of what each
//! application may have got.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crypto::record::Table;
use etsi::etsi004::{Ksid, Qos, Response, Status};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::lab::{Lab, Weather, chunks_of, get, id, open};
use crate::stream::CallId;

#[derive(Clone, Debug)]
enum Step {
    Open(bool),
    Get(bool, u32),
    Close(bool),
    Pass(u16),
    Part,
    Meet,
    Crash(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<bool>().prop_map(Step::Open),
        20 => (any::<bool>(), 0_u32..24).prop_map(|(side, index)| Step::Get(side, index)),
        1 => any::<bool>().prop_map(Step::Close),
        8 => (1_u16..2_000).prop_map(Step::Pass),
        1 => Just(Step::Part),
        2 => Just(Step::Meet),
        1 => any::<bool>().prop_map(Step::Crash),
    ]
}

/// What came out so far.
#[derive(Default)]
struct Seen {
    /// Bytes that each side got; none may come twice to one side.
    got: [BTreeSet<Vec<u8>>; 2],
    /// Where bytes were first given: the other side must get them at the same index.
    place: BTreeMap<Vec<u8>, u32>,
}

impl Seen {
    fn check(&mut self, side: usize, response: Response) {
        let Response::Get(response) = response else { return };
        let key = response.key.expose(<[u8]>::to_vec);
        assert_eq!(response.status == Status::Success, !key.is_empty(), "{:?}", response.status);
        if !key.is_empty() {
            let place = *self.place.entry(key.clone()).or_insert(response.index);
            assert_eq!(place, response.index, "the same bytes at two indices");
            assert!(self.got[side].insert(key), "bytes were given twice to one application");
        }
    }
}

/// Runs a schedule; says how many chunks came out of it.
fn run(seed: u64, weather: Weather, steps: &[Step]) -> usize {
    const NAMES: [&str; 2] = ["a1", "b1"];
    let mut lab = Lab::new(&["a", "b"], seed);
    lab.weather = weather;
    let mut seen = Seen::default();
    let mut sides: BTreeMap<CallId, usize> = BTreeMap::new();
    let qos = || Qos { timeout_ms: 1_500, ..chunks_of(32) };
    for step in steps {
        match step {
            Step::Open(side) => {
                let side = usize::from(*side);
                let request = open(NAMES[side], NAMES[1 - side], qos(), id(1));
                sides.insert(lab.call(NAMES[side], request), side);
            }
            Step::Get(side, index) => {
                let side = usize::from(*side);
                sides.insert(lab.call(NAMES[side], get(id(1), *index, 0)), side);
            }
            Step::Close(side) => {
                let side = usize::from(*side);
                let request = etsi::etsi004::Request::Close { ksid: id(1) };
                sides.insert(lab.call(NAMES[side], request), side);
            }
            Step::Pass(millis) => lab.advance(Duration::from_millis((*millis).into())),
            Step::Part => lab.part("a", "b"),
            Step::Meet => lab.meet("a"),
            Step::Crash(side) => {
                let side = usize::from(*side);
                lab.crash(&NAMES[side][..1]);
                // Whoever called there is gone with it.
                sides.retain(|_, other| *other != side);
            }
        }
        for (call, response) in std::mem::take(&mut lab.answers) {
            if let Some(side) = sides.remove(&call) {
                seen.check(side, response);
            }
        }
    }
    // In the end the weather clears and the two can open a stream again and read it.
    lab.weather = Weather::default();
    lab.meet("a");
    lab.advance(Duration::from_secs(10));
    for (call, response) in std::mem::take(&mut lab.answers) {
        if let Some(side) = sides.remove(&call) {
            seen.check(side, response);
        }
    }
    assert!(sides.is_empty(), "every call is answered in its time: {sides:?}");
    assert!(lab.misbehaved.is_empty(), "{:?}", lab.misbehaved);
    for name in NAMES {
        lab.close(name, id(1));
    }
    lab.advance(Duration::from_secs(5));
    assert_eq!((lab.ends("a"), lab.ends("b")), (0, 0), "nothing is left of a closed stream");
    let quiet = weather.loss == 0 && !steps.iter().any(|step| matches!(step, Step::Part | Step::Crash(_)));
    let left: usize = lab.net.disks.values().map(|disk| disk.count(Table::Delivery)).sum();
    assert!(!quiet || left == 0, "{left} keys wait for nobody");
    let ksid: Ksid = lab.both("b1", "a1", qos());
    for index in 0..3 {
        assert_eq!(lab.chunk("a1", ksid, index), lab.chunk("b1", ksid, index));
    }
    seen.got.iter().map(BTreeSet::len).sum()
}

#[test]
fn the_schedules_do_give_chunks() {
    let mut runner = TestRunner::deterministic();
    let schedules = (any::<u64>(), weather(), prop::collection::vec(step(), 5..60));
    let mut chunks = Vec::new();
    for _ in 0..40 {
        let (seed, weather, steps) = schedules.new_tree(&mut runner).unwrap().current();
        chunks.push(run(seed, weather, &steps));
    }
    assert!(chunks.iter().filter(|chunks| **chunks > 0).count() > 10, "{chunks:?}");
    assert!(chunks.iter().sum::<usize>() > 100, "{chunks:?}");
}

fn weather() -> impl Strategy<Value = Weather> {
    let percents = (prop_oneof![Just(0), 0_u32..40], 0_u32..30, 0_u32..60);
    percents.prop_map(|(loss, double, overtake)| Weather { loss, double, overtake })
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn no_schedule_gives_bytes_twice_or_at_two_places(
        seed: u64, weather in weather(), steps in prop::collection::vec(step(), 5..60),
    ) {
        run(seed, weather, &steps);
    }
}

proptest! {
    #![proptest_config(cases(1_500))]

    #[test]
    fn no_schedule_of_many_gives_bytes_twice_or_at_two_places_slow_(
        seed: u64, weather in weather(), steps in prop::collection::vec(step(), 5..120),
    ) {
        run(seed, weather, &steps);
    }
}
