//! The `kansoku` binary: memory settings, and the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    collector::kernel::keep_heap_small();
    collector::cli::main()
}
