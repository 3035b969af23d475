//! Where a thread was when it took a fault or a fatal signal: registers, stack, heap, the names of its companions.
//!
//! A signal that ends the process is sent at once, while the process still has its memory. A fault that the process
//! handles (Go, the JVM) waits in a map in case it ends badly after all. Refuses: signals that never dump core.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_F_USER_STACK;
use aya_ebpf::helpers::generated::{bpf_get_stack, bpf_ktime_get_ns, bpf_probe_read_user};
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::{EbpfContext, Global};
use collector_common::crash::{DUMPS_CORE, FaultRecord, SignalRecord, is_one_of};
use collector_common::event::Kind;
use collector_common::limits::{
    COMM_BYTES, FAULTS_MAX, OFFSET_UNKNOWN, STACK_BYTES_MAX, STACK_PAGE_BYTES, STACK_PAGES_MAX,
    THREAD_NAMES_MAX, place_of,
};

use crate::task::{self, TaskPointer};
use crate::{arch, emit};

/// `mm_struct.start_brk`
#[unsafe(no_mangle)]
static MM_START_BRK: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `mm_struct.brk`
#[unsafe(no_mangle)]
static MM_BRK: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `mm_struct.start_stack`
#[unsafe(no_mangle)]
static MM_START_STACK: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `signal_struct.thread_head`
#[unsafe(no_mangle)]
static SIGNAL_THREAD_HEAD: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `task_struct.thread_node`
#[unsafe(no_mangle)]
static TASK_THREAD_NODE: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `task_struct.comm`
#[unsafe(no_mangle)]
static TASK_COMM: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `sigaction.sa_handler`, the first member of `k_sigaction`.
#[unsafe(no_mangle)]
pub static SIGACTION_HANDLER: Global<u32> = Global::new(OFFSET_UNKNOWN);

/// SIGABRT
const ABORT: i32 = 6;

/// `SIG_DFL` and `SIG_IGN`
pub const DEFAULT_ACTION: u64 = 0;
const IGNORE: u64 = 1;

/// `kernel_siginfo.si_code` and the first word of what follows, which is the address for faults: ABI.
const SI_CODE: u32 = 8;
const SI_ADDRESS: u32 = 16;

/// How long a runtime may take for its report; older faults are forgotten whatever their handler.
const REPORT_NS_MAX: u64 = 30_000_000_000;

/// Below the stack pointer a leaf function may keep its data (x86_64 ABI).
const RED_ZONE_BYTES: u64 = 128;

/// The last fault that each process handled.
#[map]
static FAULTS: Array<FaultRecord> = Array::with_max_entries(FAULTS_MAX, 0);

/// A signal reaches the running thread.
#[inline(always)]
pub fn on_deliver<C: EbpfContext>(
    context: &C,
    signal: i32,
    information: *const c_void,
    action: *const c_void,
) -> i32 {
    if !is_one_of(signal, DUMPS_CORE) {
        return 0;
    }
    let code = task::read::<i32>(information, SI_CODE).unwrap_or(0);
    match task::read::<u64>(action, SIGACTION_HANDLER.load()) {
        Some(IGNORE) => {}
        Some(DEFAULT_ACTION) | None => send_fatal(context, signal, code, information),
        // Only what the process did to itself tells something about a later end.
        Some(handler) if code > 0 || signal == ABORT => {
            keep_handled(context, signal, code, information, handler);
        }
        Some(_) => {}
    }
    0
}

/// Sends the fault that a process handled, for it ended badly now.
#[inline(always)]
pub fn send_handled(tgid: u32, start_ns: u64) {
    let Some(fault) = FAULTS.get_ptr(place_of(tgid, FAULTS_MAX)) else { return };
    // SAFETY: the look-up gave a valid pointer to a value of the map.
    unsafe {
        if (*fault).task.tgid == tgid && (*fault).task.start_ns == start_ns {
            emit::detail(fault);
        }
    }
}

/// Keeps the last fault. A runtime that gives up takes another handler for the faults that it makes while it writes its
/// report, as the JVM does: those are not the cause.
#[inline(always)]
fn keep_handled<C: EbpfContext>(
    context: &C,
    signal: i32,
    code: i32,
    information: *const c_void,
    handler: u64,
) {
    let (tgid, _) = task::current_ids();
    if let Some(fault) = FAULTS.get_ptr_mut(place_of(tgid, FAULTS_MAX)) {
        // SAFETY: the look-up gave a valid pointer to a value of the map. Two threads that fault at once overwrite
        // each other's words; the bytes are plain data whatever they are.
        unsafe {
            let is_known = (*fault).task.tgid == tgid
                && (*fault).task.start_ns == task::process_start_ns(task::current_pointer());
            let age_ns = bpf_ktime_get_ns().wrapping_sub((*fault).head.time_ns);
            if is_known && (*fault).handler != handler && age_ns < REPORT_NS_MAX {
                return;
            }
            fill(context, fault, signal, code, information);
            (&raw mut (*fault).head).write(task::head(Kind::Fault, size_of::<FaultRecord>() as u32));
            (&raw mut (*fault).is_handled).write(1);
            (&raw mut (*fault).handler).write(handler);
        }
    }
}

