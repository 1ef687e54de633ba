//! One end of a link: the state machine around the steps.
//!
//! ```text
//!   Alice                                              Bob
//!     <-> Hello: version, link, settings; Bob names a block whose fate he does not know
//!     Verdict (tag)      ->                               files or drops it
//!                       <-  Sift: slots, bases            until the block is full; then those of the next
//!     SiftAnswer         ->
//!                       <-  TestBits
//!     Estimate: errors, mode, seed ->                     or Abort: no key in these counts
//!                       <-  Kept                          advantage distillation only
//!                       <-  Ask                           reconciliation, round by round
//!     Parities           ->
//!                       <-  Corrected
//!     Verify: hash       ->
//!                       <-  Verified
//!   P Finish: counts, leak, length, seed, tag over all of it ->     checks, amplifies, holds the block
//!                       <-  Confirm: tag over all of it  P
//!   P Verdict: committed (tag) ->                         P files the block
//! ```
//!
//! One block gathers detections while up to [`IN_FLIGHT_MAX`] earlier ones are reconciled; every step names its block.
//! Blocks are finished in their order, one at a time, so that Bob never holds more than one whose fate he does not
//! know. A tag covers all that was said about its block in both directions.
//!
//! `P` marks what is made durable before the message leaves.
//!
//! **Commit.** Alice decides. A block is key when her record of it is durable; what she sends after is only news of
//! that. Bob holds a confirmed block durably until he hears her verdict. A [`Kind::Verdict`](crate::Kind::Verdict)
//! states for all blocks up to one which single one is committed; it never changes once said, so it can be repeated
//! and replayed without harm, and its tag's counter is set aside together with that of the block's `Finish`.
//!
//! **Contract of the shell.** One call of a `handle_…` method, then [`LinkEnd::poll_output`] until `None`, then
//! [`LinkEnd::poll_timeout`]. Changes of [`Output::Persist`] become durable in order and all or nothing; then
//! [`Input::Durable`]. A block of [`Output::Block`] is filed idempotently by its number; then [`Input::Filed`]. After
//! an error the shell closes the connection and, for the first three kinds of [`Error`], opens another.
//! [`Output::Send`] carries one message; the channel keeps order and boundaries.
//!
//! **Provided.** Same bits under the same number at both ends, or at neither, whatever is lost, crashes or is changed
//! on the way. **Not provided.** Progress against somebody who cuts the line.

mod alice;
mod bob;
mod durable;
mod shared;
#[cfg(test)]
mod tests;

use core::time::Duration;

use crypto::record::{Change, Record};
use crypto::secret::SecretBytes;
use rand_core::CryptoRng;
use types::id::{BlockSeq, LinkId};
use types::network::{BeyondOneWay, DecoySettings, Proof, Reconciliation, Security};
use types::quantum::{Detection, ReceiverReading, Role, TransmitterReading};
use types::units::Time;

use self::alice::Alice;
use self::bob::Bob;
use self::shared::Shared;
use crate::authenticate;
use crate::error::Error;
use crate::message::{BLOCK_BITS_MAX, Message};
use crate::record::{AbortCause, BlockRecord};
use crate::sift::Preparations;
use crate::watch::{Alarm, Watch};

/// What both ends of a link must agree on, and the role of this one.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Which link.
    pub link: LinkId,
    /// Which end.
    pub role: Role,
    /// Intensities, probabilities, block size.
    pub decoy: DecoySettings,
    /// Failure probabilities of a block.
    pub security: Security,
    /// Proof that bounds the key.
    pub proof: Proof,
    /// What is tried when one-way post-processing gives no key.
    pub beyond_one_way: BeyondOneWay,
    /// How sifted keys are reconciled.
    pub reconciliation: Reconciliation,
    /// How long an awaited answer may take.
    pub peer_timeout: Duration,
}

/// What happened outside.
pub enum Input {
    /// The classical channel is up.
    Connected,
    /// The classical channel is down.
    Disconnected,
    /// One message from the other end.
    Message(Vec<u8>),
    /// Alice: a quantum session began. Its number is larger than that of any earlier one on this link; slots count
    /// from 0 again.
    Transmitting {
        /// The session's number.
        session: u64,
        /// What is prepared in it.
        source: Box<dyn Preparations>,
    },
    /// Bob: detections from here on belong to this session; what waited of an older one is dropped.
    Receiving {
        /// The session's number.
        session: u64,
    },
    /// Bob: what his watchdogs measured; comes before the detections of the same time.
    ReceiverReading(ReceiverReading),
    /// Alice: what her watchdog measured.
    TransmitterReading(TransmitterReading),
    /// Bob: detections, slots ascending.
    Detections(Vec<Detection>),
    /// All changes up to this [`Output::Persist`] are durable.
    Durable(u64),
    /// This block is filed durably and need not be kept here.
    Filed(BlockSeq),
}

