//! The eBPF side of Kansoku: one module per signal, plus what they share.
//!
//! Refuses: parsing, policy, and anything the daemon can do with the same facts.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod arch;
mod atomic;
mod crash;
mod emit;
mod flow;
mod io;
mod path;
mod process;
mod profile;
mod syscall;
mod task;
mod vector;

/// The kernel offers most helpers to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: nothing in these programs panics; the verifier would refuse the program if this were reachable.
    unsafe { core::hint::unreachable_unchecked() }
}
