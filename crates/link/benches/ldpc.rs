//! Speed of LDPC reconciliation. One core; error rate known to within sampling; codes built before.
#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a benchmark")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use link::bits::Bits;
use link::reconcile::ldpc::{Answerer, Corrector, FrameSize};
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

/// Both roles, all rounds.
fn ldpc(c: &mut Criterion) {
    let mut group = c.benchmark_group("link::ldpc");
    group.sample_size(10);
    for (name, size, n) in [("long", FrameSize::Long, 819_200), ("short", FrameSize::Short, 102_400)] {
        for percent in [1, 3, 5, 8, 11] {
            let alice = random(n, 1);
            let bob = with_errors(&alice, f64::from(percent) / 100.0);
            group.throughput(Throughput::Elements(n as u64));
            group.bench_function(format!("{name}/n={n}/qber={percent}%"), |b| {
                b.iter_batched(
                    || (alice.clone(), bob.clone()),
                    |(alice, bob)| {
                        let mut answerer = Answerer::new(&alice, [7; 32]);
                        let mut corrector = Corrector::with_frames(&bob, [7; 32], percent * 10_000, size);
                        while let Some(question) = corrector.question().unwrap() {
                            corrector.take(&answerer.answer(&question).unwrap()).unwrap();
                        }
                        corrector.finish()
                    },
                    BatchSize::LargeInput,
                );
            });
        }
    }
    group.finish();
}

criterion_group!(benches, ldpc);
criterion_main!(benches);
