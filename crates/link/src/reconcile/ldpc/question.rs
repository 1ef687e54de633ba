//! What Bob asks in one round, and its bytes.

use types::codec::{CodecError, Reader, Writer};

use super::design::{COLUMNS, ROWS_MAX, ROWS_MIN};

/// One round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The first: the syndromes of all frames in this code.
    Begin {
        /// How long the frames are.
        size: FrameSize,
        /// Which code, by the rows of its base graph.
        rows: usize,
        /// How many split parities of each frame beside its syndrome.
        splits: usize,
    },
    /// More split parities: frame and how many, frames ascending.
    More(Vec<(usize, usize)>),
}

/// How long the frames of a key are at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameSize {
    /// 819,200 bits: least leak.
    Long,
    /// 25,600 bits: least work, and a frame that fails costs little.
    Short,
}

impl FrameSize {
    /// Most key bits in a frame.
    #[must_use]
    pub const fn bits_max(self) -> usize {
        COLUMNS
            * match self {
                Self::Long => 2_048,
                Self::Short => 64,
            }
    }
}

impl Question {
    /// Most frames: 10^7 bits in short ones.
    pub const FRAMES_MAX: usize = 10_000_000_usize.div_ceil(FrameSize::Short.bits_max());

    /// Most split parities of one frame: as many as it has checks.
    const SPLITS_MAX: usize = FrameSize::Long.bits_max();

    /// Appends the bytes.
    pub fn write(&self, w: &mut Writer) {
        match self {
            Self::Begin { size, rows, splits } => {
                w.u8(match size {
                    FrameSize::Long => 0,
                    FrameSize::Short => 1,
                });
                w.u8(u8::try_from(*rows).expect("rows are below 256")).varint(*splits as u64);
            }
            Self::More(frames) => {
                w.u8(2).varint(frames.len() as u64);
                let mut next = 0;
                for (frame, splits) in frames {
                    w.varint((frame - next) as u64).varint(*splits as u64);
                    next = frame + 1;
                }
            }
        }
    }

    /// Reads the bytes; every number is within its bound, frames ascend.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let size = match r.u8("kind of question")? {
            0 => FrameSize::Long,
            1 => FrameSize::Short,
            2 => return Self::read_more(r),
            _ => return Err(CodecError::Value { field: "kind of question" }),
        };
        let rows = usize::from(r.u8("rows")?);
        if !(ROWS_MIN..=ROWS_MAX).contains(&rows) {
            return Err(CodecError::Value { field: "rows" });
        }
        let splits = bounded(r, "split parities", Self::SPLITS_MAX)?;
        Ok(Self::Begin { size, rows, splits })
    }

    fn read_more(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let count = bounded(r, "frames", Self::FRAMES_MAX)?;
        if count == 0 {
            return Err(CodecError::Value { field: "frames" });
        }
        let mut frames = Vec::with_capacity(count.min(r.left()));
        let mut next = 0;
        for _ in 0..count {
            let frame = next + bounded(r, "frame", Self::FRAMES_MAX)?;
            let splits = bounded(r, "split parities", Self::SPLITS_MAX)?;
            if frame >= Self::FRAMES_MAX || splits == 0 {
                return Err(CodecError::Value { field: "frame or split parities" });
            }
            frames.push((frame, splits));
            next = frame + 1;
        }
        Ok(Self::More(frames))
    }
}

fn bounded(r: &mut Reader<'_>, field: &'static str, max: usize) -> Result<usize, CodecError> {
    match usize::try_from(r.varint(field)?) {
        Ok(value) if value <= max => Ok(value),
        Ok(len) => Err(CodecError::TooLong { field, len, max }),
        Err(_) => Err(CodecError::Value { field }),
    }
}
