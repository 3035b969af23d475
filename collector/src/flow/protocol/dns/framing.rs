//! DNS over TCP: messages behind their lengths, however they are cut and joined.
//!
//! Refuses: to look into messages.

use crate::flow::protocol::{CARRIED_BYTES_MAX, Extent, Mark};

/// Bytes of a length.
const PREFIX_BYTES: usize = 2;

/// One direction.
#[derive(Debug, Default)]
pub struct Framing {
    /// The message so far with its length, as far as it is kept.
    carried: Vec<u8>,
    /// Its bytes so far, kept or not.
    extent: Extent,
    /// Whether the begin of the next message is known.
    is_in_step: bool,
    /// Whether bytes of the message were not captured.
    is_holed: bool,
}

/// A message.
pub struct Frame {
    /// Its first bytes, behind the length.
    pub bytes: Vec<u8>,
    /// When it was moved, and its bytes with the length.
    pub extent: Extent,
    /// Whether the rest of it is missing.
    pub is_partial: bool,
}

impl Framing {
    /// The other side spoke: where a message is likely to begin.
    pub fn turn(&mut self) {
        if !self.is_in_step {
            *self = Self { is_in_step: true, ..Self::default() };
        }
    }

    /// Takes the message that ends first in the input, and what is before its end.
    pub fn take(&mut self, bytes: &mut &[u8], missing: &mut u64, mark: Mark) -> Option<Frame> {
        while self.is_in_step && (!bytes.is_empty() || *missing > 0) {
            if self.extent.bytes == 0 {
                self.extent.first = mark;
            }
            let Some(length) = self.length() else {
                let Some((first, rest)) = bytes.split_first() else {
                    // The length itself is missing.
                    *self = Self::default();
                    break;
                };
                self.carried.push(*first);
                self.extent.bytes += 1;
                self.extent.last = mark;
                *bytes = rest;
                continue;
            };
            self.take_rest(length, bytes, missing, mark);
            if self.extent.bytes == length {
                return Some(self.frame());
            }
        }
        None
    }

    fn take_rest(&mut self, length: u64, bytes: &mut &[u8], missing: &mut u64, mark: Mark) {
        let left = length - self.extent.bytes;
        let captured = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let (taken, rest) = bytes.split_at_checked(captured).unwrap_or_default();
        *bytes = rest;
        let space = if self.is_holed { 0 } else { CARRIED_BYTES_MAX.saturating_sub(self.carried.len()) };
        self.carried.extend_from_slice(taken.get(..space).unwrap_or(taken));
        self.is_holed |= taken.len() > space;
        let skipped = if rest.is_empty() { (*missing).min(left - taken.len() as u64) } else { 0 };
        *missing -= skipped;
        self.is_holed |= skipped > 0;
        if captured > 0 || skipped > 0 {
            self.extent.bytes += taken.len() as u64 + skipped;
            self.extent.last = mark;
        }
    }

    /// Bytes of the message with its length, once that is known.
    fn length(&self) -> Option<u64> {
        let prefix = self.carried.first_chunk::<PREFIX_BYTES>()?;
        Some(u64::from(u16::from_be_bytes(*prefix)) + PREFIX_BYTES as u64)
    }

    fn frame(&mut self) -> Frame {
        let done = std::mem::replace(self, Self { is_in_step: true, ..Self::default() });
        let mut bytes = done.carried;
        bytes.drain(..PREFIX_BYTES.min(bytes.len()));
        Frame { bytes, extent: done.extent, is_partial: done.is_holed }
    }
}
