//! The public record of one block: what an auditor needs to compute its key length again.

use core::fmt;

use types::codec::{CodecError, Reader, Writer};
use types::id::BlockSeq;
use types::network::{BeyondOneWay, Security};
use types::quantum::Intensity;
use types::units::BitLen;

use crate::distil::Mode;
use crate::proof::{BlockCounts, KeyRule, Proof, binary_entropy};

/// Counts, bounds and outcome of one block. Holds no key bit.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockRecord {
    /// Which block.
    pub block: BlockSeq,
    /// Which proof bounds its key.
    pub proof: Proof,
    /// With which failure probabilities.
    pub security: Security,
    /// Sifted key-basis bits, test-basis bits and test-basis errors, by intensity.
    pub counts: BlockCounts,
    /// What was done before reconciliation.
    pub mode: Mode,
    /// Bits that were reconciled: the sifted key-basis bits, or what distillation left of them.
    pub distilled: BitLen,
    /// Of these, bits that reconciliation corrected.
    pub corrected: u64,
    /// Bits disclosed by reconciliation and verification beyond what the proof pays for itself.
    pub leak: BitLen,
    /// Secret bits after privacy amplification.
    pub secret: BitLen,
    /// Of these, bits kept back for authentication.
    pub kept: BitLen,
    /// Authentication bits that this block's tags spent, at both ends together.
    pub spent: BitLen,
    /// Slots from the block's first detection to its last.
    pub slots: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is still being worked on.
    InProgress,
    /// It is key at both ends.
    Filed,
    /// It was given up at both ends.
    Aborted(AbortCause),
}

/// Why a block was given up. The number goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum AbortCause {
    /// The proof leaves no more than the block's own authentication costs.
    NoKey = 1,
    /// Errors remained after reconciliation.
    VerificationFailed = 2,
    /// Alice has no authentication key left.
    ReserveEmpty = 3,
    /// Too many finished blocks wait to be filed.
    Backlog = 4,
    /// The connection was lost.
    ConnectionLost = 5,
    /// The other end broke the protocol, or somebody changed what it sent.
    PeerMisbehaved = 6,
    /// The other end did not answer.
    PeerSilent = 7,
    /// Alice did not commit it.
    NotCommitted = 8,
    /// A watchdog saw signs of an attack that leaves the proof's assumptions.
    Alarm = 9,
}

impl AbortCause {
    /// All causes.
    pub const ALL: [Self; 9] = [
        Self::NoKey,
        Self::VerificationFailed,
        Self::ReserveEmpty,
        Self::Backlog,
        Self::ConnectionLost,
        Self::PeerMisbehaved,
        Self::PeerSilent,
        Self::NotCommitted,
        Self::Alarm,
    ];

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| *cause as u8 == number)
    }
}

impl fmt::Display for AbortCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKey => "no secret key in the observed counts",
            Self::VerificationFailed => "errors remained after reconciliation",
            Self::ReserveEmpty => "no authentication key left",
            Self::Backlog => "too many finished blocks wait to be filed",
            Self::ConnectionLost => "connection lost",
            Self::PeerMisbehaved => "the other end broke the protocol or was tampered with",
            Self::PeerSilent => "the other end did not answer",
            Self::NotCommitted => "the other end did not commit the block",
            Self::Alarm => "a watchdog saw signs of an attack",
        })
    }
}

impl BlockRecord {
    pub(crate) fn begin(block: BlockSeq, proof: Proof, security: Security) -> Self {
        Self {
            block,
            proof,
            security,
            counts: BlockCounts::default(),
            mode: Mode::OneWay,
            distilled: BitLen(0),
            corrected: 0,
            leak: BitLen(0),
            secret: BitLen(0),
            kept: BitLen(0),
            spent: BitLen(0),
            slots: 0,
            outcome: Outcome::InProgress,
        }
    }

    /// Sifted key-basis bits.
    #[must_use]
    pub fn sifted(&self) -> u64 {
        self.counts.key.iter().sum()
    }

    /// Error rate that reconciliation found, known once the block was corrected; `None` before. Without distillation
    /// it is that of the key basis.
    #[must_use]
    pub fn qber(&self) -> Option<f64> {
        (self.distilled.0 > 0).then(|| real(self.corrected) / real(self.distilled.0))
    }

    /// Rule under which its length was computed, as audit records name it.
    #[must_use]
    pub fn rule(&self) -> KeyRule {
        let beyond = match self.mode {
            Mode::OneWay => BeyondOneWay::Off,
            Mode::NoisyPreprocessing { .. } => BeyondOneWay::NoisyPreprocessing,
            Mode::AdvantageDistillation { .. } => BeyondOneWay::AdvantageDistillation,
        };
        KeyRule { proof: self.proof, beyond }
    }

