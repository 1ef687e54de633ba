//! What is published is what is fetched, byte by byte.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use types::event::Event;
use vault::{Error, FetchRequest, ModelFile, ModelKeys, Plan, PublishRequest, Rules, Unobserved, Vault};

use crate::support::{World, model, odd_model, safetensors, site};

#[tokio::test]
async fn an_odd_model_arrives_whole_at_two_sites() {
    let mut world = World::new();
    let bytes = odd_model(1);
    let published = world.publish(&bytes, &["linfen", "datong", "datong"]).await.unwrap();
    assert_eq!((published.version, published.bytes), (1, bytes.len() as u64));
    assert_eq!(published.sites, [site("datong"), site("linfen")]);
    // lm_head first, then the embedding; both have a key of their own.
    assert_eq!(published.keys_per_site, 3);
    assert_eq!(world.keys.supplied.load(Ordering::SeqCst), 6);
    for name in ["datong", "linfen"] {
        let fetched = world.fetch(name, None, name).await.unwrap();
        assert_eq!((fetched.version, fetched.resumed_bytes), (1, 0));
        assert_eq!(fetched.manifest_sha256, published.manifest_sha256);
        assert!(std::fs::read(world.path(name)).unwrap() == bytes);
    }
    // The publisher has no envelope and needs none.
    world.fetch("taiyuan", None, "own-copy").await.unwrap();
    assert!(std::fs::read(world.path("own-copy")).unwrap() == bytes);
    let codes: Vec<_> = world.events.log.iter().map(Event::code).collect();
    assert_eq!(codes, ["MODEL_PUBLISHED", "MODEL_FETCHED", "MODEL_FETCHED", "MODEL_FETCHED"]);
    let left: Vec<_> = std::fs::read_dir(world.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".partial"))
        .collect();
    assert_eq!(left, [""; 0]);
}

#[tokio::test]
async fn a_second_fetch_needs_no_wrapping_key_and_versions_count_up() {
    let mut world = World::new();
    let (old, new) = (odd_model(1), odd_model(2));
    world.publish(&old, &["datong"]).await.unwrap();
    world.fetch("datong", None, "a").await.unwrap();
    assert_eq!(world.publish(&new, &["datong"]).await.unwrap().version, 2);
    world.fetch("datong", None, "a").await.unwrap();
    assert!(std::fs::read(world.path("a")).unwrap() == new);
    // The key source gives no key twice, so these come from the keyring.
    world.fetch("datong", Some(1), "b").await.unwrap();
    assert!(std::fs::read(world.path("b")).unwrap() == old);
    // A site that lost its keyring cannot come back with a spent key.
    std::fs::remove_dir_all(world.path("rings").join("datong")).unwrap();
    let error = world.fetch("datong", None, "c").await.unwrap_err();
    assert_eq!(error.to_string(), "no wrapping keys shared with site taiyuan");
    assert!(error.hint().unwrap().contains("publish the model again"));
    assert!(!world.path("c").exists());
}

#[tokio::test]
async fn one_tensor_is_read_without_the_rest() {
    let mut world = World::new();
    let bytes = odd_model(4);
    world.publish(&bytes, &["datong"]).await.unwrap();
    let ring = world.ring("datong");
    let request =
        FetchRequest { model: &model(), version: None, site: &site("datong"), publishers: &world.publishers() };
    let open = world.vault.open(request, &world.keys, &ring).await.unwrap();
    world.store.heal();
    let read = |name: &'static str| open.read_tensor(name);
    let pieces: Vec<_> = open.manifest().pieces.iter().map(|sealed| sealed.piece.clone()).collect();
    for piece in pieces.iter().filter(|piece| piece.is_tensor()) {
        let tensor = open.read_tensor(&piece.name).await.unwrap();
        let (start, len) = (usize::try_from(piece.offset).unwrap(), usize::try_from(piece.len).unwrap());
        assert!(tensor == bytes[start..start + len], "{}", piece.name);
    }
    world.store.heal();
    read("lm_head.weight").await.unwrap();
    assert_eq!(world.store.read_bytes.load(Ordering::SeqCst), 17 * 3 * 2 + 16);
    assert!(matches!(read("#header").await, Err(Error::NoSuchTensor { .. })));
}

