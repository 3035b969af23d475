//! How long a core is by its own program headers, found while it streams past.
//!
//! A process that is killed while it dumps leaves a core that just ends; only this tells it from a whole one. Refuses:
//! 32-bit cores and those with 65535 segments and more, whose length is at their end: of these nothing is said.

/// Size of the ELF header.
const HEADER_BYTES: usize = 64;

/// Size of a program header.
const SEGMENT_BYTES: usize = 56;

/// `PN_XNUM`: the number of segments is elsewhere.
const SEGMENTS_MAX: u16 = 0xffff;

/// The length of the core that is being read.
#[derive(Debug, Default)]
pub(super) struct Extent {
    /// The start of a header that the last piece broke off in.
    carry: Vec<u8>,
    state: State,
    end: u64,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Header,
    Segments(u16),
    Known,
    Unknown,
}

impl Extent {
    /// The next bytes of the stream.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        loop {
            let wanted = match self.state {
                State::Header => HEADER_BYTES,
                State::Segments(_) => SEGMENT_BYTES,
                State::Known | State::Unknown => return,
            };
            let taken = bytes.len().min(wanted - self.carry.len());
            self.carry.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.carry.len() < wanted {
                return;
            }
            self.state = self.next();
            self.carry.clear();
        }
    }

    /// Where the last segment ends; `None` if the headers weren't read to their end or are not understood.
    pub(super) fn end(&self) -> Option<u64> {
        match self.state {
            State::Known => Some(self.end),
            State::Header | State::Segments(_) if self.end > 0 || !self.carry.is_empty() => Some(u64::MAX),
            _ => None,
        }
    }

    /// The state after the header in `carry`.
    fn next(&mut self) -> State {
        match self.state {
            State::Header => {
                let is_known = self.carry.starts_with(b"\x7fELF\x02\x01")
                    && self.word(32) == HEADER_BYTES as u64
                    && usize::from(self.half(54)) == SEGMENT_BYTES;
                match self.half(56) {
                    0 | SEGMENTS_MAX => State::Unknown,
                    count if is_known => State::Segments(count),
                    _ => State::Unknown,
                }
            }
            State::Segments(left) => {
                self.end = self.end.max(self.word(8).saturating_add(self.word(32)));
                if left > 1 { State::Segments(left - 1) } else { State::Known }
            }
            State::Known => State::Known,
            State::Unknown => State::Unknown,
        }
    }

    fn word(&self, at: usize) -> u64 {
        self.carry
            .get(at..)
            .and_then(|bytes| bytes.first_chunk())
            .map_or(0, |&bytes| u64::from_le_bytes(bytes))
    }

    fn half(&self, at: usize) -> u16 {
        self.carry
            .get(at..)
            .and_then(|bytes| bytes.first_chunk())
            .map_or(0, |&bytes| u16::from_le_bytes(bytes))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The headers of a core with segments of (offset, size).
    pub(in crate::dump) fn core(segments: &[(u64, u64)]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES + SEGMENT_BYTES * segments.len()];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&u16::try_from(segments.len()).expect("few").to_le_bytes());
        for (index, (offset, size)) in segments.iter().enumerate() {
            let at = HEADER_BYTES + SEGMENT_BYTES * index;
            bytes[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
            bytes[at + 32..at + 40].copy_from_slice(&size.to_le_bytes());
        }
        bytes
    }

    fn check(bytes: &[u8], expected: Option<u64>) {
        for piece in [1, 7, 64, 1000] {
            let mut extent = Extent::default();
            bytes.chunks(piece).for_each(|bytes| extent.feed(bytes));
            assert_eq!(extent.end(), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn lengths() {
        check(&core(&[(0x1000, 0x234), (0x2000, 0x5000)]), Some(0x7000));
        check(&core(&[(0x9000, 0x1000), (0x2000, 0)]), Some(0xa000));
        check(&core(&[(u64::MAX, 2)]), Some(u64::MAX));
        check(&[core(&[(0x1000, 0x10)]), vec![1; 5000]].concat(), Some(0x1010));
        check(b"", None);
        check(&[7; 500], None);
        // Broken off within the headers.
        check(&core(&[(0x1000, 0x234), (0x2000, 0x5000)])[..150], Some(u64::MAX));
        check(&core(&[(0x1000, 0x234)])[..20], Some(u64::MAX));
    }
}
