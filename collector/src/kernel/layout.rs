//! Where the kernel keeps what the programs read: the values of their global variables, from BTF.
//!
//! Refuses: kernel versions. A field that is not there stays unknown, and the program does without.

use super::btf::Btf;

/// Global variable, struct, field.
const FIELDS: [(&str, &str, &str); 39] = [
    ("TASK_GROUP_LEADER", "task_struct", "group_leader"),
    ("TASK_START_BOOTTIME", "task_struct", "start_boottime"),
    ("TASK_PID", "task_struct", "pid"),
    ("TASK_TGID", "task_struct", "tgid"),
    ("TASK_SIGNAL", "task_struct", "signal"),
    ("TASK_MM", "task_struct", "mm"),
    ("TASK_FS", "task_struct", "fs"),
    ("TASK_STACK", "task_struct", "stack"),
    ("TASK_COMM", "task_struct", "comm"),
    ("TASK_EXIT_CODE", "task_struct", "exit_code"),
    ("TASK_THREAD_PID", "task_struct", "thread_pid"),
    ("TASK_THREAD_NODE", "task_struct", "thread_node"),
    ("TASK_REAL_PARENT", "task_struct", "real_parent"),
    ("PID_LEVEL", "pid", "level"),
    ("PID_NUMBERS", "pid", "numbers"),
    ("SIGNAL_LIVE", "signal_struct", "live"),
    ("SIGNAL_NR_THREADS", "signal_struct", "nr_threads"),
    ("SIGNAL_THREAD_HEAD", "signal_struct", "thread_head"),
    ("SIGNAL_GROUP_EXIT_CODE", "signal_struct", "group_exit_code"),
    ("SIGNAL_OOM_SCORE_ADJ", "signal_struct", "oom_score_adj"),
    ("SIGACTION_HANDLER", "sigaction", "sa_handler"),
    ("MM_ARG_START", "mm_struct", "arg_start"),
    ("MM_ARG_END", "mm_struct", "arg_end"),
    ("MM_START_BRK", "mm_struct", "start_brk"),
    ("MM_BRK", "mm_struct", "brk"),
    ("MM_START_STACK", "mm_struct", "start_stack"),
    ("MM_RSS_STAT", "mm_struct", "rss_stat"),
    ("MM_TOTAL_VM", "mm_struct", "total_vm"),
    ("FS_PWD", "fs_struct", "pwd"),
    ("FS_ROOT", "fs_struct", "root"),
    ("PATH_MNT", "path", "mnt"),
    ("PATH_DENTRY", "path", "dentry"),
    ("VFSMOUNT_MNT_ROOT", "vfsmount", "mnt_root"),
    ("MOUNT_MNT", "mount", "mnt"),
    ("MOUNT_MNT_PARENT", "mount", "mnt_parent"),
    ("MOUNT_MNT_MOUNTPOINT", "mount", "mnt_mountpoint"),
    ("DENTRY_D_NAME", "dentry", "d_name"),
    ("DENTRY_D_PARENT", "dentry", "d_parent"),
    ("QSTR_NAME", "qstr", "name"),
];

/// Global variable, struct whose size it holds.
const SIZES: [(&str, &str); 2] = [("PT_REGS_BYTES", "pt_regs"), ("UPID_BYTES", "upid")];

/// Values of the programs' globals; those that are not known are left out.
pub fn of(btf: &Btf) -> Vec<(&'static str, u32)> {
    let fields =
        FIELDS.iter().filter_map(|(global, name, field)| Some((*global, btf.field_offset(name, field)?)));
    let sizes = SIZES.iter().filter_map(|(global, name)| Some((*global, btf.size_bytes(name)?)));
    fields.chain(sizes).chain(memory_counters(btf)).collect()
}

/// The counters of a process's memory: plain numbers until 6.1, per-CPU counters since 6.2.
fn memory_counters(btf: &Btf) -> Vec<(&'static str, u32)> {
    if btf.size_bytes("mm_rss_stat").is_some() {
        return vec![("RSS_STAT_STRIDE", 8), ("RSS_STAT_COUNT", 0)];
    }
    let stride = btf.size_bytes("percpu_counter").map(|bytes| ("RSS_STAT_STRIDE", bytes));
    let count = btf.field_offset("percpu_counter", "count").map(|offset| ("RSS_STAT_COUNT", offset));
    stride.into_iter().chain(count).collect()
}
