//! The connection: a thread of its own owns the client, so that any thread may wait for it, also one that runs an
//! asynchronous runtime.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use postgres::{Client, Statement};

use super::seal::{KekId, Piece};
use super::{Batch, NewRow, schema};
use crate::Error;

/// Sends work to the connection's thread and waits for it.
pub(super) struct Session {
    jobs: mpsc::Sender<Job>,
    name: PathBuf,
}

type Job = Box<dyn FnOnce(&mut Peer) + Send>;

/// The thread's own: the client, and the statements that every commit uses.
pub(super) struct Peer {
    pub(super) client: Client,
    fence: Statement,
    old_rows: Statement,
    put: Statement,
    update: Statement,
    delete: Statement,
}

/// What a row held before a commit.
#[derive(Debug)]
pub(super) struct OldRow {
    pub(super) row: Vec<u8>,
    pub(super) value_kek: KekId,
    /// KEK, and bytes of the sealed secret.
    pub(super) secret: Option<(KekId, u64)>,
}

/// A row with all it holds.
#[derive(Debug)]
pub(super) struct FullRow {
    pub(super) row: Vec<u8>,
    pub(super) value: Piece,
    pub(super) secret: Option<Piece>,
}

/// How much the rows hold.
pub(super) struct Counts {
    /// By KEK.
    pub(super) pieces: BTreeMap<KekId, u64>,
    pub(super) secrets: u64,
    pub(super) sealed_bytes: u64,
}

impl Session {
    /// Runs `prepare` on a thread of its own, then keeps the connection there.
    pub(super) fn start<R: Send + 'static>(
        name: &Path,
        connect: impl FnOnce() -> Result<(Client, R), Error> + Send + 'static,
    ) -> Result<(Self, R), Error> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (up, started) = mpsc::channel();
        let path = name.to_path_buf();
        let run = move || {
            let connected = connect().and_then(|(client, result)| Ok((Peer::new(client, &path)?, result)));
            let mut peer = match connected {
                Ok((peer, result)) => {
                    drop(up.send(Ok(result)));
                    peer
                }
                Err(error) => {
                    drop(up.send(Err(error)));
                    return;
                }
            };
            while let Ok(job) = inbox.recv() {
                job(&mut peer);
            }
        };
        let spawned = thread::Builder::new().name("store-database".to_owned()).spawn(run);
        spawned.map_err(Error::io("start a thread for", name))?;
        let result = started.recv().map_err(|_| Error::Poisoned)??;
        Ok((Self { jobs, name: name.to_path_buf() }, result))
    }

    /// Runs `work` on the connection and waits for it.
    pub(super) fn run<R: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Peer) -> Result<R, Refused> + Send + 'static,
    ) -> Result<R, Error> {
        let (done, result) = mpsc::channel();
        let job: Job = Box::new(move |peer| drop(done.send(work(peer))));
        self.jobs.send(job).map_err(|_| Error::Poisoned)?;
        match result.recv().map_err(|_| Error::Poisoned)? {
            Ok(result) => Ok(result),
            Err(Refused::Fenced) => Err(Error::Fenced { path: self.name.clone() }),
            Err(Refused::Server(source)) => {
                Err(Error::Database { action, path: self.name.clone(), source: Box::new(source) })
            }
        }
    }

    /// Opens a transaction, proves the epoch and reads what the named rows hold.
    pub(super) fn begin(&self, epoch: i64, rows: Vec<Vec<u8>>) -> Result<Vec<OldRow>, Error> {
        self.run("write to", move |peer| {
            peer.client.batch_execute("BEGIN")?;
            peer.prove(epoch)?;
            let found = peer.client.query(&peer.old_rows, &[&rows])?;
            Ok(found
                .iter()
                .map(|row| OldRow {
                    row: row.get(0),
                    value_kek: row.get(1),
                    secret: row.get::<_, Option<KekId>>(2).zip(row.get::<_, Option<i64>>(3).map(i64::cast_unsigned)),
                })
                .collect())
        })
    }

    pub(super) fn roll_back(&self) -> Result<(), Error> {
        self.run("write to", |peer| Ok(peer.client.batch_execute("ROLLBACK")?))
    }

    /// Writes a batch in the transaction that [`Session::begin`] opened: the commit point.
    pub(super) fn finish(&self, batch: Batch) -> Result<(), Error> {
        self.run("write to", move |peer| {
            let Batch { new_keks, puts, updates, deletes, dead_keks } = batch;
            if !new_keks.is_empty() {
                peer.put_keks(new_keks)?;
            }
            if !deletes.is_empty() {
                peer.client.execute(&peer.delete, &[&deletes])?;
            }
            if !puts.is_empty() {
                peer.put_rows(puts)?;
            }
            if !updates.is_empty() {
                let (rows, pieces): (Vec<_>, Vec<Piece>) = updates.into_iter().unzip();
                let (keks, values): (Vec<_>, Vec<_>) = pieces.into_iter().map(|p| (p.kek, p.sealed)).unzip();
                peer.client.execute(&peer.update, &[&rows, &keks, &values])?;
            }
            if !dead_keks.is_empty() {
                peer.client.execute(schema::DELETE_KEKS, &[&dead_keks])?;
            }
            Ok(peer.client.batch_execute("COMMIT")?)
        })
    }

    pub(super) fn heartbeat(&self, epoch: i64) -> Result<(), Error> {
        self.run("renew the lease in", move |peer| peer.prove(epoch))
    }

    pub(super) fn release(&self, epoch: i64) -> Result<(), Error> {
        self.run("release", move |peer| {
            peer.client.execute(schema::RELEASE, &[&epoch])?;
            Ok(())
        })
    }

    pub(super) fn mark(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let name = name.to_owned();
        self.run("read", move |peer| Ok(peer.client.query_opt(schema::MARK, &[&name])?.map(|row| row.get(0))))
    }

    pub(super) fn set_mark(&self, epoch: i64, name: &str, value: &[u8]) -> Result<(), Error> {
        let (name, value) = (name.to_owned(), value.to_vec());
        self.run("write to", move |peer| {
            peer.client.batch_execute("BEGIN")?;
            peer.prove(epoch)?;
            peer.client.execute(schema::SET_MARK, &[&name, &value])?;
            Ok(peer.client.batch_execute("COMMIT")?)
        })
    }

    /// The next rows after one, below another.
    pub(super) fn page(&self, after: Vec<u8>, below: Vec<u8>) -> Result<Vec<FullRow>, Error> {
        self.run("read", move |peer| Ok(full_rows(&peer.client.query(schema::PAGE, &[&after, &below, &PAGE_ROWS])?)))
    }

    /// Rows with a piece under a KEK, in a transaction of this epoch that stays open.
    pub(super) fn begin_with_kek(&self, epoch: i64, kek: KekId) -> Result<Vec<FullRow>, Error> {
        self.run("write to", move |peer| {
            peer.client.batch_execute("BEGIN")?;
            peer.prove(epoch)?;
            Ok(full_rows(&peer.client.query(schema::ROWS_OF_KEK, &[&kek])?))
        })
    }

    /// All KEKs as they stand in the database.
    pub(super) fn keks(&self) -> Result<Vec<(KekId, i16, Vec<u8>)>, Error> {
        self.run("read", |peer| {
            let keks = peer.client.query(schema::KEKS, &[])?;
            Ok(keks.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
        })
    }

    /// What the rows hold.
    pub(super) fn counts(&self) -> Result<Counts, Error> {
        self.run("read", |peer| {
            let pieces = peer.client.query(schema::COUNTS, &[])?;
            let secrets = peer.client.query_one(schema::SECRETS, &[])?;
            Ok(Counts {
                pieces: pieces.iter().map(|row| (row.get(0), row.get::<_, i64>(1).cast_unsigned())).collect(),
                secrets: secrets.get::<_, i64>(0).cast_unsigned(),
                sealed_bytes: secrets.get::<_, i64>(1).cast_unsigned(),
            })
        })
    }
}

