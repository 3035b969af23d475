//! The `kansoku` binary: memory settings, and the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    collector::kernel::keep_heap_small();
    if let Err(error) = collector::kernel::survive_truncated_files() {
        eprintln!("kansoku: {error:#}");
    }
    collector::cli::main()
}
