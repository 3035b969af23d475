//! The texts of the cgroup files, of `net/dev` and of `mountinfo`, from bytes to numbers.
//!
//! Sources: Documentation/admin-guide/cgroup-v1, cgroup-v2.rst, Documentation/accounting/psi.rst, proc(5). Refuses:
//! nothing: what cannot be understood is left out, and no input panics.

use super::usage::{CpuUsage, DeviceIo, DeviceNumber, InterfaceUsage, Limit, MemoryUsage, Pressure, Traffic};

/// Devices of one cgroup; more are left out.
pub const DEVICES_MAX: usize = 256;

/// Interfaces of one network namespace; more are left out.
pub const INTERFACES_MAX: usize = 64;

/// v1 has no "none": limits above this mean that (`PAGE_COUNTER_MAX` in bytes is just below 2^63).
const V1_LIMIT_MAX: u64 = 1 << 60;

/// What v1's and v2's weights span, as the OCI runtimes translate them.
const SHARES_SPAN: u64 = 262_142;
const WEIGHT_SPAN: u64 = 9_999;

const NS_PER_US: u64 = 1_000;
const NS_PER_SECOND: u64 = 1_000_000_000;

/// Which of the two numbers of a v1 block I/O file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoUnit {
    /// `io_service_bytes`.
    Bytes,
    /// `io_serviced`.
    Operations,
}

/// A file with one number.
pub fn number(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii();
    let digit = |total: Option<u64>, byte: &u8| match byte {
        b'0'..=b'9' => total?.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    };
    text.first()?;
    text.iter().fold(Some(0), digit)
}

/// A file with one limit: a number, `max` (v2) or `-1` (v1).
pub fn limit(text: &[u8]) -> Option<Limit> {
    match text.trim_ascii() {
        b"max" | b"-1" => Some(Limit::Unlimited),
        text => number(text).map(|limit| match limit < V1_LIMIT_MAX {
            true => Limit::At(limit),
            false => Limit::Unlimited,
        }),
    }
}

/// `cpu.max`: quota and period, microseconds.
pub fn cpu_max(text: &[u8], cpu: &mut CpuUsage) {
    let mut words = words(text);
    cpu.quota_us = words.next().and_then(limit);
    cpu.period_us = words.next().and_then(number);
}

/// `cpu.weight` as v1's shares.
pub fn shares_of_weight(weight: u64) -> Option<u64> {
    Some(2 + weight.checked_sub(1)?.checked_mul(SHARES_SPAN)? / WEIGHT_SPAN)
}

/// v1's or v2's `cpu.stat`; times of v2 only where `has_times`, for v1 may count them elsewhere.
pub fn cpu_stat(text: &[u8], has_times: bool, cpu: &mut CpuUsage) {
    for (key, value) in pairs(text) {
        let scaled = |scale: u64| value.checked_mul(scale);
        match key {
            b"usage_usec" if has_times => cpu.total_ns = scaled(NS_PER_US),
            b"user_usec" if has_times => cpu.user_ns = scaled(NS_PER_US),
            b"system_usec" if has_times => cpu.system_ns = scaled(NS_PER_US),
            b"nr_periods" => cpu.periods = Some(value),
            b"nr_throttled" => cpu.throttled_periods = Some(value),
            b"throttled_usec" => cpu.throttled_ns = scaled(NS_PER_US),
            b"throttled_time" => cpu.throttled_ns = Some(value),
            _ => {}
        }
    }
}

/// `cpuacct.stat`: user and system time in ticks.
pub fn cpuacct_stat(text: &[u8], ticks_per_second: u64, cpu: &mut CpuUsage) {
    let tick_ns = NS_PER_SECOND / ticks_per_second.max(1);
    for (key, value) in pairs(text) {
        match key {
            b"user" => cpu.user_ns = value.checked_mul(tick_ns),
            b"system" => cpu.system_ns = value.checked_mul(tick_ns),
            _ => {}
        }
    }
}

