//! The back end in PostgreSQL: several replicas of one site share a database, one of them writes.
//!
//! ```text
//!  replica A (writer, epoch 7) ──┐      owner: epoch 7, holder A, heartbeat
//!  replica B (waits)           ──┼──►   rows:  row key, sealed value, sealed secret
//!  replica C (waits)           ──┘      kek:   sealed key-encryption keys (KEK)
//! ```
//!
//! Values and secrets are sealed before they leave the process; the database sees table numbers, record keys and
//! sealed bytes. Every transaction first moves the heartbeat of its own epoch, in the same row that a takeover
//! changes: a writer that was paused finds another epoch, gets [`Error::Fenced`] and writes nothing. The clock that
//! leases run by is the database's.
//!
//! Who waits looks at that row four times in a lease. A session lock that the server frees with the writer's connection
//! would end the wait sooner after a killed process, but the lease must stay beside it: the server notices a host or a
//! network that vanished later than the lease does, a paused writer keeps its connection, and a pooler between shares
//! connections. `NOTIFY` tells only of a release in order, which costs a quarter of a lease now. One rule that holds in
//! every case was preferred to two.
//!
//! A KEK seals at most [`PIECES_MAX`] values and secrets, under nonces that count up, and only the process that made
//! it seals with it. Its row is deleted in the transaction that deletes the last piece sealed under it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crypto::record::{Change, Record};
use crypto::secret::SecretBytes;
use rand_core::CryptoRng;
use types::id::SiteId;

use crate::entry::{row_key, split_row_key};
use crate::kek::Class;
use crate::store::{Stats, record_name};
use crate::{Error, RootKey};

mod compaction;
mod open;
mod records;
mod rekey;
mod schema;
pub(crate) mod seal;
mod session;
#[cfg(test)]
mod tests;

pub(crate) use self::open::open;
pub(crate) use self::records::DatabaseRecords;
pub(crate) use self::seal::Piece;
use self::seal::{Kek, KekId, Part};
use self::session::{OldRow, Session};

/// How to reach the database, and as whom.
#[derive(Clone)]
pub struct DatabaseConfig {
    /// Connection string of libpq, `host=… user=… dbname=…`, or a `postgresql://` URL.
    pub connection: String,
    /// Password, when the server asks for one.
    pub password: Option<String>,
    /// TLS towards the server. Without it only a Unix socket or a loopback address is accepted.
    pub tls: Option<rustls::ClientConfig>,
    /// Whose records these are. A database that holds another site's is refused.
    pub site: SiteId,
    /// Name of this replica, for messages of the others.
    pub replica: String,
    /// How long a silent writer keeps its place.
    pub lease: Duration,
}

impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseConfig")
            .field("site", &self.site)
            .field("replica", &self.replica)
            .finish_non_exhaustive()
    }
}

/// The replica that writes now, seen by one that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// Its name.
    pub replica: String,
    /// Since when it was silent, by the database's clock.
    pub silent: Duration,
}

/// A store in a database.
pub(crate) struct Database {
    session: Session,
    name: PathBuf,
    site: SiteId,
    lease: Duration,
    epoch: i64,
    root: RootKey,
    rng: Box<dyn CryptoRng + Send>,
    keks: BTreeMap<KekId, Kek>,
    /// KEKs with a piece that did not open; not compacted.
    damaged: BTreeSet<KekId>,
    active: [Option<KekId>; Class::COUNT],
    next_kek: KekId,
    secrets: u64,
    secret_bytes: u64,
}

/// One row as it goes into the database.
#[derive(Debug)]
pub(crate) struct NewRow {
    pub(crate) row: Vec<u8>,
    pub(crate) value: Piece,
    pub(crate) secret: Option<Piece>,
}

/// What one commit does to one row, all its changes folded into the last.
enum Final<'a> {
    Put(&'a [u8], Option<&'a SecretBytes>),
    Update(&'a [u8]),
    Delete,
}

/// What goes into one transaction.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) new_keks: Vec<(KekId, u8, Vec<u8>)>,
    pub(crate) puts: Vec<NewRow>,
    pub(crate) updates: Vec<(Vec<u8>, Piece)>,
    pub(crate) deletes: Vec<Vec<u8>>,
    pub(crate) dead_keks: Vec<KekId>,
}

impl Database {
    /// Makes changes, whose limits were checked, durable together.
    pub(crate) fn commit(&mut self, changes: &[&Change]) -> Result<(), Error> {
        let rows = fold(changes)?;
        let keys: Vec<Vec<u8>> = rows.keys().cloned().collect();
        let old = self.session.begin(self.epoch, keys)?;
        let old: BTreeMap<Vec<u8>, OldRow> = old.into_iter().map(|old| (old.row.clone(), old)).collect();
        for (row, change) in &rows {
            if matches!(change, Final::Update(_)) && !old.contains_key(row) {
                self.session.roll_back()?;
                let name = split_row_key(row).map_or_else(String::new, |(table, key)| record_name(table, key));
                return Err(Error::ApiMisuse(format!("update of {name}, which is not there")));
            }
        }
        let batch = self.prepare(rows, &old)?;
        self.session.finish(batch)?;
        self.compact().map(|_| ())
    }

