//! Figures of the quantum layer.

use crypto::domain::Domain;
use crypto::secret::SecretBytes;
use crypto::tag::{TagHashKey, TagPad};
use link::amplify::{Toeplitz, seed_len};
use link::bits::Bits;
use link::reconcile::choice::Method;
use link::reconcile::{Answers, Correction};
use optics::{Channel, ChannelCounts, Source};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use sim::line::Line;
use types::network::{Link, Network};
use types::quantum::Slot;
use types::units::Kilometres;

use super::processor::timed;
use super::{Better, Effort, Row, end, median};
use crate::failure::{Context as _, Outcome};

/// Measures the whole group.
///
/// # Errors
/// If this program cannot start itself.
pub fn link(effort: Effort) -> Outcome<Vec<Row>> {
    let text = include_str!("../../../../networks/shanxi.toml");
    let network = Network::parse(text).context(|| "the reference network".to_owned())?;
    let mut rows = optics(&network, effort);
    rows.extend(cascade(effort));
    rows.extend(codes(effort));
    rows.extend(amplification(effort));
    rows.push(tags(effort));
    rows.push(share_of_tags(&network, effort));
    rows.push(end_to_end(effort));
    rows.push(real_time(&network, effort));
    Ok(rows)
}

fn optics(network: &Network, effort: Effort) -> Vec<Row> {
    let shortest = network.links().values().min_by(|a, b| a.length.0.total_cmp(&b.length.0));
    let shortest = shortest.expect("the reference network has links");
    let rounds = effort.of(5, 1);
    let per_s = |link: &Link, slots: u64, what: fn(&ChannelCounts) -> u64| {
        let round = |_| {
            let (counts, seconds) = shine(link, slots);
            what(&counts) as f64 / seconds
        };
        median((0..rounds).map(round).collect())
    };
    let points = per_s(shortest, 900_000_000 * effort.of(20, 1) as u64, |counts| counts.points);
    let pulses = per_s(&open_line(), 1_000_000_000 * effort.of(5, 1) as u64, |counts| counts.slots);
    vec![
        Row::at_least(
            "optics.events_per_s",
            points,
            "events/s",
            20e6,
            "possible detections of the 50 km reference link, all effects of its hardware, median of rounds",
        ),
        Row::at_least(
            "optics.pulses_per_s",
            pulses,
            "pulses/s",
            1e10,
            "one possible detection in a thousand pulses, no dead time",
        )
        .beside(2.4e5, "SeQUeNCe 0.8.5, two nodes, 100 km"),
    ]
}

/// Lets a link's light shine for so many slots: what happened, and the seconds of processor time.
fn shine(link: &Link, slots: u64) -> (ChannelCounts, f64) {
    let light = Source::new(&link.decoy, [1; 32]).emission();
    let mut channel = Channel::new(link, light, [2; 32]);
    let mut clicks = Vec::new();
    let ((), seconds) = timed(|| channel.run_until(Slot(slots), &mut clicks));
    (channel.counts(), seconds)
}

/// A line where one pulse in a thousand could be detected and no dead time skips any.
fn open_line() -> Link {
    let mut link = end::fast_link();
    link.length = Kilometres(50.0);
    link.hardware.dead_time_us = 0.0;
    link.hardware.efficiency = 1e-3 / (0.1 * link.decoy.intensities[0]);
    link
}

fn random(len: usize, seed: u64) -> Bits {
    let mut bytes = vec![0; len.div_ceil(8)];
    ChaCha20Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    Bits::from_bytes(&bytes, len).expect("as many bytes as the bits need")
}

/// A copy with independent errors.
fn with_errors(key: &Bits, percent: u32, seed: u64) -> Bits {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let bound = f64::from(percent) / 100.0 * f64::from(u32::MAX);
    (0..key.len()).map(|at| key.get(at) ^ (f64::from(rng.next_u32()) < bound)).collect()
}

/// One block corrected: disclosed bits, round trips, seconds of both roles, whether it came out right.
struct Corrected {
    disclosed: u64,
    rounds: usize,
    seconds: f64,
    right: bool,
}