/// v1's `memory.stat`: the lines that include children.
pub fn memory_stat_v1(text: &[u8], memory: &mut MemoryUsage) {
    for (key, value) in pairs(text) {
        match key {
            b"total_rss" => memory.rss_bytes = Some(value),
            b"total_cache" => memory.cache_bytes = Some(value),
            b"total_inactive_file" => memory.inactive_file_bytes = Some(value),
            b"total_mapped_file" => memory.mapped_bytes = Some(value),
            b"total_swap" => memory.swap_bytes = Some(value),
            b"total_pgfault" => memory.faults = Some(value),
            b"total_pgmajfault" => memory.major_faults = Some(value),
            b"pgfault" => memory.own_faults = Some(value),
            b"pgmajfault" => memory.own_major_faults = Some(value),
            _ => {}
        }
    }
}

/// v2's `memory.stat`.
pub fn memory_stat_v2(text: &[u8], memory: &mut MemoryUsage) {
    for (key, value) in pairs(text) {
        match key {
            b"anon" => memory.rss_bytes = Some(value),
            b"file" => memory.cache_bytes = Some(value),
            b"kernel" => memory.kernel_bytes = Some(value),
            b"sock" => memory.sock_bytes = Some(value),
            b"inactive_file" => memory.inactive_file_bytes = Some(value),
            b"file_mapped" => memory.mapped_bytes = Some(value),
            b"pgfault" => memory.faults = Some(value),
            b"pgmajfault" => memory.major_faults = Some(value),
            _ => {}
        }
    }
}

/// v2's `memory.events`, and v1's `memory.oom_control`, which counts kills only (since 4.13).
pub fn memory_events(text: &[u8], memory: &mut MemoryUsage) {
    for (key, value) in pairs(text) {
        match key {
            b"max" => memory.limit_hits = Some(value),
            b"oom" => memory.oom_events = Some(value),
            b"oom_kill" => memory.oom_kills = Some(value),
            _ => {}
        }
    }
}

/// A file `*.pressure`.
pub fn pressure(text: &[u8]) -> Pressure {
    let mut found = Pressure::default();
    for line in lines(text) {
        let mut words = words(line);
        let kind = words.next();
        let total = words.find_map(|word| word.strip_prefix(b"total=")).and_then(number);
        match kind {
            Some(b"some") => found.some_us = total,
            Some(b"full") => found.full_us = total,
            _ => {}
        }
    }
    found
}

/// v2's `io.stat`: a line for each device.
pub fn io_stat(text: &[u8], io: &mut Vec<DeviceIo>) {
    for line in lines(text) {
        let mut words = words(line);
        let Some(entry) = words.next().and_then(device).and_then(|device| entry_of(io, device)) else {
            continue;
        };
        for word in words {
            let (name, value) = split(word, b'=');
            let value = number(value);
            match name {
                b"rbytes" => entry.read_bytes = value,
                b"wbytes" => entry.written_bytes = value,
                b"rios" => entry.reads = value,
                b"wios" => entry.writes = value,
                _ => {}
            }
        }
    }
}

/// v1's `blkio.throttle.*_recursive`: a line for each device and operation.
pub fn blkio(text: &[u8], unit: IoUnit, io: &mut Vec<DeviceIo>) {
    for line in lines(text) {
        let mut words = words(line);
        let (first, operation, value) = (words.next(), words.next(), words.next().and_then(number));
        let is_read = match operation {
            Some(b"Read") => true,
            Some(b"Write") => false,
            _ => continue,
        };
        let Some(entry) = first.and_then(device).and_then(|device| entry_of(io, device)) else { continue };
        match (unit, is_read) {
            (IoUnit::Bytes, true) => entry.read_bytes = value,
            (IoUnit::Bytes, false) => entry.written_bytes = value,
            (IoUnit::Operations, true) => entry.reads = value,
            (IoUnit::Operations, false) => entry.writes = value,
        }
    }
}

/// `net/dev`: the interfaces but the loopback.
pub fn net_dev(text: &[u8]) -> Vec<InterfaceUsage> {
    lines(text).filter_map(interface).take(INTERFACES_MAX).collect()
}

/// `cgroup.procs`: its first process. 0 stands for processes of other pid namespaces.
pub fn first_pid(text: &[u8]) -> Option<u32> {
    lines(text).find_map(|line| u32::try_from(number(line)?).ok().filter(|&pid| pid > 0))
}

/// How many lines.
pub fn count_lines(text: &[u8]) -> u64 {
    lines(text).count() as u64
}

/// Field 22 of `/proc/PID/stat`: when it started, in ticks since boot. The name in parentheses may hold anything.
pub fn start_ticks(text: &[u8]) -> Option<u64> {
    let after_name = text.iter().rposition(|&byte| byte == b')')?;
    words(text.get(after_name + 1..)?).nth(19).and_then(number)
}

