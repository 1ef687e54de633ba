//! One link without processes: photons, both protocol ends, disks in memory and a wire that loses nothing.
//!
//! For statistics over many blocks. Where processes, crashes or a hostile wire matter, tests use those.

use std::collections::VecDeque;
use std::time::Duration;

use crypto::record::Change;
use crypto::secret::SecretBytes;
use link::{Alarm, BlockRecord, Input, LinkConfig, LinkEnd, Output};
use optics::{Attack, Channel, Source};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use types::network::{Link, Security};
use types::quantum::{Role, Slot};
use types::units::Time;

use crate::photons::seed_of;

/// A link at work.
pub struct Line {
    ends: [End; 2],
    channel: Channel,
    alarms: Vec<Alarm>,
    now: Time,
    rng: ChaCha20Rng,
}

/// What one end has filed.
pub struct Filed {
    /// The key.
    pub key: SecretBytes,
    /// How it came about.
    pub record: BlockRecord,
}

struct End {
    core: LinkEnd,
    inbox: VecDeque<Vec<u8>>,
    filed: VecDeque<Filed>,
    aborted: Vec<BlockRecord>,
}

impl Line {
    /// A link with light, chances and protocol randomness from this seed.
    ///
    /// # Errors
    /// If the link's block size is none that a link end takes.
    pub fn new(link: &Link, security: Security, seed: u64) -> Result<Self, link::Error> {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let initial = SecretBytes::random(link::authenticate::PROVISION_MIN, &mut rng);
        let source = Source::new(&link.decoy, seed_of(seed, 1));
        let channel = Channel::new(link, source.emission(), seed_of(seed, 2));
        let end = |role| -> Result<End, link::Error> {
            let config = LinkConfig {
                link: link.id.clone(),
                role,
                decoy: link.decoy.clone(),
                security,
                proof: link.proof,
                beyond_one_way: link.beyond_one_way,
                reconciliation: link.reconciliation,
                peer_timeout: Duration::from_secs(60),
            };
            let records = LinkEnd::provision(&link.id, &initial)?.into_iter().filter_map(Change::into_put).collect();
            let core = LinkEnd::restore(config, records)?;
            Ok(End { core, inbox: VecDeque::new(), filed: VecDeque::new(), aborted: Vec::new() })
        };
        let ends = [end(Role::Alice)?, end(Role::Bob)?];
        let mut line = Self { ends, channel, alarms: Vec::new(), now: Time::ZERO, rng };
        line.input(0, Input::Connected)?;
        line.input(1, Input::Connected)?;
        line.input(
            0,
            Input::Transmitting { session: 1, source: Box::new(move |slots: &[Slot]| source.prepare_all(slots)) },
        )?;
        line.input(1, Input::Receiving { session: 1 })?;
        line.settle()?;
        Ok(line)
    }

    /// Lets an eavesdropper do this from here on; `None` ends it.
    pub fn attack(&mut self, attack: Option<Attack>) {
        self.channel.set_attack(attack);
    }

    /// Alarms of both ends so far.
    #[must_use]
    pub fn alarms(&self) -> &[Alarm] {
        &self.alarms
    }

    /// Lets the light shine for so many slots more and both ends do all that follows from it.
    ///
    /// # Errors
    /// None on a wire that changes nothing; a test that sees one has found a fault.
    pub fn shine(&mut self, slots: u64) -> Result<(), link::Error> {
        let mut clicks = Vec::new();
        let end = Slot(self.channel.position().0.saturating_add(slots));
        self.channel.run_until(end, &mut clicks);
        let transmitter = self.channel.take_transmitter_reading();
        let receiver = self.channel.take_reading();
        self.input(0, Input::TransmitterReading(transmitter))?;
        self.input(1, Input::ReceiverReading(receiver))?;
        self.input(1, Input::Detections(clicks))?;
        self.settle()
    }

    /// Takes the next block that both ends have filed, Alice's and Bob's.
    pub fn take(&mut self) -> Option<[Filed; 2]> {
        let [alice, bob] = &mut self.ends;
        if alice.filed.is_empty() || bob.filed.is_empty() {
            return None;
        }
        Some([alice.filed.pop_front()?, bob.filed.pop_front()?])
    }

    /// Blocks that Bob gave up.
    #[must_use]
    pub fn aborted(&self) -> &[BlockRecord] {
        &self.ends[1].aborted
    }

    /// Time passes without light.
    ///
    /// # Errors
    /// As [`Line::shine`].
    pub fn pause(&mut self, time: Duration) -> Result<(), link::Error> {
        self.now = self.now.after(time);
        for end in &mut self.ends {
            end.core.handle_timeout(self.now)?;
        }
        self.settle()
    }

    fn settle(&mut self) -> Result<(), link::Error> {
        loop {
            let mut moved = false;
            for at in 0..2 {
                while let Some(output) = self.ends[at].core.poll_output() {
                    moved = true;
                    self.act(at, output)?;
                }
                if let Some(wire) = self.ends[at].inbox.pop_front() {
                    moved = true;
                    self.input(at, Input::Message(wire))?;
                }
            }
            if !moved {
                return Ok(());
            }
        }
    }

