//! The statistical effect of each attacker.

use super::*;

/// A run with an attack from slot 0.
struct Run {
    tally: Tally,
    counts: ChannelCounts,
    reading: ReceiverReading,
    incoming_nw: f64,
}

impl Run {
    fn of(link: &Link, attack: Option<&str>, seconds: f64, seed: u8) -> Self {
        let (alice, mut channel) = channel_of(link, seed);
        channel.set_attack(attack.map(|attack| attack.parse().unwrap()));
        let mut clicks = Vec::new();
        channel.run_until(after(link, seconds), &mut clicks);
        Self {
            tally: Tally::of(&alice, &clicks),
            counts: channel.counts(),
            reading: channel.take_reading(),
            incoming_nw: channel.take_transmitter_reading().incoming_nw,
        }
    }

    fn sifted(&self) -> u32 {
        self.tally.key.iter().chain(&self.tally.test).sum()
    }

    fn errors(&self) -> u32 {
        self.tally.key_errors.iter().chain(&self.tally.test_errors).sum()
    }
}

/// Two counts of the same thing.
#[track_caller]
#[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
fn alike(what: &str, a: u64, b: u64) {
    assert!((a as f64 - b as f64).abs() <= SIGMAS * ((a + b) as f64).sqrt(), "{what}: {a} and {b}");
}

/// A long line without dead time and noise, on which nothing hides what happens to the light.
fn clear(km: f64) -> Link {
    let mut link = link(180.0);
    link.length = Kilometres(km);
    link.hardware.clock_hz = 1e8;
    link.hardware.dead_time_us = 0.0;
    link.hardware.afterpulse = 0.0;
    link.hardware.dark_count_hz = 0.0;
    link.hardware.misalignment = 0.02;
    link.decoy.key_basis = 0.7;
    link.decoy.intensities = [0.5, 0.1, 1e-3];
    link.decoy.probabilities = [0.5, 0.4, 0.1];
    link
}

#[test]
fn intercept_resend_has_its_error_rate() {
    let link = clear(60.0);
    let quiet = Run::of(&link, None, 0.5, 30);
    for (xi, seed) in [(0.0, 31), (0.25, 32), (0.44, 33), (1.0, 34)] {
        let run = Run::of(&link, Some(&format!("intercept-resend:{xi}")), 0.5, seed);
        let e = link.hardware.misalignment;
        let error = e * (1.0 - xi) + xi * (0.25 + e / 2.0);
        share_near("errors", run.errors(), run.sifted(), error);
        let test: u32 = run.tally.test.iter().sum();
        share_near("errors of the test basis", run.tally.test_errors.iter().sum(), test, error);
        alike("clicks", run.counts.clicks, quiet.counts.clicks);
        alike("brightest", u64::from(run.tally.key[0]), u64::from(quiet.tally.key[0]));
    }
}

/// With weak pulses and a long line Eve keeps the signal's rate; decoys fall behind by 0.0519 instead of 0.2.
#[test]
fn photon_number_splitting_shows_in_the_decoys_only() {
    let link = clear(100.0);
    let quiet = Run::of(&link, None, 20.0, 35);
    let run = Run::of(&link, Some("photon-number-splitting"), 20.0, 36);
    alike("brightest", u64::from(run.tally.key[0]), u64::from(quiet.tally.key[0]));
    share_near("errors", run.errors(), run.sifted(), link.hardware.misalignment);
    // p_2 Q_2 / (p_1 Q_1) with probabilities 0.4 and 0.5.
    let ratio = 0.0519 * 0.4 / 0.5;
    let [bright, weak, _] = run.tally.key;
    share_near("weaker", weak, bright + weak, ratio / (1.0 + ratio));
    assert_eq!(run.counts.doubles, 0);
}

/// On a short line with weak pulses too few have two photons: the rate falls to that of all of them.
#[test]
#[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
fn photon_number_splitting_cannot_keep_a_short_line_busy() {
    let mut link = clear(20.0);
    link.decoy.intensities = [0.1, 0.02, 1e-3];
    let run = Run::of(&link, Some("photon-number-splitting"), 0.5, 37);
    let p_multi = |mu: f64| 1.0 - (1.0 + mu) * (-mu).exp();
    let mean: f64 = link.decoy.intensities.iter().zip(link.decoy.probabilities).map(|(mu, p)| p * p_multi(*mu)).sum();
    near("clicks", run.counts.clicks as f64, mean * link.hardware.efficiency * 5e7);
}

