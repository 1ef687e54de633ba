//! A disk in memory that loses what was not synced: the power can go after any operation, and what comes back
//! is any mix of unsynced sectors and names; room that a file was given and that was not synced holds anything.
//! Any single operation can fail, and a failed sync loses what it was to write, as Linux does.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::{Disk, DiskFile};

/// The disk. Clones share one state.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: Vec<SimFile>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    operations: u64,
    power_cut_at: Option<u64>,
    room: Option<u64>,
    read_only: bool,
    fault: Option<(u64, io::ErrorKind)>,
}

#[derive(Clone, Debug, Default)]
struct SimFile {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Clone, Debug)]
enum Pending {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

impl SimDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Changing operations so far.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Every changing operation from this one on fails.
    pub(crate) fn cut_power_at(&self, operation: u64) {
        self.state().power_cut_at = Some(operation);
    }

    /// From now on at most `room` more bytes fit.
    pub(crate) fn fill_up(&self, room: u64) {
        self.state().room = Some(room);
    }

    pub(crate) fn set_read_only(&self) {
        self.state().read_only = true;
    }

    /// That one operation fails; those after it do not.
    pub(crate) fn fail_once_at(&self, operation: u64, kind: io::ErrorKind) {
        self.state().fault = Some((operation, kind));
    }

    /// What is found after the power came back: everything synced, and any mix of the rest.
    pub(crate) fn after_power_cut(&self, seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut junk = ChaCha20Rng::seed_from_u64(!seed);
        let state = self.state();
        // Seeds 0 and 1 are the extremes: nothing unsynced survives, everything does.
        let mut survives = || match seed {
            0 => false,
            1 => true,
            _ => rng.next_u32() & 1 == 0,
        };
        let mut names = state.durable_names.clone();
        for name in state.names.keys().chain(state.durable_names.keys()) {
            if survives() {
                match state.names.get(name) {
                    Some(file) => names.insert(name.clone(), *file),
                    None => names.remove(name),
                };
            }
        }
        let mut files = state.files.clone();
        for file in &mut files {
            let mut content = std::mem::take(&mut file.durable);
            for operation in file.pending.drain(..) {
                match operation {
                    Pending::SetLen(len) => {
                        if survives() {
                            let before = content.len();
                            content.resize(len, 0);
                            // Seeds of three parts leave what the medium held before.
                            if seed > 1 && seed % 3 == 2 && len > before {
                                junk.fill_bytes(&mut content[before..]);
                            }
                        }
                    }
                    Pending::Write(offset, bytes) => {
                        let mut at = offset;
                        while at < offset + bytes.len() {
                            let end = ((at / SECTOR_LEN + 1) * SECTOR_LEN).min(offset + bytes.len());
                            if survives() {
                                content.resize(content.len().max(end), 0);
                                content[at..end].copy_from_slice(&bytes[at - offset..end - offset]);
                            }
                            at = end;
                        }
                    }
                }
            }
            file.now = content.clone();
            file.durable = content;
        }
        Self(Arc::new(Mutex::new(State { files, durable_names: names.clone(), names, ..State::default() })))
    }

    /// The same files on a disk without faults.
    pub(crate) fn copy(&self) -> Self {
        self.after_power_cut(1)
    }

    /// Content of all files.
    pub(crate) fn dump(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        state.names.iter().map(|(name, file)| (name.clone(), state.files[*file].now.clone())).collect()
    }

    /// Changes one byte of a file, as a bad medium does.
    pub(crate) fn flip(&self, name: &str, at: usize, mask: u8) {
        let mut state = self.state();
        let file = state.names[name];
        state.files[file].now[at] ^= mask;
        state.files[file].durable[at] ^= mask;
    }
}

impl State {
    fn operation(&mut self, grows_by: usize) -> io::Result<()> {
        if self.power_cut_at.is_some_and(|at| self.operations >= at) {
            return Err(io::Error::other("power cut"));
        }
        self.operations += 1;
        if let Some((at, kind)) = self.fault
            && self.operations > at
        {
            self.fault = None;
            return Err(kind.into());
        }
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        if let Some(room) = &mut self.room {
            *room = room.checked_sub(grows_by as u64).ok_or(io::ErrorKind::StorageFull)?;
        }
        Ok(())
    }
}

impl Disk for SimDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let len = usize::try_from(len).unwrap();
        state.operation(len)?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = state.files.len();
        state.files.push(SimFile { now: vec![0; len], durable: Vec::new(), pending: vec![Pending::SetLen(len)] });
        state.names.insert(name.into(), file);
        Ok(Arc::new(Handle { disk: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let file = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        // Opening forgets what a failed sync left in memory and not on the medium.
        let SimFile { now, durable, pending } = &mut state.files[file];
        now.clone_from(durable);
        for operation in pending {
            match operation {
                Pending::SetLen(len) => now.resize(*len, 0),
                Pending::Write(offset, bytes) => {
                    now.resize(now.len().max(*offset + bytes.len()), 0);
                    now[*offset..*offset + bytes.len()].copy_from_slice(bytes);
                }
            }
        }
        drop(state);
        Ok(Arc::new(Handle { disk: self.clone(), file }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation(0)?;
        state.names.remove(name).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation(0)?;
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.into(), file);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        state.operation(0)?;
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn path(&self) -> &Path {
        Path::new("/sim")
    }
}

#[derive(Debug)]
struct Handle {
    disk: SimDisk,
    file: usize,
}

impl DiskFile for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.file].now.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let state = self.disk.state();
        let found = state.files[self.file].now.get(offset..offset + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let mut state = self.disk.state();
        let grows_by = (offset + bytes.len()).saturating_sub(state.files[self.file].now.len());
        state.operation(grows_by)?;
        let file = &mut state.files[self.file];
        let len = file.now.len() + grows_by;
        file.now.resize(len, 0);
        file.now[offset..offset + bytes.len()].copy_from_slice(bytes);
        file.pending.push(Pending::Write(offset, bytes.to_vec()));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).unwrap();
        let mut state = self.disk.state();
        let grows_by = len.saturating_sub(state.files[self.file].now.len());
        state.operation(grows_by)?;
        let file = &mut state.files[self.file];
        file.now.resize(len, 0);
        file.pending.push(Pending::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let result = state.operation(0);
        let is_cut = state.power_cut_at.is_some_and(|at| state.operations >= at);
        let file = &mut state.files[self.file];
        if result.is_ok() {
            file.durable = file.now.clone();
        }
        // After an error the pages count as written although they are not.
        if result.is_ok() || !is_cut {
            file.pending.clear();
        }
        result
    }
}

const SECTOR_LEN: usize = 512;
