//! A client of key management entities, for applications that want quantum keys (ETSI GS QKD 014 V1.1.1).
//!
//! ```no_run
//! # async fn example() -> Result<(), client::Error> {
//! use client::{Credentials, Error, Kme};
//! use types::id::SaeId;
//!
//! let sae = |text| SaeId::new(text).expect("a plain word is an SAE id");
//! let credentials = Credentials::from_files("ca.pem", "cert.pem", "key.pem")?;
//! let here = Kme::new("kme-east.utility.example:8443".parse()?, &credentials)?;
//! let keys = match here.encrypt(&sae("scada-west"), 2, 256).await {
//!     Ok(keys) => keys,
//!     // Nothing was consumed: wait, or go on with another kind of key.
//!     Err(Error::NotEnough { retry_after, .. }) => return Ok(drop(retry_after)),
//!     Err(error) => return Err(error),
//! };
//! // The ids may travel in clear; the other end collects the same bits under them, once.
//! let ids: Vec<_> = keys.iter().map(|key| key.id).collect();
//! # let there = here;
//! let same = there.decrypt_all(&sae("scada-east"), &ids).await?;
//! # drop(same);
//! # Ok(())
//! # }
//! ```
//!
//! Provided: mutual TLS (1.3 with X25519MLKEM768 preferred, 1.2 for older KMEs), connections that are kept and shared
//! by concurrent calls, time-outs, errors that tell what to do. KMEs of other makers answer in their own ways within
//! the standard; those are understood as well.
//! Not provided: repetition. A request for keys is sent once; when its answer is lost, the keys are lost and nobody
//! ever gets them again.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod connection;
mod credentials;
mod error;
mod intake;
mod kme;
mod notices;

pub use etsi::etsi014::{
    Class, ErrorBody, Extension, KeyOrigin, KeyRequest, Reason, Route, Status, SuppliedKey, Wishes,
};

pub use self::connection::{Server, Timeouts};
pub use self::credentials::Credentials;
pub use self::error::{Error, Refused};
pub use self::kme::Kme;
pub use self::notices::{Notice, NoticedKey, Notices};
