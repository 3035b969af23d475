//! A dictionary table: each distinct entry once, addressed by its index; index 0 is the zero value.
//!
//! Refuses: entries that are never referenced.

use std::collections::HashMap;
use std::hash::Hash;

/// Builds one table. `K` tells entries apart, `V` is what is written.
pub struct Table<K, V> {
    indices: HashMap<K, i32>,
    entries: Vec<V>,
}

impl<K: Eq + Hash, V> Table<K, V> {
    /// A table that holds the zero value.
    pub fn new(zero: V) -> Self {
        Self { indices: HashMap::new(), entries: vec![zero] }
    }

    /// The index of an entry that exists.
    pub fn get(&self, key: &K) -> Option<i32> {
        self.indices.get(key).copied()
    }

    /// The index of an entry, which is made if the key is new.
    pub fn index(&mut self, key: K, entry: impl FnOnce() -> V) -> i32 {
        let next = i32::try_from(self.entries.len()).unwrap_or(0);
        *self.indices.entry(key).or_insert_with(|| {
            self.entries.push(entry());
            next
        })
    }

    /// Entries so far, the zero value included: the index of the next new one.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entries in the order of their indices.
    pub fn into_entries(self) -> Vec<V> {
        self.entries
    }
}

impl Table<String, String> {
    /// A string table: index 0 is the empty string.
    pub fn of_strings() -> Self {
        let mut table = Self::new(String::new());
        table.indices.insert(String::new(), 0);
        table
    }

    /// The index of a string.
    pub fn string(&mut self, text: &str) -> i32 {
        match self.indices.get(text) {
            Some(&index) => index,
            None => self.index(text.to_owned(), || text.to_owned()),
        }
    }
}