#[inline(always)]
fn send_fatal<C: EbpfContext>(context: &C, signal: i32, code: i32, information: *const c_void) {
    emit::detail_in_place(|record: *mut SignalRecord| {
        // SAFETY: the ring gave room for one record; each write is to a field of it.
        unsafe {
            let fault = &raw mut (*record).fault;
            let stack_pointer = fill(context, fault, signal, code, information);
            (&raw mut (*fault).head).write(task::head(Kind::Signal, size_of::<SignalRecord>() as u32));
            (&raw mut (*fault).is_handled).write(0);
            (&raw mut (*fault).handler).write(0);
            copy_stack(record, stack_pointer);
            copy_thread_names(record);
        }
    });
}

/// Fills all but the head, and returns the user's stack pointer.
///
/// # Safety
///
/// `fault` must be writable.
#[inline(always)]
unsafe fn fill<C: EbpfContext>(
    context: &C,
    fault: *mut FaultRecord,
    signal: i32,
    code: i32,
    information: *const c_void,
) -> u64 {
    let task = task::current_pointer();
    let mm = task::mm_struct(task);
    let of_mm = |offset: u32| mm.and_then(|mm| task::read::<u64>(mm, offset)).unwrap_or(0);
    // SAFETY: each write is to a field of the caller's record.
    unsafe {
        (&raw mut (*fault).task).write(task::current());
        (&raw mut (*fault).signal).write(signal as u32);
        (&raw mut (*fault).code).write(code);
        (&raw mut (*fault).address).write(task::read::<u64>(information, SI_ADDRESS).unwrap_or(0));
        (&raw mut (*fault).heap_start).write(of_mm(MM_START_BRK.load()));
        (&raw mut (*fault).heap_end).write(of_mm(MM_BRK.load()));
        (&raw mut (*fault).stack_start).write(of_mm(MM_START_STACK.load()));
        let frames = (&raw mut (*fault).frames).cast::<c_void>();
        let bytes =
            bpf_get_stack(context.as_ptr(), frames, STACK_BYTES_MAX as u32, u64::from(BPF_F_USER_STACK));
        (&raw mut (*fault).frame_count).write(if bytes > 0 { (bytes / 8) as u32 } else { 0 });
        arch::copy_user_registers(task, &raw mut (*fault).registers)
    }
}

/// Copies the pages from the stack pointer upward; those that are not there are left out.
///
/// # Safety
///
/// `record` must be writable.
#[inline(always)]
unsafe fn copy_stack(record: *mut SignalRecord, stack_pointer: u64) {
    let first = stack_pointer.wrapping_sub(RED_ZONE_BYTES) & !(STACK_PAGE_BYTES as u64 - 1);
    let mut pages = 0;
    for page in 0..STACK_PAGES_MAX {
        let source = first.wrapping_add((page * STACK_PAGE_BYTES) as u64) as *const c_void;
        // SAFETY: the page lies inside the record's buffer; the helper checks the source.
        let result = unsafe {
            let destination = (&raw mut (*record).stack).cast::<u8>().add(page * STACK_PAGE_BYTES);
            bpf_probe_read_user(destination.cast(), STACK_PAGE_BYTES as u32, source)
        };
        if result == 0 {
            pages |= 1 << page;
        }
    }
    // SAFETY: each write is to a field of the caller's record.
    unsafe {
        (&raw mut (*record).stack_address).write(first);
        (&raw mut (*record).stack_pages).write(if stack_pointer == 0 { 0 } else { pages });
    }
}

/// Walks the list of threads. Threads may come and go meanwhile: every read is checked and the walk is bounded.
///
/// # Safety
///
/// `record` must be writable.
#[inline(always)]
unsafe fn copy_thread_names(record: *mut SignalRecord) {
    let signal = task::signal_struct(task::current_pointer());
    let offset = SIGNAL_THREAD_HEAD.load();
    let count =
        signal.and_then(|signal| task::read::<u32>(signal, task::SIGNAL_NR_THREADS.load())).unwrap_or(0);
    let mut read = 0;
    if let Some(signal) = signal.filter(|_| offset != OFFSET_UNKNOWN) {
        let head = signal.wrapping_byte_add(offset as usize);
        let mut node = task::read::<*const c_void>(head, 0).unwrap_or(head);
        for index in 0..THREAD_NAMES_MAX {
            if node == head {
                break;
            }
            let thread: TaskPointer = node.wrapping_byte_sub(TASK_THREAD_NODE.load() as usize);
            let Some(name) = task::read::<[u8; COMM_BYTES]>(thread, TASK_COMM.load()) else { break };
            // SAFETY: the index is below the number of names.
            unsafe { (&raw mut (*record).thread_names).cast::<[u8; COMM_BYTES]>().add(index).write(name) };
            read += 1;
            let Some(next) = task::read::<*const c_void>(node, 0) else { break };
            node = next;
        }
    }
    // SAFETY: each write is to a field of the caller's record.
    unsafe {
        (&raw mut (*record).thread_count).write(count);
        (&raw mut (*record).thread_names_read).write(read);
        (&raw mut (*record).padding).write(0);
    }
}
