//! Where a passphrase or a PIN comes from without a prompt.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crypto::secret::SecretBytes;
use zeroize::Zeroizing;

use super::check_private;
use crate::Error;

/// A place that a process manager can put a secret into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file that only its owner can read.
    File(PathBuf),
    /// A file descriptor that the process inherited, read to its end.
    Descriptor(u32),
    /// An environment variable. The weakest: whoever may look at the process sees it for as long as it runs.
    Environment(String),
}

impl SecretSource {
    /// Reads the secret; one line end after it is dropped.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::KeyFileRefused`] if it is missing, empty, too long or open to others.
    pub fn read(&self) -> Result<SecretBytes, Error> {
        let mut bytes = match self {
            Self::File(path) => {
                let file = File::open(path).map_err(Error::io("open secret file", path))?;
                check_private(&file, path)?;
                read_all(file, path)?
            }
            Self::Descriptor(number) => {
                let path = PathBuf::from(format!("/proc/self/fd/{number}"));
                read_all(File::open(&path).map_err(Error::io("open descriptor", &path))?, &path)?
            }
            Self::Environment(name) => {
                let value = std::env::var(name).map(Zeroizing::new).map_err(|_| Error::KeyFileRefused {
                    path: name.into(),
                    reason: "there is no such environment variable, or it is not text",
                })?;
                Zeroizing::new(value.as_bytes().to_vec())
            }
        };
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        let reason = match bytes.len() {
            0 => "it is empty",
            len if len > SECRET_MAX => "it is too long for a passphrase or a PIN",
            _ => return Ok(SecretBytes::copy_of(&bytes)),
        };
        let path = match self {
            Self::File(path) => path.clone(),
            Self::Descriptor(number) => format!("descriptor {number}").into(),
            Self::Environment(name) => name.into(),
        };
        Err(Error::KeyFileRefused { path, reason })
    }
}

fn read_all(file: File, path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    // Room from the start: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_MAX + 2));
    file.take(SECRET_MAX as u64 + 2).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    Ok(bytes)
}

/// Most bytes of a passphrase or a PIN.
const SECRET_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_comes_from_a_file_a_descriptor_or_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        let source = SecretSource::File(path.clone());
        let write = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        };
        write(b"open sesame\n");
        assert_eq!(source.read().unwrap(), SecretBytes::copy_of(b"open sesame"));
        write(b"two lines\n\n");
        assert_eq!(source.read().unwrap(), SecretBytes::copy_of(b"two lines\n"), "one line end");
        for bad in [&b""[..], b"\n", &[b'x'; 1026]] {
            write(bad);
            assert!(matches!(source.read(), Err(Error::KeyFileRefused { .. })), "{} bytes", bad.len());
        }
        write(b"open sesame");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(source.read(), Err(Error::KeyFileRefused { .. })));

        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"from a pipe\n").unwrap();
        drop(writer);
        let number = u32::try_from(reader.as_raw_fd()).unwrap();
        assert_eq!(SecretSource::Descriptor(number).read().unwrap(), SecretBytes::copy_of(b"from a pipe"));
        assert!(matches!(SecretSource::Descriptor(60_000).read(), Err(Error::Io { .. })));

        assert!(SecretSource::Environment("PATH".into()).read().is_ok());
        let missing = SecretSource::Environment("NO_SUCH_VARIABLE_HERE".into()).read();
        assert!(matches!(missing, Err(Error::KeyFileRefused { .. })));
    }
}
