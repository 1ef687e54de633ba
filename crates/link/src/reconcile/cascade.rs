//! Cascade (Brassard and Salvail 1993) with reuse of every parity learned, leaves cut where the error is as likely
//! on either side, and all frames of a block in lockstep.
//!
//! ```text
//!  Bob: Corrector                          Alice: Answerer
//!   round 1: start pass 0 in every frame  ->  parities of all its blocks
//!   round 2: first parts of odd leaves    ->  their parities
//!   ...      until no leaf is odd, then the next pass, frame by frame
//! ```
//!
//! - The sifted key is cut into frames of equal length, at most [`FRAME_MAX`] bits, so that a frame stays in cache and
//!   all frames share the orders of the passes. The last frame is filled with zeros.
//! - Pass 0 takes blocks of about `1/q` in the order of detection, pass 1 of about `5/q` in a public permutation,
//!   pass 2 eighths of the frame in another. Every later pass is a random subset of the frame and its complement,
//!   which finds a remaining pair of errors with probability 1/2 and needs no permutation.
//! - The parities learned cut a pass into leaves, and every leaf's parity at Alice is known. An odd leaf is cut in two:
//!   Alice tells the parity of the first part, that of the second follows. A corrected bit turns the leaf of every
//!   other pass odd or even. The odd leaves of all blocks are cut in the same round: measured, one leaf at a time would
//!   save 1 % of the parities for ten times the rounds.
//! - A bit that was corrected, or stands alone in an even leaf, is known to be right. An odd leaf with one bit that is
//!   not known needs no question, and a short leaf is cut by the weight of its bits: how likely each is wrong, by the
//!   length of its leaf in the other pass. Together that saves 1 to 3 % of the parities.
//! - No parity is asked twice, and the last block of a later pass is inferred from the frame's parity.
//!
//! **Leak.** Every parity that Alice sends is one disclosed bit; both halves count them. Bob sends no parities, but
//! what he asks depends on where his key differs, and leaving that out is a flaw of older analyses (Tupkary and
//! Lütkenhaus, Phys. Rev. Applied 20, 064040, 2023, arXiv:2307.00576). Their remedy is used here: everything Bob says
//! is a function of public values, Alice's parities and the error pattern `X xor Y`, so Eve is given the whole pattern
//! and Alice's parities are what is counted. They find that this costs no key in many practical cases and some in
//! others. Here the key-length proofs must bound the phase errors for an Eve who knows the pattern. For qubits they do:
//! bit errors (`ZZ`) and phase errors (`XX`) of a pair commute, so announcing the first does not change the second. For
//! detectors this rests on squashing to qubits, and the published finite-key proofs do not spell it out.
//!
//! **Provided.** Any length from 1 bit to 10^7, any error rate. **Not provided.** Certainty: a block in which
//! errors remain is found by verification and given up. Constant time: what Bob
//! does depends on the error pattern, which counts as public.

mod answerer;
mod corrector;
mod frame;
mod leaves;
mod plan;
mod question;
#[cfg(test)]
mod tests;

pub use self::answerer::Answerer;
pub use self::corrector::Corrector;
pub use self::plan::{FRAME_MAX, PASSES};
pub use self::question::{Question, Section, Work};
