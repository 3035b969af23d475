//! Converts cores that the running kernel writes of small C programs, and reads the minidumps as a debugger would.
//!
//! Refuses: changing the machine. Where the kernel hands cores to a program, where cores are not allowed, or where there
//! is no C compiler, these tests only say so.

use std::io::{Cursor, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, ExitStatus};

use minidump::{Minidump, MinidumpModuleList, MinidumpThreadList, MinidumpThreadNames, Module as _};
use minidump_processor::ProcessState;

use super::minidump::{MinidumpExtras, MinidumpLimits, MinidumpSummary, write};

const NULL: &str = r#"
    __attribute__((noinline)) void crash_here(volatile int *place) { *place = 1; }
    __attribute__((noinline)) int middle(int count) {
        volatile char secret[32] = "TOPSECRETPASSWORD-0123456789";
        crash_here((int *)(long)(secret[0] == 'T' ? 0x10 : 0));
        return count + secret[1];
    }
    int main(int count, char **arguments) { return middle(count); }
"#;
const ABORT: &str = r#"
    #include <pthread.h>
    #include <stdlib.h>
    #include <unistd.h>
    static void *idle(void *none) { pause(); return none; }
    static void *give_up(void *none) { usleep(100000); abort(); return none; }
    int main(void) {
        pthread_t thread;
        pthread_create(&thread, 0, idle, 0);
        pthread_create(&thread, 0, give_up, 0);
        pthread_join(thread, 0);
    }
"#;
const MANY: &str = r#"
    #include <pthread.h>
    #include <unistd.h>
    static pthread_barrier_t started;
    static void *idle(void *none) { pthread_barrier_wait(&started); pause(); return none; }
    int main(void) {
        pthread_barrier_init(&started, 0, 51);
        for (int index = 0; index < 50; index++) { pthread_t thread; pthread_create(&thread, 0, idle, 0); }
        pthread_barrier_wait(&started);
        *(volatile int *)0x10 = 1;
    }
"#;
const DEEP: &str = r#"
    __attribute__((noinline)) int crash_here(volatile int depth) {
        volatile char room[200];
        room[0] = depth;
        int below = crash_here(depth + 1);
        return below + room[0];
    }
    int main(int count, char **arguments) { return crash_here(count); }
"#;

/// What is expected of a program's minidump.
struct Expected {
    signal: i32,
    threads: usize,
    /// The function of the top frame, if it is the program's own.
    function: Option<&'static str>,
    frames_min: usize,
}