    /// Error rate of the test basis.
    #[must_use]
    pub fn test_qber(&self) -> Option<f64> {
        let bits: u64 = self.counts.test.iter().sum();
        (bits > 0).then(|| real(self.counts.test_errors.iter().sum()) / real(bits))
    }

    /// Disclosed bits over the Shannon limit `n h(qber)` of the bits reconciled; `None` without errors.
    #[must_use]
    pub fn efficiency(&self) -> Option<f64> {
        let limit = real(self.distilled.0) * binary_entropy(self.qber()?);
        (limit > 0.0).then(|| real(self.leak.0) / limit)
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        w.u64(self.block.0).bytes16(self.proof.name().as_bytes());
        w.u64(self.security.epsilon_secrecy.to_bits()).u64(self.security.epsilon_correctness.to_bits());
        write_counts(&self.counts, w);
        self.mode.write(w);
        for number in
            [self.distilled.0, self.corrected, self.leak.0, self.secret.0, self.kept.0, self.spent.0, self.slots]
        {
            w.varint(number);
        }
        w.u8(match self.outcome {
            Outcome::InProgress => 0,
            Outcome::Filed => 255,
            Outcome::Aborted(cause) => cause as u8,
        });
    }

    /// Reads a record of version 1, which knew one-way blocks only, or 2.
    pub(crate) fn read(r: &mut Reader<'_>, version: u8) -> Result<Self, CodecError> {
        let wrong = |field| CodecError::Value { field };
        let mut record = Self {
            block: BlockSeq(r.u64("block")?),
            proof: r.text16("proof", 64)?.parse().map_err(|_| wrong("proof"))?,
            security: Security {
                epsilon_secrecy: f64::from_bits(r.u64("epsilon_secrecy")?),
                epsilon_correctness: f64::from_bits(r.u64("epsilon_correctness")?),
            },
            counts: read_counts(r, version)?,
            mode: if version == 1 { Mode::OneWay } else { Mode::read(r)? },
            distilled: BitLen(if version == 1 { 0 } else { r.varint("distilled")? }),
            corrected: r.varint("corrected")?,
            leak: BitLen(r.varint("leak")?),
            secret: BitLen(r.varint("secret")?),
            kept: BitLen(r.varint("kept")?),
            spent: BitLen(r.varint("spent")?),
            slots: r.varint("slots")?,
            outcome: match r.u8("outcome")? {
                0 => Outcome::InProgress,
                255 => Outcome::Filed,
                cause => Outcome::Aborted(AbortCause::from_number(cause).ok_or(wrong("outcome"))?),
            },
        };
        if version == 1 && record.leak.0 > 0 {
            record.distilled = BitLen(record.sifted());
        }
        Ok(record)
    }
}

pub(crate) fn write_counts(counts: &BlockCounts, w: &mut Writer) {
    for number in counts.key.iter().chain(&counts.test).chain(&counts.test_errors) {
        w.varint(*number);
    }
    write_key_errors(counts.key_errors, w);
}

/// Counts as version 2 writes them; version 1 had no errors of the key basis.
pub(crate) fn read_counts(r: &mut Reader<'_>, version: u8) -> Result<BlockCounts, CodecError> {
    Ok(BlockCounts {
        key: read_three(r, "key counts")?,
        test: read_three(r, "test counts")?,
        test_errors: read_three(r, "test errors")?,
        key_errors: if version == 1 { None } else { read_key_errors(r)? },
    })
}

pub(crate) fn write_key_errors(errors: Option<[u64; Intensity::COUNT]>, w: &mut Writer) {
    w.u8(u8::from(errors.is_some()));
    errors.iter().flatten().for_each(|number| _ = w.varint(*number));
}

pub(crate) fn read_key_errors(r: &mut Reader<'_>) -> Result<Option<[u64; Intensity::COUNT]>, CodecError> {
    match r.u8("key errors")? {
        0 => Ok(None),
        1 => read_three(r, "key errors").map(Some),
        _ => Err(CodecError::Value { field: "key errors" }),
    }
}

fn read_three(r: &mut Reader<'_>, field: &'static str) -> Result<[u64; Intensity::COUNT], CodecError> {
    Ok([r.varint(field)?, r.varint(field)?, r.varint(field)?])
}

#[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
fn real(count: u64) -> f64 {
    count as f64
}
