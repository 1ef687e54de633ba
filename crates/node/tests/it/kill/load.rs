//! Applications at both ends that take and collect keys whatever happens, and write down what became of each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use client::{Error, Kme, SuppliedKey};
use crypto::hash::sha256;
use node::config::SaeConfig;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use types::id::{KeyId, SaeId};

use crate::world::World;

/// What became of a key that a master got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody asked for it yet, or all who did were refused.
    Waiting,
    /// Asked for, and no answer came: it may be delivered.
    Asked,
    /// The slave got it.
    Delivered,
    /// Gone, after a delivery whose answer was lost.
    LostOnTheWay,
}

/// A key that a master got. Its bits are not kept.
pub struct Taken {
    direction: usize,
    digest: [u8; 32],
    first: KeyId,
    pub state: State,
}

/// All that is known of all keys.
#[derive(Default)]
pub struct Book {
    keys: BTreeMap<KeyId, Taken>,
    ids: BTreeMap<[u8; 32], KeyId>,
    /// Requests for keys without an answer, by direction.
    pub unanswered: [usize; 2],
    refused: BTreeMap<String, usize>,
    faults: Vec<String>,
}

/// The running applications.
pub struct Load {
    runtime: Runtime,
    workers: JoinSet<()>,
    ends: Arc<Ends>,
}

struct Ends {
    book: Mutex<Book>,
    stop: AtomicBool,
    /// By direction: the master and the slave.
    pairs: [(End, End); 2],
}

struct End {
    id: SaeId,
    kme: Kme,
}

impl Load {
    /// Starts applications in both directions between east and west.
    pub fn start(world: &World, seed: u64) -> Self {
        let end = |site: &str| {
            let config = SaeConfig::read(&world.sae(site, &format!("app-{site}")).join("sae.toml")).unwrap();
            End { id: config.id.clone(), kme: node::sae::client(&config).unwrap() }
        };
        let pairs = [(end("east"), end("west")), (end("west"), end("east"))];
        let ends = Arc::new(Ends { book: Mutex::default(), stop: AtomicBool::new(false), pairs });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut workers = JoinSet::new();
        for n in 0..WORKERS {
            let (ends, random) = (ends.clone(), ChaCha20Rng::seed_from_u64(seed * 1_000 + n));
            let direction = usize::try_from(n % 2).unwrap();
            workers.spawn_on(async move { ends.work(direction, random).await }, runtime.handle());
        }
        Self { runtime, workers, ends }
    }

    /// Fails as soon as one application saw what may not be.
    pub fn check(&self) {
        let book = self.ends.book();
        assert!(book.faults.is_empty(), "{:#?}", book.faults);
    }

    /// Keys delivered so far, by direction.
    pub fn delivered(&self) -> [usize; 2] {
        let book = self.ends.book();
        [0, 1].map(|way| book.count(|key| key.direction == way && key.state == State::Delivered))
    }

    pub fn summary(&self) -> String {
        self.ends.book().summary()
    }

    /// Ends the load, collects every key that still waits, and asks for delivered ones again.
    pub fn finish(mut self) -> Book {
        self.ends.stop.store(true, Ordering::Relaxed);
        self.runtime.block_on(async {
            while let Some(ended) = self.workers.join_next().await {
                ended.unwrap();
            }
            let waiting: Vec<(KeyId, usize)> = self.ends.book().of(|key| key.state != State::Delivered);
            for (id, direction) in waiting {
                self.ends.collect(direction, &[id]).await;
            }
            let delivered = self.ends.book().of(|key| key.state == State::Delivered);
            for (id, direction) in delivered.into_iter().rev().take(AGAIN) {
                self.ends.collect_again(direction, id).await;
            }
        });
        self.check();
        std::mem::take(&mut *self.ends.book())
    }
}

impl Ends {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    async fn work(&self, direction: usize, mut random: ChaCha20Rng) {
        let mut below = |n: u64| random.next_u64() % n;
        while !self.stop.load(Ordering::Relaxed) {
            let ids = self.take(direction, u32::try_from(1 + below(3)).unwrap()).await;
            // Some wait through many kills, until the end.
            if !ids.is_empty() && below(4) > 0 {
                self.collect(direction, &ids).await;
            }
            pause(Duration::from_millis(below(150))).await;
        }
    }

    /// As a master.
    async fn take(&self, direction: usize, number: u32) -> Vec<KeyId> {
        let (master, slave) = &self.pairs[direction];
        match master.kme.encrypt(&slave.id, number, 256).await {
            Ok(keys) => {
                self.book().taken(direction, &keys);
                keys.iter().map(|key| key.id).collect()
            }
            Err(error) => {
                self.book().not_taken(direction, &error);
                pause(error.retry_after().unwrap_or(RETRY).min(RETRY)).await;
                Vec::new()
            }
        }
    }

