//! One vector for each way in which a store can be wrong: it is noticed, and what is wrong is named.

use crypto::secret::Key256;
use crypto::sign::SigningKey;
use object_store::{ObjectStoreExt, PutPayload};
use types::event::Event;
use vault::{Error, Publishers, Unobserved};

use crate::support::{World, model, odd_model, site};

async fn published() -> (World, Vec<u8>) {
    let (mut world, bytes) = (World::new(), odd_model(1));
    world.publish(&bytes, &["datong", "linfen"]).await.unwrap();
    (world, bytes)
}

/// What fetching says, and what verifying without keys says.
async fn says(world: &mut World) -> (String, Vec<String>) {
    let error = world.fetch("datong", None, "out").await.unwrap_err();
    assert!(!world.path("out").exists());
    assert!(error.hint().is_some());
    if !matches!(error, Error::Missing { .. }) {
        assert!(matches!(world.events.log.last(), Some(Event::ModelRefused { .. })), "{error}");
    }
    let verified = world.vault.verify(&model(), None, &world.publishers(), &mut Unobserved).await;
    let faults = match verified {
        Ok(verified) => verified.faults.iter().map(ToString::to_string).collect(),
        Err(error) => vec![error.to_string()],
    };
    (error.to_string(), faults)
}

#[tokio::test]
async fn a_flipped_bit_in_a_chunk() {
    let (mut world, _) = published().await;
    let path = world.object("pack-000000").await;
    world.store.change(&path, |bytes| bytes[5_000_000] ^= 4).await;
    let expected = format!("{path} is corrupt: chunk 1 of model.embed_tokens.weight is not what was published");
    assert_eq!(says(&mut world).await, (expected.clone(), vec![expected]));
}

#[tokio::test]
async fn a_truncated_and_a_missing_pack() {
    let (mut world, _) = published().await;
    let path = world.object("pack-000001").await;
    let mut len = 0;
    world
        .store
        .change(&path, |bytes| {
            len = bytes.len();
            bytes.truncate(100);
        })
        .await;
    let expected = format!("{path} is cut short: it has 100 bytes and needs {len}");
    assert_eq!(says(&mut world).await, (expected.clone(), vec![expected]));
    world.store.inner.delete(&path).await.unwrap();
    let expected = format!("{path} is missing from the store");
    assert_eq!(says(&mut world).await, (expected.clone(), vec![expected]));
}

#[tokio::test]
async fn swapped_packs_and_chunks() {
    let (mut world, _) = published().await;
    let (a, b) = (world.object("pack-000000").await, world.object("pack-000001").await);
    let first = world.store.inner.get(&a).await.unwrap().bytes().await.unwrap();
    let second = world.store.inner.get(&b).await.unwrap().bytes().await.unwrap();
    world.store.inner.put(&a, second.into()).await.unwrap();
    world.store.inner.put(&b, first.clone().into()).await.unwrap();
    let (error, faults) = says(&mut world).await;
    assert!(error.starts_with(a.as_ref()), "{error}");
    assert!(faults.len() > 1);
    // Two full chunks of one tensor change places within their pack.
    let mut bytes = first.to_vec();
    let full = 4 * 1024 * 1024 + 16;
    let start = bytes.len() - 2 * full;
    let (left, right) = bytes[start..].split_at_mut(full);
    left.swap_with_slice(right);
    world.store.inner.put(&a, bytes.into()).await.unwrap();
    let (error, _) = says(&mut world).await;
    assert!(error.starts_with(&format!("{a} is corrupt: chunk 0 of big")), "{error}");
}

#[tokio::test]
async fn a_changed_manifest() {
    for (at, expected) in [
        (0, "is malformed"),
        (32, "is malformed"),
        (60, "is signed by publisher key"),
        (110, "is not authentic: the publisher's signature does not hold"),
    ] {
        let (mut world, _) = published().await;
        let path = world.object("manifest").await;
        world.store.change(&path, |bytes| bytes[at] ^= 0x40).await;
        let (error, faults) = says(&mut world).await;
        assert!(error.contains(expected), "byte {at}: {error}");
        assert_eq!(faults, [error]);
    }
    let (mut world, _) = published().await;
    let path = world.object("manifest").await;
    world.store.change(&path, |bytes| bytes.truncate(bytes.len() - 1)).await;
    assert!(says(&mut world).await.0.contains("is malformed"));
}

#[tokio::test]
async fn a_manifest_of_another_publisher() {
    let (mut world, _) = published().await;
    world.signing = SigningKey::from_seed(&Key256::copy_of(&[44; 32]));
    assert!(says(&mut world).await.0.contains("but the trusted one is"));
    let listed = world.vault.list(Some(&world.publishers())).await.unwrap();
    assert!(matches!(listed[0].manifest, Err(Error::OtherPublisher { .. })));
    assert!(world.vault.list(None).await.unwrap()[0].manifest.is_ok());

    // A trusted key counts only for its own site's name.
    let (world, _) = published().await;
    let publishers = Publishers::only(site("linfen"), world.signing.verifying_key().clone());
    let error = world.vault.manifest(&model(), None, &publishers).await.unwrap_err();
    assert!(error.to_string().ends_with("is published by taiyuan, which is not a trusted publisher"));
}

