//! What weather does to the records.

use super::*;

fn run(link: &Link, seconds: f64, seed: u8) -> (Tally, ChannelCounts, ReceiverReading) {
    let (alice, mut channel) = channel_of(link, seed);
    let mut clicks = Vec::new();
    channel.run_until(after(link, seconds), &mut clicks);
    (Tally::of(&alice, &clicks), channel.counts(), channel.take_reading())
}

/// Nothing but temperature.
fn still_air() -> Environment {
    Environment {
        polarisation_control_s: 0.0,
        delay_ps_per_km_k: 0.0,
        tracking_error_ps: 0.0,
        ..Environment::default()
    }
}

/// A fibre of 20 km whose loss grows by 2 mdB per km and kelvin has 0.8 dB more at 16 than at 4 o'clock.
#[test]
#[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
fn warm_fibre_loses_more() {
    let mut link = coarse();
    link.hardware.dark_count_hz = 0.0;
    link.hardware.dead_time_us = 0.0;
    link.hardware.afterpulse = 0.0;
    let mut clicks_at = |start_h, seed| {
        link.environment = Some(Environment { start_h, loss_db_per_km_k: 2e-3, ..still_air() });
        run(&link, 5.0, seed).1.clicks as f64
    };
    let (cold, warm) = (clicks_at(4.0, 60), clicks_at(16.0, 61));
    let loss_db = -10.0 * (warm / cold).log10();
    // 10 log10(e) sqrt(2 / n) is one standard deviation; doubles of a slot take 1 % of the difference.
    assert!((loss_db - 0.8).abs() < 4.0 * 4.343 * (2.0 / warm).sqrt() + 0.01, "{loss_db} dB");
}

/// Morning on a long line: without tracking the light leaves the gate, with tracking it stays.
#[test]
fn gate_follows_the_light_if_it_is_tracked() {
    let mut link = link(180.0);
    link.hardware.jitter_ps = 50.0;
    let air = Environment { start_h: 10.0, delay_ps_per_km_k: 33.0, ..still_air() };
    link.environment = Some(Environment { tracking_s: 10.0, tracking_error_ps: 20.0, ..air.clone() });
    let (_, tracked, reading) = run(&link, 200.0, 62);
    link.environment = Some(Environment { tracking_s: 0.0, ..air });
    let (_, lost, late) = run(&link, 200.0, 63);
    // 10 K pi / 12 h at 33 ps per km and kelvin: 4.3 ps/s, so after 116 s the light is behind the gate.
    assert!(tracked.clicks > lost.clicks * 3 / 2, "{} and {}", tracked.clicks, lost.clicks);
    assert!(tracked.lost_to_gate < 100);
    let half = |reading: &ReceiverReading| -> (u32, u32) {
        let both = |parts: core::ops::Range<usize>| reading.arrivals.iter().flat_map(|d| &d[parts.clone()]).sum();
        (both(0..4), both(4..8))
    };
    assert!(half(&late).0 * 4 < half(&late).1, "{late:?}");
    // Between two corrections the light is 21 ps late on average.
    assert!(half(&reading).0 * 3 > half(&reading).1, "{reading:?}");
}

/// Transients of 100 ms, 0.36 s apart on average: a fifth of the time the polarisation points anywhere.
#[test]
fn lightning_comes_as_bursts_of_errors() {
    let mut link = coarse();
    link.hardware.dark_count_hz = 0.0;
    link.hardware.afterpulse = 0.0;
    link.hardware.misalignment = 0.0;
    link.environment = Some(Environment {
        polarisation_rad2_per_s: 0.0,
        polarisation_control_s: 1.0,
        lightning_per_h: 1e4,
        lightning_us: 1e5,
        ..still_air()
    });
    let (alice, mut channel) = channel_of(&link, 64);
    let mut clicks = Vec::new();
    channel.run_until(after(&link, 60.0), &mut clicks);
    // Error rates of parts of 20 ms.
    let mut parts = vec![(0_u32, 0_u32); 3_000];
    for click in clicks.iter().filter(|click| !click.double) {
        let sent = alice.prepare(click.slot);
        if sent.basis == click.basis {
            let part = &mut parts[usize::try_from(click.slot.0 / 20_000).unwrap()];
            part.0 += 1;
            part.1 += u32::from(sent.bit != click.bit);
        }
    }
    let clean = parts.iter().filter(|(_, errors)| *errors == 0).count();
    let struck = parts.iter().filter(|(sifted, errors)| errors * 5 > *sifted).count();
    assert!((1_900..2_700).contains(&clean), "{clean}");
    assert!((300..1_000).contains(&struck), "{struck}");
}

/// A day at rest costs nothing: the weather is looked at when a photon comes.
#[test]
fn idle_days_are_skipped() {
    let mut link = stormy();
    link.length = Kilometres(1e6);
    link.hardware.dark_count_hz = 0.0;
    link.coexistence = None;
    let (_, mut channel) = channel_of(&link, 65);
    let mut out = Vec::new();
    channel.run_until(Slot(u64::MAX), &mut out);
    assert!(out.is_empty());
}
