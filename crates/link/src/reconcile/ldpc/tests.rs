//! Codes by hand, frames of every size, blind increments, accounting, and the figures promised.
#![expect(clippy::cast_possible_truncation, reason = "error rates are below one")]

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use types::codec::{CodecError, Reader, Writer};

use super::code::{Code, Columns};
use super::design::{COLUMNS, Design, ROWS_MAX, ROWS_MIN};
use super::*;
use crate::bits::Bits;
use crate::error::Misbehaviour;

fn random(len: usize, seed: u64) -> Bits {
    let mut bytes = vec![0; len.div_ceil(8)];
    ChaCha20Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    Bits::from_bytes(&bytes, len).unwrap()
}

fn with_errors(key: &Bits, rate: f64, seed: u64) -> Bits {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let bound = (rate * f64::from(u32::MAX)) as u64;
    (0..key.len()).map(|i| key.get(i) ^ (u64::from(rng.next_u32()) < bound)).collect()
}

fn entropy(p: f64) -> f64 {
    -p * p.log2() - (1.0 - p) * (1.0 - p).log2()
}

/// What became of one block.
struct Run {
    equal: bool,
    rounds: usize,
    disclosed: usize,
    failed: usize,
    errors: usize,
    corrected: usize,
}

fn run(n: usize, qber: f64, guess: f64, size: FrameSize, seed: u64) -> Run {
    let alice = random(n, seed);
    let bob = with_errors(&alice, qber, seed + 1_000);
    let mut answerer = Answerer::new(&alice, [7; 32]);
    let mut corrector = Corrector::with_frames(&bob, [7; 32], (guess * 1e6) as u32, size);
    let (mut rounds, mut captured) = (0, 0);
    while let Some(question) = corrector.question().unwrap() {
        // Over the wire, as the link sends it.
        let mut w = Writer::new();
        question.write(&mut w);
        let wire = w.finish();
        let mut r = Reader::new(&wire);
        let question = Question::read(&mut r).unwrap();
        r.end().unwrap();
        let answer = answerer.answer(&question).unwrap();
        captured += answer.len();
        corrector.take(&answer).unwrap();
        rounds += 1;
        assert!(rounds < 40, "the increments end");
    }
    assert_eq!(corrector.disclosed(), captured, "what is charged is what was sent");
    assert_eq!(answerer.disclosed(), captured);
    let errors = (0..n).filter(|i| alice.get(*i) != bob.get(*i)).count();
    let (failed, corrected) = (corrector.failed_frames(), corrector.corrected());
    let equal = corrector.finish() == alice;
    Run { equal, rounds, disclosed: captured, failed, errors, corrected }
}

/// Mean efficiency over blocks whose every frame must come out right.
fn efficiency(n: usize, qber: f64, size: FrameSize, blocks: u64) -> f64 {
    let runs: Vec<Run> = (0..blocks).map(|seed| run(n, qber, qber, size, 50 + seed)).collect();
    assert!(runs.iter().all(|run| run.equal && run.failed == 0 && run.errors == run.corrected));
    let disclosed: usize = runs.iter().map(|run| run.disclosed).sum();
    disclosed as f64 / (n as f64 * blocks as f64 * entropy(qber))
}

#[test]
fn parities_of_a_small_code_are_those_of_its_definition() {
    for lanes in [3, 8, 64, 72, 131] {
        parities_are_those_of_their_definition(lanes);
    }
}

fn parities_are_those_of_their_definition(lanes: usize) {
    let code = Code::build(&Design::with_rows(33), lanes);
    let bits = random(COLUMNS * lanes, 1);
    let mut columns = Columns::zeros(lanes);
    (0..bits.len()).filter(|at| bits.get(*at)).for_each(|at| columns.flip(at / lanes, at % lanes));
    let [halves, whole] = code.parities(&columns);
    for (number, row) in code.rows.iter().enumerate() {
        for lane in 0..lanes {
            // A check meets lane (its own + shift) of every column of its row.
            let meets = |edge: usize| {
                let column = code.edges[edge].column / (lanes + kernels::ldpc::HALO);
                bits.get(column * lanes + (lane + code.edges[edge].shift) % lanes)
            };
            let first = (row.start..row.middle).filter(|edge| meets(*edge)).count();
            let all = (row.start..row.end).filter(|edge| meets(*edge)).count();
            assert_eq!(halves.get(number * lanes + lane), first % 2 == 1);
            assert_eq!(whole.get(number * lanes + lane), all % 2 == 1);
        }
    }
    let ordered = code.in_order_of_splits(&halves);
    assert_eq!(ordered.window(lanes, lanes), halves.window(code.splits[1] * lanes, lanes));
}

