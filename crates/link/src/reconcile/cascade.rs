//! Cascade (Brassard and Salvail 1993) with the block sizes of Yan et al. (2008), reuse of every parity learned,
//! and all frames of a block in lockstep.
//!
//! ```text
//!  Bob: Corrector                          Alice: Answerer
//!   round 1: start pass 1 in every frame  ->  parities of all its blocks
//!   round 2: halves of the odd blocks     ->  their parities
//!   ...      until no leaf is odd, then the next pass, frame by frame
//! ```
//!
//! - The sifted key is cut into frames of equal length, at most [`FRAME_MAX`] bits, so that positions fit 16 bits,
//!   a frame stays in cache, and all frames share one permutation per pass. The last frame is filled with zeros.
//! - Pass 1 takes blocks of `0.8/q` in the order of detection, pass 2 of `4/q`, pass 3 sixteenths and every later
//!   pass halves of the frame, each in its own public permutation.
//! - The parities learned cut a pass into leaves, and every leaf's parity at Alice is known. An odd leaf is halved:
//!   Alice tells the parity of the left half, that of the right half follows. A corrected bit turns the leaf of every
//!   other pass odd or even. The odd leaves of all passes are halved in the same round: measured, that takes half the
//!   rounds of going pass by pass and costs no parity more.
//! - No parity is asked twice, and the last block of a later pass is inferred from the frame's parity.
//!
//! **Leak.** Every parity that Alice sends is one disclosed bit; both halves count them. Bob sends no parities, but
//! his questions tell where his key differs: the error pattern counts as public (Tupkary and Luetkenhaus,
//! arXiv:2307.00576). The phase-error bound of the key-length proof holds for an adversary who knows it.
//!
//! **Provided.** Any length from 1 bit to 10^7, any error rate. **Not provided.** Certainty: a block in which
//! errors remain is found by verification and given up.

mod answerer;
mod corrector;
mod plan;
mod question;

pub use self::answerer::Answerer;
pub use self::corrector::Corrector;
pub use self::plan::{FRAME_MAX, PASSES};
pub use self::question::{Question, Section, Work};
