//! What Bob asks in one round, and its bytes.

use types::codec::{CodecError, Reader, Writer};

use super::plan::{FRAME_MAX, PASSES};

/// One round: frames ascending, a frame's passes ascending.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Question {
    /// What is asked of each frame and pass.
    pub sections: Vec<Section>,
}

/// What is asked of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Which frame.
    pub frame: usize,
    /// Which pass.
    pub pass: usize,
    /// What.
    pub work: Work,
}

/// Parities of one frame in one pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Of all blocks of `block_len`, except the last in a later pass than the first: the frame's parity is known.
    Begin {
        /// Bits in a block.
        block_len: usize,
    },
    /// Of these ranges of positions: start and length, ascending and disjoint.
    Ranges(Vec<(usize, usize)>),
}

impl Question {
    /// Most frames: 10^7 bits.
    pub const FRAMES_MAX: usize = 10_000_000_usize.div_ceil(FRAME_MAX);

    /// Appends the bytes.
    pub fn write(&self, w: &mut Writer) {
        w.varint(self.sections.len() as u64);
        let mut frame_before = 0;
        for section in &self.sections {
            w.varint((section.frame - frame_before) as u64);
            frame_before = section.frame;
            w.u8(u8::try_from(section.pass).expect("passes are few"));
            match &section.work {
                Work::Begin { block_len } => {
                    w.varint(*block_len as u64);
                }
                Work::Ranges(ranges) => {
                    w.varint(0).varint(ranges.len() as u64);
                    let mut next = 0;
                    for (start, len) in ranges {
                        w.varint((start - next) as u64).varint(*len as u64);
                        next = start + len;
                    }
                }
            }
        }
    }

    /// Reads the bytes; every number is within its bound, frames and ranges ascend.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let count = bounded(r, "sections", Self::FRAMES_MAX * PASSES)?;
        let mut sections = Vec::with_capacity(count.min(r.left()));
        let mut frame_before = 0;
        for _ in 0..count {
            let frame = frame_before + bounded(r, "frame", Self::FRAMES_MAX)?;
            frame_before = frame;
            let pass = usize::from(r.u8("pass")?);
            if frame >= Self::FRAMES_MAX || pass >= PASSES {
                return Err(CodecError::Value { field: "frame or pass" });
            }
            let block_len = bounded(r, "block length", FRAME_MAX)?;
            let work = if block_len > 0 { Work::Begin { block_len } } else { Work::Ranges(ranges(r)?) };
            sections.push(Section { frame, pass, work });
        }
        Ok(Self { sections })
    }
}

fn ranges(r: &mut Reader<'_>) -> Result<Vec<(usize, usize)>, CodecError> {
    let count = bounded(r, "ranges", POSITIONS_MAX)?;
    if count == 0 {
        return Err(CodecError::Value { field: "ranges" });
    }
    let mut ranges = Vec::with_capacity(count.min(r.left()));
    let mut next = 0;
    for _ in 0..count {
        let start = next + bounded(r, "start", POSITIONS_MAX)?;
        let len = bounded(r, "length", FRAME_MAX)?;
        next = start + len;
        if len == 0 || next > POSITIONS_MAX {
            return Err(CodecError::Value { field: "range" });
        }
        ranges.push((start, len));
    }
    Ok(ranges)
}

/// Most positions in a pass: a subset and its complement.
const POSITIONS_MAX: usize = 2 * FRAME_MAX;

fn bounded(r: &mut Reader<'_>, field: &'static str, max: usize) -> Result<usize, CodecError> {
    match usize::try_from(r.varint(field)?) {
        Ok(value) if value <= max => Ok(value),
        Ok(len) => Err(CodecError::TooLong { field, len, max }),
        Err(_) => Err(CodecError::Value { field }),
    }
}
