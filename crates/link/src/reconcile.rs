//! Reconciliation: Bob's sifted key is corrected to Alice's, and every bit disclosed on the way is counted.
//!
//! | method | module | rounds | efficiency f |
//! |---|---|---|---|
//! | Cascade, blocks of all frames in lockstep | [`cascade`] | some hundred | about 1.05 |
//!
//! A method has two halves: one that answers at Alice and one that corrects at Bob. What they exchange is opaque to
//! the rest of the link, which frames, counts and authenticates it. A rate-adaptive LDPC code is the next method;
//! it goes beside [`cascade`].

pub mod cascade;
