//! What happens inside the guest: the list of checks, and the init script that runs them one by one.
//!
//! To check something more, add a line to [`CHECKS`]. The guest says what happened and refuses to decide
//! whether that is good: that is `verdict`'s task, which reads the lines marked with [`MARK`].

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::initramfs::Image;
use super::payload::libraries_of;

/// Begins every line that is meant for the host.
pub const MARK: &str = "KANSOKU-VM";

/// A check that takes longer is killed and fails, and the next one runs. Emulation is slow, and the
/// machine may be busy besides.
pub const CHECK_SECONDS_MAX: u32 = 150;

/// One thing to find out in the guest.
pub struct Check {
    /// Unique, and short: it is a file name in the guest and a word in the result table.
    pub name: &'static str,
    /// Lines for busybox's `sh`; exit code 0 means that the check passed.
    pub command: &'static str,
    pub need: Need,
}

/// What follows from a check that does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The kernel fails.
    Required,
    /// The result table says so, no more.
    Reported,
}

/// Run in this order. Files in `/tmp` and background processes stay for the checks that follow.
pub const CHECKS: &[Check] = &[
    Check {
        name: "doctor",
        command: "kansoku doctor --json > /tmp/doctor.json; code=$?; cat /tmp/doctor.json; exit $code",
        need: Need::Required,
    },
    // Two copies fill both processors; dd adds a process that spends its time inside the kernel.
    Check {
        name: "workload",
        command: "spin 600 &\nspin 600 &\ndd if=/dev/urandom of=/dev/null bs=64k 2>/dev/null &",
        need: Need::Required,
    },
    Check {
        name: "profile",
        command: "kansoku profile --duration 3s -o /tmp/out.folded",
        need: Need::Required,
    },
    Check { name: "user-frames", command: "grep -q spin_seventy /tmp/out.folded", need: Need::Required },
    Check {
        name: "kernel-frames",
        command: "grep -qE 'do_syscall_64|entry_SYSCALL_64|_\\[k\\]' /tmp/out.folded",
        need: Need::Reported,
    },
    Check {
        name: "hotplug",
        command: "set -e
kansoku profile --duration 8s -o /tmp/hotplug.folded &
sleep 2
echo 0 > /sys/devices/system/cpu/cpu1/online
grep -qx 0 /sys/devices/system/cpu/online
sleep 2
echo 1 > /sys/devices/system/cpu/cpu1/online
grep -qx 0-1 /sys/devices/system/cpu/online
wait $!",
        need: Need::Required,
    },
    // Two busy processors gave N samples in 3 s. One of them away for 2 s of 8 s leaves 2.3 N; if it were not sampled
    // any more after its return, 1.7 N.
    Check {
        name: "hotplug-samples",
        command: "sum() { awk '{ total += $NF } END { print total }' $1; }
before=$(sum /tmp/out.folded)
after=$(sum /tmp/hotplug.folded)
echo samples: $before in 3 s, $after in 8 s with a processor away for 2 s
test $after -gt $((before * 2))",
        need: Need::Required,
    },
    // A null pointer: the record must name the signal and the function, and count the kill beside it. A cgroup at its limit:
    // what the kernel did is on its stack.
    Check {
        name: "crash",
        command: "KANSOKU_LOG_LEVEL=info,collector::cli=debug kansoku run --set crash.spool=/tmp/crashes > /tmp/run.log 2>&1 &
agent=$!
until grep -q hooked /tmp/run.log; do sleep 1; done
crash segv
sleep 60 &
kill -9 $!
echo +memory > /sys/fs/cgroup/cgroup.subtree_control
mkdir -p /sys/fs/cgroup/small
echo 32M > /sys/fs/cgroup/small/memory.max
sh -c 'echo $$ > /sys/fs/cgroup/small/cgroup.procs; exec crash oom_main 128'
sleep 3
kill $agent
wait $agent
tail -n 20 /tmp/run.log
kansoku crashes list --spool /tmp/crashes
kansoku crashes export --spool /tmp/crashes -o /tmp/crashes.json || exit 1
grep -q 'SIGSEGV (SEGV_MAPERR) at 0x18, null page, in crash_here' /tmp/crashes.json || exit 2
grep 'crash_here' /tmp/crashes.json | grep -q '\"rip\":\"0x' || exit 3
grep -q '\"kind\":\"kill\"' /tmp/crashes.json || exit 4
grep -q 'The books balance' /tmp/run.log || exit 5
grep 'crash_here' /tmp/crashes.json | grep -q '\"kernel_stack\":.*force_sig' || exit 6
grep '\"kind\":\"oom_kill\"' /tmp/crashes.json | grep -q '\"kernel_stack\":.*oom_kill_process.*charge' || exit 7",
        need: Need::Required,
    },
    // A container on cgroup v2 reads 777 blocks: the endpoint must tell them, exactly, and its memory and latencies.
    Check {
        name: "metrics",
        command: "id=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
cgroup=/sys/fs/cgroup/kubepods/pod1/$id
mkdir -p $cgroup
for level in '' /kubepods /kubepods/pod1; do
    for controller in cpu memory pids io; do echo +$controller > /sys/fs/cgroup$level/cgroup.subtree_control; done
done
KANSOKU_LOG_LEVEL=info,collector::cli=debug kansoku run > /tmp/metrics.log 2>&1 &
agent=$!
until grep -q hooked /tmp/metrics.log; do sleep 1; done
sh -c \"echo \\$\\$ > $cgroup/cgroup.procs; dd if=/dev/zero of=/dev/null bs=512 count=777; touch /tmp/read; sleep 20\" &
until [ -e /tmp/read ]; do sleep 1; done
sleep 6
wget -qO /tmp/metrics.txt http://127.0.0.1:9464/metrics || exit 1
kill $agent
wait $agent
grep -E '^[a-z]' /tmp/metrics.log | tail -n 5
grep -c . /tmp/metrics.txt
grep $id /tmp/metrics.txt | grep -E 'operations_total|memory_usage|scheduler_wait_duration_seconds_count'
own() { grep $id /tmp/metrics.txt | grep \"^$1\"; }
own syscall_io_operations_total | grep 'read\".*character_device' | grep -q ' 777$' || exit 2
own syscall_io_duration_seconds_count | grep 'read\".*character_device' | grep -q ' 777$' || exit 3
own syscall_io_bytes_total | grep 'read\".*character_device' | grep -q ' 397824$' || exit 4
own scheduler_wait_duration_seconds_count > /dev/null || exit 5
own container_memory_usage_bytes > /dev/null || exit 6
own container_cpu_time_seconds_total > /dev/null || exit 7
grep -q '^node_cpu_seconds_total' /tmp/metrics.txt || exit 8",
        need: Need::Required,
    },
    // A container that had its share and rests, on cgroup v2 alone: what the endpoint tells is what the files say. A reading
    // may fall between two of theirs, so a few are compared; those of limits must do at once.
    Check {
        name: "cgroup-files",
        command: "id=fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210
free=00000000000000000000000000000000000000000000000000000000000000aa
cgroup=/sys/fs/cgroup/kubepods/pod2/$id
mkdir -p $cgroup /sys/fs/cgroup/kubepods/pod2/$free
for controller in cpu memory pids io; do echo +$controller > /sys/fs/cgroup/kubepods/pod2/cgroup.subtree_control; done
echo 20000 100000 > $cgroup/cpu.max
echo 32M > $cgroup/memory.max
echo 50 > $cgroup/pids.max
sh -c \"echo \\$\\$ > $cgroup/cgroup.procs; spin 2; cat /bin/busybox > /dev/null; exec sleep 600\" &
sh -c \"echo \\$\\$ > /sys/fs/cgroup/kubepods/pod2/$free/cgroup.procs; exec sleep 600\" &
until grep -q sleep /proc/$(head -n 1 $cgroup/cgroup.procs)/comm; do sleep 1; done
kansoku run > /tmp/files.log 2>&1 &
agent=$!
until grep -q '^container_spec_memory_limit_bytes.*'$id /tmp/files.txt; do sleep 1; wget -qO /tmp/files.txt http://127.0.0.1:9464/metrics; done
of() { grep \"^$1{\" /tmp/files.txt | grep $2 | sed 's/.*} //'; }
key() { awk -v key=$2 '$1 == key { print $2 }' $cgroup/$1; }
is() { found=$(of $1 $id); echo $1 $found $2; awk -v a=$found -v b=$2 'BEGIN { d = a - b; exit !(a != \"\" && d < 1e-6 && d > -1e-6) }'; }
is container_spec_memory_limit_bytes 33554432 || exit 1
is container_spec_cpu_quota 20000 || exit 2
is container_threads_max 50 || exit 3
is k8s_container_memory_limit_current_bytes 33554432 || is container_memory_limit_bytes 33554432 || exit 4
test \"$(of container_spec_memory_limit_bytes $free)\" = 0 || exit 5
test \"$(of container_threads_max $free)\" = 0 || exit 6
test -z \"$(of container_memory_limit_bytes $free)$(of k8s_container_memory_limit_current_bytes $free)\" || exit 7
same() {
    is container_memory_usage_bytes $(cat $cgroup/memory.current) &&
    is container_memory_rss $(key memory.stat anon) &&
    is container_memory_cache $(key memory.stat file) &&
    is container_threads $(cat $cgroup/pids.current) &&
    is container_cpu_cfs_periods_total $(key cpu.stat nr_periods) &&
    is container_cpu_cfs_throttled_periods_total $(key cpu.stat nr_throttled) &&
    is container_cpu_cfs_throttled_seconds_total $(key cpu.stat throttled_usec | awk '{ printf \"%.6f\", $1 / 1e6 }') &&
    is container_cpu_usage_seconds_total $(key cpu.stat usage_usec | awk '{ printf \"%.6f\", $1 / 1e6 }') &&
    is container_memory_failcnt $(key memory.events max)
}
for number in 1 2 3 4 5; do
    sleep 1
    wget -qO /tmp/files.txt http://127.0.0.1:9464/metrics
    same && break
    test $number = 5 && exit 8
done
test $(key cpu.stat nr_throttled) -gt 0 || exit 9
kill $agent
wait $agent",
        need: Need::Required,
    },
    // A request on loopback: both ends make a span, and the server's is the client's child.
    Check {
        name: "trace",
        command: "echo page > /tmp/page.txt
httpd -p 127.0.0.1:8099 -h /tmp
kansoku trace --duration 12s > /tmp/trace.txt 2> /tmp/trace.log &
agent=$!
until grep -q showing /tmp/trace.log; do sleep 1; done
for number in 1 2 3; do wget -qO /dev/null http://127.0.0.1:8099/page.txt; done
wait $agent
cat /tmp/trace.txt
tail -n 12 /tmp/trace.log
test $(grep -c ' client .* GET /page.txt 200' /tmp/trace.txt) = 3 || exit 1
test $(grep -c ' server .* GET /page.txt 200  .connection.' /tmp/trace.txt) = 3 || exit 2",
        need: Need::Required,
    },
    // Soft lockups and clock warnings are left out: a busy host causes them under emulation.
    Check {
        name: "kernel-log",
        command: "! dmesg | grep -E 'WARNING: .*CPU|BUG: (unable|kernel|sleeping|scheduling)|Oops'",
        need: Need::Required,
    },
];

/// What the image holds besides busybox; the kernel and the init script mount over some of these.
const DIRS: &[&str] = &["proc", "sys", "dev", "tmp", "checks"];

/// Puts busybox, the agent, the workloads, the checks and the init script into one archive that boots on every kernel.
pub fn build_initramfs(vm_dir: &Path, agent: &Path, workloads: &[PathBuf]) -> Result<PathBuf> {
    let image = Image::with_busybox(&vm_dir.join("initramfs"), DIRS)?;
    image.add(agent, "bin/kansoku")?;
    for library in libraries_of(agent)? {
        let name = library.strip_prefix("/").context("a library has a whole path")?;
        image.add(&library, &name.to_string_lossy())?;
    }
    for workload in workloads {
        let name = workload.file_name().context("a workload has a name")?;
        image.add(workload, &format!("bin/{}", name.to_string_lossy()))?;
    }
    for check in CHECKS {
        image.add_script(&format!("checks/{}", check.name), check.command)?;
    }
    image.add_script("init", &init_script(CHECKS))?;
    let archive = vm_dir.join("initramfs.cpio");
    image.pack(&archive)?;
    Ok(archive)
}

/// Each check is a file of its own, so its text needs no quoting here.
fn init_script(checks: &[Check]) -> String {
    // Without a budget the hooks of system calls come and go with the agent only: each time the emulator may stand still (see
    // `verdict::stood_on_nop`).
    let mut script = format!(
        r#"#!/bin/sh
export PATH=/bin HOME=/tmp KANSOKU_BUDGET_SYSCALLS_PERCENT=0
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmpfs /tmp
ip link set lo up
echo "{MARK} release=$(uname -r)"
failed=0
check() {{
    timeout -s KILL {CHECK_SECONDS_MAX} sh "/checks/$1" < /dev/null
    code=$?
    # The line before may lack its end, so this one brings its own start.
    echo
    echo "{MARK} check=$1 exit=$code"
    return $code
}}
"#
    );
    for check in checks {
        let consequence = match check.need {
            Need::Required => " || failed=1",
            Need::Reported => "",
        };
        script += &format!("check {}{consequence}\n", check.name);
    }
    // The pause lets the serial line drain: power-off drops what it still holds.
    script += &format!("echo \"{MARK} exit=$failed\"\nsleep 1\npoweroff -f\n");
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_names_are_unique_words() {
        for (index, check) in CHECKS.iter().enumerate() {
            assert!(
                check.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
                "{}",
                check.name
            );
            assert!(
                CHECKS[..index].iter().all(|other| other.name != check.name),
                "{} appears twice",
                check.name
            );
        }
    }

    #[test]
    fn only_required_checks_can_fail_the_guest() {
        let script = init_script(&[
            Check { name: "needed", command: "true", need: Need::Required },
            Check { name: "extra", command: "true", need: Need::Reported },
        ]);
        assert!(script.contains("\ncheck needed || failed=1\ncheck extra\n"), "{script}");
        assert!(script.ends_with("poweroff -f\n"));
    }
}
