//! Speed of the photon Monte Carlo and of Alice's random access: `cargo bench -p optics`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use optics::{Channel, Source};
use types::network::{ClassicalChannel, Coexistence, Direction, Environment, Link, Network};
use types::quantum::Slot;
use types::units::Kilometres;

const SLOTS_PER_SECOND: u64 = 900_000_000;

fn links() -> Vec<Link> {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../networks/shanxi.toml"));
    let network = Network::parse(text).expect("the reference network parses");
    network.links().values().cloned().collect()
}

fn channel_of(link: &Link) -> Channel {
    let alice = Source::new(&link.decoy, [1; 32]);
    Channel::new(link, alice.emission(), [2; 32])
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

/// The same links with everything that the simulation knows: jitter, unlike detectors, two classical channels, weather.
fn all_effects(c: &mut Criterion) {
    let mut group = c.benchmark_group("all effects");
    group.sample_size(20);
    for mut link in links() {
        link.hardware.jitter_ps = 100.0;
        link.hardware.efficiency_ratio = 0.95;
        let channel = |direction| ClassicalChannel { direction, received_dbm: -34.0 };
        link.coexistence = Some(Coexistence {
            channels: vec![channel(Direction::Forward), channel(Direction::Backward)],
            raman_per_km_nm: 2e-9,
            filter_nm: 0.6,
            isolation_db: 110.0,
        });
        link.environment = Some(Environment { lightning_per_h: 1.0, ..Environment::default() });
        let mut channel = channel_of(&link);
        let mut out = Vec::new();
        group.bench_function(format!("{} km, one second", link.length.0), |b| {
            b.iter(|| {
                out.clear();
                let end = channel.position().0 + SLOTS_PER_SECOND;
                channel.run_until(Slot(end), &mut out);
                out.len()
            });
        });
    }
    group.finish();
}

/// A line without dead time on which a possible detection comes in one of a thousand slots; the throughput is pulses.
fn open_line(c: &mut Criterion) {
    const SLOTS: u64 = 100_000_000;
    let mut group = c.benchmark_group("open line");
    group.sample_size(20);
    for mut link in links().into_iter().filter(|link| link.length.0 == 50.0 || link.length.0 == 180.0) {
        let of = link.length.0;
        link.hardware.dead_time_us = 0.0;
        let wanted = 1e-3 / (link.decoy.intensities[0] * link.hardware.efficiency);
        link.length = Kilometres(-10.0 * wanted.log10() / link.hardware.attenuation_db_per_km);
        let mut channel = channel_of(&link);
        let mut out = Vec::new();
        group.throughput(Throughput::Elements(SLOTS));
        group.bench_function(format!("p = 0.001, pulses of the {of} km link"), |b| {
            b.iter(|| {
                out.clear();
                let end = channel.position().0 + SLOTS;
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

criterion_group!(benches, channel, all_effects, open_line, prepare);
criterion_main!(benches);