/// How many numbers a list such as `0-3,5` holds.
pub fn count_of_ranges(text: &[u8]) -> Option<u64> {
    let count = |range: &[u8]| {
        let (first, last) = split(range, b'-');
        let first = number(first)?;
        let last = if last.is_empty() { first } else { number(last)? };
        last.checked_sub(first)?.checked_add(1)
    };
    text.trim_ascii().split(|&byte| byte == b',').try_fold(0u64, |sum, range| sum.checked_add(count(range)?))
}

/// The device of `8:0`.
fn device(word: &[u8]) -> Option<DeviceNumber> {
    let (major, minor) = split(word, b':');
    Some(DeviceNumber {
        major: u32::try_from(number(major)?).ok()?,
        minor: u32::try_from(number(minor)?).ok()?,
    })
}

fn entry_of(io: &mut Vec<DeviceIo>, device: DeviceNumber) -> Option<&mut DeviceIo> {
    let index = match io.binary_search_by_key(&device, |entry| entry.device) {
        Ok(index) => index,
        Err(_) if io.len() >= DEVICES_MAX => return None,
        Err(index) => {
            io.insert(index, DeviceIo { device, ..DeviceIo::default() });
            index
        }
    };
    io.get_mut(index)
}

fn interface(line: &[u8]) -> Option<InterfaceUsage> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let name = std::str::from_utf8(line.get(..colon)?.trim_ascii()).ok()?;
    if name == "lo" || name.is_empty() {
        return None;
    }
    let mut columns = [0u64; 16];
    let mut words = words(line.get(colon + 1..)?);
    for column in &mut columns {
        *column = words.next().and_then(number)?;
    }
    let traffic = |first: usize| Traffic {
        bytes: columns[first],
        packets: columns[first + 1],
        errors: columns[first + 2],
        dropped: columns[first + 3],
    };
    Some(InterfaceUsage { name: name.to_owned(), received: traffic(0), sent: traffic(8) })
}