/// Compiles, crashes and converts a program; `None` if this machine can't.
fn crash(source: &str, options: &[&str]) -> Option<(tempfile::TempDir, Vec<u8>)> {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").ok()?;
    let compiler_works = Command::new("cc").arg("--version").output().is_ok();
    if pattern.trim() != "core" || !compiler_works {
        eprintln!("not tested: core_pattern is {pattern:?}, a C compiler works: {compiler_works}");
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("program.c"), source).expect("the source");
    let compile = ["-g", "-O1", "-w", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread"];
    let compile = Command::new("cc")
        .current_dir(&folder)
        .args(compile)
        .args(options)
        .args(["-Wl,--build-id=0xabcdef0123456789abcdef0123456789abcdef01", "-o", "program", "program.c"])
        .status();
    assert!(compile.is_ok_and(|status| status.success()), "{options:?}");
    let run = "ulimit -s 1024; ulimit -c unlimited; exec ./program";
    let status: ExitStatus =
        Command::new("sh").arg0("sh").args(["-c", run]).current_dir(&folder).status().expect("a shell");
    if !status.core_dumped() {
        eprintln!("not tested: no core is allowed here");
        return None;
    }
    let entries = std::fs::read_dir(&folder).expect("the folder").filter_map(Result::ok);
    let core = entries.map(|entry| entry.path()).find(|path| path.file_name().is_some_and(is_core));
    let Some(core) = core else {
        eprintln!("not tested: the core went elsewhere, so another test has changed core_pattern meanwhile");
        return None;
    };
    Some((folder, std::fs::read(core).expect("the core")))
}

fn is_core(name: &std::ffi::OsStr) -> bool {
    name.to_string_lossy().starts_with("core")
}

type Written = (MinidumpSummary, Minidump<'static, Vec<u8>>, Vec<u8>);

fn convert(core: impl Read, redact_memory: bool, extras: &MinidumpExtras) -> Written {
    let mut output = Cursor::new(Vec::new());
    let limits = MinidumpLimits { redact_memory, ..Default::default() };
    let summary = write(core, &mut output, &limits, extras).expect("a core");
    assert!(!summary.truncated);
    let bytes = output.into_inner();
    (summary, Minidump::read(bytes.clone()).expect("a minidump"), bytes)
}

fn process(dump: &Minidump<'static, Vec<u8>>) -> ProcessState {
    let symbols = minidump_unwind::Symbolizer::new(minidump_unwind::simple_symbol_supplier(vec![]));
    pollster::block_on(minidump_processor::process_minidump(dump, &symbols)).expect("a state")
}

/// Address and size of a function in the program's file.
fn symbol(program: &Path, name: &str) -> (u64, u64) {
    let output = Command::new("nm").arg("-S").arg(program).output().expect("nm");
    let text = String::from_utf8(output.stdout).expect("text");
    let line = text.lines().find(|line| line.ends_with(&format!(" {name}"))).expect("the symbol");
    let mut words = line.split(' ').map(|word| u64::from_str_radix(word, 16));
    (words.next().expect("address").expect("a number"), words.next().expect("size").expect("a number"))
}

fn check(source: &str, options: &[&str], expected: &Expected) {
    let Some((folder, core)) = crash(source, options) else { return };
    let program = folder.path().join("program").canonicalize().expect("the program");
    for redact in [false, true] {
        let (summary, dump, bytes) = convert(core.as_slice(), redact, &MinidumpExtras::default());
        assert!(!summary.core_ended_early);
        let signal = summary.signal.expect("a signal");
        assert_eq!(signal.number, expected.signal);
        assert_eq!(summary.process.as_ref().expect("a process").name, "program");

        let modules = dump.get_stream::<MinidumpModuleList>().expect("modules");
        let main = modules.main_module().expect("the program");
        assert_eq!(main.code_file(), program.to_string_lossy());
        let id = main.code_identifier().expect("a build id").to_string();
        assert_eq!(id, "abcdef0123456789abcdef0123456789abcdef01");
        assert!(modules.iter().all(|module| module.debug_identifier().is_some()), "{modules:?}");

        let state = process(&dump);
        assert_eq!(state.process_id, Some(summary.process.expect("a process").pid));
        assert_eq!(state.threads.len(), expected.threads);
        assert_eq!(state.requesting_thread, Some(0));
        let exception = state.exception_info.as_ref().expect("an exception");
        assert_eq!(exception.address.0, signal.fault_address.unwrap_or(0));
        let frames = &state.threads[0].frames;
        assert!(frames.len() >= expected.frames_min, "{} frames", frames.len());
        assert!(state.threads.iter().all(|thread| thread.frames.len() > 1), "threads without a stack");
        if let Some(function) = expected.function {
            let (address, bytes) = symbol(&program, function);
            let is_fixed = address >= main.base_address();
            let address = if is_fixed { address } else { main.base_address() + address };
            let top = frames[0].instruction;
            assert!((address..address + bytes).contains(&top), "{top:#x} not in {function} at {address:#x}");
        }
        let secret = ["TOPSECRE", "TPASSWOR"].iter().any(|part| find(&bytes, part.as_bytes()));
        assert_eq!(secret, source == NULL && !redact);
    }
}

fn find(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_null_pointer() {
    let expected = Expected { signal: 11, threads: 1, function: Some("crash_here"), frames_min: 3 };
    for options in [&[][..], &["-no-pie"], &["-static"], &["-static-pie"]] {
        check(NULL, options, &expected);
    }
}

#[test]
fn an_abort_in_a_thread() {
    check(ABORT, &[], &Expected { signal: 6, threads: 3, function: None, frames_min: 3 });
}

#[test]
fn a_stack_without_end() {
    check(DEEP, &[], &Expected { signal: 11, threads: 1, function: Some("crash_here"), frames_min: 1000 });
}

#[test]
fn many_threads_with_names() {
    let expected = Expected { signal: 11, threads: 51, function: Some("main"), frames_min: 2 };
    check(MANY, &[], &expected);
    let Some((_folder, core)) = crash(MANY, &[]) else { return };
    let (_, dump, _) = convert(core.as_slice(), false, &MinidumpExtras::default());
    let threads = dump.get_stream::<MinidumpThreadList>().expect("threads");
    let ids = threads.threads.iter().map(|thread| thread.raw.thread_id);
    let thread_names = ids.map(|id| (id, format!("worker-{id}"))).collect();
    let extras = MinidumpExtras { thread_names, ..Default::default() };
    let (_, dump, _) = convert(core.as_slice(), false, &extras);
    let names = dump.get_stream::<MinidumpThreadNames>().expect("names");
    for (id, name) in extras.thread_names {
        assert_eq!(names.get_name(id).as_deref(), Some(name.as_str()));
    }
}

#[test]
fn cores_that_end_early() {
    let Some((_folder, core)) = crash(MANY, &[]) else { return };
    for length in (64..core.len()).step_by(1 << 16).chain(64..6000) {
        let (summary, ..) = convert(&core[..length], length % 2 == 0, &MinidumpExtras::default());
        assert!(summary.threads_written as u64 == summary.threads_total);
    }
}