    /// As a slave, until there is an answer.
    async fn collect(&self, direction: usize, ids: &[KeyId]) {
        let (master, slave) = &self.pairs[direction];
        let begun = Instant::now();
        loop {
            let error = match slave.kme.decrypt_all(&master.id, ids).await {
                Ok(keys) => return keys.iter().for_each(|key| self.book().delivered(key)),
                Err(error) => error,
            };
            if self.book().not_delivered(ids, &error) {
                return;
            }
            if begun.elapsed() > PATIENCE {
                return self.book().faults.push(format!("{ids:?} not within {PATIENCE:?}: {error}"));
            }
            pause(RETRY).await;
        }
    }

    /// What was delivered is gone.
    async fn collect_again(&self, direction: usize, id: KeyId) {
        let (master, slave) = &self.pairs[direction];
        match slave.kme.decrypt(&master.id, id).await {
            Err(Error::KeysNotFound(_)) => {}
            Err(other) => self.book().faults.push(format!("{id} again: {other}")),
            Ok(_) => self.book().faults.push(format!("{id} was delivered twice")),
        }
    }
}

impl Book {
    fn taken(&mut self, direction: usize, keys: &[SuppliedKey]) {
        let Some(first) = keys.first().map(|key| key.id) else { return };
        for key in keys {
            let digest = key.key.expose(sha256);
            if let Some(other) = self.ids.insert(digest, key.id) {
                self.faults.push(format!("{} has the bits of {other}", key.id));
            }
            let taken = Taken { direction, digest, first, state: State::Waiting };
            if self.keys.insert(key.id, taken).is_some() {
                self.faults.push(format!("{} was supplied twice", key.id));
            }
        }
    }

    fn not_taken(&mut self, direction: usize, error: &Error) {
        let name = match error {
            Error::Unavailable { sent: true, .. } => {
                self.unanswered[direction] += 1;
                "no answer".to_owned()
            }
            Error::Unavailable { .. } => "not reached".to_owned(),
            Error::Handshake { .. } => "no handshake".to_owned(),
            Error::NotEnough { refused, .. } | Error::Busy { refused, .. } => {
                format!("{:?}", refused.body.reason())
            }
            other => return self.faults.push(format!("a right request for keys: {other}")),
        };
        *self.refused.entry(name).or_default() += 1;
    }

    fn delivered(&mut self, key: &SuppliedKey) {
        let Some(taken) = self.keys.get_mut(&key.id) else {
            return self.faults.push(format!("{} was delivered, which nobody got", key.id));
        };
        if key.key.expose(sha256) != taken.digest {
            self.faults.push(format!("{} has other bits at its slave", key.id));
        }
        match std::mem::replace(&mut taken.state, State::Delivered) {
            State::Waiting | State::Asked => {}
            State::Delivered => self.faults.push(format!("{} was delivered twice", key.id)),
            State::LostOnTheWay => self.faults.push(format!("{} was gone and came back", key.id)),
        }
    }

    /// Whether it makes no sense to go on asking.
    fn not_delivered(&mut self, ids: &[KeyId], error: &Error) -> bool {
        match error {
            Error::KeysNotFound(_) => self.not_found(ids),
            Error::Unavailable { sent: true, .. } => {
                for id in ids {
                    let state = &mut self.keys.get_mut(id).unwrap().state;
                    *state = if *state == State::LostOnTheWay { *state } else { State::Asked };
                }
                return false;
            }
            Error::Busy { .. } | Error::Unavailable { .. } | Error::Handshake { .. } => return false,
            other => self.faults.push(format!("{other}: {ids:?}")),
        }
        true
    }

    /// Right only for what an answer that was lost has taken along.
    fn not_found(&mut self, ids: &[KeyId]) {
        for id in ids {
            let taken = self.keys.get_mut(id).unwrap();
            match taken.state {
                State::Asked | State::LostOnTheWay => taken.state = State::LostOnTheWay,
                state => self.faults.push(format!("{id}, direction {}, is lost ({state:?})", taken.direction)),
            }
        }
    }

    /// How many keys fit.
    pub fn count(&self, fits: impl Fn(&Taken) -> bool) -> usize {
        self.keys.values().filter(|key| fits(key)).count()
    }

    fn of(&self, fits: impl Fn(&Taken) -> bool) -> Vec<(KeyId, usize)> {
        self.keys.iter().filter(|(_, key)| fits(key)).map(|(id, key)| (*id, key.direction)).collect()
    }

    /// The first key of every answer of one direction.
    pub fn firsts(&self, direction: usize) -> Vec<String> {
        let firsts = self.keys.iter().filter(|(id, key)| **id == key.first && key.direction == direction);
        firsts.map(|(id, _)| id.to_string()).collect()
    }

    pub fn summary(&self) -> String {
        let count = |state| self.count(|key| key.state == state);
        format!(
            "{} keys: {} waiting, {} delivered, {} lost on the way to their slave; no answer to {:?} requests; refused: {:?}",
            self.keys.len(),
            count(State::Waiting),
            count(State::Delivered),
            count(State::Asked) + count(State::LostOnTheWay),
            self.unanswered,
            self.refused
        )
    }
}

async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Applications, half of them in each direction.
const WORKERS: u64 = 6;
const RETRY: Duration = Duration::from_millis(150);
/// A slave asks for no longer: every site is back long before.
const PATIENCE: Duration = Duration::from_secs(90);
/// Delivered keys that are asked for once more.
const AGAIN: usize = 200;
