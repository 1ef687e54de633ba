//! Messages of the standards by which keys are asked for and handed over: typed, bounded, in both directions.
//!
//! | module | standard |
//! |---|---|
//! | [`etsi004`] | ETSI GS QKD 004 V2.1.1: key streams, as frames of two dialects |
//! | [`etsi014`] | ETSI GS QKD 014 V1.1.1: REST key delivery to applications |
//! | [`etsi015`] | ETSI GS QKD 015 V2.1.1: what a controller of networks sees of a node |
//! | [`etsi020`] | ETSI GS QKD 020 V1.1.1: keys between the key management of two makers |
//! | [`skip`] | Cisco's SKIP: key provider to encryptor |
//!
//! Not provided: transport, and what is done with a message.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod etsi004;
pub mod etsi014;
pub mod etsi015;
pub mod etsi020;
pub mod skip;
