//! Tests of the record layer through its public interface.
#![allow(clippy::unwrap_used, clippy::panic)]

mod chaos;
mod rules;
mod vectors;

use crypto::secret::SecretBytes;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use terminal::{Class, Kind, PadChunk, Seal, Suite};
use types::id::BatchId;

/// Key bytes that two ends share, from a seed.
fn shared_key(seed: u64, len: usize) -> SecretBytes {
    SecretBytes::random(len, &mut ChaCha20Rng::seed_from_u64(seed))
}

/// A source that hands out a whole batch in chunks of `chunk` bytes.
fn source(batch: BatchId, key: &SecretBytes, chunk: usize) -> impl Iterator<Item = PadChunk> + use<> {
    let len = key.len();
    let key = key.duplicate();
    (0..len).step_by(chunk).map(move |at| PadChunk::new(batch, at as u64, key.part(at, chunk.min(len - at)).unwrap()))
}

fn payload(suite: Suite, class: Class) -> Seal {
    Seal { suite, kind: Kind::Payload, class }
}
