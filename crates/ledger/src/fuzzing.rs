//! Bodies of the fuzz targets: plain functions that must not panic on any input.

use types::id::SiteId;

use crate::frame::holds_later_group;
use crate::{Entry, InclusionProof, Trust, verify};

/// An envelope from outside: refused, or in its one encoding.
pub fn envelope(bytes: &[u8]) {
    if let Ok(entry) = Entry::decode(bytes) {
        assert_eq!(entry.encode(), bytes, "an envelope has one encoding");
    }
}

/// An export or a proof from outside never verifies when no key is trusted, and groups are found or not.
pub fn untrusted(bytes: &[u8]) {
    assert!(verify(bytes, &Trust::default()).is_err());
    if let Ok(proof) = InclusionProof::parse(&String::from_utf8_lossy(bytes)) {
        assert!(proof.verify(&Trust::default()).is_err());
    }
    let site = SiteId::new("site").expect("the name follows the rule");
    holds_later_group(bytes, 0, &site);
}