    fn act(&mut self, at: usize, output: Output) -> Result<(), link::Error> {
        match output {
            Output::Send(wire) => self.ends[1 - at].inbox.push_back(wire),
            // Nothing is ever read back from these disks.
            Output::Persist { seq, .. } => self.input(at, Input::Durable(seq))?,
            Output::Block(block) => {
                let seq = block.seq;
                self.ends[at].filed.push_back(Filed { key: block.key, record: block.record });
                self.input(at, Input::Filed(seq))?;
            }
            Output::Aborted(record) => self.ends[at].aborted.push(*record),
            Output::Alarm(alarm) => self.alarms.push(alarm),
            Output::Progress(_) => {}
        }
        Ok(())
    }

    fn input(&mut self, at: usize, input: Input) -> Result<(), link::Error> {
        self.ends[at].core.handle_input(self.now, input, &mut self.rng)
    }
}

#[cfg(test)]
mod tests {
    use types::network::{Network, Reconciliation};

    use super::*;

    /// A short link with fast detectors: blocks in tenths of a second of light.
    fn short() -> (Link, Security) {
        let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../networks/shanxi.toml"));
        let network = Network::parse(text).unwrap();
        let mut link = network.links().values().find(|link| link.length.0 == 50.0).unwrap().clone();
        link.length.0 = 20.0;
        link.hardware.dead_time_us = 0.05;
        link.hardware.misalignment = 0.01;
        link.decoy.intensities = [0.45, 0.2, 0.0002];
        link.decoy.probabilities = [0.4, 0.4, 0.2];
        link.decoy.key_basis = 0.75;
        link.decoy.block_bits = 400_000;
        (link, network.security())
    }

    /// Every attacker is named, none leaves key, and the link comes back when he has gone.
    #[test]
    fn attackers_are_named_and_leave_no_key() {
        use link::Suspicion;
        let (mut link, security) = short();
        link.decoy.block_bits = 300_000;
        let attacks = [
            ("intercept-resend:0.5", Suspicion::InterceptResend),
            ("photon-number-splitting", Suspicion::PhotonNumberSplitting),
            ("blinding", Suspicion::Blinding),
            ("blinding:pulsed:compensated", Suspicion::Blinding),
            ("time-shift:350", Suspicion::TimeShift),
            ("trojan-light", Suspicion::TrojanLight),
            ("cut", Suspicion::Denial),
            ("flood", Suspicion::Denial),
        ];
        for (attack, suspicion) in attacks {
            let mut line = Line::new(&link, security, 6).unwrap();
            // What is usual on this line.
            blocks(&mut line, 1);
            assert!(line.alarms().is_empty(), "{attack}: {:?}", line.alarms());
            // The block that fills may hold bits from before; it is decided first.
            line.attack(Some(attack.parse().unwrap()));
            line.shine(60_000_000).unwrap();
            let named = |line: &Line| line.alarms().iter().any(|alarm| alarm.suspicion == suspicion);
            if suspicion.stops_key() || attack == "cut" {
                assert!(named(&line), "{attack} within a fifteenth of a second: {:?}", line.alarms());
            }
            let _of_before = core::iter::from_fn(|| line.take()).count();
            (0..6).for_each(|_| line.shine(20_000_000).unwrap());
            assert_eq!(core::iter::from_fn(|| line.take()).count(), 0, "{attack} left key");
            assert!(named(&line), "{attack}: {:?}", line.alarms());
            line.attack(None);
            line.shine(1_000).unwrap();
            line.pause(Duration::from_secs(2)).unwrap();
            blocks(&mut line, 1);
        }
    }

    /// Lets the light shine until so many blocks are filed.
    fn blocks(line: &mut Line, count: usize) {
        let mut filed = 0;
        for _ in 0..40 {
            line.shine(10_000_000).unwrap();
            filed += core::iter::from_fn(|| line.take()).count();
            if filed >= count {
                return;
            }
        }
        panic!("{filed} of {count} blocks");
    }

    #[test]
    fn photons_become_the_same_key_at_both_ends() {
        let (mut link, security) = short();
        for reconciliation in [Reconciliation::Cascade, Reconciliation::Ldpc] {
            link.reconciliation = reconciliation;
            let mut line = Line::new(&link, security, 5).unwrap();
            let mut blocks = 0;
            while blocks < 3 {
                line.shine(20_000_000).unwrap();
                assert!(line.aborted().is_empty(), "{:?}", line.aborted());
                while let Some([alice, bob]) = line.take() {
                    blocks += 1;
                    assert_eq!(alice.record, bob.record);
                    let [ours, theirs] = [alice.key, bob.key].map(|key| key.into_public("test bytes"));
                    assert!(ours == theirs && ours.len() > 2_000);
                    assert!(alice.record.efficiency().unwrap() < 1.25, "{:?}", alice.record);
                }
            }
        }
    }
}
