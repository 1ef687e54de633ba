//! Published curves and reference tables, and one whole block of photons against the closed form.
#![expect(clippy::cast_possible_truncation, reason = "rounded counts of a test are small")]

use link::proof::{BlockCounts, secret_length};
use optics::{Channel, Source};
use types::network::{Hardware, Network};
use types::quantum::{Basis, Slot};
use types::units::{BitLen, Kilometres};

use super::*;

mod finite;
mod protocols;

const F_EC: f64 = 1.16;

fn network() -> Network {
    Network::parse(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../networks/shanxi.toml"))).unwrap()
}

fn link_of(km: f64) -> Link {
    network().links().values().find(|link| link.length.0 == km).unwrap().clone()
}

#[track_caller]
fn within(what: &str, value: f64, reference: f64, tolerance: f64) {
    assert!((value / reference - 1.0).abs() <= tolerance, "{what}: {value}, reference {reference}");
}

/// Hardware set S1: length, key rate, QBER %, phase error %, clicks/s, live fraction, sifted/s, block s.
const S1: [[f64; 8]; 5] = [
    [50.0, 4487.0, 3.18, 5.96, 15_724.0, 0.06, 11_429.0, 87.0],
    [80.0, 3903.0, 3.21, 6.05, 14_458.0, 0.13, 10_348.0, 97.0],
    [120.0, 2616.0, 3.27, 6.33, 11_821.0, 0.29, 8_075.0, 124.0],
    [150.0, 1447.0, 3.41, 6.63, 8_526.0, 0.49, 5_447.0, 184.0],
    [180.0, 520.0, 3.88, 6.80, 4_409.0, 0.74, 2_592.0, 386.0],
];

#[test]
fn reference_network_has_the_rates_of_set_s1() {
    for [km, skr, qber, phase, clicks, live, sifted, block] in S1 {
        let point = expected_rate(&link_of(km), &network().security(), F_EC);
        within("key rate", point.skr.0, skr, 0.001);
        within("QBER", point.qber * 100.0, qber, 0.002);
        within("phase error", point.phase_error * 100.0, phase, 0.002);
        within("clicks", point.clicks_per_s, clicks, 0.002);
        assert!((point.live_fraction - live).abs() < 0.005);
        within("sifted", point.sifted_per_s, sifted, 0.002);
        within("block", point.block_s, block, 0.006);
    }
}

#[test]
fn fixed_settings_vector_s1() {
    for (km, skr, phase) in [(50.0, 2859.97, 0.076_379_5), (180.0, 433.119, 0.081_722_8)] {
        let mut link = link_of(km);
        link.decoy.key_basis = 0.85;
        link.decoy.intensities = [0.35, 0.12, 2e-4];
        link.decoy.probabilities = [0.10, 0.9 * 0.55, 0.9 * 0.45];
        let point = expected_rate(&link, &network().security(), F_EC);
        within("key rate", point.skr.0, skr, 1e-5);
        within("phase error", point.phase_error, phase, 1e-5);
    }
}

#[test]
fn optimum_is_not_below_the_table() {
    for [km, skr, ..] in S1 {
        let mut link = link_of(km);
        link.decoy = optimise(&Setting::of(&link, &network().security(), F_EC));
        let found = expected_rate(&link, &network().security(), F_EC).skr.0;
        assert!(found > skr - 1.0 && found < skr * 1.01, "{km} km: {found}");
    }
}

#[test]
fn cost_of_reconciliation() {
    // Efficiency against key rate at 50 and 180 km, settings optimised for each.
    for (f_ec, near, far) in
        [(1.05, 4744.0, 589.0), (1.10, 4627.0, 557.0), (1.22, 4348.0, 483.0), (1.40, 3934.0, 380.0)]
    {
        for (km, skr) in [(50.0, near), (180.0, far)] {
            let mut link = link_of(km);
            link.decoy = optimise(&Setting::of(&link, &network().security(), f_ec));
            within("key rate", expected_rate(&link, &network().security(), f_ec).skr.0, skr, 0.01);
        }
    }
}

#[test]
fn longer_blocks_give_more_key() {
    for (bits, near, far) in
        [(30_000, 1549.0, 68.0), (100_000, 2596.0, 187.0), (1_000_000, 4487.0, 520.0), (10_000_000, 5926.0, 904.0)]
    {
        // At 50 km the reference kept mu1 at 0.1 or above, this search does not.
        for (km, skr, tolerance) in [(50.0, near, 0.015), (180.0, far, 0.003)] {
            let mut link = link_of(km);
            link.decoy.block_bits = bits;
            link.decoy = optimise(&Setting::of(&link, &network().security(), F_EC));
            let found = expected_rate(&link, &network().security(), F_EC).skr.0;
            within(&format!("{km} km, {bits}"), found, skr, tolerance);
        }
    }
}

#[test]
fn reach_of_a_short_block() {
    // Published: n_X = 1e4 still works to 135 km; within 5 %.
    assert!(lim_2014(128.5, 10_000) > 0.0);
    assert_eq!(lim_2014(135.0, 10_000), 0.0);
}

/// A misalignment that makes 11.4 % QBER gives no key, whatever the settings.
#[test]
fn eleven_point_four_percent_gives_no_key() {
    let mut link = link_of(50.0);
    link.hardware.misalignment = 0.114;
    link.decoy = optimise(&Setting::of(&link, &network().security(), 1.0));
    assert_eq!(expected_rate(&link, &network().security(), 1.0).skr.0, 0.0);
}

/// Bits per pulse of the model of Lim et al. 2014, optimised, with eps_sec = 1e-15 per secret bit.
fn lim_2014(km: f64, block_bits: u32) -> f64 {
    let mut link = link_of(50.0);
    link.length = Kilometres(km);
    link.hardware = Hardware {
        clock_hz: 1e9,
        attenuation_db_per_km: 0.2,
        efficiency: 0.1,
        dark_count_hz: 600.0,
        gate_ns: 1.0,
        misalignment: 5e-3,
        dead_time_us: 0.0,
        afterpulse: 0.04,
        efficiency_ratio: 1.0,
        jitter_ps: 0.0,
        wavelength_nm: 1550.0,
    };
    link.decoy.block_bits = block_bits;
    let mut security = Security { epsilon_secrecy: 1e-10, epsilon_correctness: 1e-15 };
    let mut bits = 0.0;
    for _ in 0..4 {
        link.decoy = optimise(&Setting::of(&link, &security, F_EC));
        let point = expected_rate(&link, &security, F_EC);
        bits = point.skr.0 * point.block_s;
        security.epsilon_secrecy = 1e-15 * bits;
        if bits == 0.0 {
            return 0.0;
        }
    }
    let point = expected_rate(&link, &security, F_EC);
    bits / point.block_s / link.hardware.clock_hz
}

#[test]
fn curves_of_lim_2014() {
    for (km, block, rate) in [
        (0.0, 100_000, 1.308e-3),
        (0.0, 10_000_000, 5.355e-3),
        (50.0, 100_000, 1.236e-4),
        (50.0, 1_000_000, 3.049e-4),
        (100.0, 10_000_000, 4.766e-5),
        (100.0, 1_000_000_000, 8.537e-5),
        (150.0, 1_000_000, 1.104e-6),
    ] {
        within(&format!("{km} km, {block}"), lim_2014(km, block), rate, 0.01);
    }
    // Published: the rate at 100 km with n_X = 1e9 is about 1.75 times that with 1e7.
    within("ratio", lim_2014(100.0, 1_000_000_000) / lim_2014(100.0, 10_000_000), 1.75, 0.05);
}

/// A whole block of simulated photons at 50 km, counted as the two ends would, and judged by the proof.
#[test]
fn a_block_of_photons_gives_the_expected_key() {
    let link = link_of(50.0);
    let security = network().security();
    let expected = expected_rate_with(&link, &security, F_EC, Afterpulses::Later);
    let alice = Source::new(&link.decoy, [21; 32]);
    let mut channel = Channel::new(&link, alice.emission(), [22; 32]);
    let (mut counts, mut errors, mut sifted, mut seconds) = (BlockCounts::default(), 0_u64, 0_u64, 0_u64);
    let mut clicks = Vec::new();
    while sifted < u64::from(link.decoy.block_bits) {
        seconds += 1;
        clicks.clear();
        channel.run_until(Slot(seconds * 900_000_000), &mut clicks);
        for click in &clicks {
            let sent = alice.prepare(click.slot);
            let k = sent.intensity.index();
            match (sent.basis, click.basis) {
                (Basis::Key, Basis::Key) => {
                    counts.key[k] += 1;
                    sifted += 1;
                    errors += u64::from(sent.bit != click.bit);
                }
                (Basis::Test, Basis::Test) => {
                    counts.test[k] += 1;
                    counts.test_errors[k] += u64::from(sent.bit != click.bit);
                }
                _ => {}
            }
        }
    }
    let qber = errors as f64 / sifted as f64;
    within("QBER", qber, expected.qber, 0.03);
    within("seconds", seconds as f64, expected.block_s, 0.02);
    let leak = BitLen((F_EC * sifted as f64 * binary_entropy(qber)).ceil() as u64);
    let length = secret_length(Proof::Lim2014, &counts, leak, &link.decoy, &security);
    within("key rate", length.bits as f64 / seconds as f64, expected.skr.0, 0.05);
}