#[test]
fn every_design_fills_its_base_graph() {
    for rows in ROWS_MIN..=ROWS_MAX {
        let design = Design::with_rows(rows);
        assert_eq!(design.rows, rows);
        assert_eq!(design.columns.iter().map(|(_, count)| count).sum::<usize>(), COLUMNS);
        let edges: usize = design.columns.iter().map(|(degree, count)| degree * count).sum();
        assert!(edges.div_ceil(rows) + 2 < kernels::ldpc::DEGREE_MAX, "checks stay small enough");
        assert_eq!(design.columns[0].0, 2);
        assert!(design.columns[0].1 < rows, "columns of degree two close no cycle");
    }
}

#[test]
fn lifted_codes_have_even_rows_and_no_cycle_of_four() {
    for (rows, lanes) in [(60, 512), (122, 64), (215, 64)] {
        let code = Code::build(&Design::with_rows(rows), lanes);
        let mut splits = code.splits.clone();
        splits.sort_unstable();
        assert_eq!(splits, (0..rows).collect::<Vec<_>>(), "every row is split once");
        let degrees: Vec<usize> = code.rows.iter().map(|row| row.end - row.start).collect();
        assert!(degrees.iter().max().unwrap() - degrees.iter().min().unwrap() <= 2);
        let mut seen = std::collections::HashSet::new();
        for row in &code.rows {
            assert!((row.end - row.middle).abs_diff(row.middle - row.start) <= 1);
            let edges = &code.edges[row.start..row.end];
            for (index, a) in edges.iter().enumerate() {
                for b in &edges[..index] {
                    assert_ne!(a.column, b.column);
                    let (low, high) = if a.column < b.column { (a, b) } else { (b, a) };
                    let turn = (low.shift + lanes - high.shift) % lanes;
                    assert!(seen.insert((low.column, high.column, turn)), "a cycle of four in {rows} x {lanes}");
                }
            }
        }
    }
}

