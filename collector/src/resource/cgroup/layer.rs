//! How much a container wrote: its overlay's upper layer, added up in small steps, one layer after the other.
//!
//! Refuses: holding anything of the layer open between steps, for that would hold up its unmount; other file systems
//! below it; layers with directories beyond [`DIRECTORY_ENTRIES_MAX`].

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Entries that one step looks at, but for the end of a directory.
pub const STEP_ENTRIES_MAX: usize = 2_000;

/// Entries of one directory, which is read at once; the size of a layer with a larger one stays unknown.
pub const DIRECTORY_ENTRIES_MAX: usize = 10_000;

/// Directories of one layer that wait; the size of a layer with more stays unknown.
const WAITING_MAX: usize = 10_000;

/// What `st_blocks` counts, bytes.
const BLOCK_BYTES: u64 = 512;

/// The sizes of layers, and the one that is being added up.
#[derive(Default)]
pub struct Layers {
    known: HashMap<Arc<str>, Layer>,
    adding: Option<Sum>,
    finished: u64,
}

struct Layer {
    upper: PathBuf,
    bytes: Option<u64>,
    /// The number of layers finished before it was; 0 if it was not.
    turn: u64,
}

struct Sum {
    cgroup: Arc<str>,
    device: u64,
    waiting: Vec<PathBuf>,
    bytes: u64,
}

impl Layers {
    /// Remembers where the layer of `cgroup` is, seen from here, and gives its size if that was added up.
    pub fn bytes(&mut self, cgroup: &Arc<str>, upper: &Path) -> Option<u64> {
        match self.known.get(cgroup) {
            Some(layer) if layer.upper == upper => layer.bytes,
            _ => {
                let layer = Layer { upper: upper.to_path_buf(), bytes: None, turn: 0 };
                self.known.insert(cgroup.clone(), layer);
                None
            }
        }
    }

    /// Forgets layers of cgroups that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.known.retain(|cgroup, _| is_there(cgroup));
        self.adding.take_if(|sum| !is_there(&sum.cgroup));
    }

    /// Adds up some more.
    pub fn step(&mut self) {
        let mut budget = STEP_ENTRIES_MAX;
        while budget > 0 {
            let Some(mut sum) = self.adding.take().or_else(|| self.next()) else { return };
            while budget > 0
                && let Some(directory) = sum.waiting.pop()
            {
                match sum.add(&directory) {
                    Some(entries) => budget = budget.saturating_sub(entries.max(1)),
                    None => {
                        self.finish(&sum.cgroup, None);
                        return;
                    }
                }
            }
            match sum.waiting.is_empty() {
                true => {
                    self.finish(&sum.cgroup, Some(sum.bytes));
                    budget = budget.saturating_sub(1);
                    // Once around is enough for one step.
                    if self.known.values().all(|layer| layer.turn + self.known.len() as u64 > self.finished) {
                        return;
                    }
                }
                false => self.adding = Some(sum),
            }
        }
    }

    fn finish(&mut self, cgroup: &Arc<str>, bytes: Option<u64>) {
        self.finished += 1;
        if let Some(layer) = self.known.get_mut(cgroup) {
            (layer.bytes, layer.turn) = (bytes, self.finished);
        }
    }

    /// The layer whose turn is longest ago.
    fn next(&self) -> Option<Sum> {
        let (cgroup, layer) = self.known.iter().min_by_key(|(_, layer)| layer.turn)?;
        let device = std::fs::symlink_metadata(&layer.upper).map(|stat| stat.dev()).unwrap_or_default();
        Some(Sum { cgroup: cgroup.clone(), device, waiting: vec![layer.upper.clone()], bytes: 0 })
    }
}

impl Sum {
    /// Adds a directory's entries. How many they were; `None` if they are too many.
    fn add(&mut self, directory: &Path) -> Option<usize> {
        let mut count = 0;
        // A directory that went meanwhile holds nothing.
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            count += 1;
            let Ok(stat) = entry.path().symlink_metadata() else { continue };
            if stat.dev() != self.device {
                continue;
            }
            // A file of several names is met that often.
            let names = if stat.is_dir() { 1 } else { stat.nlink().max(1) };
            self.bytes = self.bytes.saturating_add(stat.blocks().saturating_mul(BLOCK_BYTES) / names);
            if stat.is_dir() {
                self.waiting.push(entry.path());
            }
            if count > DIRECTORY_ENTRIES_MAX || self.waiting.len() > WAITING_MAX {
                return None;
            }
        }
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_up_in_steps() {
        let place = tempfile::tempdir().expect("a directory");
        for directory in 0..5 {
            let directory = place.path().join(format!("d{directory}"));
            std::fs::create_dir(&directory).expect("writable");
            for file in 0..900 {
                std::fs::write(directory.join(file.to_string()), "x").expect("writable");
            }
        }
        let mut layers = Layers::default();
        let cgroup: Arc<str> = "/c1".into();
        assert_eq!(layers.bytes(&cgroup, place.path()), None);
        layers.step();
        assert_eq!(layers.bytes(&cgroup, place.path()), None, "too much for one step");
        layers.step();
        layers.step();
        let bytes = layers.bytes(&cgroup, place.path()).expect("finished");
        assert!(bytes >= 4500 * 512, "{bytes}");
        assert_eq!(layers.bytes(&cgroup, Path::new("/other")), None, "another layer");
        layers.retain(|_| false);
        assert!(layers.known.is_empty());
        layers.step();
    }
}
