//! The named maxima of the crate. Those on disk are part of the format: `docs/formats/vault.md`.

/// Plaintext bytes of a chunk, all but the last of a tensor.
pub const CHUNK_LEN: u32 = 4 * 1024 * 1024;
/// Plaintext bytes of one pack object that a publisher makes.
pub const PACK_PLAIN: u32 = 16 * 1024 * 1024;
/// Chunks in one pack object that a publisher makes.
pub const PACK_CHUNKS: usize = 4096;
/// Bytes of a pack object that a reader accepts.
pub const PACK_MAX: u32 = 64 * 1024 * 1024;
/// Bytes of a manifest.
pub const MANIFEST_MAX: usize = 64 * 1024 * 1024;
/// Bytes of an envelope.
pub const ENVELOPE_MAX: usize = 512 * 1024;
/// Tensors and other pieces of one file.
pub const PIECES_MAX: usize = 1 << 17;
/// Chunks of one file (4 TiB at full chunks).
pub const CHUNKS_MAX: usize = 1 << 20;
/// Bytes of a tensor's name.
pub const NAME_MAX: usize = 512;
/// Dimensions of a tensor.
pub const RANK_MAX: usize = 32;
/// Bytes of a safetensors header, as the format's own library has it.
pub const HEADER_MAX: u64 = 100_000_000;
/// Receiving sites of one version.
pub const SITES_MAX: usize = 1024;
/// Tensors with a key of their own in one version.
pub const OWN_KEYS_MAX: usize = 4095;
/// Key ids in one manifest, over all sites.
pub const KEY_IDS_MAX: usize = 1 << 18;
/// Bytes of chunks that a publish holds in memory at a time; a fetch holds as much of what it made.
pub const IN_FLIGHT_MAX: u64 = 64 * 1024 * 1024;
