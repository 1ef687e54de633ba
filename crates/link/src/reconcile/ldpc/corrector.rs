//! Bob's half: asks, decodes, asks for more of the frames that do not decode.

use super::decoder::{Decoder, Syndrome, estimate_qber};
use super::design::{COLUMNS, ROWS_MAX, ROWS_MIN, efficiency};
use super::plan::{self, Plan};
use super::question::{FrameSize, Question};
use super::share;
use crate::bits::Bits;
use crate::error::Misbehaviour;

/// Corrects Bob's sifted key, round by round.
pub struct Corrector {
    key: Bits,
    size: FrameSize,
    rows: usize,
    /// Split parities asked for in the first round.
    splits: usize,
    plan: Plan,
    decoder: Decoder,
    frames: Vec<Frame>,
    /// Mean over the frames after the first round.
    mean_qber: Option<f64>,
    stage: Stage,
    disclosed: usize,
    corrected: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    Waiting,
    Taken,
}

/// One frame of the key.
enum Frame {
    /// Bob's own parities, Alice's so far against them, and what more is asked for.
    Open {
        own: [Bits; 2],
        syndrome: Syndrome,
        qber: f64,
        attempts: usize,
        wanted: usize,
    },
    Done,
    Failed,
}

impl Corrector {
    /// For this key in long frames; the seed comes from Alice, the error rate in errors per million from parameter
    /// estimation.
    #[must_use]
    pub fn new(key: &Bits, seed: [u8; 32], qber_ppm: u32) -> Self {
        Self::with_frames(key, seed, qber_ppm, FrameSize::Long)
    }

    /// The same, with frames of this size.
    #[must_use]
    pub fn with_frames(key: &Bits, seed: [u8; 32], qber_ppm: u32, size: FrameSize) -> Self {
        let qber = (f64::from(qber_ppm) / 1e6).clamp(QBER_MIN, QBER_MAX);
        let frame_len = key.len().div_ceil(plan::frames(key.len(), size)).max(1);
        let places = COLUMNS * plan::lanes(frame_len);
        let first = FIRST_SHARE * parities(size, qber) * share(frame_len, 1);
        let rows = floor(first * share(COLUMNS, places)).clamp(ROWS_MIN, ROWS_MAX);
        let plan = Plan::new(key.len(), size, rows, seed);
        let checks = plan.code.checks();
        let splits = ceil(first).clamp(checks, 2 * checks) - checks;
        let (decoder, frames) = (Decoder::new(&plan.code), Vec::new());
        Self {
            key: key.clone(),
            size,
            rows,
            splits,
            plan,
            decoder,
            frames,
            mean_qber: None,
            stage: Stage::New,
            disclosed: 0,
            corrected: 0,
        }
    }

    /// The next question, or `None` when every frame is corrected or given up.
    ///
    /// # Errors
    /// [`Misbehaviour::Contradiction`] if the last question has no answer yet.
    pub fn question(&mut self) -> Result<Option<Question>, Misbehaviour> {
        match self.stage {
            Stage::Waiting => Err(Misbehaviour::Contradiction { field: "answer" }),
            Stage::New if self.key.is_empty() => Ok(None),
            Stage::New => {
                self.stage = Stage::Waiting;
                Ok(Some(Question::Begin { size: self.size, rows: self.rows, splits: self.splits }))
            }
            Stage::Taken => {
                self.decode();
                let wanted: Vec<(usize, usize)> = self
                    .frames
                    .iter()
                    .enumerate()
                    .filter_map(|(index, frame)| match frame {
                        Frame::Open { wanted, .. } => Some((index, *wanted)),
                        Frame::Done | Frame::Failed => None,
                    })
                    .collect();
                if wanted.is_empty() {
                    return Ok(None);
                }
                self.stage = Stage::Waiting;
                Ok(Some(Question::More(wanted)))
            }
        }
    }

    /// Takes Alice's parities for the last question.
    ///
    /// # Errors
    /// [`Misbehaviour::Contradiction`] if nothing was asked or their number is not what was asked for.
    pub fn take(&mut self, answer: &Bits) -> Result<(), Misbehaviour> {
        if self.stage != Stage::Waiting {
            return Err(Misbehaviour::Contradiction { field: "answer without a question" });
        }
        let checks = self.plan.code.checks();
        let first = self.frames.is_empty();
        let expected: usize =
            if first { self.plan.frames * (checks + self.splits) } else { self.frames.iter().map(Frame::wanted).sum() };
        if answer.len() != expected {
            return Err(Misbehaviour::Contradiction { field: "number of parities" });
        }
        self.disclosed += expected;
        self.stage = Stage::Taken;
        if first {
            self.begin();
        }
        let mut next = 0;
        for frame in &mut self.frames {
            let Frame::Open { own, syndrome, wanted, .. } = frame else { continue };
            if first {
                (0..checks).for_each(|at| syndrome.whole.push(answer.get(next + at) ^ own[0].get(at)));
                next += checks;
            }
            for _ in 0..*wanted {
                syndrome.halves.push(answer.get(next) ^ own[1].get(syndrome.halves.len()));
                next += 1;
            }
            *wanted = 0;
        }
        Ok(())
    }

