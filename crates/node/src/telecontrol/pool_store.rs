//! Pools on disk: a thread of its own commits, so that waiting for the disk delays no frame.

use std::path::Path;
use std::sync::mpsc as std_mpsc;
use std::thread;

use crypto::record::Change;
use gateway::{Input, Pools, Role};
use store::{RootKey, Store};
use tokio::sync::mpsc;
use types::id::TerminalId;

use crate::entropy::os_rng;
use crate::failure::{Context as _, Failure, Outcome};

/// Makes changes of pools durable, in order.
#[derive(Debug)]
pub struct PoolStore {
    jobs: std_mpsc::Sender<Job>,
}

impl PoolStore {
    /// Opens or makes the store of a terminal's pools in `dir`. Without a root key file, one is made in `dir`.
    ///
    /// # Errors
    /// If the store cannot be opened or its records make no sense.
    pub fn open(dir: &Path, root_key: Option<&Path>, role: Role, terminal: &TerminalId) -> Outcome<(Self, Pools)> {
        let what = || format!("pool store {}", dir.display());
        std::fs::create_dir_all(dir).context(what)?;
        let own = dir.join("root.key");
        let key_file = root_key.unwrap_or(&own);
        let root = if root_key.is_none() && !own.exists() {
            RootKey::create_file(key_file, &mut os_rng())
        } else {
            RootKey::from_file(key_file)
        };
        let (store, records) = Store::open(&dir.join("store"), root.context(what)?, os_rng()).context(what)?;
        let pools = Pools::load(role, terminal.clone(), records).context(what)?;
        let (jobs, todo) = std_mpsc::channel();
        thread::Builder::new().name("pool-store".to_owned()).spawn(move || work(store, &todo)).context(what)?;
        Ok((Self { jobs }, pools))
    }

    /// Makes changes durable and says so to the session that asked.
    ///
    /// # Errors
    /// If the disk failed.
    pub(super) fn commit(&self, seq: u64, changes: Vec<Change>, answer: &mpsc::UnboundedSender<Input>) -> Outcome<()> {
        self.jobs
            .send(Job { seq, changes, answer: answer.clone() })
            .map_err(|_| Failure::new("the disk of the pools failed").remedy("see the log; restart when it is mended"))
    }
}

struct Job {
    seq: u64,
    changes: Vec<Change>,
    answer: mpsc::UnboundedSender<Input>,
}

fn work(mut store: Store, todo: &std_mpsc::Receiver<Job>) {
    while let Ok(first) = todo.recv() {
        // All that waits shares one wait for the disk.
        let jobs: Vec<Job> = std::iter::once(first).chain(todo.try_iter().take(JOBS_MAX)).collect();
        if let Err(error) = store.commit_many(jobs.iter().map(|job| job.changes.as_slice())) {
            tracing::error!(%error, "the pools cannot be written; the process must be restarted");
            return;
        }
        for job in jobs {
            drop(job.answer.send(Input::Durable(job.seq)));
        }
    }
}

const JOBS_MAX: usize = 256;
