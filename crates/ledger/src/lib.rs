//! Per-site Merkle log, proofs, export, offline verifier.
