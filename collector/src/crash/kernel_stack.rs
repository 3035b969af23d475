//! The functions of the kernel that led to an end, without those that only told us of it.
//!
//! Refuses: addresses. A kernel that hides its own gets none into a file by us.

use std::sync::Arc;

use collector_common::crash::KernelStackRecord;

use crate::symbolize::kallsyms::{Hidden, Kallsyms};

/// How the functions between the signal and the program that looks at it begin.
const TRACING: [&str; 5] = ["bpf_", "__bpf_", "___bpf_", "__traceiter_", "trace_"];

/// Innermost frames that can be such functions.
const TRACING_FRAMES_MAX: usize = 8;

/// The functions, innermost first, or why there are none.
pub fn functions(stack: &KernelStackRecord, kallsyms: &mut Kallsyms) -> Result<Vec<String>, &'static str> {
    let frames = stack.frames.get(..stack.frame_count as usize).unwrap_or_default();
    // All but the innermost are return addresses: the call is before them.
    let addresses: Vec<u64> = frames.iter().map(|address| address.saturating_sub(1)).collect();
    let names = kallsyms.functions(&addresses).map_err(|hidden| match hidden {
        Hidden::ByTheKernel => "the kernel hides its functions (kernel.kptr_restrict)",
        Hidden::Unreadable => "/proc/kallsyms cannot be read",
    })?;
    let functions = named_part(&names);
    if functions.is_empty() { Err("the kernel walked none") } else { Ok(functions) }
}

fn named_part(names: &[Option<Arc<str>>]) -> Vec<String> {
    let is_tracing = |name: &Option<Arc<str>>| {
        name.as_deref().is_some_and(|name| TRACING.iter().any(|start| name.starts_with(start)))
    };
    let innermost = names.get(..TRACING_FRAMES_MAX).unwrap_or(names);
    let first = innermost.iter().rposition(is_tracing).map_or(0, |at| at + 1);
    names[first..].iter().map(|name| name.as_deref().unwrap_or("??").to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[Option<&str>], expected: &[&str]) {
        let names: Vec<_> = names.iter().map(|name| name.map(Arc::from)).collect();
        assert_eq!(named_part(&names), expected);
    }

    #[test]
    fn the_tracing_is_left_out() {
        check(&[], &[]);
        check(&[Some("force_sig+0x1"), None], &["force_sig+0x1", "??"]);
        check(
            &[
                Some("bpf_get_stack_raw_tp+0x4"),
                None,
                Some("bpf_trace_run5+0x8"),
                Some("__send_signal_locked+0x9"),
            ],
            &["__send_signal_locked+0x9"],
        );
        check(&[Some("bpf_prog_1_crash_sender+0x4")], &[]);
    }
}
