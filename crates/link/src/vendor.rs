//! A link whose key comes from QKD devices of another maker, one at each end, over ETSI GS QKD 014.
//!
//! The two devices are the quantum link. Alice's end is the master SAE of her device: she takes fresh keys there. Bob's
//! end is the slave SAE of his: he collects the same keys by their ids. What this module adds is what a device does not
//! promise: the same bits under the same block number at both ends, or at neither, and key for its own tags.
//!
//! ```text
//!   Alice                                              Bob
//!     <-> Hello: version, link, next block
//!     takes keys from her device
//!     Offer: block, ids         ->                        collects the ids from his device
//!                              <-  Fetched, or Missing    Missing: both drop the keys, no tag is spent
//!   P Commit: hash of the key under pad, tag ->           checks the tag, compares his key
//!                              <-  Answer: taken (tag)  P files the block, or gives it up for good
//!   P files the block too, or gives it up
//! ```
//!
//! `P` marks what is made durable before the message leaves.
//!
//! **Why two rounds.** An offer may fail for reasons that no attacker is needed for: a device that was reset knows none
//! of the other's ids. Such failures must not use up the tags, or a long fault would end the link for good. So ids are
//! tried first, without a tag: a forged `Offer`, `Fetched` or `Missing` wastes keys of the device and nothing else.
//! `Commit` and `Answer` carry tags, and only they decide.
//!
//! **Commit.** Bob decides. His record of the decision is durable before his answer leaves, and says the same for ever:
//! a `Commit` that comes again is answered again. Alice keeps the key until she has heard the answer. Numbers have no
//! gaps, so that a greeting shows at once when the store of one end was set back.
//!
//! **Comparison.** `Commit` has two tags. The inner one is the polynomial hash of Alice's key under a one-time pad: it
//! says nothing about the key, and two different keys of *n* bytes agree with probability (*n*/16 + 7) · 2^-128. The outer one
//! covers the message with the inner one in it. If the outer tag holds and the inner does not, the devices delivered
//! different bits; nobody between can feign that.
//!
//! **Reserve.** A block that becomes key refills what its tags spent. Tags are lost only when devices disagree, or when
//! Bob's end restarts between `Fetched` and his decision. After a failure Alice waits longer and longer and tries the
//! smallest block first, so that a faulty pair of devices is not drained.
//!
//! **Contract of the shell.** As that of [`LinkEnd`](crate::LinkEnd). A request to the device, [`Output::AskStatus`],
//! [`Output::FetchNew`] or [`Output::FetchById`], is answered by one input with its number; there is one at a time.
//!
//! **Provided.** Same bits under the same number at both ends, or at neither, whatever is lost, crashes or is changed
//! on the way. **Not provided.** Secrecy of what the devices deliver; progress against somebody who cuts the line.

mod alice;
mod bob;
mod durable;
mod message;
mod shared;
#[cfg(test)]
mod tests;

use core::fmt;
use core::time::Duration;

use crypto::record::{Change, Record};
use crypto::secret::SecretBytes;
use types::id::{BlockSeq, KeyId, LinkId};
use types::quantum::Role;
use types::units::{BitLen, Time};

use self::alice::Alice;
use self::bob::Bob;
use self::message::Message;
pub(crate) use self::message::reencode;
use self::shared::Shared;
use crate::authenticate;
use crate::error::{Error, Misbehaviour};
use crate::watch::Watch;

/// What both ends of a link must agree on, the role of this one, and its pace.
#[derive(Clone, Debug)]
pub struct VendorConfig {
    /// Which link.
    pub link: LinkId,
    /// Which end.
    pub role: Role,
    /// Alice: key bytes that she joins to a block when her device has them.
    pub block_bytes: usize,
    /// Alice: no key is taken from the device while the link's pool holds this many bits.
    pub pool_target: BitLen,
    /// How long the other end may be silent.
    pub peer_timeout: Duration,
}

