//! Durable encrypted state: sealed key segments and a state table.
//!
//! | module | holds |
//! |---|---|
//! | [`store`] | [`Store`]: atomic, durable changes of the records of `crypto::record` |
//! | [`root_key`] | [`RootKey`]: the key that everything at rest hangs on; from a file, a passphrase or a token |
//! | `backup` | backups without one-time key, and how a store comes back from one |
//! | `embedded` | the records in a folder |
//! | `segment`, `kek` | preallocated files of sealed secrets, each under its own key-encryption key (KEK) |
//! | `entry` | a record's row in the state table |
//! | `disk` | the few file operations used, so that tests can cut the power between any two |
//! | `database` | the records in PostgreSQL, with one writer among several replicas |
//!
//! Formats, crash cases and what is assumed of the medium: `docs/formats/store.md`.
//!
//! ```
//! # use crypto::{record::{Change, Record, Table}, secret::SecretBytes};
//! # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//! # let rng = ChaCha20Rng::from_seed([1; 32]); // a real caller passes the operating system's generator
//! # let folder = tempfile::tempdir()?;
//! use store::{RootKey, Store};
//! let key_file = folder.path().join("root.key");
//! let (mut store, records) =
//!     Store::open(&folder.path().join("store"), RootKey::create_file(&key_file, &mut rng.clone())?, rng.clone())?;
//! assert!(records.is_empty());
//! let secret = Some(SecretBytes::copy_of(b"thirty-two bytes of quantum key."));
//! store.commit(&[Change::Put(Record { table: Table::PairKey, key: vec![1], value: vec![2], secret })])?;
//! drop(store);
//! let (_, records) = Store::open(&folder.path().join("store"), RootKey::from_file(&key_file)?, rng)?;
//! assert_eq!(records.len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod backup;
mod database;
mod disk;
mod embedded;
mod entry;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod kek;
#[cfg(test)]
mod model;
pub mod root_key;
mod segment;
pub mod store;

pub use backup::{BackupInfo, Incarnation};
pub use database::{DatabaseConfig, Writer};
pub use error::Error;
pub use root_key::RootKey;
pub use root_key::protected::{PASSPHRASE_MIN, PassphraseCost};
pub use root_key::source::SecretSource;
pub use root_key::token::Token;
pub use store::{Damaged, Loaded, Records, Stats, Store};