fn cascade(effort: Effort) -> Vec<Row> {
    let anchors = [(1, 1.058, 7.0), (3, 1.062, 5.2), (5, 1.065, 5.0), (8, 1.091, 3.8), (11, 1.088, 3.9)];
    let bars = [1.06, 1.065, 1.065, 1.09, 1.09];
    let mut rows = Vec::new();
    let mut most_rounds = 0;
    for ((percent, f_anchor, speed_anchor), bar) in anchors.into_iter().zip(bars) {
        let blocks: Vec<Corrected> =
            (0..effort.of(20, 1) as u64).map(|seed| reconcile(Method::Cascade, CASCADE_BITS, percent, seed)).collect();
        most_rounds = most_rounds.max(blocks.iter().map(|block| block.rounds).max().unwrap_or_default());
        let (f, mbit_s, failed) = figures(&blocks, CASCADE_BITS, f64::from(percent));
        let how = format!("{} blocks of 1e5 bits, both roles, error rate known, {failed} wrong", blocks.len());
        let source = "cascade-cpp 8240cab, yanetal, parity messages only";
        rows.push(Row::at_most(&format!("cascade.q{percent:02}.f"), f, "", bar, how.clone()).beside(f_anchor, source));
        let name = format!("cascade.q{percent:02}.mbit_s");
        rows.push(Row::at_least(&name, mbit_s, "Mbit/s", 10.0, how).beside(speed_anchor, source));
    }
    let how = "most of any block above";
    rows.push(
        Row::at_most("cascade.round_trips", most_rounds as f64, "", 250.0, how)
            .beside(241.0, "cascade-cpp, yanetal, 1 %"),
    );
    rows
}

/// Corrects a key of so many bits, both roles in turn, knowing the error rate.
fn reconcile(method: Method, bits: usize, percent: u32, seed: u64) -> Corrected {
    let alice = random(bits, 100 + seed);
    let bob = with_errors(&alice, percent, 200 + seed);
    let ppm = percent * 10_000;
    // Codes are built once in a process; that is not the block's time.
    drop(Correction::by(method, &bob, [7; 32], ppm).question());
    let mut rounds = 0;
    let ((corrected, disclosed), seconds) = timed(|| {
        let mut answers = Answers::new(&alice, [7; 32]);
        let mut correction = Correction::by(method, &bob, [7; 32], ppm);
        while let Ok(Some(question)) = correction.question() {
            rounds += 1;
            let Ok(answer) = answers.answer(&question) else { break };
            if correction.take(&answer).is_err() {
                break;
            }
        }
        (correction.finish(), answers.disclosed())
    });
    Corrected { disclosed, rounds, seconds, right: corrected == alice }
}

/// Efficiency, Mbit/s, blocks that came out wrong.
fn figures(blocks: &[Corrected], bits: usize, percent: f64) -> (f64, f64, usize) {
    let total = (blocks.len() * bits) as f64;
    let disclosed: u64 = blocks.iter().map(|block| block.disclosed).sum();
    let seconds: f64 = blocks.iter().map(|block| block.seconds).sum();
    let f = disclosed as f64 / (total * link::proof::binary_entropy(percent / 100.0));
    (f, total / seconds / 1e6, blocks.iter().filter(|block| !block.right).count())
}

/// At 5 % against the bars, at the other rates to see: codes lose more where errors are few.
fn codes(effort: Effort) -> Vec<Row> {
    let long = Codes { method: Method::LdpcLong, name: "ldpc.long", bits: 819_200, frames: effort.of(3, 1) };
    let short = Codes { method: Method::LdpcShort, name: "ldpc.short", bits: 25_600, frames: effort.of(60, 2) };
    let mut rows = long.against([1.10, 1.0, 2.0], 0.019, "LDPC4QKD fbbc6f5, both roles of flooding in f64");
    rows.extend(short.against([1.16, 5.0, 4.0], 2.7, "AFF3CT v3.0.2, layered SPA, decoder alone"));
    for percent in [1, 3, 11] {
        rows.push(long.seen(percent));
        rows.push(short.seen(percent));
    }
    rows
}

/// One size of codes under measurement.
struct Codes {
    method: Method,
    name: &'static str,
    bits: usize,
    frames: usize,
}

impl Codes {
    /// Efficiency, failed frames, Mbit/s of both roles at this error rate.
    fn measure(&self, percent: u32) -> (f64, f64, f64, String) {
        let blocks: Vec<_> =
            (0..self.frames as u64).map(|seed| reconcile(self.method, self.bits, percent, 200 + seed)).collect();
        let (f, mbit_s, failed) = figures(&blocks, self.bits, f64::from(percent));
        let how = format!(
            "{} frames of {} bits at {percent} %, both roles, blind mode, every attempt charged",
            self.frames, self.bits
        );
        (f, 100.0 * failed as f64 / self.frames as f64, mbit_s, how)
    }

    fn against(&self, [f_bar, fer_bar, speed_bar]: [f64; 3], anchor: f64, source: &'static str) -> Vec<Row> {
        let (f, fer, mbit_s, how) = self.measure(5);
        let name = |what| format!("{}.{what}", self.name);
        vec![
            Row::at_most(&name("f"), f, "", f_bar, how.clone()).beside(1.08, "LDPC4QKD fbbc6f5, fixed rate at 4.8 %"),
            Row::at_most(&name("fer"), fer, "%", fer_bar, how.clone()),
            Row::at_least(&name("mbit_s"), mbit_s, "Mbit/s", speed_bar, how).beside(anchor, source),
        ]
    }

