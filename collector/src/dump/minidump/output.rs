//! Writes the parts of a minidump one behind the other, and its directory in front at the end.
//!
//! Knows the encoding, by the structs of `minidump-common`; refuses to know what a part means.

use std::io::{BufWriter, Seek, SeekFrom, Write};

use anyhow::{Context as _, Result};
use minidump_common::format::{self as layout, MINIDUMP_STREAM_TYPE as StreamType};
use scroll::ctx::{SizeWith, TryIntoCtx};
use scroll::{Endian, Pwrite};

/// Longest string written, in bytes of UTF-8.
const STRING_BYTES_MAX: usize = 4096;
/// Each part begins at a multiple of this.
pub const PADDING_BYTES: u64 = 8;

/// Space for a string.
pub fn string_bytes(text: &str) -> u64 {
    text.len().min(STRING_BYTES_MAX) as u64 * 2 + 6 + PADDING_BYTES
}

/// The minidump so far: its parts in the order in which they are known, and the directory to put in front at the end.
pub struct Output<W: Write + Seek> {
    inner: BufWriter<W>,
    position: u64,
    directory: Vec<layout::MINIDUMP_DIRECTORY>,
}

impl<W: Write + Seek> Output<W> {
    /// Leaves space for the header and for the directory.
    pub fn new(output: W, streams: usize) -> Result<Self> {
        let mut output = Self { inner: BufWriter::new(output), position: 0, directory: Vec::new() };
        let header_bytes = layout::MINIDUMP_HEADER::size_with(&Endian::Little);
        let entry_bytes = layout::MINIDUMP_DIRECTORY::size_with(&Endian::Little);
        output.bytes(&vec![0; header_bytes + entry_bytes * streams])?;
        Ok(output)
    }

    /// Writes bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<layout::MINIDUMP_LOCATION_DESCRIPTOR> {
        let padding_bytes = self.position.next_multiple_of(PADDING_BYTES) - self.position;
        self.inner.write_all(&[0; PADDING_BYTES as usize][..padding_bytes as usize])?;
        self.inner.write_all(bytes)?;
        let rva = u32::try_from(self.position + padding_bytes).context("a minidump of 4 GiB")?;
        self.position += padding_bytes + bytes.len() as u64;
        Ok(layout::MINIDUMP_LOCATION_DESCRIPTOR { data_size: u32::try_from(bytes.len())?, rva })
    }

    /// Writes a struct.
    pub fn put<T: Part>(&mut self, part: T) -> Result<layout::MINIDUMP_LOCATION_DESCRIPTOR> {
        let mut bytes = Vec::new();
        append(&mut bytes, part)?;
        self.bytes(&bytes)
    }

    /// Writes a string as minidumps have it: length in bytes, UTF-16, zero.
    pub fn string(&mut self, text: &str) -> Result<layout::RVA> {
        let units = text[..text.floor_char_boundary(STRING_BYTES_MAX)].encode_utf16();
        let text: Vec<u8> = units.flat_map(u16::to_le_bytes).collect();
        let length = u32::try_from(text.len())?.to_le_bytes();
        Ok(self.bytes(&[length.as_slice(), &text, &[0, 0]].concat())?.rva)
    }

    /// Writes a stream that is a list: how many, then each.
    pub fn list<T: Part>(&mut self, kind: StreamType, parts: Vec<T>) -> Result<()> {
        let mut bytes = u32::try_from(parts.len())?.to_le_bytes().to_vec();
        for part in parts {
            append(&mut bytes, part)?;
        }
        let location = self.bytes(&bytes)?;
        self.stream(kind.into(), location);
        Ok(())
    }

    /// Enters a stream into the directory.
    pub fn stream(&mut self, stream_type: u32, location: layout::MINIDUMP_LOCATION_DESCRIPTOR) {
        self.directory.push(layout::MINIDUMP_DIRECTORY { stream_type, location });
    }

    /// Puts the header and the directory in front; gives the size of the whole.
    pub fn finish(mut self, time_s: u32) -> Result<u64> {
        let mut front = Vec::new();
        append(
            &mut front,
            layout::MINIDUMP_HEADER {
                signature: layout::MINIDUMP_SIGNATURE,
                version: layout::MINIDUMP_VERSION,
                stream_count: u32::try_from(self.directory.len())?,
                stream_directory_rva: layout::MINIDUMP_HEADER::size_with(&Endian::Little) as u32,
                checksum: 0,
                time_date_stamp: time_s,
                flags: 0,
            },
        )?;
        for entry in std::mem::take(&mut self.directory) {
            append(&mut front, entry)?;
        }
        self.inner.seek(SeekFrom::Start(0))?;
        self.inner.write_all(&front)?;
        self.inner.flush()?;
        Ok(self.position)
    }
}

/// A struct of the format.
pub trait Part: TryIntoCtx<Endian, Error = scroll::Error> + SizeWith<Endian> {}
impl<T: TryIntoCtx<Endian, Error = scroll::Error> + SizeWith<Endian>> Part for T {}

fn append<T: Part>(bytes: &mut Vec<u8>, part: T) -> Result<()> {
    let at = bytes.len();
    bytes.resize(at + T::size_with(&Endian::Little), 0);
    bytes.pwrite_with(part, at, Endian::Little)?;
    Ok(())
}