/// The lines `key value`.
fn pairs(text: &[u8]) -> impl Iterator<Item = (&[u8], u64)> {
    lines(text).filter_map(|line| {
        let (key, value) = split(line, b' ');
        Some((key, number(value)?))
    })
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// Before and after the first `separator`.
fn split(text: &[u8], separator: u8) -> (&[u8], &[u8]) {
    match text.iter().position(|&byte| byte == separator) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        let check =
            |text: &str, expected: Option<Limit>| assert_eq!(limit(text.as_bytes()), expected, "{text}");
        check("max\n", Some(Limit::Unlimited));
        check("-1\n", Some(Limit::Unlimited));
        check("9223372036854771712\n", Some(Limit::Unlimited));
        check("1048576\n", Some(Limit::At(1_048_576)));
        check("0\n", Some(Limit::At(0)));
        check("99999999999999999999999\n", None);
        check("12x\n", None);
        check("", None);
        check("\n", None);
    }

    #[test]
    fn processor_files() {
        let mut cpu = CpuUsage::default();
        cpu_max(b"50000 100000\n", &mut cpu);
        assert_eq!(cpu.limit_cores(), Some(0.5));
        cpu_max(b"max 100000\n", &mut cpu);
        assert_eq!((cpu.limit_cores(), cpu.period_us), (None, Some(100_000)));
        cpu_max(b"50000 0\n", &mut cpu);
        assert_eq!(cpu.limit_cores(), None);
        cpu_stat(
            b"usage_usec 5\nuser_usec 3\nnr_periods 9\nnr_throttled 2\nthrottled_usec 7\n",
            true,
            &mut cpu,
        );
        assert_eq!((cpu.total_ns, cpu.user_ns, cpu.system_ns), (Some(5000), Some(3000), None));
        assert_eq!((cpu.periods, cpu.throttled_periods, cpu.throttled_ns), (Some(9), Some(2), Some(7000)));
        cpu_stat(b"usage_usec 99\nthrottled_time 11\n", false, &mut cpu);
        assert_eq!((cpu.total_ns, cpu.throttled_ns), (Some(5000), Some(11)));
        cpuacct_stat(b"user 12\nsystem 3\n", 100, &mut cpu);
        assert_eq!((cpu.user_ns, cpu.system_ns), (Some(120_000_000), Some(30_000_000)));
        assert_eq!(shares_of_weight(1), Some(2));
        assert_eq!(shares_of_weight(39), Some(998));
        assert_eq!(shares_of_weight(10_000), Some(262_144));
        assert_eq!(shares_of_weight(0), None);
    }

    #[test]
    fn devices() {
        let mut io = Vec::new();
        io_stat(
            b"8:16 rbytes=5 wbytes=6 rios=1 wios=2 dbytes=0 dios=0\n8:0 rbytes=1\nx rbytes=1\n7:\n",
            &mut io,
        );
        let devices: Vec<u32> = io.iter().map(|entry| entry.device.minor).collect();
        assert_eq!(devices, [0, 16]);
        assert_eq!((io[1].read_bytes, io[1].written_bytes), (Some(5), Some(6)));
        assert_eq!((io[0].reads, io[1].writes), (None, Some(2)));

        let mut io = Vec::new();
        blkio(
            b"254:0 Read 100\n254:0 Write 7\n254:0 Sync 1\n254:0 Total 107\nTotal 107\n",
            IoUnit::Bytes,
            &mut io,
        );
        blkio(b"254:0 Read 3\n", IoUnit::Operations, &mut io);
        let device = DeviceNumber { major: 254, minor: 0 };
        let (read_bytes, written_bytes, reads) = (Some(100), Some(7), Some(3));
        assert_eq!(io, [DeviceIo { device, read_bytes, written_bytes, reads, writes: None }]);
    }

    #[test]
    fn too_many_devices() {
        let text: String = (0..DEVICES_MAX + 9).map(|minor| format!("8:{minor} rbytes=1\n")).collect();
        let mut io = Vec::new();
        io_stat(text.as_bytes(), &mut io);
        assert_eq!(io.len(), DEVICES_MAX);
    }

    #[test]
    fn interfaces_and_processes() {
        let text = b"Inter-|   Receive    |  Transmit\n face |bytes packets errs|bytes\n    \
            lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  \
            eth0:100 2 3 4 5 6 7 8 900 10 11 12 13 14 15 16\n eth1: 1 2\n";
        let found = net_dev(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "eth0");
        assert_eq!(found[0].received, Traffic { bytes: 100, packets: 2, errors: 3, dropped: 4 });
        assert_eq!(found[0].sent, Traffic { bytes: 900, packets: 10, errors: 11, dropped: 12 });
        assert_eq!(first_pid(b"0\n0\n17\n3\n"), Some(17));
        assert_eq!(first_pid(b""), None);
        let stat = b"1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 9 9";
        assert_eq!(start_ticks(stat), Some(777));
        assert_eq!(count_of_ranges(b"0-3,5\n"), Some(5));
        assert_eq!(count_of_ranges(b"3-0\n"), None);
    }

    #[test]
    fn pressures() {
        let found = pressure(b"some avg10=0.00 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 total=3\n");
        assert_eq!(found, Pressure { some_us: Some(12), full_us: Some(3) });
        assert_eq!(pressure(b"some avg10=1 total=x\nwhat total=1\n"), Pressure::default());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            check_all(&text);
        }

        #[test]
        fn any_lines(text in "([0-9]{1,21}:?[0-9]{0,12} (Read|Write|rbytes=|total=|max)? ?[0-9]{0,22}[\n ]){0,9}") {
            check_all(text.as_bytes());
        }
    }

    fn check_all(text: &[u8]) {
        let (mut cpu, mut memory, mut io) = (CpuUsage::default(), MemoryUsage::default(), Vec::new());
        cpu_max(text, &mut cpu);
        cpu_stat(text, true, &mut cpu);
        cpuacct_stat(text, 0, &mut cpu);
        memory_stat_v1(text, &mut memory);
        memory_stat_v2(text, &mut memory);
        memory_events(text, &mut memory);
        io_stat(text, &mut io);
        blkio(text, IoUnit::Bytes, &mut io);
        assert!(io.len() <= DEVICES_MAX);
        let _ = (limit(text), pressure(text), net_dev(text), first_pid(text), start_ticks(text));
        let _ = (
            cpu.limit_cores(),
            memory.working_set_bytes(),
            memory.available_bytes(),
            count_lines(text),
            count_of_ranges(text),
        );
        let _ = number(text).and_then(shares_of_weight);
    }
}
