//! Functions at some kernel addresses, by one pass over `/proc/kallsyms`: for stacks that come once in a while.
//!
//! No table stays in memory, unlike in `kernel_symbols`, which names thousands of addresses again and again. Refuses: to say
//! an address. What the kernel tells is a function and a distance from its start, as its own traces do.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

const PATH: &str = "/proc/kallsyms";

/// No function is longer. What lies further behind one is code that the list does not name.
const FUNCTION_BYTES_MAX: u64 = 64 * 1024;

/// Addresses that are remembered. The ways by which a kernel ends processes are few.
const NAMES_MAX: usize = 1024;

/// Bytes of a line that are looked at: the longest name has 512.
const LINE_BYTES_MAX: usize = 1024;

/// Functions of the kernel, `name+0x…`.
#[derive(Default)]
pub struct Kallsyms {
    names: HashMap<u64, Option<Arc<str>>>,
}

/// Why there are no names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// `kernel.kptr_restrict` forbids it.
    ByTheKernel,
    /// The list cannot be read.
    Unreadable,
}

impl Kallsyms {
    /// The function at each address; `None` where the list names none.
    ///
    /// # Errors
    ///
    /// If the kernel keeps its addresses to itself.
    pub fn functions(&mut self, addresses: &[u64]) -> Result<Vec<Option<Arc<str>>>, Hidden> {
        let mut unknown: Vec<u64> =
            addresses.iter().copied().filter(|address| !self.names.contains_key(address)).collect();
        if !unknown.is_empty() {
            unknown.sort_unstable();
            unknown.dedup();
            let list = File::open(PATH).map_err(|_| Hidden::Unreadable)?;
            let found = look_up(BufReader::new(list), &unknown)?;
            if self.names.len() + found.len() > NAMES_MAX {
                self.names.clear();
            }
            self.names.extend(unknown.into_iter().zip(found));
        }
        Ok(addresses.iter().map(|address| self.names.get(address).cloned().flatten()).collect())
    }
}

/// The nearest function before each of the sorted addresses.
fn look_up(mut list: impl BufRead, addresses: &[u64]) -> Result<Vec<Option<Arc<str>>>, Hidden> {
    let mut nearest: Vec<Option<(u64, String)>> = vec![None; addresses.len()];
    let mut line = Vec::new();
    while next_line(&mut list, &mut line).map_err(|_| Hidden::Unreadable)? {
        let Some((start, name)) = function(&line) else { continue };
        if start == 0 {
            return Err(Hidden::ByTheKernel);
        }
        let first = addresses.partition_point(|&address| address < start);
        for (address, nearest) in addresses.iter().zip(&mut nearest).skip(first) {
            if address - start >= FUNCTION_BYTES_MAX {
                break;
            }
            if nearest.as_ref().is_none_or(|(other, _)| *other < start) {
                *nearest = Some((start, name.to_owned()));
            }
        }
    }
    let named = addresses.iter().zip(nearest).map(|(address, nearest)| {
        nearest.map(|(start, name)| format!("{name}+{:#x}", address - start).into())
    });
    Ok(named.collect())
}

/// Reads a line without its end; false at the end of the list.
fn next_line(list: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let bytes = list.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', line)?;
    Ok(bytes > 0)
}

/// Start and name in `ffffffff81000000 T name [module]`, if the line is about code.
fn function(line: &[u8]) -> Option<(u64, &str)> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let (start, kind, name) = (words.next()?, words.next()?, words.next()?);
    let is_code = matches!(kind, "T" | "t" | "W" | "w");
    Some((u64::from_str_radix(start, 16).ok().filter(|_| is_code)?, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "0000000000000000 A fixed_percpu_data\nffffffff81000000 T _text\nffffffff81000100 t force_sig\n\
                        ffffffff81000180 D data\nffffffff81000200 W oom_kill_process\n\nffffffffc0000000 t xfs_read\t[xfs]\n\
                        ffffffff81000100 t alias\nnonsense\nffffffff81000080 t late\n";

    fn check(list: &str, addresses: &[u64], expected: Result<&[Option<&str>], Hidden>) {
        let found = look_up(list.as_bytes(), addresses);
        let expected = expected.map(|names| names.iter().map(|name| name.map(Arc::from)).collect::<Vec<_>>());
        assert_eq!(found, expected, "{addresses:x?}");
    }

    #[test]
    fn the_nearest_function_before() {
        check(LIST, &[], Ok(&[]));
        check(
            LIST,
            &[0xffff_ffff_8100_0090, 0xffff_ffff_8100_01ff, 0xffff_ffff_8100_0200],
            Ok(&[Some("late+0x10"), Some("force_sig+0xff"), Some("oom_kill_process+0x0")]),
        );
        check(
            LIST,
            &[1, 0xffff_ffff_8200_0000, 0xffff_ffff_c000_0004],
            Ok(&[None, None, Some("xfs_read+0x4")]),
        );
        check("", &[7], Ok(&[None]));
    }

    #[test]
    fn hidden_addresses_name_nothing() {
        check("0000000000000000 T _text\n0000000000000000 t other\n", &[7], Err(Hidden::ByTheKernel));
    }

    #[test]
    fn this_kernels_own() {
        let list = std::fs::read_to_string(PATH).unwrap_or_default();
        let known = list.lines().find_map(|line| function(line.as_bytes()).filter(|(start, _)| *start != 0));
        let Some((start, _)) = known else { return println!("this kernel hides its addresses") };
        let mut kallsyms = Kallsyms::default();
        for _ in 0..2 {
            let names = kallsyms.functions(&[start, 1]).expect("they are there");
            assert!(names[0].as_ref().is_some_and(|name| name.ends_with("+0x0")), "{names:?}");
            assert_eq!(names[1], None);
        }
    }
}
