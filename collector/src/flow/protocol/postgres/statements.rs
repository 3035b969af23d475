//! The prepared statements and portals of a connection.
//!
//! Refuses: to keep more of them than its bounds; what is used least is forgotten.

use std::sync::Arc;

use fnv::FnvHashMap;

use super::super::sql::{Cache, Statement};

/// Named statements.
pub const STATEMENTS_MAX: usize = 256;

/// Named portals.
const PORTALS_MAX: usize = 16;

/// Bytes of a name that is remembered.
const NAME_BYTES_MAX: usize = 128;

/// By name; the unnamed ones have an empty name.
#[derive(Debug, Default)]
pub struct Statements {
    unnamed: Option<Arc<Statement>>,
    named: Names<STATEMENTS_MAX>,
    unnamed_portal: Option<Arc<Statement>>,
    portals: Names<PORTALS_MAX>,
    cache: Cache,
}

#[derive(Debug, Default)]
struct Names<const MAX: usize> {
    statements: FnvHashMap<Box<[u8]>, (u64, Arc<Statement>)>,
    /// Uses so far, so that the least used is found.
    uses: u64,
    held_bytes: usize,
}

impl Statements {
    /// About the memory that they take.
    pub fn held_bytes(&self) -> usize {
        self.named.held_bytes + self.portals.held_bytes + self.cache.held_bytes()
    }

    /// Reads a text.
    pub fn read(&mut self, text: &[u8], is_cut: bool) -> Arc<Statement> {
        self.cache.normalise(text, is_cut)
    }

    /// Remembers a statement.
    pub fn prepare(&mut self, name: &[u8], statement: Arc<Statement>) {
        if name.is_empty() {
            self.unnamed = Some(statement);
        } else {
            self.named.insert(name, Some(statement));
        }
    }

    /// Makes a portal of a statement.
    pub fn bind(&mut self, portal: &[u8], name: &[u8]) -> Option<Arc<Statement>> {
        let statement = if name.is_empty() { self.unnamed.clone() } else { self.named.get(name) };
        if portal.is_empty() {
            self.unnamed_portal.clone_from(&statement);
        } else {
            self.portals.insert(portal, statement.clone());
        }
        statement
    }

    /// The statement of a portal.
    pub fn portal(&mut self, portal: &[u8]) -> Option<Arc<Statement>> {
        if portal.is_empty() { self.unnamed_portal.clone() } else { self.portals.get(portal) }
    }

    /// Forgets a statement.
    pub fn close(&mut self, name: &[u8]) {
        self.named.remove(name);
    }

    /// Forgets a portal.
    pub fn close_portal(&mut self, portal: &[u8]) {
        self.portals.remove(portal);
    }

    /// Messages were lost that may have replaced the unnamed ones.
    pub fn forget_unnamed(&mut self) {
        self.unnamed = None;
        self.unnamed_portal = None;
    }

    /// Statements and portals with a name.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.named.statements.len() + self.portals.statements.len()
    }
}

impl<const MAX: usize> Names<MAX> {
    fn get(&mut self, name: &[u8]) -> Option<Arc<Statement>> {
        let (used, statement) = self.statements.get_mut(name)?;
        self.uses += 1;
        *used = self.uses;
        Some(Arc::clone(statement))
    }

    /// Under a name that had another statement before.
    fn insert(&mut self, name: &[u8], statement: Option<Arc<Statement>>) {
        let Some(statement) = statement.filter(|_| name.len() <= NAME_BYTES_MAX) else {
            self.remove(name);
            return;
        };
        if self.statements.len() >= MAX && !self.statements.contains_key(name) {
            let oldest = self.statements.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.remove(&oldest);
            }
        }
        self.remove(name);
        self.uses += 1;
        self.held_bytes += held_bytes(name, &statement);
        self.statements.insert(name.into(), (self.uses, statement));
    }

    fn remove(&mut self, name: &[u8]) {
        if let Some((_, statement)) = self.statements.remove(name) {
            self.held_bytes -= held_bytes(name, &statement);
        }
    }
}

/// About the memory that a name with its statement takes. One that the cache has too counts twice.
fn held_bytes(name: &[u8], statement: &Statement) -> usize {
    size_of::<(Box<[u8]>, u64, Arc<Statement>)>() + name.len() + statement.held_bytes()
}
