//! Publish and fetch rates over a store in memory and over a folder, in bytes of the model file.
//!
//! `cargo bench -p vault`

use std::hint::black_box;
use std::sync::{Arc, Mutex};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crypto::secret::Key256;
use crypto::sign::SigningKey;
use object_store::memory::InMemory;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use types::id::{KeyId, ModelId, SiteId};
use types::units::UtcNanos;
use vault::{
    FetchRequest, FileKeyring, KeyError, ModelFile, Plan, PublishRequest, Publishers, Rules, Unobserved, Vault,
    WrappingKeys,
};

const BYTES: usize = 256 * 1024 * 1024;

/// The same key at both ends, derived from its id: for benches only.
struct Keys(Mutex<ChaCha8Rng>);

impl WrappingKeys for Keys {
    async fn stock(&self, _: &SiteId) -> Result<Option<u64>, KeyError> {
        Ok(None)
    }

    async fn supply(&self, _: &SiteId, number: u32) -> Result<Vec<(KeyId, Key256)>, KeyError> {
        let mut rng = self.0.lock().expect("nothing panics under the lock");
        let mut id = [0; 16];
        Ok((0..number)
            .map(|_| {
                rng.fill_bytes(&mut id);
                (KeyId::from_random(id), Key256::copy_of(&[7; 32]))
            })
            .collect())
    }

    async fn collect(&self, _: &SiteId, ids: &[KeyId]) -> Result<Vec<Key256>, KeyError> {
        Ok(ids.iter().map(|_| Key256::copy_of(&[7; 32])).collect())
    }
}

fn rates(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.bin");
    let mut bytes = vec![0; BYTES];
    ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut bytes);
    std::fs::write(&path, bytes).expect("the model is written");
    let file = Arc::new(ModelFile::open_opaque(&path).expect("the model opens"));
    let plan = Plan::new(&file, &Rules::default(), 1).expect("one key is enough");
    let signing = SigningKey::from_seed(&Key256::copy_of(&[1; 32]));
    let site = |name| SiteId::new(name).expect("a site id");
    let (publisher, receivers, model) = (site("taiyuan"), [site("datong")], ModelId::new("m").expect("a model name"));
    let publishers = Publishers::only(publisher.clone(), signing.verifying_key().clone());
    let keys = Keys(Mutex::new(ChaCha8Rng::seed_from_u64(2)));
    let ring = FileKeyring::open(&folder.path().join("ring"), Key256::copy_of(&[2; 32])).expect("a keyring");
    let request =
        PublishRequest { model: &model, publisher: &publisher, sites: &receivers, signing: &signing, now: UtcNanos(0) };
    let fetch = FetchRequest { model: &model, version: Some(1), site: &receivers[0], publishers: &publishers };

    let publish = |vault: &Vault| {
        let (mut rng, mut observer) = (ChaCha8Rng::seed_from_u64(3), Unobserved);
        let done = vault.publish((&file, &plan), request, &keys, &ring, &mut rng, &mut observer);
        runtime.block_on(done).expect("it is published")
    };

    let mut group = c.benchmark_group("vault");
    group.throughput(Throughput::Bytes(BYTES as u64)).sample_size(10);
    group.bench_function("publish/store=memory", |b| {
        b.iter(|| black_box(publish(&Vault::over(Arc::new(InMemory::new())))));
    });
    group.bench_function("publish/store=folder", |b| {
        b.iter(|| {
            let store = tempfile::tempdir().expect("a temporary folder");
            black_box(publish(&Vault::open_folder(store.path()).expect("the folder opens")))
        });
    });
    let vault = Vault::over(Arc::new(InMemory::new()));
    publish(&vault);
    let target = folder.path().join("out");
    group.bench_function("fetch/store=memory", |b| {
        b.iter(|| {
            let mut observer = Unobserved;
            let done = vault.fetch(fetch, &target, &keys, &ring, &mut observer);
            black_box(runtime.block_on(done).expect("it is fetched"))
        });
    });
    group.finish();
}

criterion_group!(benches, rates);
criterion_main!(benches);