#[tokio::test]
async fn damaged_envelopes() {
    // A flipped bit in a sealed key costs the wrapping key, but is noticed.
    let (mut world, _) = published().await;
    let path = world.object("envelope-datong").await;
    world.store.change(&path, |bytes| *bytes.last_mut().unwrap() ^= 1).await;
    let error = world.fetch("datong", None, "out").await.unwrap_err();
    assert_eq!(error.to_string(), format!("{path} is not authentic: a key wrapped for this site does not hold"));

    // Everything else is noticed before a wrapping key is fetched: after repair the fetch succeeds.
    let (mut world, bytes) = published().await;
    let whole = world.store.inner.get(&path_of(&world, "datong").await).await.unwrap().bytes().await.unwrap();
    let other = world.store.inner.get(&path_of(&world, "linfen").await).await.unwrap().bytes().await.unwrap();
    let path = path_of(&world, "datong").await;
    let mut other_id = whole.to_vec();
    let id_at = whole.len() - 3 * 64;
    other_id[id_at] ^= 1;
    for (replacement, expected) in [
        (other.to_vec(), "for linfen"),
        (whole[..whole.len() - 1].to_vec(), "is malformed"),
        (Vec::new(), "is malformed"),
        (other_id, "the list of its key ids"),
        (vec![0; 600 * 1024], "the size of a manifest or envelope is 614400, but at most 524288 is allowed"),
    ] {
        world.store.inner.put(&path, PutPayload::from(replacement)).await.unwrap();
        let error = world.fetch("datong", None, "out").await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        let verified = world.vault.verify(&model(), None, &world.publishers(), &mut Unobserved).await.unwrap();
        assert_eq!((verified.faults.len(), verified.good_envelopes), (1, 1));
    }
    world.store.inner.delete(&path).await.unwrap();
    assert!(matches!(world.fetch("datong", None, "out").await, Err(Error::Missing { .. })));
    world.store.inner.put(&path, PutPayload::from(whole)).await.unwrap();
    world.fetch("datong", None, "out").await.unwrap();
    assert!(std::fs::read(world.path("out")).unwrap() == bytes);
}

async fn path_of(world: &World, site: &str) -> object_store::path::Path {
    world.object(&format!("envelope-{site}")).await
}

#[tokio::test]
async fn a_store_that_rolls_back() {
    let (mut world, old) = published().await;
    world.publish(&odd_model(2), &["datong"]).await.unwrap();
    world.fetch("datong", None, "new").await.unwrap();
    let manifest = object_store::path::Path::from("models/grid-model/2/manifest");
    world.store.inner.delete(&manifest).await.unwrap();
    let error = world.fetch("datong", None, "out").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the store offers version 1 of grid-model as the newest, but version 2 was seen here before"
    );
    // An older version may be fetched on purpose.
    world.fetch("datong", Some(1), "out").await.unwrap();
    assert!(std::fs::read(world.path("out")).unwrap() == old);
    // The publisher, deceived too, makes a second version 2: who saw the first one notices.
    world.publish(&odd_model(3), &["datong"]).await.unwrap();
    assert!(matches!(world.fetch("datong", None, "out").await, Err(Error::Replaced { version: 2, .. })));
}

#[tokio::test]
async fn an_old_manifest_under_a_new_version() {
    let (mut world, _) = published().await;
    let old = world.store.inner.get(&"models/grid-model/1/manifest".into()).await.unwrap().bytes().await.unwrap();
    world.store.inner.put(&"models/grid-model/2/manifest".into(), old.into()).await.unwrap();
    let error = world.fetch("datong", None, "out").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "models/grid-model/2/manifest is of grid-model version 1, not of grid-model version 2"
    );
}

#[tokio::test]
async fn a_keyring_of_another_root_or_with_a_flipped_bit() {
    let (mut world, _) = published().await;
    world.fetch("datong", None, "out").await.unwrap();
    let entry = world.path("rings").join("datong").join("grid-model").join("1.key");
    let whole = std::fs::read(&entry).unwrap();
    for at in [0, 10, whole.len() - 1] {
        let mut bent = whole.clone();
        bent[at] ^= 1;
        std::fs::write(&entry, bent).unwrap();
        assert!(matches!(world.fetch("datong", None, "again").await, Err(Error::Keyring { .. })));
    }
    std::fs::write(&entry, whole).unwrap();
    world.fetch("datong", None, "again").await.unwrap();
}
