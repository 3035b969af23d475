//! The life of processes: exec, fork, exit, rename of the main thread.
//!
//! Each hook exists twice, as a BTF tracepoint and as a plain raw tracepoint for kernels that refuse the first; the
//! daemon attaches one of the two. Refuses: threads (a sample carries its thread's name).

use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use collector_common::event::Kind;
use collector_common::process::{CommRecord, ExecRecord, ExitRecord, ForkRecord};

use crate::task::{self, TaskPointer};
use crate::{crash, emit};

#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(_: BtfTracePointContext) -> i32 {
    exec()
}

#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_exec_raw(_: RawTracePointContext) -> i32 {
    exec()
}

#[btf_tracepoint(function = "sched_process_fork")]
pub fn process_fork(context: BtfTracePointContext) -> i32 {
    fork(context.arg(1))
}

#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn process_fork_raw(context: RawTracePointContext) -> i32 {
    fork(context.arg(1))
}

#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(context: BtfTracePointContext) -> i32 {
    exit(context.arg(0))
}

#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn process_exit_raw(context: RawTracePointContext) -> i32 {
    exit(context.arg(0))
}

#[btf_tracepoint(function = "task_rename")]
pub fn process_comm(context: BtfTracePointContext) -> i32 {
    comm(context.arg(0), context.arg(1))
}

#[raw_tracepoint(tracepoint = "task_rename")]
pub fn process_comm_raw(context: RawTracePointContext) -> i32 {
    comm(context.arg(0), context.arg(1))
}

#[inline(always)]
fn exec() -> i32 {
    crash::on_new_image();
    emit::process_record_in_place(|record: *mut ExecRecord| {
        // SAFETY: the ring gave room for one record; each write is to a field of it.
        unsafe {
            (&raw mut (*record).head).write(task::head(Kind::Exec, size_of::<ExecRecord>() as u32));
            (&raw mut (*record).task).write(task::current());
            let bytes = match crash::is_watched() {
                true => task::copy_arguments(&raw mut (*record).arguments),
                false => 0,
            };
            (&raw mut (*record).argument_bytes).write(bytes);
            let (pid, level) = task::namespace_pid(task::current_pointer()).unwrap_or((0, 0));
            (&raw mut (*record).namespace_pid).write(pid);
            (&raw mut (*record).namespace_level).write(level);
            (&raw mut (*record).padding).write(0);
        }
    });
    0
}

#[inline(always)]
fn fork(child: TaskPointer) -> i32 {
    if let Some(child_tgid) = task::process_of_main_thread(child) {
        emit::process_record(&ForkRecord {
            head: task::head(Kind::Fork, size_of::<ForkRecord>() as u32),
            task: task::current(),
            child_tgid,
            padding: 0,
            child_start_ns: task::process_start_ns(child),
        });
    }
    0
}

#[inline(always)]
fn exit(ending: TaskPointer) -> i32 {
    if task::process_is_over(ending) {
        crash::on_end(ending);
        let head = task::head(Kind::Exit, size_of::<ExitRecord>() as u32);
        emit::process_record(&ExitRecord { head, task: task::current() });
    }
    0
}

/// The task may be another one than the current: a thread can be renamed through its parent's `/proc` files.
#[inline(always)]
fn comm(renamed: TaskPointer, name: *const u8) -> i32 {
    let Some(tgid) = task::process_of_main_thread(renamed) else { return 0 };
    let mut task = task::current();
    if task.tgid == tgid {
        task.tid = tgid;
        task.comm = task::name(name);
        emit::process_record(&CommRecord {
            head: task::head(Kind::Comm, size_of::<CommRecord>() as u32),
            task,
        });
    }
    0
}