/// What is to happen outside.
#[derive(Debug)]
pub enum Output {
    /// Send this message to the other end.
    Send(Vec<u8>),
    /// Make these changes durable, together and after all earlier ones; then [`Input::Durable`].
    Persist {
        /// Number of this request.
        seq: u64,
        /// The changes.
        changes: Vec<Change>,
    },
    /// File this block; then [`Input::Filed`]. Comes again after a restart until it is filed.
    Block(SecretBlock),
    /// A block was given up; no key of it exists at either end.
    Aborted(Box<BlockRecord>),
    /// Something looks like an attack. Reported once when it arises.
    Alarm(Alarm),
    /// For people: how far the block is.
    Progress(Progress),
}

/// Secret key that both ends hold under the same number.
#[derive(Debug)]
pub struct SecretBlock {
    /// Its number.
    pub seq: BlockSeq,
    /// The key.
    pub key: SecretBytes,
    /// How it came about.
    pub record: BlockRecord,
}

/// How far the link is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Sifted key-basis bits of the block that fills.
    pub sifted: u64,
    /// Bits that make a block.
    pub block_bits: u64,
    /// Blocks in progress, the filling one among them.
    pub in_flight: u64,
    /// Key-basis errors and bits of the last corrected block.
    pub last_errors: Option<(u64, u64)>,
    /// Bob: detections that wait.
    pub queued: u64,
    /// Bob: detections dropped because too many waited.
    pub dropped: u64,
    /// Tags left for this end to send.
    pub tags_left: u64,
}

/// One end of a link; see the crate's documentation for the contract.
pub struct LinkEnd {
    shared: Shared,
    side: Side,
}

enum Side {
    Alice(Box<Alice>),
    Bob(Box<Bob>),
}

impl LinkEnd {
    /// Durable records that a link starts from: the same initial key at both ends, cut into authentication key for
    /// both directions. Used once in a link's life; at most [`authenticate::PROVISION_MAX`] bytes.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] if the key is shorter than [`authenticate::PROVISION_MIN`] bytes or too long.
    pub fn provision(link: &LinkId, initial_key: &SecretBytes) -> Result<Vec<Change>, Error> {
        Self::provision_from(link, initial_key, BlockSeq(0))
    }

    /// As [`LinkEnd::provision`], for a link that begins anew after both ends gave up all they had: its blocks are
    /// numbered from `first` on, far above those before, so that nothing of the two lives can be taken for the other.
    ///
    /// # Errors
    /// As [`LinkEnd::provision`].
    pub fn provision_from(link: &LinkId, initial_key: &SecretBytes, first: BlockSeq) -> Result<Vec<Change>, Error> {
        let (streams, mut changes) = authenticate::provision(link, initial_key)?;
        let marks = streams.map(|stream| stream.marks());
        changes.push(durable::State { next_block: first, marks, ..durable::State::default() }.to_change(link));
        Ok(changes)
    }

    /// An end from its durable records; records of other links and tables are passed over. Blocks that were not
    /// filed yet come out again.
    ///
    /// # Errors
    /// [`Error::Corrupt`], also when the link was never provisioned; [`Error::ApiMisuse`] for a block size beyond
    /// [`BLOCK_BITS_MAX`] or of zero.
    pub fn restore(config: LinkConfig, records: Vec<Record>) -> Result<Self, Error> {
        let bits = usize::try_from(config.decoy.block_bits).unwrap_or(usize::MAX);
        if bits == 0 || bits > BLOCK_BITS_MAX {
            return Err(Error::ApiMisuse { what: "block size" });
        }
        let restored = durable::restore(&config, records)?;
        let role = config.role;
        let mut shared = Shared::new(config, restored.streams, restored.state.next_block);
        for block in restored.committed {
            shared.hand_over(block);
        }
        let side = match role {
            Role::Alice => Side::Alice(Box::new(Alice::new(restored.state.finished, restored.state.committed))),
            Role::Bob => Side::Bob(Box::new(Bob::new(restored.pending))),
        };
        Ok(Self { shared, side })
    }

    /// Whether a durable record belongs to a link, so that a store of several can be sorted.
    #[must_use]
    pub fn owns(link: &LinkId, record: &Record) -> bool {
        record.key.starts_with(&durable::prefix(link))
    }

