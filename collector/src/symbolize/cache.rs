//! Functions that are known already, by file and by range of offsets, bounded in bytes.
//!
//! A range answers for every address in a function, so a warm cache rarely opens a file. Refuses: names without a
//! file identity (a path alone may be another file tomorrow).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::kernel::FileId;

/// Bytes of an entry without its names: tree node, range, reference counts.
const ENTRY_BYTES: usize = 96;

/// A function, or the inlined functions and lines at one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// End of the range in the file that it answers for, bytes.
    pub end: u64,
    /// Name, source file and line: an inlined function before the one that holds it.
    pub lines: Vec<(Arc<str>, Option<Arc<str>>, u32)>,
}

/// Functions by file.
pub struct FunctionCache {
    files: HashMap<FileId, File>,
    bytes: usize,
    bytes_max: usize,
    window: u64,
}

#[derive(Default)]
struct File {
    functions: BTreeMap<u64, Function>,
    bytes: usize,
    used_in_window: u64,
}

impl FunctionCache {
    /// An empty cache.
    pub fn new(bytes_max: usize) -> Self {
        Self { files: HashMap::new(), bytes: 0, bytes_max, window: 0 }
    }

    /// What stands at an offset of a file.
    pub fn get(&mut self, file: FileId, offset: u64) -> Option<&Function> {
        let window = self.window;
        let file = self.files.get_mut(&file)?;
        file.used_in_window = window;
        let (_, function) = file.functions.range(..=offset).next_back()?;
        (offset < function.end).then_some(function)
    }

    /// Remembers a function that starts at an offset of a file.
    pub fn insert(&mut self, file: FileId, start: u64, function: Function) {
        let names = function
            .lines
            .iter()
            .map(|(name, path, _)| name.len() + path.as_ref().map_or(0, |path| path.len()));
        let bytes = ENTRY_BYTES + names.sum::<usize>();
        let entry = self.files.entry(file).or_default();
        entry.used_in_window = self.window;
        if entry.functions.insert(start, function).is_none() {
            entry.bytes += bytes;
            self.bytes += bytes;
        }
    }

    /// Ends a window: above the limit, the files that were not used for longest go.
    pub fn end_window(&mut self) {
        self.window += 1;
        while self.bytes > self.bytes_max {
            let oldest = self.files.iter().min_by_key(|(_, file)| file.used_in_window).map(|(id, _)| *id);
            let Some(file) = oldest.and_then(|id| self.files.remove(&id)) else { return };
            self.bytes -= file.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: u8) -> FileId {
        FileId::BuildId([number; 20])
    }

    fn function(end: u64, name: &str) -> Function {
        Function { end, lines: vec![(name.into(), None, 0)] }
    }

    fn check(cache: &mut FunctionCache, number: u8, offset: u64, expected: Option<&str>) {
        let found = cache.get(file(number), offset).map(|function| function.lines[0].0.to_string());
        assert_eq!(found.as_deref(), expected, "file {number} offset {offset}");
    }

    #[test]
    fn ranges() {
        let mut cache = FunctionCache::new(1 << 20);
        cache.insert(file(1), 100, function(200, "first"));
        cache.insert(file(1), 300, function(310, "second"));
        check(&mut cache, 1, 99, None);
        check(&mut cache, 1, 100, Some("first"));
        check(&mut cache, 1, 199, Some("first"));
        check(&mut cache, 1, 200, None);
        check(&mut cache, 1, 305, Some("second"));
        check(&mut cache, 2, 100, None);
    }

    #[test]
    fn the_bound_holds_and_the_oldest_goes() {
        let mut cache = FunctionCache::new(2 * (ENTRY_BYTES + 4));
        for number in 1..=3 {
            cache.insert(file(number), 0, function(10, "name"));
            cache.window += 1;
        }
        cache.get(file(1), 5);
        cache.end_window();
        assert!(cache.bytes <= cache.bytes_max);
        check(&mut cache, 2, 5, None);
        check(&mut cache, 1, 5, Some("name"));
        check(&mut cache, 3, 5, Some("name"));
    }
}
