//! Deaths: who sent the signal, where the thread was, and how the process ended.
//!
//! Each hook but one exists twice, as a BTF tracepoint and as a plain raw tracepoint. What is needed at the end only waits in
//! maps where a process has the place of its id; ids that share a place or are used again are told apart.
//! Refuses: signals that end nobody (they return after one comparison), and policy.

mod cwd;
mod fault;
mod kernel_stack;
mod sender;
mod stderr;

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_get_current_uid_gid;
use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use collector_common::crash::DeathRecord;
use collector_common::event::Kind;
use collector_common::limits::OFFSET_UNKNOWN;

use crate::emit;
use crate::task::{self, TaskPointer};

/// 1 if deaths are wanted; otherwise the hooks that are there anyway do nothing for them.
#[unsafe(no_mangle)]
static WATCH_CRASHES: Global<u32> = Global::new(0);

/// 1 if the end of standard error is kept.
#[unsafe(no_mangle)]
static KEEP_STDERR: Global<u32> = Global::new(0);

/// `task_struct.exit_code`
#[unsafe(no_mangle)]
static TASK_EXIT_CODE: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `signal_struct.group_exit_code`
#[unsafe(no_mangle)]
static SIGNAL_GROUP_EXIT_CODE: Global<u32> = Global::new(OFFSET_UNKNOWN);

#[btf_tracepoint(function = "signal_generate")]
pub fn crash_sender(context: BtfTracePointContext) -> i32 {
    sender::on_generate(&context, context.arg(0), context.arg(1), context.arg(2), context.arg(4))
}

#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn crash_sender_raw(context: RawTracePointContext) -> i32 {
    sender::on_generate(&context, context.arg(0), context.arg(1), context.arg(2), context.arg(4))
}

#[btf_tracepoint(function = "signal_deliver")]
pub fn crash_signal(context: BtfTracePointContext) -> i32 {
    fault::on_deliver(&context, context.arg(0), context.arg(1), context.arg(2))
}

#[raw_tracepoint(tracepoint = "signal_deliver")]
pub fn crash_signal_raw(context: RawTracePointContext) -> i32 {
    fault::on_deliver(&context, context.arg(0), context.arg(1), context.arg(2))
}

/// As a raw tracepoint only: its argument is a number before 6.9 and a task since, which the verifier of BTF tracepoints
/// does not let a program find out.
#[raw_tracepoint(tracepoint = "mark_victim")]
pub fn crash_oom_raw(context: RawTracePointContext) -> i32 {
    sender::on_victim(context.arg(0))
}

/// A system call returns.
#[inline(always)]
pub fn on_syscall_exit(number: u32, registers: *const c_void, result: i64, is_typed: bool) {
    if KEEP_STDERR.load() == 1 {
        stderr::on_return(number, registers, result, is_typed);
    }
}

/// Whether deaths are wanted.
#[inline(always)]
pub fn is_watched() -> bool {
    WATCH_CRASHES.load() == 1
}

/// A process runs a new program: what the old one wrote is not its own.
#[inline(always)]
pub fn on_new_image() {
    if is_watched() {
        stderr::forget();
    }
}

/// The last thread of a process ends. A plain success costs two reads.
#[inline(always)]
pub fn on_end(ending: TaskPointer) {
    if !is_watched() {
        return;
    }
    let status = status(ending);
    if status == 0 {
        return;
    }
    let task = task::current();
    fault::send_handled(task.tgid, task.start_ns);
    kernel_stack::send(task.tgid, task.start_ns);
    emit::death_in_place(|record: *mut DeathRecord| {
        let (namespace_pid, namespace_level) = task::namespace_pid(ending).unwrap_or((0, 0));
        // SAFETY: the ring gave room for one record; each write is to a field of it.
        unsafe {
            let ids = bpf_get_current_uid_gid();
            (&raw mut (*record).head).write(task::head(Kind::Death, size_of::<DeathRecord>() as u32));
            (&raw mut (*record).task).write(task);
            (&raw mut (*record).status).write(status);
            (&raw mut (*record).uid).write(ids as u32);
            (&raw mut (*record).gid).write((ids >> 32) as u32);
            (&raw mut (*record).namespace_pid).write(namespace_pid);
            (&raw mut (*record).namespace_level).write(namespace_level);
            (&raw mut (*record).parent_tgid).write(task::parent_of(ending).unwrap_or(0));
            sender::copy(task.tgid, task.start_ns, &raw mut (*record).sender);
            cwd::copy(ending, record);
        }
    });
}

/// What `wait(2)` will give: the group's code if the whole group was ended, else that of its first thread.
#[inline(always)]
fn status(ending: TaskPointer) -> u32 {
    let group = task::signal_struct(ending)
        .and_then(|signal| task::read::<u32>(signal, SIGNAL_GROUP_EXIT_CODE.load()))
        .unwrap_or(0);
    if group != 0 {
        group
    } else {
        task::read::<u32>(task::leader(ending), TASK_EXIT_CODE.load()).unwrap_or(0)
    }
}
