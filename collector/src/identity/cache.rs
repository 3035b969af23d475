//! What containers were named, on disk: a restarted agent knows them at once, and those that ended meanwhile too.
//!
//! Refuses: more than [`POD_MAX`] containers, the oldest go first, and files of another layout or over
//! `FILE_BYTES_MAX`: the cache begins anew.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Pod;

/// Containers that are remembered: those of 250 pods, through many restarts.
pub const POD_MAX: usize = 2_048;

/// Bytes of the file.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Version of the layout.
const SCHEMA: u32 = 1;

/// Names by container.
#[derive(Debug, Default)]
pub struct Cache {
    path: Option<PathBuf>,
    pods: HashMap<String, (u64, Pod)>,
    /// Counts additions: the smallest is the oldest.
    order: u64,
    has_changed: bool,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    schema: u32,
    /// The oldest first.
    containers: Vec<(String, Pod)>,
}

impl Cache {
    /// The cache as it was left; empty if there is none that can be read.
    pub fn open(path: Option<PathBuf>) -> Self {
        let mut cache = Self::default();
        let kept = path.as_deref().and_then(|path| read(path).ok());
        for (container_id, pod) in
            kept.filter(|kept| kept.schema == SCHEMA).into_iter().flat_map(|kept| kept.containers)
        {
            cache.insert(container_id, pod);
        }
        Self { path, has_changed: false, ..cache }
    }

    /// The pod of a container.
    pub fn get(&self, container_id: &str) -> Option<&Pod> {
        self.pods.get(container_id).map(|(_, pod)| pod)
    }

    /// Remembers a container.
    pub fn insert(&mut self, container_id: String, pod: Pod) {
        if self.pods.len() >= POD_MAX && !self.pods.contains_key(&container_id) {
            let oldest = self.pods.iter().min_by_key(|(_, (order, _))| *order).map(|(id, _)| id.clone());
            oldest.into_iter().for_each(|oldest| drop(self.pods.remove(&oldest)));
        }
        self.order += 1;
        self.pods.insert(container_id, (self.order, pod));
        self.has_changed = true;
    }

    /// What is to be written, if there is anything new. Who cannot write it says so by [`Self::set_changed`].
    pub fn take_changes(&mut self) -> Option<Unsaved> {
        let path = self.path.clone().filter(|_| self.has_changed)?;
        self.has_changed = false;
        let mut containers: Vec<(&String, &(u64, Pod))> = self.pods.iter().collect();
        containers.sort_by_key(|(_, (order, _))| *order);
        let containers = containers.into_iter().map(|(id, (_, pod))| (id.clone(), pod.clone())).collect();
        Some(Unsaved { path, kept: Kept { schema: SCHEMA, containers } })
    }

    /// There is something that is not on disk.
    pub fn set_changed(&mut self) {
        self.has_changed = true;
    }
}

/// The cache as it was at a moment, for a thread that may wait for a disk.
pub struct Unsaved {
    path: PathBuf,
    kept: Kept,
}

impl Unsaved {
    /// Writes it.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn save(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.kept)?;
        write(&self.path, &text).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn read(path: &Path) -> Result<Kept> {
    let mut text = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Through another name: a reader sees the old one or the new one.
fn write(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(text)?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Facts;

    fn pod(name: &str) -> Pod {
        Pod::of(&Facts::of_pod("shop", name, "12", "web"), &Default::default())
    }

    #[test]
    fn what_was_known_is_known_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state/names.json");
        let mut cache = Cache::open(Some(path.clone()));
        for number in 0..POD_MAX + 2 {
            cache.insert(number.to_string(), pod(&format!("cart-{number}")));
        }
        cache.take_changes().expect("something new").save().expect("written");
        assert!(cache.take_changes().is_none());
        cache.set_changed();
        assert!(cache.take_changes().is_some());
        let again = Cache::open(Some(path));
        assert_eq!(again.get("0"), None);
        assert_eq!(again.get("2"), Some(&pod("cart-2")));
        assert_eq!(again.pods.len(), POD_MAX);
    }

    #[test]
    fn a_file_that_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("names.json");
        for text in ["", "{", "[]", r#"{"schema":9,"containers":[]}"#, r#"{"schema":1,"containers":[[1,2]]}"#]
        {
            std::fs::write(&path, text).expect("written");
            assert_eq!(Cache::open(Some(path.clone())).pods.len(), 0, "{text}");
        }
        let mut nowhere = Cache::open(Some("/proc/nowhere/names.json".into()));
        nowhere.insert("a".to_owned(), pod("cart"));
        assert!(nowhere.take_changes().expect("something new").save().is_err());
    }
}
