//! Replaces what may be user data by a pattern, and keeps the addresses that unwinding needs.
//!
//! Refuses: to tell an address from eight bytes of data that look like one.

use super::super::elf_core::ElfCore;

/// What stands in the place of data; Breakpad and Crashpad use the same.
pub const REDACTED: u64 = 0x0def_aced_0def_aced;

/// Whether a word may stay in a redacted minidump: an address, or the zero that ends a chain of frames.
pub fn is_address(core: &ElfCore, word: u64) -> bool {
    word == 0 || core.segment_of(word).is_some()
}

/// Redacts memory that begins at a word.
pub fn redact_words(core: &ElfCore, bytes: &mut [u8]) {
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        if !is_address(core, u64::from_le_bytes(*word)) {
            *word = REDACTED.to_le_bytes();
        }
    }
    rest.fill(0);
}