/// Both ends build the same code, today and in a year: a change of any constant shows here.
#[test]
fn structure_is_pinned() {
    let hash = |rows, lanes| {
        let digest = crypto::hash::sha256(&Code::build(&Design::with_rows(rows), lanes).structure());
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    assert_eq!(
        [hash(34, 64), hash(122, 64), hash(122, 2_048), hash(246, 8)],
        ["7adcb7fcbe840d87", "7efd714d5cde6f46", "74dcce43080c3065", "238a4fc4008c06a7"]
    );
}

#[test]
fn keys_of_every_size_are_corrected() {
    for n in [1, 7, 1_000, 3_200, 12_345, 25_600, 25_601, 60_000, 102_401] {
        for size in [FrameSize::Short, FrameSize::Long] {
            let run = run(n, 0.03, 0.03, size, n as u64);
            assert!(run.equal && run.failed == 0, "{n} bits");
            assert_eq!(run.corrected, run.errors);
        }
    }
    assert_eq!(Corrector::new(&Bits::default(), [0; 32], 30_000).question(), Ok(None));
}

#[test]
fn a_key_without_errors_costs_one_round() {
    let run = run(51_200, 0.0, 0.01, FrameSize::Short, 3);
    assert!(run.equal);
    assert_eq!((run.rounds, run.corrected), (1, 0));
}

#[test]
fn blind_mode_recovers_from_a_wrong_guess() {
    for size in [FrameSize::Short, FrameSize::Long] {
        for qber in [0.02, 0.05, 0.08] {
            let low = run(51_200, qber, qber / 1.5, size, 4);
            assert!(low.equal && low.failed == 0, "too low a guess of {qber}");
            let right = run(51_200, qber, qber, size, 4);
            // Split rows are a little worse than a code with as many rows.
            assert!(low.disclosed * 100 < right.disclosed * 110, "{} against {}", low.disclosed, right.disclosed);
            let high = run(51_200, qber, qber * 1.5, size, 4);
            assert!(high.equal && high.rounds == 1, "too high a guess of {qber} costs leak, not rounds");
        }
    }
}

#[test]
fn hopeless_keys_are_given_up() {
    let run = run(25_600, 0.4, 0.05, FrameSize::Short, 5);
    assert_eq!((run.equal, run.failed, run.corrected), (false, 1, 0));
}

#[test]
fn frames_fail_and_succeed_apart() {
    // Errors in a burst: the second frame is far worse than the first.
    let alice = random(51_200, 8);
    let mut bob = with_errors(&alice, 0.02, 9);
    (25_600..51_200).step_by(2).for_each(|at| bob.set(at, !alice.get(at)));
    let mut answerer = Answerer::new(&alice, [1; 32]);
    let mut corrector = Corrector::with_frames(&bob, [1; 32], 20_000, FrameSize::Short);
    while let Some(question) = corrector.question().unwrap() {
        corrector.take(&answerer.answer(&question).unwrap()).unwrap();
    }
    assert_eq!(corrector.failed_frames(), 1);
    assert_eq!(corrector.finish().window(0, 25_600), alice.window(0, 25_600));
}

#[test]
fn answers_of_the_wrong_length_or_time_are_refused() {
    let key = random(30_000, 1);
    let mut corrector = Corrector::new(&key, [0; 32], 30_000);
    let early = corrector.take(&Bits::zeros(5));
    assert_eq!(early, Err(Misbehaviour::Contradiction { field: "answer without a question" }));
    assert!(matches!(corrector.question(), Ok(Some(Question::Begin { .. }))));
    assert_eq!(corrector.question(), Err(Misbehaviour::Contradiction { field: "answer" }));
    let short = corrector.take(&Bits::zeros(5));
    assert_eq!(short, Err(Misbehaviour::Contradiction { field: "number of parities" }));
    assert_eq!(corrector.disclosed(), 0);
}

#[test]
fn questions_that_do_not_fit_are_refused() {
    let begin = Question::Begin { size: FrameSize::Short, rows: 100, splits: 10 };
    let mut answerer = Answerer::new(&random(30_000, 1), [0; 32]);
    let wrong = |field| Err(Misbehaviour::Contradiction { field });
    assert_eq!(answerer.answer(&Question::More(vec![(0, 1)])), wrong("kind of question"));
    let checks = 100 * 38;
    assert_eq!(answerer.answer(&begin).unwrap().len(), 2 * (checks + 10));
    assert_eq!(answerer.answer(&begin), wrong("kind of question"));
    assert_eq!(answerer.answer(&Question::More(vec![(2, 1)])), wrong("frame"));
    let limit = Err(Misbehaviour::Limit { what: "split parities", limit: checks });
    assert_eq!(answerer.answer(&Question::More(vec![(1, checks - 9)])), limit);
    assert_eq!(answerer.answer(&Question::More(vec![(1, checks - 10)])).unwrap().len(), checks - 10);
    assert_eq!(answerer.answer(&Question::More(vec![(1, 1)])), limit);
    assert_eq!(answerer.disclosed(), 2 * (checks + 10) + checks - 10);
    let mut answerer = Answerer::new(&random(30_000, 1), [0; 32]);
    let all = Question::Begin { size: FrameSize::Short, rows: 100, splits: checks + 1 };
    assert_eq!(answerer.answer(&all), limit);
    assert_eq!(Answerer::new(&Bits::default(), [0; 32]).answer(&begin), wrong("length of the key"));
}

#[test]
fn questions_round_trip_and_bad_bytes_are_refused() {
    for question in [
        Question::Begin { size: FrameSize::Long, rows: ROWS_MAX, splits: 500_000 },
        Question::Begin { size: FrameSize::Short, rows: ROWS_MIN, splits: 0 },
        Question::More(vec![(0, 1), (1, 70), (390, 819_200)]),
    ] {
        let mut w = Writer::new();
        question.write(&mut w);
        let wire = w.finish();
        let mut r = Reader::new(&wire);
        assert_eq!(Question::read(&mut r).unwrap(), question);
        assert_eq!(r.left(), 0);
        (0..wire.len()).for_each(|len| assert!(Question::read(&mut Reader::new(&wire[..len])).is_err()));
    }
    let read = |wire: &[u8]| Question::read(&mut Reader::new(wire)).map(|_| ());
    let value = |field| Err(CodecError::Value { field });
    assert_eq!(read(&[3, 100, 0]), value("kind of question"));
    assert_eq!(read(&[0, 29, 0]), value("rows"));
    let long = Err(CodecError::TooLong { field: "split parities", len: 819_201, max: 819_200 });
    assert_eq!(read(&[0, 100, 0x81, 0x80, 0x32]), long);
    assert_eq!(read(&[2, 0]), value("frames"));
    assert_eq!(read(&[2, 0x88, 0x03]), Err(CodecError::TooLong { field: "frames", len: 392, max: 391 }));
    assert_eq!(read(&[2, 1, 0, 0]), value("frame or split parities"));
    assert_eq!(read(&[2, 2, 0x86, 0x03, 1, 0, 1]), value("frame or split parities"));
}

#[test]
fn short_codes_reach_their_figures() {
    // 16 frames. No frame is given up: a frame that fails asks for more, and f counts that.
    let f = efficiency(102_400, 0.05, FrameSize::Short, 4);
    assert!(f <= 1.16, "f = {f:.4} at 5 %");
}

#[test]
fn long_codes_reach_their_figures() {
    let f = efficiency(819_200, 0.05, FrameSize::Long, 1);
    assert!(f <= 1.10, "f = {f:.4} at 5 %");
}

/// Over the whole range; the figures are those of `choice`.
#[test]
fn all_codes_reach_their_figures_slow_() {
    for (qber, long, short) in [(0.01, 1.19, 1.29), (0.03, 1.13, 1.19), (0.08, 1.10, 1.15), (0.11, 1.10, 1.13)] {
        let f = efficiency(819_200, qber, FrameSize::Long, 2);
        assert!(f <= long, "long codes: f = {f:.4} at {qber}");
        let f = efficiency(409_600, qber, FrameSize::Short, 4);
        assert!(f <= short, "short codes: f = {f:.4} at {qber}");
    }
}
