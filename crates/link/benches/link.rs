//! Speed of the two heavy steps. One core, both roles of reconciliation in one process, error rate known to within sampling.
#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a benchmark")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use link::amplify::{seed_len, toeplitz};
use link::bits::Bits;
use link::reconcile::choice::Method;
use link::reconcile::{Answers, Correction};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

fn random(len: usize, seed: u64) -> Bits {
    let mut bytes = vec![0; len.div_ceil(8)];
    ChaCha20Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    Bits::from_bytes(&bytes, len).unwrap()
}

fn with_errors(key: &Bits, rate: f64) -> Bits {
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    let bound = (rate * f64::from(u32::MAX)) as u32;
    (0..key.len()).map(|i| key.get(i) ^ (rng.next_u32() < bound)).collect()
}

/// Both roles, all rounds; the codes are built before.
fn reconcile(c: &mut Criterion) {
    let cascade = [(100_000, 1), (100_000, 3), (100_000, 5), (1_000_000, 3)];
    let cases = cascade.map(|(n, percent)| ("cascade", Method::Cascade, n, percent)).into_iter();
    let codes = [("ldpc/long", Method::LdpcLong, 819_200), ("ldpc/short", Method::LdpcShort, 102_400)];
    let codes = codes.into_iter().flat_map(|(name, method, n)| [1, 3, 5, 8, 11].map(|q| (name, method, n, q)));
    let mut group = c.benchmark_group("link::reconcile");
    group.sample_size(10);
    for (name, method, n, percent) in cases.chain(codes) {
        let alice = random(n, 1);
        let bob = with_errors(&alice, f64::from(percent) / 100.0);
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(format!("{name}/n={n}/qber={percent}%"), |b| {
            b.iter_batched(
                || (alice.clone(), bob.clone()),
                |(alice, bob)| {
                    let mut answers = Answers::new(&alice, [7; 32]);
                    let mut correction = Correction::by(method, &bob, [7; 32], percent * 10_000);
                    while let Some(question) = correction.question().unwrap() {
                        correction.take(&answers.answer(&question).unwrap()).unwrap();
                    }
                    correction.finish()
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn amplify(c: &mut Criterion) {
    let mut group = c.benchmark_group("link::toeplitz");
    group.sample_size(10);
    for (n, l) in [(1 << 16, 1 << 16), (100_000, 30_000), (1 << 20, 1 << 18), (1 << 20, 1 << 20)] {
        let (key, seed) = (random(n, 1), random(seed_len(n, l), 2));
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(format!("n={n}/l={l}"), |b| b.iter(|| toeplitz(&key, &seed, l)));
    }
    group.finish();
}

criterion_group!(benches, reconcile, amplify);
criterion_main!(benches);