/// What happened outside.
#[derive(Debug)]
pub enum Input {
    /// The classical channel is up.
    Connected,
    /// The classical channel is down.
    Disconnected,
    /// One message from the other end.
    Message(Vec<u8>),
    /// The device's answer to [`Output::AskStatus`].
    Status {
        /// Number of the request.
        request: u64,
        /// What it said.
        status: DeviceStatus,
    },
    /// The device's answer to [`Output::FetchNew`] or [`Output::FetchById`].
    Fetched {
        /// Number of the request.
        request: u64,
        /// The keys.
        keys: Vec<(KeyId, SecretBytes)>,
    },
    /// A request to the device failed.
    DeviceFailed {
        /// Number of the request.
        request: u64,
        /// How.
        fault: DeviceFault,
    },
    /// Alice: bits in the link's pool, the scarcer direction counted twice.
    PoolLevel(BitLen),
    /// All changes up to this [`Output::Persist`] are durable.
    Durable(u64),
    /// This block is filed durably and need not be kept here.
    Filed(BlockSeq),
}

/// What a device says of its stock for the other end (ETSI GS QKD 014, 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceStatus {
    /// Bits of a key of the default size.
    pub key_bits: u32,
    /// Keys of that size that it can supply now.
    pub stored_keys: u64,
    /// Most keys in one request.
    pub keys_per_request_max: u64,
}

/// How a request to a device failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceFault {
    /// It was not reached, does not serve this end, or cannot serve now.
    Unavailable,
    /// It serves this end and does not know what was asked for.
    Unknown,
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
    /// Ask the device for its status.
    AskStatus {
        /// Number of this request.
        request: u64,
    },
    /// Alice: take fresh keys from the device.
    FetchNew {
        /// Number of this request.
        request: u64,
        /// How many.
        number: u32,
        /// Bits of each.
        key_bits: u32,
    },
    /// Bob: collect these keys from the device.
    FetchById {
        /// Number of this request.
        request: u64,
        /// Their ids.
        ids: Vec<KeyId>,
    },
    /// File this block; then [`Input::Filed`]. Comes again after a restart until it is filed.
    Block(VendorBlock),
    /// A numbered block was given up; no key of it exists at either end.
    Aborted(VendorRecord),
    /// Keys were taken from the device and destroyed without having been offered as a block.
    Dropped {
        /// Why.
        cause: VendorCause,
        /// How much.
        bits: BitLen,
    },
    /// Something looks like an attack, or needs somebody to look.
    Alarm {
        /// What it looks like.
        suspicion: &'static str,
        /// Figures, for people.
        evidence: String,
    },
}

/// Secret key that both ends hold under the same number.
#[derive(Debug)]
pub struct VendorBlock {
    /// Its number.
    pub seq: BlockSeq,
    /// The key.
    pub key: SecretBytes,
    /// How it came about.
    pub record: VendorRecord,
}

/// The public record of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VendorRecord {
    /// Its number.
    pub block: BlockSeq,
    /// Keys of the device that it is made of.
    pub keys: u32,
    /// Bits of these keys together.
    pub secret: BitLen,
    /// Of these, bits kept back for authentication.
    pub kept: BitLen,
    /// Why it was given up; `None` if it is key.
    pub given_up: Option<VendorCause>,
}

/// Why keys of a device did not become key of the link. The number goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum VendorCause {
    /// Bob's device does not know the ids.
    UnknownIds = 1,
    /// A device delivered something else than what was asked for.
    WrongKeys = 2,
    /// The two devices delivered different bits.
    DifferentBits = 3,
    /// Bob's end restarted before it had decided.
    Lost = 4,
    /// Too many finished blocks wait to be filed at Bob.
    Backlog = 5,
    /// Alice offers other keys: her end restarted.
    Superseded = 6,
}

impl VendorCause {
    /// All causes.
    pub const ALL: [Self; 6] =
        [Self::UnknownIds, Self::WrongKeys, Self::DifferentBits, Self::Lost, Self::Backlog, Self::Superseded];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| *cause as u8 == number)
    }
}

