//! A model file as a row of pieces: every byte belongs to exactly one tensor or to one stretch of other bytes
//! (header, gap, or the whole of an opaque file), so that what is fetched is what was published, byte by byte.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Error, Result};
use crate::limits::CHUNK_LEN;

pub(crate) mod header;

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum FileFormat {
    /// Any bytes, not looked into.
    Opaque = 0,
    /// A safetensors file.
    Safetensors = 1,
}

/// What a piece is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PieceKind {
    /// Bytes that are no tensor.
    Bytes,
    /// A tensor.
    Tensor {
        /// Name of its number format, as in the file's header.
        dtype: String,
        /// Its dimensions.
        shape: Vec<u64>,
    },
}

/// One stretch of a model file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The tensor's name; for other bytes `#header`, `#gap-<offset>` or `#file`.
    pub name: String,
    /// Tensor or not.
    pub kind: PieceKind,
    /// First byte in the file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Piece {
    pub(crate) fn bytes(name: String, offset: u64, len: u64) -> Self {
        Self { name, kind: PieceKind::Bytes, offset, len }
    }

    /// Whether it is a tensor.
    #[must_use]
    pub fn is_tensor(&self) -> bool {
        matches!(self.kind, PieceKind::Tensor { .. })
    }

    /// Chunks that it is cut into.
    #[must_use]
    pub fn chunk_count(&self) -> u64 {
        self.len.div_ceil(u64::from(CHUNK_LEN))
    }

    /// The group whose key seals it unless it has its own: the name without its last dotted part.
    #[must_use]
    pub fn group(&self) -> &str {
        match (&self.kind, self.name.rsplit_once('.')) {
            (PieceKind::Tensor { .. }, Some((group, _))) => group,
            _ => &self.name,
        }
    }
}

/// A model file, open for reading and looked into.
#[derive(Debug)]
pub struct ModelFile {
    pub(crate) file: File,
    path: PathBuf,
    format: FileFormat,
    len: u64,
    modified: Option<SystemTime>,
    pieces: Vec<Piece>,
}

impl ModelFile {
    /// Opens a safetensors file and reads its header; no tensor is read.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::NotSafetensors`] or [`Error::CutShort`] with the field that is wrong.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_as(path, FileFormat::Safetensors)
    }

    /// Opens a file of any format; it is distributed as one stretch of bytes.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open_opaque(path: &Path) -> Result<Self> {
        Self::open_as(path, FileFormat::Opaque)
    }

    fn open_as(path: &Path, format: FileFormat) -> Result<Self> {
        let file = File::open(path).map_err(Error::file("read", path))?;
        let metadata = file.metadata().map_err(Error::file("read", path))?;
        if !metadata.is_file() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
            return Err(Error::file("read", path)(source));
        }
        let len = metadata.len();
        let pieces = match format {
            FileFormat::Opaque => vec![Piece::bytes("#file".to_owned(), 0, len)],
            FileFormat::Safetensors => header::read(&file, path, len)?,
        };
        Ok(Self { file, path: path.to_owned(), format, len, modified: metadata.modified().ok(), pieces })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What kind of file it is.
    #[must_use]
    pub fn format(&self) -> FileFormat {
        self.format
    }

    /// Length in bytes.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        self.len
    }

    /// Its pieces: in the file's order, without hole or overlap.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Error::SourceChanged { path: self.path.clone() },
            _ => Error::file("read", &self.path)(source),
        })
    }

    /// Whether the file is as it was when it was opened.
    pub(crate) fn unchanged(&self) -> Result<()> {
        let now = self.file.metadata().map_err(Error::file("read", &self.path))?;
        if now.len() == self.len && now.modified().ok() == self.modified {
            Ok(())
        } else {
            Err(Error::SourceChanged { path: self.path.clone() })
        }
    }
}
