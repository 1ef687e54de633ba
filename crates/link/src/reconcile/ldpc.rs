//! Rate-adaptive quasi-cyclic LDPC codes with blind increments.
//!
//! ```text
//!  Bob: Corrector                              Alice: Answerer
//!   round 1: code, split parities of each frame ->  syndromes of all frames, split parities
//!            estimates each frame's error rate from its own syndrome
//!   round 2: what is missing                    ->  split parities
//!            decodes; frame by frame:
//!   round 3: two percent more where it failed   ->  split parities
//!   ...      until every frame decodes or all its parities are out
//! ```
//!
//! - **Codes.** A base graph of 400 columns and 30 to 255 rows, lifted by circulants of any size, so that a frame may
//!   have any length; the few places left are filled with zeros that both know. The degrees of the columns were found
//!   by our own density evolution (Richardson, Shokrollahi, Urbanke 2001, IEEE Trans. Inf. Theory 47, 619) for the
//!   binary symmetric channel, as Elkouss et al. (arXiv:0901.2140) did for reconciliation, with a bound on the number
//!   of iterations; a test repeats the evolution. Between the designs counts are interpolated. Rotations are found
//!   at start-up by progressive edge growth from a constant seed and are the same everywhere.
//! - **Rate adaption.** The number of rows sets the rate coarsely. Finely, and when decoding fails, rows are split:
//!   beside the parity of a check Alice tells the parity of the first half of its edges, and the check becomes two.
//!   That is the puncturing of Elkouss et al. (arXiv:1006.2660) and the blind protocol of Martinez-Mateo et al.
//!   (2012) with a private random bit between the two halves, disclosed later: the bit cancels from the sum, so none is
//!   drawn. A code can disclose twice the bits of its syndrome.
//! - **Decoding.** Belief propagation row by row on the error pattern, in 16-bit integers
//!   ([`kernels::ldpc`]). It ends when the hard decisions have exactly the parities known; which processor it ran on
//!   changes nothing.
//!
//! **Leak.** Every parity that Alice sends is one disclosed bit, of frames that fail too; both halves count them.
//! Bob tells which frames want more: the error pattern counts as public (Tupkary and Luetkenhaus, arXiv:2307.00576).
//!
//! **Provided.** Any length from 1 bit to 10^7, error rates to about 20 %, and a guess of the error rate that may be
//! off by half: too low a guess costs a round and up to a tenth more leak, too high a guess its own excess.
//! **Not provided.** Efficiency below some ten thousand bits; certainty: a frame given up
//! ([`Corrector::failed_frames`]) or decoded to another word with the same parities is found by verification.

mod answerer;
mod code;
mod corrector;
mod decoder;
mod design;
#[cfg(test)]
mod evolution;
mod plan;
mod question;
#[cfg(test)]
mod tests;

pub use self::answerer::Answerer;
pub use self::corrector::Corrector;
pub use self::question::{FrameSize, Question};

/// `part / whole` of two counts.
fn share(part: usize, whole: usize) -> f64 {
    let float = |count| f64::from(u32::try_from(count).expect("counts of a key fit 32 bits"));
    float(part) / float(whole)
}