    fn seen(&self, percent: u32) -> Row {
        let (f, _, mbit_s, how) = self.measure(percent);
        let name = format!("{}.q{percent:02}.f", self.name);
        Row::without_bar(&name, f, "", Better::Lower, format!("{how}; {mbit_s:.1} Mbit/s"))
    }
}

fn amplification(effort: Effort) -> Vec<Row> {
    let cases = [("pa.64k.mbit_s", 1 << 16, 1_000.0, 75.0), ("pa.1m.mbit_s", 1 << 20, 200.0, 36.0)];
    let measure = |(name, n, bar, anchor): (&str, usize, f64, f64)| {
        let (key, seed) = (random(n, 1), random(seed_len(n, n), 2));
        let repeat = effort.of((1 << 24) / n, 1);
        let amplifier = Toeplitz::new(&seed, n, n);
        let round = || {
            let ((), seconds) = timed(|| (0..repeat).for_each(|_| drop(std::hint::black_box(amplifier.hash(&key)))));
            (n * repeat) as f64 / seconds / 1e6
        };
        let speed = median((0..effort.of(5, 1)).map(|_| round()).collect());
        Row::at_least(name, speed, "Mbit/s", bar, format!("{n} bits to {n} bits, seed prepared once, median of rounds"))
            .beside(anchor, "realfft 3.5, f64, seed FFT cached")
    };
    cases.into_iter().map(measure).collect()
}

fn tags(effort: Effort) -> Row {
    let message = vec![7; 1 << 20];
    let key = TagHashKey::new(SecretBytes::copy_of(&[3; TagHashKey::LEN])).expect("a hash key's length");
    let repeat = effort.of(500, 2);
    let round = || {
        let ((), seconds) = timed(|| {
            for _ in 0..repeat {
                let pad = TagPad::new(SecretBytes::copy_of(&[4; TagPad::LEN])).expect("a pad's length");
                let mut hasher = key.hasher(Domain::LinkTranscript);
                hasher.update(&message);
                std::hint::black_box(hasher.tag(pad));
            }
        });
        (message.len() * repeat) as f64 / seconds / 1e9
    };
    let speed = median((0..effort.of(5, 1)).map(|_| round()).collect());
    Row::at_least("mac.gb_s", speed, "GB/s", 3.0, "Wegman-Carter tags over messages of 1 MiB, median of rounds")
        .beside(3.4, "RustCrypto polyval")
}

/// What authentication takes of the key, in steady state.
fn share_of_tags(network: &Network, effort: Effort) -> Row {
    let (name, how) = ("link.auth_share", "tags of a block over its secret bits, 50 km reference link, photons to key");
    let link = network.links().values().find(|link| link.length.0 == 50.0).expect("the reference network has it");
    let measured = || -> Result<f64, link::Error> {
        let mut line = Line::new(link, network.security(), 9)?;
        let (mut spent, mut secret, mut blocks) = (0, 0, 0);
        while blocks < effort.of(2, 1) {
            line.shine(900_000_000)?;
            while let Some([alice, _]) = line.take() {
                blocks += 1;
                spent += alice.record.spent.0;
                secret += alice.record.secret.0;
            }
        }
        Ok(100.0 * spent as f64 / secret as f64)
    };
    match measured() {
        Ok(share) => Row::at_most(name, share, "%", 0.5, how).beside(0.13, "two 128-bit tags a block of 2e5 bits"),
        Err(error) => Row::missing(name, "%", Better::Lower, 0.5, error.to_string()),
    }
}

fn end_to_end(effort: Effort) -> Row {
    let (name, unit) = ("link.e2e.mbit_s", "Mbit/s");
    match end::measure(effort.of(8, 2)) {
        Ok(run) => Row::at_least(
            name,
            run.sifted as f64 / run.seconds / 1e6,
            unit,
            2.0,
            format!(
                "sifted bits to filed key over TCP, authenticated, {} blocks of 1e6 bits at {:.1} %, wall time; Alice's \
                 process took {:.2} s and Bob's {:.2} s of processor time",
                run.blocks,
                100.0 * run.qber,
                run.alice_cpu_s,
                run.bob_cpu_s
            ),
        ),
        Err(error) => Row::missing(name, unit, Better::Higher, 2.0, error.to_string()),
    }
}

/// Share of a core that the five reference links' light takes in real time.
fn real_time(network: &Network, effort: Effort) -> Row {
    let seconds = effort.of(10, 1) as u64;
    let cost = |link: &Link| shine(link, 900_000_000 * seconds).1;
    let share = 100.0 * network.links().values().map(cost).sum::<f64>() / seconds as f64;
    let how = format!("photons of all five reference links, {seconds} s of light each, processor time");
    Row::at_most("link.realtime_core_share", share, "%", 10.0, how)
}

const CASCADE_BITS: usize = 100_000;