#[tokio::test]
async fn a_folder_on_disk_and_a_file_of_any_kind() {
    let world = World::new();
    let vault = Vault::create_folder(&world.path("store/deep")).unwrap();
    for (version, len) in [(1, 0), (2, 1), (3, 9_000_000)] {
        let bytes = vec![0x5a; len];
        let file = Arc::new(ModelFile::open_opaque(&world.write("any.gguf", &bytes)).unwrap());
        let plan = Plan::new(&file, &Rules::default(), 1).unwrap();
        let (sites, ring) = ([site("datong")], world.ring("taiyuan"));
        let request = PublishRequest {
            model: &model(),
            publisher: &site("taiyuan"),
            sites: &sites,
            signing: &world.signing,
            now: types::units::UtcNanos(5),
        };
        let mut rng = <rand_chacha::ChaCha8Rng as rand_core::SeedableRng>::seed_from_u64(version);
        vault.publish((&file, &plan), request, &world.keys, &ring, &mut rng, &mut Unobserved).await.unwrap();
        let request =
            FetchRequest { model: &model(), version: None, site: &site("datong"), publishers: &world.publishers() };
        let (target, ring) = (world.path("out"), world.ring("datong"));
        let fetched = vault.fetch(request, &target, &world.keys, &ring, &mut Unobserved).await.unwrap();
        assert_eq!(fetched.version, version);
        assert!(std::fs::read(&target).unwrap() == bytes);
        let verified = vault.verify(&model(), None, &world.publishers(), &mut Unobserved).await.unwrap();
        assert_eq!((verified.faults.len(), verified.good_envelopes), (0, 1));
    }
    assert_eq!(vault.list(Some(&world.publishers())).await.unwrap().len(), 3);
    assert_eq!(world.ring("datong").newest(&model()).unwrap(), Some(3));
}

#[tokio::test]
async fn requests_that_cannot_be_met_cost_no_key() {
    let mut world = World::new();
    let bytes = safetensors(&[("a", "U8", &[5])], 1, 0);
    world.keys.stock.store(0, Ordering::SeqCst);
    let error = world.publish(&bytes, &["datong"]).await.unwrap_err();
    assert!(matches!(error, Error::Keys { .. }));
    world.keys.stock.store(10, Ordering::SeqCst);
    assert!(matches!(world.publish(&bytes, &[]).await, Err(Error::Request { .. })));
    assert!(matches!(world.publish(&bytes, &["taiyuan"]).await, Err(Error::Request { .. })));
    assert!(matches!(world.publish(&bytes[..bytes.len() - 1], &["datong"]).await, Err(Error::CutShort { .. })));
    // The file grows after it was opened: found before keys are spent, and nothing stays in the store.
    let file = Arc::new(ModelFile::open(&world.write("m", &bytes)).unwrap());
    world.write("m", &[bytes.as_slice(), b"more"].concat());
    assert!(matches!(world.publish_file(&file, &["datong"]).await, Err(Error::SourceChanged { .. })));
    world.write("m", &bytes[..bytes.len() - 2]);
    assert!(matches!(world.publish_file(&file, &["datong"]).await, Err(Error::SourceChanged { .. })));
    assert_eq!(world.keys.supplied.load(Ordering::SeqCst), 0);
    assert_eq!(world.store.objects().await, []);
    assert!(matches!(world.fetch("datong", None, "x").await, Err(Error::NoSuchModel { .. })));
    world.publish(&bytes, &["datong"]).await.unwrap();
    assert!(matches!(world.fetch("datong", Some(7), "x").await, Err(Error::NoSuchVersion { newest: 1, .. })));
    let error = world.fetch("linfen", None, "x").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "model grid-model version 1 has no envelope for site linfen; it has them for: datong"
    );
    std::fs::create_dir(world.path("folder")).unwrap();
    assert!(matches!(world.fetch("datong", None, "folder").await, Err(Error::Request { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_model_comes_back(
        tensors in proptest::collection::vec((0_usize..4, proptest::collection::vec(0_usize..60, 0..3)), 0..12),
        seed in any::<u64>(), pad in 0_usize..9,
    ) {
        let names: Vec<String> = (0..tensors.len()).map(|at| format!("model.layers.{at}.{}", if at % 3 == 0 { "embed" } else { "w" })).collect();
        let rows: Vec<_> = tensors
            .iter()
            .zip(&names)
            .map(|((dtype, shape), name)| (name.as_str(), ["U8", "BF16", "F32", "I64"][*dtype], shape.as_slice()))
            .collect();
        let bytes = safetensors(&rows, seed, pad);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            world.publish(&bytes, &["datong"]).await.unwrap();
            world.fetch("datong", None, "out").await.unwrap();
            assert!(std::fs::read(world.path("out")).unwrap() == bytes);
        });
    }
}
