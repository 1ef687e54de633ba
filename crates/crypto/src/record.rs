//! Durable records: what a core asks the store to keep, with a public part and an optional secret part.
//!
//! A core emits a list of [`Change`]s that must become durable together before their effect is visible. The
//! store keeps the public value readable and the secret only sealed, and destroys the secret with its record.

use alloc::vec::Vec;

use crate::secret::SecretBytes;

/// Which kind of record. The number is the table's name on disk: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Table {
    /// State of a link's end: counters and positions.
    LinkState = 1,
    /// Authentication key of a link, in pieces.
    LinkAuthentication = 2,
    /// Blocks that one end filed and the other has not confirmed yet.
    LinkPending = 3,
    /// Blocks of a link's key pool.
    PoolBlock = 4,
    /// High-water marks of a link's key pool.
    PoolMark = 5,
    /// End-to-end keys of a pair of sites.
    PairKey = 6,
    /// Keys supplied to a master SAE and waiting for the slave.
    Delivery = 7,
    /// Batches of terminal key.
    TerminalBatch = 8,
    /// Model keys held by a site.
    ModelKey = 9,
    /// Keys to and from other networks, and what their KMEs must still be told.
    Interwork = 20,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 10] = [
        Self::LinkState,
        Self::LinkAuthentication,
        Self::LinkPending,
        Self::PoolBlock,
        Self::PoolMark,
        Self::PairKey,
        Self::Delivery,
        Self::TerminalBatch,
        Self::ModelKey,
        Self::Interwork,
    ];

    /// The table of a number on disk.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| *table as u8 == number)
    }
}

/// One change of durable state.
#[derive(Debug)]
pub enum Change {
    /// Writes a record, replacing one with the same key; a replaced record's secret is destroyed.
    Put(Record),
    /// Replaces the public value and keeps the secret. The record must be there.
    Update {
        /// Which table.
        table: Table,
        /// Key within the table.
        key: Vec<u8>,
        /// The new public value.
        value: Vec<u8>,
    },
    /// Removes a record and destroys its secret; nothing happens if it is not there.
    Delete {
        /// Which table.
        table: Table,
        /// Key within the table.
        key: Vec<u8>,
    },
}

impl Change {
    /// The record that this change writes whole, if it does.
    #[must_use]
    pub fn into_put(self) -> Option<Record> {
        match self {
            Self::Put(record) => Some(record),
            Self::Update { .. } | Self::Delete { .. } => None,
        }
    }
}

/// One durable record.
#[derive(Debug)]
pub struct Record {
    /// Which table.
    pub table: Table,
    /// Key within the table; at most [`Record::KEY_MAX`] bytes.
    pub key: Vec<u8>,
    /// Public value: ids, counts, times; at most [`Record::VALUE_MAX`] bytes.
    pub value: Vec<u8>,
    /// Secret value, kept sealed; at most [`Record::SECRET_MAX`] bytes.
    pub secret: Option<SecretBytes>,
}

impl Record {
    /// Largest key in bytes.
    pub const KEY_MAX: usize = 256;
    /// Largest public value in bytes.
    pub const VALUE_MAX: usize = 64 * 1024;
    /// Largest secret in bytes.
    pub const SECRET_MAX: usize = 2 * 1024 * 1024;
}
