//! Backups that a running site makes by itself, from the keeper's thread. One takes milliseconds: what it holds is
//! counters and model keys, never the stock.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use store::{BackupInfo, Store};
use types::id::SiteId;

use crate::config::BackupConfig;
use crate::failure::{Context as _, Outcome};

/// When the next backup is due, and where it goes.
#[derive(Debug)]
pub struct Backups {
    site: SiteId,
    config: BackupConfig,
    next: Instant,
}

impl Backups {
    /// Makes the folder and looks how old the newest backup is.
    ///
    /// # Errors
    /// If the folder cannot be made, or the settings make no sense.
    pub fn new(site: SiteId, config: BackupConfig) -> Outcome<Self> {
        config.check()?;
        fs::create_dir_all(&config.folder).context(|| format!("folder for backups {}", config.folder.display()))?;
        let newest = files(&site, &config.folder).pop().and_then(|file| fs::metadata(file).ok()?.modified().ok());
        let age = newest.map_or(Duration::MAX, |newest| newest.elapsed().unwrap_or_default());
        let next = Instant::now() + Duration::from_secs(config.every_s.into()).saturating_sub(age);
        Ok(Self { site, config, next })
    }

    /// Makes a backup if one is due. A failure is logged and tried again at the next time: a full backup disk is no
    /// reason to stop supplying key. What the store itself cannot write shows at its next commit.
    pub fn tick(&mut self, store: &mut Store) {
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + Duration::from_secs(self.config.every_s.into());
        match make(&self.site, store, &self.config.folder) {
            Ok((file, info)) => {
                tracing::info!(file = %file.display(), records = info.records, "backup made");
                self.drop_old();
            }
            Err(failure) => tracing::error!(%failure, "no backup was made"),
        }
    }

    fn drop_old(&self) {
        let files = files(&self.site, &self.config.folder);
        let old = files.len().saturating_sub(usize::try_from(self.config.keep).unwrap_or(usize::MAX));
        for file in &files[..old] {
            if let Err(error) = fs::remove_file(file) {
                tracing::warn!(file = %file.display(), %error, "an old backup stays");
            }
        }
    }
}

/// Backups of a site in a folder, oldest first.
fn files(site: &SiteId, folder: &Path) -> Vec<PathBuf> {
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix(site.as_str())?.strip_prefix('-')?.strip_suffix(".backup"));
        number.is_some_and(|number| number.len() == DIGITS && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_ours).collect();
    files.sort();
    files
}

fn make(site: &SiteId, store: &mut Store, folder: &Path) -> Outcome<(PathBuf, BackupInfo)> {
    let made = seconds_since_1970();
    let name = |number: u64| folder.join(format!("{site}-{number:0DIGITS$}.backup"));
    // The store numbers its backups, and after a restore it goes on from the number of the backup: a file that is
    // there already is of the life before. Time keeps the names in order over all lives.
    let file = name(made);
    let info = store.backup(site, made, &file).context(|| format!("backup {}", file.display()))?;
    Ok((file, info))
}

/// The time of day.
#[must_use]
pub fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

const DIGITS: usize = 12;

#[cfg(test)]
mod tests {
    use crypto::secret::Key256;
    use store::RootKey;

    use super::*;
    use crate::entropy::os_rng;

    #[test]
    fn old_backups_go_and_other_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let site = SiteId::new("east").unwrap();
        for name in
            ["east-000000000001.backup", "east-000000000002.backup", "east-3.backup", "west-000000000001.backup"]
        {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let config = BackupConfig { folder: folder.path().into(), every_s: 3600, keep: 2 };
        let mut backups = Backups::new(site.clone(), config.clone()).unwrap();
        let root = RootKey::from_key(Key256::copy_of(&[1; 32]));
        let mut store = Store::open_folder(&folder.path().join("store"), root, os_rng()).unwrap();
        backups.tick(&mut store);
        assert_eq!(files(&site, folder.path()).len(), 2, "the newest is young: none is due");
        backups.next = Instant::now();
        backups.tick(&mut store);
        let left = files(&site, folder.path());
        assert!(left.len() == 2 && left[0].ends_with("east-000000000002.backup"), "{left:?}");
        assert_eq!(BackupInfo::read(&left[1]).unwrap().site, site);
        assert!(
            folder.path().join("east-3.backup").exists() && folder.path().join("west-000000000001.backup").exists()
        );
        assert!(Backups::new(site, BackupConfig { keep: 0, ..config }).is_err());
    }
}