impl Peer {
    fn new(mut client: Client, name: &Path) -> Result<Self, Error> {
        let mut prepare = |text: &str| {
            client.prepare(text).map_err(|source| Error::Database {
                action: "use the tables of",
                path: name.to_path_buf(),
                source: Box::new(source),
            })
        };
        let fence = prepare(schema::FENCE)?;
        let old_rows = prepare(schema::OLD_ROWS)?;
        let put = prepare(schema::PUT)?;
        let update = prepare(schema::UPDATE)?;
        let delete = prepare(schema::DELETE)?;
        Ok(Self { client, fence, old_rows, put, update, delete })
    }

    /// Moves the heartbeat of this epoch, or ends the transaction: another replica writes now.
    pub(super) fn prove(&mut self, epoch: i64) -> Result<(), Refused> {
        if self.client.execute(&self.fence, &[&epoch])? == 1 {
            return Ok(());
        }
        self.client.batch_execute("ROLLBACK")?;
        Err(Refused::Fenced)
    }

    pub(super) fn put_keks(&mut self, keks: Vec<(KekId, u8, Vec<u8>)>) -> Result<(), Refused> {
        let mut columns = (Vec::new(), Vec::new(), Vec::new());
        for (id, class, sealed) in keks {
            columns.0.push(id);
            columns.1.push(i16::from(class));
            columns.2.push(sealed);
        }
        self.client.execute(schema::PUT_KEKS, &[&columns.0, &columns.1, &columns.2])?;
        Ok(())
    }

    fn put_rows(&mut self, puts: Vec<NewRow>) -> Result<(), Refused> {
        let mut columns = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for NewRow { row, value, secret } in puts {
            let (secret_kek, secret) = secret.map(|piece| (piece.kek, piece.sealed)).unzip();
            columns.0.push(row);
            columns.1.push(value.kek);
            columns.2.push(value.sealed);
            columns.3.push(secret_kek);
            columns.4.push(secret);
        }
        self.client.execute(&self.put, &[&columns.0, &columns.1, &columns.2, &columns.3, &columns.4])?;
        Ok(())
    }
}

/// Why the connection did not do it.
pub(super) enum Refused {
    Fenced,
    Server(postgres::Error),
}

impl From<postgres::Error> for Refused {
    fn from(error: postgres::Error) -> Self {
        Self::Server(error)
    }
}

fn full_rows(rows: &[postgres::Row]) -> Vec<FullRow> {
    let full = |row: &postgres::Row| FullRow {
        row: row.get(0),
        value: Piece { kek: row.get(1), sealed: row.get(2) },
        secret: row.get::<_, Option<KekId>>(3).zip(row.get(4)).map(|(kek, sealed)| Piece { kek, sealed }),
    };
    rows.iter().map(full).collect()
}

/// Rows that are read at a time.
pub(super) const PAGE_ROWS: i64 = 512;