    /// Takes one input.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn handle_input(&mut self, now: Time, input: Input, rng: &mut impl CryptoRng) -> Result<(), Error> {
        let result = self.input(now, input, rng);
        if let Err(error) = &result {
            let cause = match error {
                Error::PeerMisbehaved(_) | Error::Mismatch { .. } => Some(AbortCause::PeerMisbehaved),
                Error::Exhausted { .. } => Some(AbortCause::ReserveEmpty),
                _ => None,
            };
            if let Some(cause) = cause {
                self.go_offline(cause);
            }
            if let Error::PeerMisbehaved(misbehaviour) = error {
                self.shared.alarm([Watch::tampering(misbehaviour)]);
            }
        }
        result
    }

    /// Time moved on to what [`LinkEnd::poll_timeout`] named, or beyond.
    ///
    /// # Errors
    /// [`Error::PeerSilent`] if an awaited answer is overdue.
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), Error> {
        if let Some(awaited) = self.shared.overdue(now) {
            self.go_offline(AbortCause::PeerSilent);
            return Err(Error::PeerSilent { awaited });
        }
        if let Side::Bob(bob) = &mut self.side {
            bob.advance(&mut self.shared, now);
        }
        Ok(())
    }

    /// The next thing to do outside.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.shared.poll_output()
    }

    /// When [`LinkEnd::handle_timeout`] is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let retry = match &self.side {
            Side::Alice(_) => None,
            Side::Bob(bob) => bob.retry(),
        };
        [self.shared.deadline(), retry].into_iter().flatten().min()
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &LinkConfig {
        &self.shared.config
    }

    /// Tags left to send and to accept.
    #[must_use]
    pub fn tags_left(&self) -> (u64, u64) {
        (self.shared.sending.left(), self.shared.receiving.left())
    }

    fn input(&mut self, now: Time, input: Input, rng: &mut impl CryptoRng) -> Result<(), Error> {
        match input {
            Input::Connected => match &mut self.side {
                Side::Alice(alice) => alice.connect(&mut self.shared, now),
                Side::Bob(bob) => bob.connect(&mut self.shared, now),
            },
            Input::Disconnected => self.go_offline(AbortCause::ConnectionLost),
            Input::Message(wire) => return self.message(now, &wire, rng),
            Input::Durable(seq) => self.shared.durable(seq),
            Input::Filed(block) => self.shared.filed(block),
            Input::Transmitting { session, source } => match &mut self.side {
                Side::Alice(alice) => alice.transmit(session, source),
                Side::Bob(_) => return Err(Error::ApiMisuse { what: "Bob does not transmit" }),
            },
            Input::Receiving { session } => match &mut self.side {
                Side::Bob(bob) => bob.receive(session),
                Side::Alice(_) => return Err(Error::ApiMisuse { what: "Alice does not receive" }),
            },
            Input::ReceiverReading(reading) => match &mut self.side {
                Side::Bob(bob) => bob.read(&mut self.shared, &reading),
                Side::Alice(_) => return Err(Error::ApiMisuse { what: "Alice has no receiver" }),
            },
            Input::TransmitterReading(reading) => match &mut self.side {
                Side::Alice(alice) => alice.read(&mut self.shared, &reading),
                Side::Bob(_) => return Err(Error::ApiMisuse { what: "Bob has no transmitter" }),
            },
            Input::Detections(detections) => match &mut self.side {
                Side::Bob(bob) => {
                    bob.detect(&self.shared, detections)?;
                    bob.advance(&mut self.shared, now);
                }
                Side::Alice(_) => return Err(Error::ApiMisuse { what: "Alice has no detections" }),
            },
        }
        Ok(())
    }

    fn message(&mut self, now: Time, wire: &[u8], rng: &mut impl CryptoRng) -> Result<(), Error> {
        let online = match &self.side {
            Side::Alice(alice) => alice.online(),
            Side::Bob(bob) => bob.online(),
        };
        if !online {
            return Ok(());
        }
        let message = Message::decode(wire).map_err(crate::error::Misbehaviour::from)?;
        if let Message::Block(block, step) = &message {
            if self.shared.was_given_up(*block) {
                return Ok(());
            }
            self.shared.received(*block, wire, step.kind());
        }
        match &mut self.side {
            Side::Alice(alice) => alice.handle(&mut self.shared, now, message, wire, rng),
            Side::Bob(bob) => {
                bob.handle(&mut self.shared, now, message)?;
                bob.advance(&mut self.shared, now);
                Ok(())
            }
        }
    }

    fn go_offline(&mut self, cause: AbortCause) {
        match &mut self.side {
            Side::Alice(alice) => alice.disconnect(),
            Side::Bob(bob) => bob.disconnect(),
        }
        self.shared.go_offline(cause);
    }
}

/// Blocks that may be in progress beside the one that gathers detections.
pub const IN_FLIGHT_MAX: usize = 64;
/// Sifted bits that all of them may have together; two blocks are always allowed.
const IN_FLIGHT_BITS_MAX: usize = 32_000_000;

/// Blocks in progress for this block size.
fn in_flight_max(block_bits: u32) -> usize {
    let bits = usize::try_from(block_bits.max(1)).unwrap_or(usize::MAX);
    (IN_FLIGHT_BITS_MAX / bits).clamp(2, IN_FLIGHT_MAX)
}
