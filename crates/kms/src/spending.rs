//! Numbers spendings: a commit that spends key moves a durable number, so that a site whose records were set back can
//! be told by what others heard of it (`kme/set_back.rs`).

use crate::journal::Journal;
use crate::record::{self, Spends};

/// How far spending has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spending {
    /// What the records said at the start.
    pub(crate) began: u64,
    /// Now.
    pub(crate) at: u64,
    /// What the records say; at least `at`.
    stored: u64,
    /// The mutation spends what nobody else can tell of.
    alone: bool,
}

impl Spending {
    /// As it was stored.
    pub(crate) fn restored(at: u64) -> Self {
        Self { began: at, at, stored: at, alone: false }
    }

    /// Moves beyond another number.
    pub(crate) fn move_beyond(&mut self, other: u64, journal: &mut Journal) {
        self.at = self.stored.max(other).saturating_add(1);
        self.stored = self.at;
        journal.change(record::put_spent(self.at));
    }

    /// The mutation spends keys that are at this site alone: no other site can say that they are gone.
    pub(crate) fn of_this_site_alone(&mut self) {
        self.alone = true;
    }

    /// Counts what the mutation spends. Pad and keys of this site alone always move the stored number; for keys it is moved ahead by a lease.
    pub(crate) fn count(&mut self, journal: &mut Journal) {
        let alone = std::mem::take(&mut self.alone);
        let spends = |what| journal.changes().iter().any(|change| record::spends(change) == what);
        if spends(Spends::Pad) || alone {
            self.move_beyond(0, journal);
        } else if spends(Spends::Key) {
            self.at += 1;
            if self.at > self.stored {
                self.stored = self.at + KEYS_LEASE;
                journal.change(record::put_spent(self.stored));
            }
        }
    }
}

/// Takings of keys that one stored number covers, less one.
const KEYS_LEASE: u64 = 15;
