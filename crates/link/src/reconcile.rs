//! Reconciliation: Bob's sifted key becomes Alice's, and every disclosed bit is counted.
//!
//! | method | module | round trips | leak over the Shannon limit |
//! |---|---|---|---|
//! | Cascade, all frames of a block in lockstep | [`cascade`] | about 200 | 1.04 to 1.05 |
//! | rate-adaptive LDPC codes with blind increments | [`ldpc`] | three or four | 1.08 to 1.25 |
//!
//! Bob drives: he asks, Alice answers, until he believes to have her key. [`choice`] says which method he takes, and he
//! says it in each question. [`Correction`] and [`Answers`] are the two halves whatever the method is.

pub mod cascade;
pub mod choice;
pub mod ldpc;

use core::time::Duration;

use types::codec::{CodecError, Reader, Writer};
use types::network::Reconciliation;

use self::choice::{Method, choose};
use crate::bits::Bits;
use crate::error::Misbehaviour;

/// What Bob asks in one round.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// Of Cascade.
    Cascade(cascade::Question),
    /// Of the LDPC codes.
    Ldpc(ldpc::Question),
}

impl Question {
    pub(crate) fn write(&self, w: &mut Writer) {
        match self {
            Self::Cascade(question) => {
                w.u8(1);
                question.write(w);
            }
            Self::Ldpc(question) => {
                w.u8(2);
                question.write(w);
            }
        }
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        match r.u8("method")? {
            1 => Ok(Self::Cascade(cascade::Question::read(r)?)),
            2 => Ok(Self::Ldpc(ldpc::Question::read(r)?)),
            _ => Err(CodecError::Value { field: "method" }),
        }
    }
}

/// Alice's half.
pub enum Answers {
    /// No question yet: the method is not known.
    Ready {
        /// Alice's key.
        key: Bits,
        /// The public seed.
        seed: [u8; 32],
    },
    /// Bob asked by Cascade.
    Cascade(Box<cascade::Answerer>),
    /// Bob asked by LDPC codes.
    Ldpc(Box<ldpc::Answerer>),
}

impl Answers {
    /// For this key, with a public seed drawn after the key was fixed.
    #[must_use]
    pub fn new(key: &Bits, seed: [u8; 32]) -> Self {
        Self::Ready { key: key.clone(), seed }
    }

    /// The parities that answer a question, in its order.
    ///
    /// # Errors
    /// If the question does not fit the key or the ones before it, or asks for more than any key is worth.
    pub fn answer(&mut self, question: &Question) -> Result<Bits, Misbehaviour> {
        if let Self::Ready { key, seed } = self {
            *self = match question {
                Question::Cascade(_) => Self::Cascade(Box::new(cascade::Answerer::new(key, *seed))),
                Question::Ldpc(_) => Self::Ldpc(Box::new(ldpc::Answerer::new(key, *seed))),
            };
        }
        match (self, question) {
            (Self::Cascade(answerer), Question::Cascade(question)) => answerer.answer(question),
            (Self::Ldpc(answerer), Question::Ldpc(question)) => answerer.answer(question),
            _ => Err(Misbehaviour::Contradiction { field: "method" }),
        }
    }

    /// Bits disclosed so far.
    #[must_use]
    pub fn disclosed(&self) -> u64 {
        match self {
            Self::Ready { .. } => 0,
            Self::Cascade(answerer) => answerer.disclosed() as u64,
            Self::Ldpc(answerer) => answerer.disclosed() as u64,
        }
    }
}

/// Bob's half.
pub enum Correction {
    /// By Cascade.
    Cascade(Box<cascade::Corrector>),
    /// By LDPC codes.
    Ldpc(Box<ldpc::Corrector>),
}

impl Correction {
    /// For this key; seed from Alice, error rate in errors per million from parameter estimation, round trip of the
    /// classical channel.
    pub(crate) fn new(
        key: &Bits,
        seed: [u8; 32],
        qber_ppm: u32,
        reconciliation: Reconciliation,
        round_trip: Duration,
    ) -> Self {
        Self::by(choose(reconciliation, round_trip, qber_ppm, key.len()), key, seed, qber_ppm)
    }

    /// The same with a method that is given.
    #[must_use]
    pub fn by(method: Method, key: &Bits, seed: [u8; 32], qber_ppm: u32) -> Self {
        let codes = |size| Self::Ldpc(Box::new(ldpc::Corrector::with_frames(key, seed, qber_ppm, size)));
        match method {
            Method::Cascade => Self::Cascade(Box::new(cascade::Corrector::new(key, seed, qber_ppm))),
            Method::LdpcLong => codes(ldpc::FrameSize::Long),
            Method::LdpcShort => codes(ldpc::FrameSize::Short),
        }
    }

    /// The next question, or `None` when all is asked.
    ///
    /// # Errors
    /// If Alice's answers contradict each other.
    pub fn question(&mut self) -> Result<Option<Question>, Misbehaviour> {
        match self {
            Self::Cascade(corrector) => Ok(corrector.question()?.map(Question::Cascade)),
            Self::Ldpc(corrector) => Ok(corrector.question()?.map(Question::Ldpc)),
        }
    }

    /// Takes Alice's answer to the last question.
    ///
    /// # Errors
    /// If the answer is not one to the last question.
    pub fn take(&mut self, parities: &Bits) -> Result<(), Misbehaviour> {
        match self {
            Self::Cascade(corrector) => corrector.take(parities),
            Self::Ldpc(corrector) => corrector.take(parities),
        }
    }

    /// Bits disclosed so far.
    #[must_use]
    pub fn disclosed(&self) -> u64 {
        match self {
            Self::Cascade(corrector) => corrector.disclosed() as u64,
            Self::Ldpc(corrector) => corrector.disclosed() as u64,
        }
    }

    pub(crate) fn corrected(&self) -> u64 {
        match self {
            Self::Cascade(corrector) => corrector.corrected() as u64,
            Self::Ldpc(corrector) => corrector.corrected() as u64,
        }
    }

    /// The corrected key.
    #[must_use]
    pub fn finish(self) -> Bits {
        match self {
            Self::Cascade(corrector) => corrector.finish(),
            Self::Ldpc(corrector) => corrector.finish(),
        }
    }
}