    /// Seals what a batch writes and counts what it ends.
    fn prepare(&mut self, rows: BTreeMap<Vec<u8>, Final<'_>>, old: &BTreeMap<Vec<u8>, OldRow>) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        for (row, change) in rows {
            let before = old.get(&row);
            match change {
                Final::Put(value, secret) => {
                    self.forget(before, true);
                    let class = self.class_of(&row)?;
                    let value = self.seal(class, &row, Part::Value, value, &mut batch);
                    let secret = match secret {
                        Some(secret) => {
                            self.secrets += 1;
                            self.secret_bytes += secret.len() as u64;
                            Some(secret.expose(|secret| self.seal(class, &row, Part::Secret, secret, &mut batch)))
                        }
                        None => None,
                    };
                    batch.puts.push(NewRow { row, value, secret });
                }
                Final::Update(value) => {
                    self.forget(before, false);
                    let class = self.class_of(&row)?;
                    let value = self.seal(class, &row, Part::Value, value, &mut batch);
                    batch.updates.push((row, value));
                }
                Final::Delete => {
                    self.forget(before, true);
                    batch.deletes.push(row);
                }
            }
        }
        self.collect_dead(&mut batch);
        Ok(batch)
    }

    /// Moves the heartbeat on.
    pub(crate) fn heartbeat(&mut self) -> Result<(), Error> {
        self.session.heartbeat(self.epoch)
    }

    /// How often [`Database::heartbeat`] is due when nothing is committed.
    pub(crate) fn heartbeat_every(&self) -> Duration {
        self.lease / 4
    }

    pub(crate) fn mark(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.session.mark(name)
    }

    pub(crate) fn set_mark(&mut self, name: &str, value: &[u8]) -> Result<(), Error> {
        self.session.set_mark(self.epoch, name, value)
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            segments: self.keks.len() as u64,
            damaged_segments: self.damaged.len() as u64,
            secrets: self.secrets,
            live_bytes: self.secret_bytes,
            reserved_bytes: 0,
        }
    }

    /// What it is called in messages.
    pub(crate) fn name(&self) -> &Path {
        &self.name
    }

    pub(crate) fn root(&self) -> &RootKey {
        &self.root
    }

    pub(crate) fn rng(&mut self) -> &mut (dyn CryptoRng + Send) {
        &mut *self.rng
    }

    /// Gives the place to the next replica; for a store that is closed in order.
    pub(crate) fn release(&mut self) {
        // If this fails, the lease runs out instead.
        drop(self.session.release(self.epoch));
    }

    fn class_of(&self, row: &[u8]) -> Result<Class, Error> {
        let (table, _) = split_row_key(row).ok_or_else(|| self.bad_row())?;
        Ok(Class::of(table))
    }

    /// Counts pieces that a change ends.
    fn forget(&mut self, old: Option<&OldRow>, with_secret: bool) {
        let Some(old) = old else { return };
        self.uncount(old.value_kek);
        if let Some((kek, len)) = old.secret
            && with_secret
        {
            self.uncount(kek);
            self.secrets -= 1;
            self.secret_bytes -= seal::secret_len(len);
        }
    }

    fn uncount(&mut self, id: KekId) {
        // A KEK that is missing is a damaged row's.
        if let Some(kek) = self.keks.get_mut(&id) {
            kek.pieces -= 1;
        }
    }

    /// KEKs without a piece go in the same transaction; an active one only when it is used up.
    fn collect_dead(&mut self, batch: &mut Batch) {
        let active = self.active;
        self.keks.retain(|id, kek| {
            let is_over = kek.pieces == 0 && (!active.contains(&Some(*id)) || kek.is_full());
            if is_over {
                batch.dead_keks.push(*id);
            }
            !is_over
        });
        for active in &mut self.active {
            if active.is_some_and(|id| !self.keks.contains_key(&id)) {
                *active = None;
            }
        }
        // One that was made and used up within this batch never reaches the database.
        let dead = &batch.dead_keks;
        batch.new_keks.retain(|(id, ..)| !dead.contains(id));
    }

    fn bad_row(&self) -> Error {
        Error::Corrupt { what: "a row".into(), path: self.name.clone(), reason: "the row is malformed" }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("name", &self.name)
            .field("epoch", &self.epoch)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// The last word of a list of changes on each row.
fn fold<'a>(changes: &[&'a Change]) -> Result<BTreeMap<Vec<u8>, Final<'a>>, Error> {
    let mut rows = BTreeMap::new();
    for change in changes {
        match change {
            Change::Put(Record { table, key, value, secret }) => {
                rows.insert(row_key(*table, key), Final::Put(value, secret.as_ref()));
            }
            Change::Update { table, key, value } => {
                let row = row_key(*table, key);
                let next = match rows.get(&row) {
                    None | Some(Final::Update(_)) => Final::Update(value),
                    Some(Final::Put(_, secret)) => Final::Put(value, *secret),
                    Some(Final::Delete) => {
                        let name = record_name(*table, key);
                        return Err(Error::ApiMisuse(format!("update of {name}, which is not there")));
                    }
                };
                rows.insert(row, next);
            }
            Change::Delete { table, key } => {
                rows.insert(row_key(*table, key), Final::Delete);
            }
        }
    }
    Ok(rows)
}

/// Most values and secrets under one KEK.
pub(crate) const PIECES_MAX: u64 = 1_024;
