//! Interruption at every step: no half version is ever visible, and a fetch goes on where it stopped.

use std::sync::atomic::Ordering;
use std::time::Duration;

use types::units::UtcNanos;
use vault::{Error, Swept};

use crate::support::{World, odd_model};

const LATER: UtcNanos = UtcNanos(u64::MAX);

#[tokio::test]
async fn a_publish_that_fails_at_any_write_leaves_nothing_visible() {
    let bytes = odd_model(1);
    let writes = {
        let mut world = World::new();
        world.publish(&bytes, &["datong", "linfen"]).await.unwrap();
        world.store.writes.load(Ordering::SeqCst)
    };
    assert_eq!(writes, 5, "two packs, two envelopes, one manifest");
    for dead in [false, true] {
        for fail in 0..writes {
            let mut world = World::new();
            world.store.fail_write.store(fail, Ordering::SeqCst);
            world.store.dead.store(dead, Ordering::SeqCst);
            assert!(matches!(world.publish(&bytes, &["datong", "linfen"]).await, Err(Error::Store { .. })), "{fail}");
            world.store.heal();
            assert!(world.vault.list(None).await.unwrap().is_empty(), "{fail}");
            // A process that lives removes its leftovers at once; those of a dead one wait for a sweep.
            assert_eq!(world.store.objects().await.len() as u64, if dead { fail } else { 0 });
            let published = world.publish(&bytes, &["datong"]).await.unwrap();
            assert_eq!(published.version, 1);
            // Young leftovers may belong to a publish that is running.
            assert_eq!(world.vault.sweep(UtcNanos(0), Duration::ZERO).await.unwrap(), Swept::default());
            let swept = world.vault.sweep(LATER, Duration::ZERO).await.unwrap();
            assert_eq!(swept.objects, if dead { fail } else { 0 });
            assert_eq!(world.store.objects().await.len(), 4);
            world.fetch("datong", None, "out").await.unwrap();
            assert!(std::fs::read(world.path("out")).unwrap() == bytes);
        }
    }
}

#[tokio::test]
async fn a_lost_reply_to_the_commit_is_a_commit() {
    let mut world = World::new();
    world.store.fail_write.store(3, Ordering::SeqCst);
    world.store.reply_lost.store(true, Ordering::SeqCst);
    assert_eq!(world.publish(&odd_model(1), &["datong"]).await.unwrap().version, 1);
    world.store.heal();
    world.fetch("datong", None, "out").await.unwrap();
}

#[tokio::test]
async fn a_sweep_keeps_a_version_whose_manifest_it_cannot_read() {
    let mut world = World::new();
    world.publish(&odd_model(1), &["datong"]).await.unwrap();
    let manifest = world.object("manifest").await;
    world.store.change(&manifest, |bytes| bytes.truncate(100)).await;
    assert_eq!(world.vault.sweep(LATER, Duration::ZERO).await.unwrap(), Swept::default());
}

#[tokio::test]
async fn a_fetch_goes_on_where_it_stopped() {
    let bytes = odd_model(1);
    let mut world = World::new();
    let published = world.publish(&bytes, &["datong"]).await.unwrap();
    let packs = 2;
    for fail in 0..packs {
        world.store.heal();
        world.store.fail_read.store(fail, Ordering::SeqCst);
        let target = format!("out-{fail}");
        assert!(matches!(world.fetch("datong", None, &target).await, Err(Error::Store { .. })));
        assert!(!world.path(&target).exists(), "nothing half stands under the target's name");
        world.store.heal();
        let fetched = world.fetch("datong", None, &target).await.unwrap();
        assert_eq!(world.store.reads.load(Ordering::SeqCst), packs - fail, "packs that were there are not read again");
        assert_eq!(fetched.resumed_bytes > 0, fail > 0);
        assert!(std::fs::read(world.path(&target)).unwrap() == bytes);
    }
    assert!(published.sealed_bytes > published.bytes);
}

#[tokio::test]
async fn what_stands_in_a_partial_file_is_not_believed() {
    let bytes = odd_model(1);
    let mut world = World::new();
    let published = world.publish(&bytes, &["datong"]).await.unwrap();
    let partial = world.path(&format!(".out.{}.partial", hex::encode(&published.manifest_sha256[..8])));
    let mut bent = bytes.clone();
    *bent.last_mut().unwrap() ^= 1; // the last tensor, lm_head.weight
    bent[7_000_000] ^= 1; // in the big tensor
    bent.extend_from_slice(b"and more");
    std::fs::write(&partial, &bent).unwrap();
    let fetched = world.fetch("datong", None, "out").await.unwrap();
    assert!(fetched.resumed_bytes > 0 && fetched.resumed_bytes < fetched.bytes);
    assert!(std::fs::read(world.path("out")).unwrap() == bytes);
    assert!(!partial.exists());
}

#[tokio::test]
async fn what_the_audit_log_does_not_take_does_not_happen() {
    let mut world = World::new();
    let bytes = odd_model(1);
    world.events.refuse = true;
    assert!(matches!(world.publish(&bytes, &["datong"]).await, Err(Error::Audit { event: "MODEL_PUBLISHED", .. })));
    assert_eq!(world.store.objects().await, []);
    world.events.refuse = false;
    world.publish(&bytes, &["datong"]).await.unwrap();
    world.events.refuse = true;
    assert!(matches!(world.fetch("datong", None, "out").await, Err(Error::Audit { event: "MODEL_FETCHED", .. })));
    assert!(!world.path("out").exists());
    world.events.refuse = false;
    assert_eq!(world.fetch("datong", None, "out").await.unwrap().resumed_bytes, bytes.len() as u64);
}
