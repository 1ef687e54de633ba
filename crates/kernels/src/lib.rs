//! Vector instructions where plain Rust is too slow: the only crate with `unsafe` code.
//!
//! Every kernel has a portable twin with the same signature and the same results bit for bit; the fastest that the
//! processor has is chosen at run time. Nothing here knows what the words mean.
//!
//! | module | kernel |
//! |---|---|
//! | [`gf2x`] | middle products of polynomials over GF(2): Toeplitz matrices times vectors |
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod gf2x;
pub mod ldpc;
