//! The one list of labels. Every KDF, hash, tag and signature input begins with one of them, so that no value
//! made for one purpose can stand in for another.

/// What a derived key, a hash, a tag or a signature is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Domain {
    /// Transcript of one block of a link, in one direction.
    LinkTranscript,
    /// A control message of a link.
    LinkControl,
    /// The public hash by which both ends of a link see that a block was corrected.
    LinkVerification,
    /// The seed from which both ends of a link construct their error-correcting codes; public.
    LinkCode,
    /// A message between the two ends of a link that is fed by another maker's devices.
    LinkVendorMessage,
    /// The padded hash by which both ends of such a link see that their devices delivered the same key.
    LinkVendorKey,
    /// A relayed batch on one hop.
    RelayHop,
    /// The check of a batch that is combined from several ways.
    RelayCombined,
    /// Keys carried to the site of a slave SAE.
    AssignCarried,
    /// The check value by which other bits under a known id of a foreign key are noticed.
    InterworkKeyCheck,
    /// Key that seals a segment's key-encryption key under the root key.
    StoreSegmentKek,
    /// A value or a secret in a row of the store's database.
    StoreRow,
    /// Key that seals a backup of the store.
    StoreBackup,
    /// The root secret, sealed under a passphrase or by a token.
    StoreRootSecret,
    /// Key that seals small secrets of a site under its root key.
    SiteKeyring,
    /// Wrapping of a model key for one site.
    VaultEnvelope,
    /// Tensor-group key from the model key.
    VaultGroupKey,
    /// Chunk key from the tensor-group key.
    VaultChunkKey,
    /// Keyed content hash within a model family.
    VaultContentHash,
    /// Signature over a model manifest.
    VaultManifest,
    /// Signature over a log checkpoint.
    LedgerCheckpoint,
    /// Salted commitment to an event's body.
    LedgerBody,
    /// Epoch key of a telecontrol session.
    TerminalEpoch,
    /// A telecontrol record's tag.
    TerminalRecord,
    /// Key that hides the headers of a telecontrol session's records.
    TerminalHeader,
    /// A message that opens or closes a telecontrol session.
    TerminalAccess,
    /// The check value of a batch that both ends of a telecontrol session hold.
    TerminalBatch,
    /// Signature over a link-state advertisement.
    ControlLinkState,
    /// Stable UUID of a node, link or application in the view of ETSI GS QKD 015; public.
    EtsiName,
}

impl Domain {
    /// All labels, for the test of uniqueness.
    pub const ALL: [Self; 29] = [
        Self::LinkTranscript,
        Self::LinkControl,
        Self::LinkVerification,
        Self::LinkCode,
        Self::LinkVendorMessage,
        Self::LinkVendorKey,
        Self::RelayHop,
        Self::RelayCombined,
        Self::AssignCarried,
        Self::InterworkKeyCheck,
        Self::StoreSegmentKek,
        Self::StoreRow,
        Self::StoreBackup,
        Self::StoreRootSecret,
        Self::SiteKeyring,
        Self::VaultEnvelope,
        Self::VaultGroupKey,
        Self::VaultChunkKey,
        Self::VaultContentHash,
        Self::VaultManifest,
        Self::LedgerCheckpoint,
        Self::LedgerBody,
        Self::TerminalEpoch,
        Self::TerminalRecord,
        Self::TerminalHeader,
        Self::TerminalAccess,
        Self::TerminalBatch,
        Self::ControlLinkState,
        Self::EtsiName,
    ];

    /// The label's bytes.
    #[must_use]
    pub const fn label(self) -> &'static [u8] {
        match self {
            Self::LinkTranscript => b"qurrent/link/transcript/1",
            Self::LinkControl => b"qurrent/link/control/1",
            Self::LinkVerification => b"qurrent/link/verification/1",
            Self::LinkCode => b"qurrent/link/quasi-cyclic-code/1",
            Self::LinkVendorMessage => b"qurrent/link/vendor-message/1",
            Self::LinkVendorKey => b"qurrent/link/vendor-key/1",
            Self::RelayHop => b"qurrent/kms/relay-hop/1",
            Self::RelayCombined => b"qurrent/kms/relay-combined/1",
            Self::AssignCarried => b"qurrent/kms/assign-carried/1",
            Self::InterworkKeyCheck => b"qurrent/kms/interwork-key/1",
            Self::StoreSegmentKek => b"qurrent/store/segment-kek/1",
            Self::StoreRow => b"qurrent/store/row/1",
            Self::StoreBackup => b"qurrent/store/backup/1",
            Self::StoreRootSecret => b"qurrent/store/root-secret/1",
            Self::SiteKeyring => b"qurrent/node/keyring/1",
            Self::VaultEnvelope => b"qurrent/vault/envelope/1",
            Self::VaultGroupKey => b"qurrent/vault/group-key/1",
            Self::VaultChunkKey => b"qurrent/vault/chunk-key/1",
            Self::VaultContentHash => b"qurrent/vault/content-hash/1",
            Self::VaultManifest => b"qurrent/vault/manifest/1",
            Self::LedgerCheckpoint => b"qurrent/ledger/checkpoint/1",
            Self::LedgerBody => b"qurrent/ledger/body/1",
            Self::TerminalEpoch => b"qurrent/terminal/epoch/1",
            Self::TerminalRecord => b"qurrent/terminal/record/1",
            Self::TerminalHeader => b"qurrent/terminal/header/1",
            Self::TerminalAccess => b"qurrent/terminal/access/1",
            Self::TerminalBatch => b"qurrent/terminal/batch/1",
            Self::ControlLinkState => b"qurrent/control/link-state/1",
            Self::EtsiName => b"qurrent/etsi/name/1",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_label_is_another_or_begins_another() {
        for (i, a) in Domain::ALL.iter().enumerate() {
            for b in &Domain::ALL[i + 1..] {
                assert!(!a.label().starts_with(b.label()) && !b.label().starts_with(a.label()), "{a:?} {b:?}");
            }
        }
    }
}
