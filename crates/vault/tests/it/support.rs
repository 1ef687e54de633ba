//! A world for the tests: a key source with two ends, a store that fails on demand, generated models.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crypto::secret::Key256;
use crypto::sign::SigningKey;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use types::event::Event;
use types::id::{KeyId, ModelId, SiteId};
use types::units::UtcNanos;
use vault::{
    AuditError, FetchRequest, Fetched, FileKeyring, KeyError, ModelFile, Observer, Plan, PublishRequest, Published,
    Publishers, Rules, Vault, WrappingKeys,
};

/// Gives every pair of sites the same keys at both ends, each once at each end.
pub(crate) struct Keys {
    rng: Mutex<ChaCha8Rng>,
    waiting: Mutex<HashMap<KeyId, Key256>>,
    pub(crate) supplied: AtomicU64,
    pub(crate) stock: AtomicU64,
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self {
            rng: Mutex::new(ChaCha8Rng::seed_from_u64(77)),
            waiting: Mutex::new(HashMap::new()),
            supplied: AtomicU64::new(0),
            stock: AtomicU64::new(1000),
        }
    }
}

impl WrappingKeys for Keys {
    async fn stock(&self, _: &SiteId) -> Result<Option<u64>, KeyError> {
        Ok(Some(self.stock.load(Ordering::SeqCst)))
    }

    async fn supply(&self, _: &SiteId, number: u32) -> Result<Vec<(KeyId, Key256)>, KeyError> {
        let (mut rng, mut waiting) = (self.rng.lock().unwrap(), self.waiting.lock().unwrap());
        self.supplied.fetch_add(u64::from(number), Ordering::SeqCst);
        Ok((0..number)
            .map(|_| {
                let mut id = [0; 16];
                rng.fill_bytes(&mut id);
                let (id, key) = (KeyId::from_random(id), Key256::random(&mut *rng));
                waiting.insert(id, key.expose(Key256::copy_of));
                (id, key)
            })
            .collect())
    }

    async fn collect(&self, _: &SiteId, ids: &[KeyId]) -> Result<Vec<Key256>, KeyError> {
        let mut waiting = self.waiting.lock().unwrap();
        ids.iter().map(|id| waiting.remove(id).ok_or(KeyError::Spent { id: *id })).collect()
    }
}

/// A store in memory that counts, and fails at a chosen write or read and at all that follow.
#[derive(Clone)]
pub(crate) struct Faulty {
    pub(crate) inner: Arc<InMemory>,
    pub(crate) writes: Arc<AtomicU64>,
    pub(crate) reads: Arc<AtomicU64>,
    pub(crate) read_bytes: Arc<AtomicU64>,
    /// The first write or read that fails.
    pub(crate) fail_write: Arc<AtomicU64>,
    pub(crate) fail_read: Arc<AtomicU64>,
    /// The failing write reaches the store all the same, as when a reply is lost.
    pub(crate) reply_lost: Arc<AtomicBool>,
    /// Deletes fail too: the machine is gone.
    pub(crate) dead: Arc<AtomicBool>,
}

impl Faulty {
    pub(crate) fn new() -> Self {
        let counter = |value| Arc::new(AtomicU64::new(value));
        Self {
            inner: Arc::new(InMemory::new()),
            writes: counter(0),
            reads: counter(0),
            read_bytes: counter(0),
            fail_write: counter(u64::MAX),
            fail_read: counter(u64::MAX),
            reply_lost: Arc::default(),
            dead: Arc::default(),
        }
    }

    /// Counts from zero again, without faults.
    pub(crate) fn heal(&self) {
        for counter in [&self.writes, &self.reads, &self.read_bytes] {
            counter.store(0, Ordering::SeqCst);
        }
        self.fail_write.store(u64::MAX, Ordering::SeqCst);
        self.fail_read.store(u64::MAX, Ordering::SeqCst);
        self.dead.store(false, Ordering::SeqCst);
    }

    pub(crate) async fn objects(&self) -> Vec<Path> {
        let mut paths: Vec<Path> = self.inner.list(None).map(|object| object.unwrap().location).collect().await;
        paths.sort();
        paths
    }

    pub(crate) async fn change(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.inner.get(path).await.unwrap().bytes().await.unwrap().to_vec();
        change(&mut bytes);
        self.inner.put(path, bytes.into()).await.unwrap();
    }
}

fn broken() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "broken on purpose".into() }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

type Fut<'a, T> = Pin<Box<dyn Future<Output = StoreResult<T>> + Send + 'a>>;

impl ObjectStore for Faulty {
    fn put_opts<'a, 'b, 'c>(&'a self, location: &'b Path, payload: PutPayload, opts: PutOptions) -> Fut<'c, PutResult>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async move {
            let number = self.writes.fetch_add(1, Ordering::SeqCst);
            let fails = number >= self.fail_write.load(Ordering::SeqCst);
            if fails && !self.reply_lost.load(Ordering::SeqCst) {
                return Err(broken());
            }
            let done = self.inner.put_opts(location, payload, opts).await;
            if fails { Err(broken()) } else { done }
        })
    }

    fn put_multipart_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Path,
        opts: PutMultipartOptions,
    ) -> Fut<'c, Box<dyn MultipartUpload>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.inner.put_multipart_opts(location, opts)
    }

    fn get_opts<'a, 'b, 'c>(&'a self, location: &'b Path, options: GetOptions) -> Fut<'c, GetResult>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async move {
            if !options.head
                && location.filename().is_some_and(|name| name.starts_with("pack"))
                && self.reads.fetch_add(1, Ordering::SeqCst) >= self.fail_read.load(Ordering::SeqCst)
            {
                return Err(broken());
            }
            let head = options.head;
            let got = self.inner.get_opts(location, options).await?;
            if !head {
                self.read_bytes.fetch_add(got.range.end - got.range.start, Ordering::SeqCst);
            }
            Ok(got)
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        if self.dead.load(Ordering::SeqCst) {
            return futures_util::stream::once(async { Err(broken()) }).boxed();
        }
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_delimiter<'a, 'b, 'c>(&'a self, prefix: Option<&'b Path>) -> Fut<'c, ListResult>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.inner.list_with_delimiter(prefix)
    }

    fn copy_opts<'a, 'b, 'd, 'c>(&'a self, from: &'b Path, to: &'d Path, options: CopyOptions) -> Fut<'c, ()>
    where
        'a: 'c,
        'b: 'c,
        'd: 'c,
        Self: 'c,
    {
        self.inner.copy_opts(from, to, options)
    }
}

