//! The photon Monte Carlo of a link beside its analytic model: every count that the ends could compare, with its
//! distance in standard deviations.
//!
//! A count of rare independent events has the variance of its mean. The dead time makes clicks more regular than that,
//! so the distances of saturated links are a little too small, never too large.

use optics::model::{Afterpulses, Expected};
use optics::{Attack, Channel, ChannelCounts, Source};
use types::network::Link;
use types::quantum::{Basis, Detection, Intensity, Slot};

/// One link under simulation.
pub struct Photons {
    alice: Source,
    channel: Channel,
    link: Link,
    key: [u64; Intensity::COUNT],
    key_errors: [u64; Intensity::COUNT],
    test: [u64; Intensity::COUNT],
    test_errors: [u64; Intensity::COUNT],
    clicks: Vec<Detection>,
}

/// One count beside what the model expects.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// Which count, for example `n_X,1` for detections of the brightest intensity with both ends in the key basis.
    pub name: String,
    /// What the model expects.
    pub expected: f64,
    /// What the simulation counted.
    pub counted: f64,
    /// Their distance in standard deviations.
    pub sigmas: f64,
}

impl Photons {
    /// A link with the light and the chances of this seed, and an eavesdropper if there is one.
    #[must_use]
    pub fn new(link: &Link, seed: u64, attack: Option<Attack>) -> Self {
        let alice = Source::new(&link.decoy, seed_of(seed, 1));
        let mut channel = Channel::new(link, alice.emission(), seed_of(seed, 2));
        channel.set_attack(attack);
        let none = [0; Intensity::COUNT];
        let link = link.clone();
        Self { alice, channel, link, key: none, key_errors: none, test: none, test_errors: none, clicks: Vec::new() }
    }

    /// Lets the light shine for so many slots more.
    pub fn shine(&mut self, slots: u64) {
        self.clicks.clear();
        let end = self.channel.position().0.saturating_add(slots);
        self.channel.run_until(Slot(end), &mut self.clicks);
        for click in &self.clicks {
            let sent = self.alice.prepare(click.slot);
            let (k, wrong) = (sent.intensity.index(), u64::from(sent.bit != click.bit));
            match (sent.basis, click.basis) {
                (Basis::Key, Basis::Key) => {
                    self.key[k] += 1;
                    self.key_errors[k] += wrong;
                }
                (Basis::Test, Basis::Test) => {
                    self.test[k] += 1;
                    self.test_errors[k] += wrong;
                }
                _ => {}
            }
        }
    }

    /// What happened in the channel so far.
    #[must_use]
    pub fn counts(&self) -> ChannelCounts {
        self.channel.counts()
    }

    /// Error rate of the key basis so far.
    #[must_use]
    pub fn qber(&self) -> f64 {
        real(self.key_errors.iter().sum()) / real(self.key.iter().sum::<u64>().max(1))
    }

    /// Every count so far beside the model's.
    #[must_use]
    pub fn compare(&self) -> Vec<Compared> {
        let expected = Expected::of(&self.link, &self.link.decoy, Afterpulses::Later);
        let counts = self.channel.counts();
        let seconds = real(counts.slots) / self.link.hardware.clock_hz;
        let mut rows = vec![
            compared("clicks".to_owned(), expected.clicks_per_s * seconds, real(counts.clicks)),
            compared("double clicks".to_owned(), expected.doubles_per_s * seconds, real(counts.doubles)),
            blanked(&expected, &counts, &self.link, seconds),
        ];
        let sent = self.link.decoy.probabilities.iter().filter(|p| **p > 0.0).count();
        let kinds = [
            ("n_X", &expected.key_per_s, &self.key),
            ("m_X", &expected.key_errors_per_s, &self.key_errors),
            ("n_Z", &expected.test_per_s, &self.test),
            ("m_Z", &expected.test_errors_per_s, &self.test_errors),
        ];
        for (name, per_s, counted) in kinds {
            for k in 0..sent {
                rows.push(compared(format!("{name},{}", k + 1), per_s[k] * seconds, real(counted[k])));
            }
        }
        rows
    }
}

/// A seed of its own for each actor.
pub(crate) fn seed_of(seed: u64, actor: u8) -> [u8; 32] {
    let mut bytes = [actor; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    bytes
}

fn compared(name: String, expected: f64, counted: f64) -> Compared {
    Compared { name, expected, counted, sigmas: (counted - expected) / expected.max(1.0).sqrt() }
}

/// The blanked time is the clicks' number times the dead time, so it deviates with their number.
fn blanked(expected: &Expected, counts: &ChannelCounts, link: &Link, seconds: f64) -> Compared {
    let share = 1.0 - expected.live_fraction;
    let counted = 1.0 - counts.live_fraction();
    let clicks = (expected.clicks_per_s * seconds).max(1.0);
    let sigma = (share / clicks.sqrt()).max(1.0 / real(counts.slots.max(1)));
    let name = format!("blanked share of time ({} us dead time)", link.hardware.dead_time_us);
    Compared { name, expected: share, counted, sigmas: (counted - share) / sigma }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_holds_and_an_attacker_shows() {
        let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../networks/shanxi.toml"));
        let network = types::network::Network::parse(text).unwrap();
        for link in network.links().values() {
            let mut quiet = Photons::new(link, 3, None);
            (0..3).for_each(|_| quiet.shine(900_000_000));
            let rows = quiet.compare();
            assert_eq!(rows.len(), 3 + 4 * 3);
            for row in rows {
                assert!(row.sigmas.abs() < 4.5, "{} at {} km: {row:?}", row.name, link.length.0);
            }
        }
        let link = network.links().values().next().unwrap();
        let mut attacked = Photons::new(link, 3, Some("intercept-resend:0.5".parse().unwrap()));
        attacked.shine(2_700_000_000);
        assert!(attacked.qber() > 0.13, "{}", attacked.qber());
        assert!(attacked.compare().iter().any(|row| row.sigmas > 10.0));
    }
}
