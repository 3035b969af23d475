//! Reads many entries of a map with one system call instead of two for each.
//!
//! `BPF_MAP_LOOKUP_BATCH` (include/uapi/linux/bpf.h): hash maps and arrays have it since Linux 5.6, arrays with a value for
//! each CPU since 5.13. Refuses: maps without it; the caller reads those entry by entry.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use aya::maps::MapData;
use zerocopy::{FromBytes, IntoBytes};

const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// Bytes of keys and values that one call reads, about.
const BATCH_BYTES: usize = 128 * 1024;

/// The `batch` part of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    element_flags: u64,
    flags: u64,
}

/// The way to a map's entries, with the buffers that they are read into.
pub struct Batch<K, V> {
    map: OwnedFd,
    keys: Vec<K>,
    /// One value after the other, those of one key together.
    values: Vec<V>,
    values_per_key: usize,
}

impl<K: FromBytes + IntoBytes, V: FromBytes + IntoBytes> Batch<K, V> {
    /// For a map whose entries have so many values each: one, or one for each possible CPU.
    ///
    /// # Errors
    ///
    /// If the process may have no more descriptors.
    pub fn new(map: &MapData, values_per_key: usize) -> Result<Self> {
        // The kernel rounds the values of CPUs up to eight bytes; ours need no rounding.
        debug_assert!(values_per_key == 1 || size_of::<V>().is_multiple_of(8));
        let map = map.fd().as_fd().try_clone_to_owned().context("duplicate the descriptor of a map")?;
        let entries = BATCH_BYTES / (size_of::<K>() + size_of::<V>() * values_per_key);
        let entries = entries.max(1);
        let mut keys = Vec::new();
        keys.resize_with(entries, K::new_zeroed);
        let mut values = Vec::new();
        values.resize_with(entries * values_per_key, V::new_zeroed);
        Ok(Self { map, keys, values, values_per_key })
    }

    /// Calls `take` with the key and the values of each entry until it says that it has enough.
    ///
    /// # Errors
    ///
    /// If the kernel cannot do so with this map.
    pub fn read(&mut self, mut take: impl FnMut(&K, &[V]) -> bool) -> io::Result<()> {
        // Where the next call goes on: the kernel's word, a key or a bucket of 32 bits each.
        let mut place = 0u64;
        let mut is_first = true;
        loop {
            let mut attributes = Attributes {
                in_batch: if is_first { 0 } else { address(&raw mut place) },
                out_batch: address(&raw mut place),
                keys: address(self.keys.as_mut_ptr()),
                values: address(self.values.as_mut_ptr()),
                count: u32::try_from(self.keys.len()).unwrap_or(u32::MAX),
                map_fd: self.map.as_raw_fd().cast_unsigned(),
                ..Attributes::default()
            };
            is_first = false;
            // SAFETY: the kernel writes at most `count` keys and as many times `values_per_key` values, which the vectors
            // have room for and whose types any bytes are valid for, and 4 bytes to `place`.
            let outcome = unsafe {
                libc::syscall(
                    libc::SYS_bpf,
                    BPF_MAP_LOOKUP_BATCH,
                    &raw mut attributes,
                    size_of::<Attributes>(),
                )
            };
            let is_last = match outcome {
                0 => false,
                _ => match io::Error::last_os_error() {
                    error if error.raw_os_error() == Some(libc::ENOENT) => true,
                    error => return Err(error),
                },
            };
            let count = attributes.count as usize;
            let values = self.values.chunks_exact(self.values_per_key);
            for (key, values) in self.keys.iter().zip(values).take(count) {
                if !take(key, values) {
                    return Ok(());
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

/// A pointer as the kernel takes it.
fn address<T>(pointer: *mut T) -> u64 {
    pointer.expose_provenance() as u64
}