/// Remembers the events.
#[derive(Default)]
pub(crate) struct Events {
    pub(crate) log: Vec<Event>,
    pub(crate) refuse: bool,
}

impl Observer for Events {
    fn event(&mut self, event: Event) -> BoxFuture<'_, Result<(), AuditError>> {
        if self.refuse {
            return Box::pin(async { Err("the log is full".into()) });
        }
        self.log.push(event);
        Box::pin(async { Ok(()) })
    }
}

/// A publisher at taiyuan, receivers elsewhere, one store.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: Faulty,
    pub(crate) vault: Vault,
    pub(crate) keys: Keys,
    pub(crate) signing: SigningKey,
    pub(crate) events: Events,
    rng: ChaCha8Rng,
}

impl World {
    pub(crate) fn new() -> Self {
        let store = Faulty::new();
        Self {
            folder: tempfile::tempdir().unwrap(),
            vault: Vault::over(Arc::new(store.clone())),
            store,
            keys: Keys::new(),
            signing: SigningKey::from_seed(&Key256::copy_of(&[3; 32])),
            events: Events::default(),
            rng: ChaCha8Rng::seed_from_u64(1),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn ring(&self, name: &str) -> FileKeyring {
        FileKeyring::open(&self.path("rings").join(name), Key256::copy_of(&[9; 32])).unwrap()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn publishers(&self) -> Publishers {
        Publishers::only(site("taiyuan"), self.signing.verifying_key().clone())
    }

    pub(crate) async fn publish(&mut self, bytes: &[u8], sites: &[&str]) -> vault::Result<Published> {
        let file = Arc::new(ModelFile::open(&self.write("source.safetensors", bytes))?);
        self.publish_file(&file, sites).await
    }

    pub(crate) async fn publish_file(&mut self, file: &Arc<ModelFile>, sites: &[&str]) -> vault::Result<Published> {
        let plan = Plan::new(file, &Rules::default(), 4)?;
        let sites: Vec<_> = sites.iter().map(|name| site(name)).collect();
        let request = PublishRequest {
            model: &model(),
            publisher: &site("taiyuan"),
            sites: &sites,
            signing: &self.signing,
            now: UtcNanos(1),
        };
        let ring = self.ring("taiyuan");
        self.vault.publish((file, &plan), request, &self.keys, &ring, &mut self.rng, &mut self.events).await
    }

    pub(crate) async fn fetch(&mut self, name: &str, version: Option<u64>, target: &str) -> vault::Result<Fetched> {
        let (ring, target) = (self.ring(name), self.path(target));
        let request = FetchRequest { model: &model(), version, site: &site(name), publishers: &self.publishers() };
        self.vault.fetch(request, &target, &self.keys, &ring, &mut self.events).await
    }

    /// The objects of the newest attempt whose name begins so.
    pub(crate) async fn object(&self, name: &str) -> Path {
        let paths = self.store.objects().await;
        paths.into_iter().rfind(|path| path.filename().unwrap().starts_with(name)).unwrap()
    }
}

pub(crate) fn site(name: &str) -> SiteId {
    SiteId::new(name).unwrap()
}

pub(crate) fn model() -> ModelId {
    ModelId::new("grid-model").unwrap()
}

/// A safetensors file of tensors `(name, dtype, shape)` with generated bytes; `pad` spaces end the header.
pub(crate) fn safetensors(tensors: &[(&str, &str, &[usize])], seed: u64, pad: usize) -> Vec<u8> {
    let (mut entries, mut offset) = (Vec::new(), 0);
    for (name, dtype, shape) in tensors {
        let size = match *dtype {
            "I64" | "F64" => 8,
            "F32" => 4,
            "F16" | "BF16" => 2,
            _ => 1,
        };
        let end = offset + shape.iter().product::<usize>() * size;
        entries.push(format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{offset},{end}]}}"#));
        offset = end;
    }
    let json = format!("{{{}}}{}", entries.join(","), " ".repeat(pad));
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(json.as_bytes());
    let start = file.len();
    file.resize(start + offset, 0);
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut file[start..]);
    file
}

/// An odd model: more than one pack, a tensor above 4 MiB, empty and scalar ones, an unaligned header.
pub(crate) fn odd_model(seed: u64) -> Vec<u8> {
    safetensors(
        &[
            ("model.embed_tokens.weight", "BF16", &[1500, 2000]),
            ("empty", "F32", &[0, 5]),
            ("model.layers.0.position_ids", "I64", &[1, 512]),
            ("scalar", "F32", &[]),
            ("big", "U8", &[11_000_001]),
            ("lm_head.weight", "F16", &[17, 3]),
        ],
        seed,
        3,
    )
}