#[test]
fn blinding_is_silent_but_draws_current() {
    let mut link = clear(60.0);
    link.hardware.dark_count_hz = 1e4;
    link.hardware.afterpulse = 0.02;
    let mut plain = link.clone();
    plain.hardware.dark_count_hz = 0.0;
    plain.hardware.afterpulse = 0.0;
    let quiet = Run::of(&plain, None, 1.0, 38);
    let half = Run::of(&link, Some("blinding"), 1.0, 39);
    let whole = Run::of(&link, Some("blinding:continuous:compensated"), 1.0, 40);
    alike("half the clicks", half.counts.clicks * 2, quiet.counts.clicks);
    alike("all clicks", whole.counts.clicks, quiet.counts.clicks);
    for run in [half, whole] {
        assert_eq!(run.counts.doubles, 0);
        assert_eq!(run.errors(), 0);
        assert_eq!(run.counts.faked, run.counts.clicks);
        assert_eq!(run.counts.dark + run.counts.afterpulse, 0);
        let unlike = run.tally.mismatched;
        share_near("errors in unlike bases", run.tally.mismatched_errors, unlike, 0.5);
        assert!(run.reading.photocurrent_ua >= 50.0);
    }
    assert!(quiet.counts.doubles > 20);
    assert!(quiet.reading.photocurrent_ua < 1.0);
}

#[test]
fn pulsed_blinding_shows_in_fast_sampling_only() {
    let link = link(50.0);
    let (_, mut channel) = channel_of(&link, 41);
    channel.set_attack(Some("blinding:pulsed:compensated:20".parse().unwrap()));
    let mut out = Vec::new();
    let (mut dark, mut lit) = (0, 0);
    // Readings of 100 microseconds: one in ten has a pulse.
    for step in 1..=1_000 {
        channel.run_until(Slot(step * 90_000), &mut out);
        let reading = channel.take_reading();
        assert_eq!(reading.slots, 90_000);
        if reading.photocurrent_ua >= 20.0 {
            lit += 1
        } else {
            dark += 1
        }
        assert!(reading.photocurrent_ua >= 20.0 || reading.photocurrent_ua < 1.0);
    }
    assert_eq!((lit, dark), (100, 900));
    assert!(out.iter().all(|click| !click.double));
}

#[test]
fn time_shift_moves_arrivals_and_the_balance_of_bits() {
    let mut link = clear(60.0);
    link.hardware.jitter_ps = 80.0;
    let parts = |run: &Run| -> [u32; 8] {
        core::array::from_fn(|part| run.reading.arrivals[0][part] + run.reading.arrivals[1][part])
    };
    let quiet = Run::of(&link, None, 0.5, 42);
    let (left, right): (u32, u32) = (parts(&quiet)[..4].iter().sum(), parts(&quiet)[4..].iter().sum());
    share_near("late half", right, left + right, 0.5);
    let late = Run::of(&link, Some("time-shift:250:0:1.5"), 0.5, 43);
    // The part of the gate at 250 ps behind its middle of 1,000 ps begins there: half is before, half after.
    let [.., sixth, seventh, _] = parts(&late);
    assert!(sixth > parts(&late)[4] && seventh > parts(&late)[4]);
    let ones: u32 = late.reading.arrivals[1].iter().sum();
    share_near("ones", ones, late.reading.arrivals.as_flattened().iter().sum(), 0.6);
    let both = Run::of(&link, Some("time-shift:250:0.5:1.5"), 0.5, 44);
    let counts = parts(&both);
    let (early, later): (u32, u32) = (counts[..4].iter().sum(), counts[4..].iter().sum());
    share_near("late half", later, early + later, 0.5);
    assert!(counts[3] + counts[4] < counts[1] + counts[2]);
    let ones: u32 = both.reading.arrivals[1].iter().sum();
    share_near("ones", ones, both.reading.arrivals.as_flattened().iter().sum(), 0.5);
    // The better detector finds more of the right photons as of the wrong ones.
    share_near("errors", late.errors(), late.sifted(), link.hardware.misalignment);
}

/// Light into the transmitter changes no record at the receiver.
#[test]
fn trojan_light_shows_at_the_transmitter_only() {
    let link = link(50.0);
    let (_, mut quiet) = channel_of(&link, 45);
    let (_, mut spied) = channel_of(&link, 45);
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let [first, second, third] = [0.2, 0.4, 0.6].map(|seconds| after(&link, seconds));
    quiet.run_until(third, &mut a);
    spied.run_until(first, &mut b);
    let calm = spied.take_transmitter_reading();
    assert!(calm.incoming_nw > 0.0 && calm.incoming_nw < 1.0 && calm.slots == first.0);
    spied.set_attack(Some("trojan-light:5000".parse().unwrap()));
    spied.run_until(second, &mut b);
    spied.set_attack(None);
    spied.run_until(third, &mut b);
    let seen = spied.take_transmitter_reading();
    assert!(seen.incoming_nw >= 5_000.0 && seen.slots == third.0 - first.0);
    assert!(a == b);
    assert_eq!(quiet.take_reading(), spied.take_reading());
}

