//! One QKD link: sifting, parameter estimation, reconciliation, verification, privacy amplification.