impl fmt::Display for VendorCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownIds => "Bob's device does not know the key ids of Alice's device",
            Self::WrongKeys => "a device delivered other keys than it was asked for",
            Self::DifferentBits => "the two devices delivered different bits under the same key ids",
            Self::Lost => "Bob's end restarted before it had decided",
            Self::Backlog => "too many blocks wait to be filed at Bob",
            Self::Superseded => "Alice's end restarted and offers other keys",
        })
    }
}

/// One end of a link; see the module's documentation for the contract.
pub struct VendorEnd {
    shared: Shared,
    side: Side,
}

enum Side {
    Alice(Box<Alice>),
    Bob(Box<Bob>),
}

impl VendorEnd {
    /// Durable records that a link starts from, as [`LinkEnd::provision`](crate::LinkEnd::provision).
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] if the key is shorter than [`authenticate::PROVISION_MIN`] bytes or too long.
    pub fn provision(link: &LinkId, initial_key: &SecretBytes) -> Result<Vec<Change>, Error> {
        Self::provision_from(link, initial_key, BlockSeq(0))
    }

    /// As [`VendorEnd::provision`], for a link that begins anew, as
    /// [`LinkEnd::provision_from`](crate::LinkEnd::provision_from).
    ///
    /// # Errors
    /// As [`VendorEnd::provision`].
    pub fn provision_from(link: &LinkId, initial_key: &SecretBytes, first: BlockSeq) -> Result<Vec<Change>, Error> {
        let (streams, mut changes) = authenticate::provision(link, initial_key)?;
        let marks = streams.map(|stream| stream.marks());
        changes.push(durable::State { next_block: first, marks, ..durable::State::default() }.to_change(link));
        Ok(changes)
    }

    /// Whether a record is the state of a link end of this kind, and not that of a [`LinkEnd`](crate::LinkEnd).
    /// `None` for records that do not tell.
    #[must_use]
    pub fn made(record: &Record) -> Option<bool> {
        durable::made(record)
    }

    /// An end from its durable records; records of other links and tables are passed over. Blocks that were not
    /// filed yet come out again.
    ///
    /// # Errors
    /// [`Error::Corrupt`], also when the link was never provisioned; [`Error::ApiMisuse`] for a block size outside
    /// [`BLOCK_BYTES_MIN`] to [`BLOCK_BYTES_MAX`].
    pub fn restore(config: VendorConfig, records: Vec<Record>) -> Result<Self, Error> {
        if !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&config.block_bytes) {
            return Err(Error::ApiMisuse { what: "block size" });
        }
        let restored = durable::restore(&config, records)?;
        let role = config.role;
        let mut shared = Shared::new(config, restored.streams, restored.state.next_block);
        for block in restored.committed {
            shared.hand_over(block);
        }
        let side = match role {
            Role::Alice => Side::Alice(Box::new(Alice::new(restored.pending))),
            Role::Bob => Side::Bob(Box::new(Bob::new(restored.state.answer))),
        };
        Ok(Self { shared, side })
    }

    /// Takes one input.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn handle_input(&mut self, now: Time, input: Input) -> Result<(), Error> {
        let result = self.input(now, input);
        match &result {
            Ok(()) => self.advance(now),
            Err(Error::PeerMisbehaved(misbehaviour)) => {
                self.go_offline();
                self.shared.tampering(misbehaviour);
            }
            Err(_) => self.go_offline(),
        }
        result
    }

    /// Time moved on to what [`VendorEnd::poll_timeout`] named, or beyond.
    ///
    /// # Errors
    /// [`Error::PeerSilent`] if the other end was not heard for too long.
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), Error> {
        if self.shared.silent(now) {
            self.go_offline();
            return Err(Error::PeerSilent { awaited: "any message" });
        }
        self.advance(now);
        Ok(())
    }

    /// The next thing to do outside.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.shared.poll_output()
    }

    /// When [`VendorEnd::handle_timeout`] is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.shared.poll_timeout()
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &VendorConfig {
        &self.shared.config
    }

    /// Tags left to send and to accept.
    #[must_use]
    pub fn tags_left(&self) -> (u64, u64) {
        (self.shared.sending.left(), self.shared.receiving.left())
    }

    fn input(&mut self, now: Time, input: Input) -> Result<(), Error> {
        match input {
            Input::Connected => {
                self.go_offline();
                let pending = match &self.side {
                    Side::Alice(alice) => alice.has_pending(),
                    Side::Bob(_) => false,
                };
                self.shared.greet(now, pending);
            }
            Input::Disconnected => self.go_offline(),
            Input::Message(wire) => return self.message(now, &wire),
            Input::Durable(seq) => self.shared.durable(seq),
            Input::Filed(block) => self.shared.filed(block),
            Input::PoolLevel(bits) => match &mut self.side {
                Side::Alice(alice) => alice.pool_level(bits),
                Side::Bob(_) => return Err(Error::ApiMisuse { what: "Bob does not pace the link" }),
            },
            Input::Status { request, status } => {
                if self.shared.device.answered(now, request)
                    && let Side::Alice(alice) = &mut self.side
                {
                    alice.status(&mut self.shared, now, status);
                }
            }
            Input::Fetched { request, keys } => {
                if self.shared.device.answered(now, request) {
                    match &mut self.side {
                        Side::Alice(alice) => alice.fetched(&mut self.shared, now, keys),
                        Side::Bob(bob) => bob.fetched(&mut self.shared, now, keys),
                    }
                } else {
                    self.shared.dropped(VendorCause::Superseded, keys.iter().map(|(_, key)| key.len()).sum());
                }
            }
            Input::DeviceFailed { request, fault } => {
                // What Bob's device does not know is an answer; Alice's device owes her keys.
                let fault = if self.shared.config.role == Role::Alice { DeviceFault::Unavailable } else { fault };
                if self.shared.device.failed(now, request, fault) {
                    match &mut self.side {
                        Side::Alice(alice) => alice.device_failed(),
                        Side::Bob(bob) => bob.device_failed(&mut self.shared, now, fault),
                    }
                }
            }
        }
        Ok(())
    }

    fn message(&mut self, now: Time, wire: &[u8]) -> Result<(), Error> {
        if !self.shared.heard(now) {
            return Ok(());
        }
        let message = Message::decode(wire).map_err(Misbehaviour::from)?;
        match (message, self.shared.online()) {
            (Message::OtherVersion(version), false) => Err(Shared::other_version(version)),
            (Message::Hello(hello), false) => {
                let pending = matches!(&self.side, Side::Alice(alice) if alice.has_pending());
                self.shared.greeted(now, &hello, pending)?;
                if let Side::Alice(alice) = &mut self.side {
                    alice.resume(&mut self.shared);
                }
                Ok(())
            }
            (Message::Alive, true) => Ok(()),
            (message, true) => match &mut self.side {
                Side::Alice(alice) => alice.handle(&mut self.shared, now, message),
                Side::Bob(bob) => bob.handle(&mut self.shared, now, message),
            },
            (message, false) => {
                Err(Misbehaviour::OutOfOrder { got: message.name(), state: "waiting for the greeting" }.into())
            }
        }
    }

    fn advance(&mut self, now: Time) {
        self.shared.keep_alive(now);
        self.shared.device.wake = None;
        match &mut self.side {
            Side::Alice(alice) => alice.advance(&mut self.shared, now),
            Side::Bob(bob) => bob.advance(&mut self.shared, now),
        }
    }

    fn go_offline(&mut self) {
        if let Side::Bob(bob) = &mut self.side {
            bob.disconnect();
        }
        self.shared.go_offline();
    }
}

impl Shared {
    /// Reports a message that is not what an honest peer sends.
    fn tampering(&mut self, misbehaviour: &Misbehaviour) {
        let alarm = Watch::tampering(misbehaviour);
        self.put(Output::Alarm { suspicion: alarm.suspicion.name(), evidence: alarm.evidence });
    }
}

/// Fewest key bytes of a block: what its own tags and their refill cost is well below.
pub const BLOCK_BYTES_MIN: usize = 512;
/// Most key bytes of a block.
pub const BLOCK_BYTES_MAX: usize = 1 << 16;
/// Most keys of a device in one block.
pub const BLOCK_KEYS_MAX: usize = 1_024;
