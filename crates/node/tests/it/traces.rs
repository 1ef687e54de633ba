//! Traces of key bits: any sixteen bytes in a row of a key, of its hexadecimal or of its base64 form, in a process's
//! memory or in files.

use std::collections::HashSet;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// What is looked for.
pub struct Traces {
    windows: HashSet<[u8; WINDOW]>,
    /// Whether any of them begins with these two bytes.
    starts: Vec<bool>,
}

impl Traces {
    /// Every trace of some keys.
    pub fn of(keys: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut traces = Self { windows: HashSet::new(), starts: vec![false; 1 << 16] };
        for key in keys {
            assert!(key.len() >= 32, "a short key has too few traces to tell");
            let hexadecimal = hex::encode(&key);
            traces.add(hexadecimal.to_uppercase().as_bytes());
            traces.add(hexadecimal.as_bytes());
            // In longer text base64 may begin at any of three bits.
            (0..3).for_each(|from| traces.add(&encoded(&key[from..])));
            traces.add(&key);
        }
        traces
    }

    fn add(&mut self, image: &[u8]) {
        for window in image.windows(WINDOW) {
            self.starts[start(window)] = true;
            self.windows.insert(window.try_into().unwrap());
        }
    }

    /// Where in some bytes the first trace is, and of what kind.
    pub fn find(&self, bytes: &[u8]) -> Option<usize> {
        let mut windows = bytes.windows(WINDOW);
        windows.position(|window| self.starts[start(window)] && self.windows.contains(window))
    }

    /// Says where in a process's memory there is a trace, with the kinds of bytes around it and none of their values.
    pub fn in_memory(&self, pid: u32) -> Option<String> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let mut memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
        let mut pages = fs::File::open(format!("/proc/{pid}/pagemap")).unwrap();
        let (mut read, mut found) = (0, Vec::new());
        for line in maps.lines() {
            let mut words = line.split(' ');
            let (range, rights) = (words.next().unwrap(), words.next().unwrap());
            let (begin, end) = range.split_once('-').unwrap();
            let (begin, end) = (u64::from_str_radix(begin, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
            if !rights.starts_with("rw") {
                continue;
            }
            for (begin, end) in touched(&mut pages, begin, end) {
                let mut bytes = vec![0; usize::try_from(end - begin).unwrap()];
                memory.seek(SeekFrom::Start(begin)).unwrap();
                if memory.read_exact(&mut bytes).is_ok() {
                    read += bytes.len();
                    let mut from = 0;
                    while let Some(at) = self.find(&bytes[from..]).filter(|_| found.len() < PLACES_MAX) {
                        found.push(format!(
                            "{:x} of {line}: {}",
                            begin + (from + at) as u64,
                            self.around(&bytes, from + at)
                        ));
                        // Behind it may be another copy.
                        from += at + 600;
                        from = from.min(bytes.len());
                    }
                }
            }
        }
        assert!(read > 1 << 20, "the memory of {pid} was read");
        (!found.is_empty()).then(|| found.join("\n"))
    }

    /// Text around a trace, which names its place; the trace itself and what is no text are left out.
    fn around(&self, bytes: &[u8], at: usize) -> String {
        let from = at.saturating_sub(160);
        let near = &bytes[from..bytes.len().min(at + 400)];
        let mut shown: Vec<char> =
            near.iter().map(|byte| if (32..127).contains(byte) { char::from(*byte) } else { '.' }).collect();
        for (place, window) in near.windows(WINDOW).enumerate() {
            if self.windows.contains(window) {
                shown[place..place + WINDOW].fill('#');
            }
        }
        shown.into_iter().collect()
    }

    /// The first file below a folder that has a trace.
    pub fn in_files(&self, folder: &Path) -> Option<PathBuf> {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let found = if path.is_dir() {
                self.in_files(&path)
            } else {
                fs::read(&path).ok().and_then(|bytes| self.find(&bytes)).map(|_| path)
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

/// The base64 characters that these bytes alone determine.
fn encoded(bytes: &[u8]) -> Vec<u8> {
    let whole = bytes.len() / 3 * 3;
    STANDARD_NO_PAD.encode(&bytes[..whole]).into_bytes()
}

fn start(window: &[u8]) -> usize {
    usize::from(window[0]) << 8 | usize::from(window[1])
}

/// The parts of a range of memory that hold anything: in memory or swapped out (`pagemap` of the kernel).
fn touched(pages: &mut fs::File, begin: u64, end: u64) -> Vec<(u64, u64)> {
    let mut entries = vec![0; usize::try_from((end - begin) / PAGE * 8).unwrap()];
    pages.seek(SeekFrom::Start(begin / PAGE * 8)).unwrap();
    if pages.read_exact(&mut entries).is_err() {
        return vec![(begin, end)];
    }
    let mut parts: Vec<(u64, u64)> = Vec::new();
    for (at, entry) in (begin..end).step_by(usize::try_from(PAGE).unwrap()).zip(entries.chunks_exact(8)) {
        if u64::from_ne_bytes(entry.try_into().unwrap()) >> 62 == 0 {
            continue;
        }
        match parts.last_mut().filter(|(_, end)| *end == at) {
            Some((_, end)) => *end += PAGE,
            None => parts.push((at, at + PAGE)),
        }
    }
    parts
}

/// Places that are named at most.
const PLACES_MAX: usize = 12;
const WINDOW: usize = 16;
const PAGE: u64 = 4_096;
