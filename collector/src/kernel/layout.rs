//! Where the kernel keeps what the programs read: the values of their global variables, from BTF.
//!
//! Refuses: kernel versions. A field that is not there stays unknown, and the program does without.

use super::btf::Btf;

/// Global variable, struct, field.
const FIELDS: [(&str, &str, &str); 102] = [
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
    ("TASK_SIGHAND", "task_struct", "sighand"),
    ("SIGHAND_ACTION", "sighand_struct", "action"),
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
    ("TASK_SELF_EXEC_ID", "task_struct", "self_exec_id"),
    ("TASK_FILES", "task_struct", "files"),
    ("TASK_CGROUPS", "task_struct", "cgroups"),
    ("CSS_SET_DFL_CGRP", "css_set", "dfl_cgrp"),
    ("CGROUP_KN", "cgroup", "kn"),
    ("KERNFS_NODE_ID", "kernfs_node", "id"),
    ("FILES_FDT", "files_struct", "fdt"),
    ("FDTABLE_FD", "fdtable", "fd"),
    ("FDTABLE_MAX_FDS", "fdtable", "max_fds"),
    ("FILE_F_INODE", "file", "f_inode"),
    ("FILE_F_PATH", "file", "f_path"),
    ("FILE_PRIVATE_DATA", "file", "private_data"),
    ("INODE_I_MODE", "inode", "i_mode"),
    ("INODE_I_FLAGS", "inode", "i_flags"),
    ("INODE_I_RDEV", "inode", "i_rdev"),
    ("INODE_I_INO", "inode", "i_ino"),
    ("INODE_I_SB", "inode", "i_sb"),
    ("SUPER_S_DEV", "super_block", "s_dev"),
    ("SOCKET_SK", "socket", "sk"),
    ("SOCK_PROTOCOL", "sock", "sk_protocol"),
    ("SOCK_ERR", "sock", "sk_err"),
    ("SOCK_FAMILY", "sock_common", "skc_family"),
    ("SOCK_DADDR", "sock_common", "skc_daddr"),
    ("SOCK_RCV_SADDR", "sock_common", "skc_rcv_saddr"),
    ("SOCK_V6_DADDR", "sock_common", "skc_v6_daddr"),
    ("SOCK_V6_RCV_SADDR", "sock_common", "skc_v6_rcv_saddr"),
    ("SOCK_DPORT", "sock_common", "skc_dport"),
    ("SOCK_NUM", "sock_common", "skc_num"),
    ("TCP_SRTT_US", "tcp_sock", "srtt_us"),
    ("TCP_BYTES_SENT", "tcp_sock", "bytes_sent"),
    ("TCP_BYTES_RETRANS", "tcp_sock", "bytes_retrans"),
    ("SOCK_STATE", "sock_common", "skc_state"),
    ("THREAD_STATUS", "thread_info", "status"),
    ("TCP_BYTES_RECEIVED", "tcp_sock", "bytes_received"),
    ("TCP_SEGS_OUT", "tcp_sock", "segs_out"),
    ("TCP_SEGS_IN", "tcp_sock", "segs_in"),
    ("TCP_TOTAL_RETRANS", "tcp_sock", "total_retrans"),
    ("TCP_SND_UNA", "tcp_sock", "snd_una"),
    ("TCP_RCV_NXT", "tcp_sock", "rcv_nxt"),
    ("SOCK_TYPE", "sock", "sk_type"),
    ("SOCK_SOCKET", "sock", "sk_socket"),
    ("UNIX_PEER", "unix_sock", "peer"),
    ("UNIX_ADDR", "unix_sock", "addr"),
    ("UNIX_ADDRESS_LEN", "unix_address", "len"),
    ("UNIX_ADDRESS_NAME", "unix_address", "name"),
    ("REQUEST_CMD_FLAGS", "request", "cmd_flags"),
    ("REQUEST_DATA_LEN", "request", "__data_len"),
    ("REQUEST_BIO", "request", "bio"),
    ("REQUEST_PART", "request", "part"),
    ("REQUEST_DISK", "request", "rq_disk"),
    ("DISK_MAJOR", "gendisk", "major"),
    ("DISK_FIRST_MINOR", "gendisk", "first_minor"),
    ("BLOCK_DEVICE_DEV", "block_device", "bd_dev"),
    ("BIO_BLKG", "bio", "bi_blkg"),
    ("BLKG_BLKCG", "blkcg_gq", "blkcg"),
    ("BLKCG_CGROUP", "cgroup_subsys_state", "cgroup"),
    ("URING_OPCODE", "io_kiocb", "opcode"),
    ("URING_FILE", "io_kiocb", "file"),
    ("URING_TASK", "io_kiocb", "task"),
    ("URING_CONTEXT", "io_kiocb", "tctx"),
    ("URING_CONTEXT_TASK", "io_uring_task", "task"),
];

/// Global variable, struct whose size it holds.
const SIZES: [(&str, &str); 3] =
    [("PT_REGS_BYTES", "pt_regs"), ("UPID_BYTES", "upid"), ("K_SIGACTION_BYTES", "k_sigaction")];

/// Values of the programs' globals; those that are not known are left out.
pub fn of(btf: &Btf) -> Vec<(&'static str, u32)> {
    let fields =
        FIELDS.iter().filter_map(|(global, name, field)| Some((*global, btf.field_offset(name, field)?)));
    let sizes = SIZES.iter().filter_map(|(global, name)| Some((*global, btf.size_bytes(name)?)));
    let nested = NESTED.iter().filter_map(|(global, outer, inner)| {
        let offset = |names: &[(&str, &str)]| {
            names.iter().find_map(|(structure, field)| btf.field_offset(structure, field))
        };
        Some((*global, offset(outer)? + offset(inner)?))
    });
    fields.chain(sizes).chain(nested).chain(memory_counters(btf)).chain(shapes(btf)).collect()
}

/// Global variable, a field, and a field of the struct that it holds; of names that changed the first that is there.
type Nested =
    (&'static str, &'static [(&'static str, &'static str)], &'static [(&'static str, &'static str)]);

const NESTED: [Nested; 3] = [
    ("SOCKET_INODE", &[("socket_alloc", "vfs_inode")], &[("inode", "i_ino")]),
    (
        "SOCK_CGROUP",
        &[("sock", "sk_cgrp_data")],
        &[("sock_cgroup_data", "cgroup"), ("sock_cgroup_data", "val")],
    ),
    ("URING_RESULT", &[("io_kiocb", "cqe")], &[("io_cqe", "res")]),
];

/// What changed its name, and what tracepoints look like on this kernel.
fn shapes(btf: &Btf) -> Vec<(&'static str, u32)> {
    // Beside the arguments there is one for the kernel's own data.
    let arguments =
        btf.tracepoint_parameters("block_rq_issue").map(|parameters| parameters.saturating_sub(1));
    let state =
        btf.field_offset("task_struct", "__state").or_else(|| btf.field_offset("task_struct", "state"));
    let state = state.map(|offset| ("TASK_STATE", offset));
    state.into_iter().chain([("BLOCK_REQUEST_IS_SECOND", u32::from(arguments == Some(2)))]).collect()
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
