//! Which CPUs are online.
//!
//! Refuses: the number of CPUs as a range; numbers have holes when CPUs are taken offline.

use anyhow::{Context, Result};

const ONLINE: &str = "/sys/devices/system/cpu/online";

/// The numbers of the CPUs that are online now.
///
/// # Errors
///
/// If sysfs is not mounted or holds something else than a CPU list.
pub fn online_cpus() -> Result<Vec<u32>> {
    let text = std::fs::read_to_string(ONLINE)
        .with_context(|| format!("cannot read {ONLINE}: is sysfs mounted?"))?;
    parse(&text).with_context(|| format!("{ONLINE} holds {text:?}, not a list of CPUs"))
}

/// Parses the kernel's list format, such as `0-3,8`.
fn parse(text: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if last < first || last > u32::from(u16::MAX) {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&[u32]>) {
        assert_eq!(parse(text).as_deref(), expected, "{text:?}");
    }

    #[test]
    fn lists() {
        check("0\n", Some(&[0]));
        check("0-3\n", Some(&[0, 1, 2, 3]));
        check("0,2-3,7\n", Some(&[0, 2, 3, 7]));
        check("", None);
        check("3-1", None);
        check("0-4294967295", None);
        check("a-b", None);
    }
}
