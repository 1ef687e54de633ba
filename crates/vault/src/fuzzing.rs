//! Fuzz bodies: plain functions that must not panic on any bytes. `fuzz/` wraps them; a test replays generated input.

use crate::envelope::Envelope;
use crate::format::header;
use crate::keys::HeldKeys;
use crate::manifest::SignedManifest;

/// A manifest: what parses, parses to consistent tables.
pub fn manifest(bytes: &[u8]) {
    if let Ok(signed) = SignedManifest::parse(bytes.to_vec()) {
        let claims = signed.claims();
        let (layout, digests) = claims.layout();
        assert_eq!(layout.places.len(), digests.len());
        assert_eq!(layout.by_pack().iter().map(ExactSizeIterator::len).sum::<usize>(), digests.len());
        assert_eq!(claims.pieces.iter().map(|sealed| sealed.piece.len).sum::<u64>(), claims.file_len);
    }
}

/// An envelope: what decodes encodes to the same bytes.
pub fn envelope(bytes: &[u8]) {
    if let Ok(envelope) = Envelope::decode(bytes) {
        assert_eq!(envelope.encode(), bytes);
    }
}

/// A safetensors header: what is accepted covers the file without hole or overlap.
pub fn header(bytes: &[u8], data_len: u64) {
    let _ = header::json_len(bytes.get(..8.min(bytes.len())).unwrap_or_default(), bytes.len() as u64);
    let len = (8 + bytes.len() as u64).saturating_add(data_len);
    if let Ok(pieces) = header::pieces(bytes, len) {
        let mut end = 0;
        for piece in pieces {
            assert_eq!(piece.offset, end);
            end += piece.len;
        }
        assert_eq!(end, len);
    }
}

/// A keyring entry.
pub fn held_keys(bytes: &[u8]) {
    let secret = crypto::secret::SecretBytes::copy_of(bytes);
    if let Ok(held) = HeldKeys::from_secret(&secret) {
        assert!(held.to_secret() == secret);
    }
}