    /// Parities learned so far.
    #[must_use]
    pub fn disclosed(&self) -> usize {
        self.disclosed
    }

    /// Bits corrected so far.
    #[must_use]
    pub fn corrected(&self) -> usize {
        self.corrected
    }

    /// Frames given up: all of their parities are out and explain no error pattern that was found. Verification will
    /// fail.
    #[must_use]
    pub fn failed_frames(&self) -> usize {
        self.frames.iter().filter(|frame| matches!(frame, Frame::Failed)).count()
    }

    /// Updates of a whole frame that decoding took so far: the work, whatever the processor.
    #[must_use]
    pub fn iterations(&self) -> u64 {
        self.decoder.iterations
    }

    /// The corrected key.
    #[must_use]
    pub fn finish(self) -> Bits {
        self.key
    }

    /// Bob's own parities.
    fn begin(&mut self) {
        let code = &self.plan.code;
        for frame in 0..self.plan.frames {
            let [halves, whole] = code.parities(&self.plan.columns(&self.key, frame));
            let halves = code.in_order_of_splits(&halves);
            let empty = || Bits::with_capacity(code.checks());
            let syndrome = Syndrome { whole: empty(), halves: empty() };
            self.frames.push(Frame::Open {
                own: [whole, halves],
                syndrome,
                qber: 0.0,
                attempts: 0,
                wanted: self.splits,
            });
        }
    }

    /// Decodes what is worth it; sets what more is wanted of the rest.
    fn decode(&mut self) {
        let checks = self.plan.code.checks();
        let shared = self.estimate();
        let step = usize::from(self.size == FrameSize::Short);
        for (index, frame) in self.frames.iter_mut().enumerate() {
            let Frame::Open { syndrome, qber, attempts, wanted, .. } = frame else { continue };
            let held = self.plan.held(index);
            let near = shared.filter(|mean| (mean - *qber).abs() < NEAR * mean);
            let qber = near.map_or(*qber, |mean| 0.5 * (*qber + mean)).clamp(QBER_MIN, 0.5 - QBER_MIN);
            let known = checks + syndrome.halves.len();
            let needed = ceil(parities(self.size, qber) * share(held, 1));
            let mut more = needed.saturating_sub(known);
            if *attempts > 0 || more * WORTH_ASKING < needed || syndrome.halves.len() == checks {
                if let Some(errors) = self.decoder.errors(&self.plan, held, syndrome, qber) {
                    let start = index * self.plan.frame_len;
                    errors.iter().for_each(|position| self.key.flip(start + *position as usize));
                    self.corrected += errors.len();
                    *frame = Frame::Done;
                    continue;
                }
                *attempts += 1;
                // A little more, then more of it.
                more = more.max(known * (step + *attempts) / 100).max(1);
            }
            *wanted = more.min(checks - syndrome.halves.len());
            if *wanted == 0 {
                *frame = Frame::Failed;
            }
        }
    }

    /// Estimates the error rate of frames that have no estimate yet; gives the mean of all for short frames.
    ///
    /// The parities of a short frame tell its error rate about as well as the mean of all frames does.
    fn estimate(&mut self) -> Option<f64> {
        let mut sum = 0.0;
        for (index, frame) in self.frames.iter_mut().enumerate() {
            let Frame::Open { syndrome, qber, .. } = frame else { continue };
            if self.mean_qber.is_none() {
                *qber = estimate_qber(&self.plan.code, self.plan.held(index), syndrome);
                sum += *qber;
            }
        }
        let mean = *self.mean_qber.get_or_insert_with(|| sum * share(1, self.frames.len().max(1)));
        if self.size == FrameSize::Short { Some(mean) } else { None }
    }
}

impl Frame {
    fn wanted(&self) -> usize {
        match self {
            Self::Open { wanted, .. } => *wanted,
            Self::Done | Self::Failed => 0,
        }
    }
}

/// Parities to disclose per key bit at this error rate, so that nearly every frame decodes.
fn parities(size: FrameSize, qber: f64) -> f64 {
    let entropy = entropy(qber);
    entropy * efficiency(size, entropy)
}

/// Binary entropy.
fn entropy(p: f64) -> f64 {
    -p * libm::log2(p) - (1.0 - p) * libm::log2(1.0 - p)
}

fn floor(value: f64) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of bits in a frame")]
    let whole = libm::floor(value.max(0.0)) as usize;
    whole
}

fn ceil(value: f64) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of bits in a frame")]
    let whole = libm::ceil(value.max(0.0)) as usize;
    whole
}

/// The first round asks for a little less: the syndrome itself tells the error rate.
const FIRST_SHARE: f64 = 0.99;

/// What is missing is asked for before decoding if it is more than one part in this many.
const WORTH_ASKING: usize = 200;

/// Estimates of frames closer than this to their mean differ by chance.
const NEAR: f64 = 0.1;

const QBER_MIN: f64 = 1e-4;
const QBER_MAX: f64 = 0.25;
