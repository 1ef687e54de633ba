//! Speed of the photon Monte Carlo and of Alice's random access: `cargo bench -p optics`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use optics::{Channel, Source};
use types::network::{Link, Network};
use types::quantum::Slot;

const SLOTS_PER_SECOND: u64 = 900_000_000;

fn links() -> Vec<Link> {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../networks/shanxi.toml"));
    let network = Network::parse(text).expect("the reference network parses");
    network.links().values().cloned().collect()
}

fn channel_of(link: &Link) -> Channel {
    let alice = Source::new(&link.decoy, [1; 32]);
    Channel::new(&link.hardware, link.length, &link.decoy, alice.emission(), [2; 32])
}

/// One simulated second of 900 million slots per iteration; the throughput is points of the process, that is possible detections.
fn channel(c: &mut Criterion) {
    let mut group = c.benchmark_group("channel");
    group.sample_size(20);
    for link in links() {
        let second = SLOTS_PER_SECOND;
        let mut channel = channel_of(&link);
        let mut out = Vec::new();
        channel.run_until(Slot(second), &mut out);
        group.throughput(Throughput::Elements(channel.counts().points));
        group.bench_function(format!("{} km, one second", link.length.0), |b| {
            b.iter(|| {
                out.clear();
                let end = channel.position().0 + second;
                channel.run_until(Slot(end), &mut out);
                out.len()
            });
        });
    }
    group.finish();
}

fn prepare(c: &mut Criterion) {
    let alice = Source::new(&links()[0].decoy, [1; 32]);
    let mut slot = 0_u64;
    c.bench_function("prepare a random slot", |b| {
        b.iter(|| {
            slot = slot.wrapping_add(0x9e37_79b9_7f4a_7c15);
            alice.prepare(Slot(slot))
        });
    });
}

criterion_group!(benches, channel, prepare);
criterion_main!(benches);