#[test]
#[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
fn a_cut_leaves_dark_counts_and_a_flood_errors() {
    let mut link = link(120.0);
    link.hardware.afterpulse = 0.0;
    let cut = Run::of(&link, Some("cut"), 20.0, 46);
    near("clicks", cut.counts.clicks as f64, 2.0 * 50.0 * 1e-9 * 900e6 * 20.0 * cut.counts.live_fraction());
    assert_eq!(cut.counts.dark, cut.counts.clicks);
    let flood = Run::of(&link, Some("flood:0.1"), 2.0, 47);
    assert!(flood.counts.clicks > 30_000);
    assert!(f64::from(flood.errors()) > 0.45 * f64::from(flood.sifted()));
    assert!(flood.counts.flood * 10 > flood.counts.clicks * 9);
    assert!(flood.incoming_nw < 1.0);
}

/// An attack begins and ends at a slot; before and after, the line is as it was.
#[test]
fn attacks_are_switched_in_the_middle_of_a_session() {
    let link = clear(60.0);
    let (alice, mut channel) = channel_of(&link, 48);
    let mut clicks = Vec::new();
    for (seconds, attack) in [(0.2, Some("intercept-resend")), (0.4, None), (0.6, None)] {
        channel.run_until(after(&link, seconds), &mut clicks);
        channel.set_attack(attack.map(|attack| attack.parse().unwrap()));
    }
    let e = link.hardware.misalignment;
    for (from, until, error) in [(0.0, 0.2, e), (0.2, 0.4, 0.25 + e / 2.0), (0.4, 0.6, e)] {
        let part: Vec<_> = clicks
            .iter()
            .filter(|click| click.slot >= after(&link, from) && click.slot < after(&link, until))
            .copied()
            .collect();
        let tally = Tally::of(&alice, &part);
        share_near("errors", tally.key_errors.iter().sum(), tally.key.iter().sum(), error);
    }
}

/// What Eve knows of the sifted bits after a run: right guesses, wrong ones, none.
fn knowledge(link: &Link, attack: &str, seconds: f64, seed: u8) -> [u32; 3] {
    let (alice, mut channel) = channel_of(link, seed);
    channel.set_attack(Some(attack.parse().unwrap()));
    let mut clicks = Vec::new();
    channel.run_until(after(link, seconds), &mut clicks);
    let mut notes = channel.take_eve_notes().into_iter().peekable();
    let mut knowledge = [0; 3];
    for click in clicks {
        let note = notes.next_if(|note| note.slot == click.slot);
        let sent = alice.prepare(click.slot);
        if sent.basis == click.basis {
            let guess = note.and_then(|note| note.guess(click.basis));
            knowledge[guess.map_or(2, |bit| usize::from(bit != sent.bit))] += 1;
        }
    }
    assert!(notes.next().is_none());
    knowledge
}

#[test]
fn eve_knows_what_physics_lets_her_know() {
    let link = clear(60.0);
    // Half of her bases are right, and then so is her bit.
    let [right, wrong, none] = knowledge(&link, "intercept-resend", 0.1, 49);
    assert_eq!(wrong, 0);
    share_near("known", right, right + none, 0.5);
    let [right, wrong, none] = knowledge(&link, "intercept-resend:0.4", 0.1, 50);
    assert_eq!(wrong, 0);
    share_near("known", right, right + none, 0.2);
    for attack in ["photon-number-splitting", "blinding", "trojan-light"] {
        let [right, wrong, none] = knowledge(&link, attack, 0.1, 51);
        assert!(right > 1_000 && wrong == 0 && none == 0, "{attack}: {right}, {wrong}, {none}");
    }
    // Errors of the line are hers too: the better detector has 0.6 of the clicks.
    let [right, wrong, none] = knowledge(&link, "time-shift:250:0.5:1.5", 0.1, 52);
    assert_eq!(none, 0);
    share_near("right", right, right + wrong, 0.6 * 0.98 + 0.4 * 0.02);
    for attack in ["cut", "flood"] {
        let [right, wrong, _] = knowledge(&link, attack, 0.01, 53);
        assert_eq!(right + wrong, 0, "{attack}");
    }
}

/// Two photons of one slot were one pulse: Eve measured it once.
#[test]
fn eve_treats_a_pulse_as_one() {
    let mut link = clear(0.0);
    link.hardware.misalignment = 0.0;
    link.decoy.intensities = [2.0, 0.1, 1e-3];
    let run = Run::of(&link, Some("intercept-resend"), 0.02, 54);
    // A double click needs Bob's basis not to be Eve's, which it is not in half of all slots. A fifth of the photons is
    // found, and each detector gets half.
    let sent = link.decoy.intensities.iter().zip(link.decoy.probabilities);
    let all: f64 = sent.map(|(mu, p)| p * (1.0 - (-0.1 * mu).exp()).powi(2) * 0.5).sum();
    #[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
    near("doubles", run.counts.doubles as f64, all * 2e6);
}
