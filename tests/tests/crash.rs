//! Every signal and every cause, each record checked field by field.
//!
//! Refuses: a record that is right in the main. One wrong field of one record fails, and all that is wrong is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;

use serde_json::{Value, json};
use tests::agent::STOP_MAX;
use tests::crash::{
    Checks, Death, Spool, expect_none, file_name, functions, hexadecimal, text, was_in_kernel,
};
use tests::tools;
use tests::workload::{FRAME_POINTERS, Program, source, utf8};

/// The build id that the programs are linked with, so that the test knows it.
const BUILD_ID: &str = "6b616e736f6b750000000000000000000000c0de";
const BUILD_ID_FLAG: &str = "-Wl,--build-id=0x6b616e736f6b750000000000000000000000c0de";

#[cfg(target_arch = "x86_64")]
const INSTRUCTION_POINTER: &str = "rip";
#[cfg(not(target_arch = "x86_64"))]
const INSTRUCTION_POINTER: &str = "pc";
#[cfg(target_arch = "x86_64")]
const STACK_POINTER: &str = "rsp";
#[cfg(not(target_arch = "x86_64"))]
const STACK_POINTER: &str = "sp";

fn program(more: &[&str]) -> Program {
    Program::c("crash.c", &[FRAME_POINTERS, &[BUILD_ID_FLAG], more].concat())
}

/// Where the fault was.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// At this address, which is at this place.
    At(&'static str, &'static str),
    /// At the instruction.
    AtInstruction,
    /// Near the stack pointer, below the stack.
    BelowStack,
    /// The signal has no address.
    None,
    /// Whatever the processor says.
    Any,
}

/// What is on top of the stack.
#[derive(Clone, Copy, Debug)]
enum Top {
    /// These functions of the program, and nothing else between them.
    Functions(&'static [&'static str]),
    /// Code without a name, then this function of the program.
    Unnamed(&'static str),
    /// The C library, which has no frame pointers; this function below it if the stack goes on at all.
    Library(&'static str),
}

/// One way to die.
struct Case {
    arguments: &'static [&'static str],
    signal: &'static str,
    code: &'static str,
    fault: Fault,
    top: Top,
}

const fn case(
    arguments: &'static [&'static str],
    signal: &'static str,
    code: &'static str,
    fault: Fault,
    top: Top,
) -> Case {
    Case { arguments, signal, code, fault, top }
}

const NULL: Fault = Fault::At("0x18", "null");

const CASES: &[Case] = &[
    case(&["segv"], "SIGSEGV", "SEGV_MAPERR", NULL, Top::Functions(&["crash_here", "outer", "main"])),
    case(&["null_call"], "SIGSEGV", "SEGV_MAPERR", Fault::At("0x0", "null"), Top::Unnamed("crash_null_call")),
    case(
        &["stack_overflow"],
        "SIGSEGV",
        "SEGV_MAPERR",
        Fault::BelowStack,
        Top::Functions(&["crash_stack_overflow", "crash_stack_overflow"]),
    ),
    case(&["double_free"], "SIGABRT", "SI_TKILL", Fault::None, Top::Library("crash_double_free")),
    case(&["abort"], "SIGABRT", "SI_TKILL", Fault::None, Top::Library("crash_abort")),
    case(&["assert"], "SIGABRT", "SI_TKILL", Fault::None, Top::Library("crash_assert")),
    case(
        &["bus"],
        "SIGBUS",
        "BUS_ADRERR",
        Fault::At("0x10000018", "beyond the end of a mapped file"),
        Top::Functions(&["crash_bus", "outer", "main"]),
    ),
    case(&["sys"], "SIGSYS", "SYS_SECCOMP", Fault::Any, Top::Functions(&["crash_sys", "outer", "main"])),
    #[cfg(target_arch = "x86_64")]
    case(
        &["fpe"],
        "SIGFPE",
        "FPE_INTDIV",
        Fault::AtInstruction,
        Top::Functions(&["crash_fpe", "outer", "main"]),
    ),
    case(&["xcpu"], "SIGXCPU", "SI_KERNEL", Fault::None, Top::Functions(&["crash_xcpu", "outer", "main"])),
    case(&["xfsz"], "SIGXFSZ", "SI_USER", Fault::None, Top::Functions(&["crash_xfsz", "outer", "main"])),
    #[cfg(target_arch = "x86_64")]
    case(&["tgkill"], "SIGABRT", "SI_TKILL", Fault::None, Top::Functions(&["crash_tgkill", "outer", "main"])),
    #[cfg(target_arch = "x86_64")]
    case(
        &["misaligned"],
        "SIGBUS",
        "BUS_ADRALN",
        Fault::Any,
        Top::Functions(&["crash_misaligned", "outer", "main"]),
    ),
    #[cfg(target_arch = "x86_64")]
    case(
        &["ill"],
        "SIGILL",
        "ILL_ILLOPN",
        Fault::AtInstruction,
        Top::Functions(&["crash_ill", "outer", "main"]),
    ),
    #[cfg(target_arch = "x86_64")]
    case(&["trap"], "SIGTRAP", "SI_KERNEL", Fault::Any, Top::Functions(&["crash_trap", "outer", "main"])),
    #[cfg(target_arch = "x86_64")]
    case(&["jit"], "SIGSEGV", "SEGV_MAPERR", NULL, Top::Unnamed("crash_jit")),
    case(&["corrupt"], "SIGSEGV", "SEGV_MAPERR", NULL, Top::Functions(&["crash_corrupt"])),
    case(&["threads"], "SIGSEGV", "SEGV_MAPERR", NULL, Top::Functions(&["crash_threads", "outer", "main"])),
    case(&["in_thread"], "SIGSEGV", "SEGV_MAPERR", NULL, Top::Functions(&["crash_here", "culprit"])),
    case(&["stderr"], "SIGSEGV", "SEGV_MAPERR", NULL, Top::Functions(&["crash_stderr", "outer", "main"])),
];

impl Case {
    fn check(&self, what: &str, record: &Value, death: &Death, program: &Program) -> Option<String> {
        let mut checks = Checks::of(what, record);
        check_death(&mut checks, death, program, self.arguments);
        checks.is("/kind", "crash");
        checks.is("/exit/signal", self.signal);
        checks.is("/signal/name", self.signal);
        checks.is("/signal/number", death.status.signal());
        checks.is("/signal/code_name", self.code);
        checks.is("/signal/handled", false);
        checks.contains("/summary", self.signal);
        self.check_fault(&mut checks);
        self.check_stack(&mut checks);
        self.check_threads(&mut checks, death);
        self.check_kernel_stack(&mut checks);
        // abort() and a thread that signals itself have a sender, faults have none but the kernel.
        let sender = text(record, "/sender/kind");
        if self.code == "SI_TKILL" {
            checks.is("/sender/kind", "itself");
            checks.is("/sender/pid", death.pid);
        } else if self.code != "SI_USER" {
            checks.holds("nobody but the kernel is the sender", ["", "kernel"].contains(&sender));
        }
        checks.problems()
    }

    fn check_fault(&self, checks: &mut Checks) {
        let address = &checks.record()["signal"]["fault_address"];
        let register = |name: &str| hexadecimal(&checks.record()["registers"][name]).unwrap_or_default();
        let (instruction, stack) = (register(INSTRUCTION_POINTER), register(STACK_POINTER));
        match self.fault {
            Fault::At(expected, place) => {
                checks.is("/signal/fault_address", expected);
                checks.contains("/signal/fault_place", place);
                checks.contains("/summary", expected);
            }
            Fault::AtInstruction => {
                checks.is("/signal/fault_address", format!("{instruction:#x}"));
                checks.contains("/signal/fault_place", "crash");
            }
            Fault::BelowStack => {
                let distance = hexadecimal(address).unwrap_or_default().abs_diff(stack);
                checks.holds("the fault is near the stack pointer", distance < 65_536);
                checks.contains("/signal/fault_place", "stack");
            }
            Fault::None => checks.is("/signal/fault_address", Value::Null),
            Fault::Any => {}
        }
    }

    fn check_stack(&self, checks: &mut Checks) {
        let record = checks.record();
        let functions = functions(record);
        let frame = &record["stack"][0];
        checks.is(&format!("/registers/{INSTRUCTION_POINTER}"), frame["address"].clone());
        let is_here = |frame: &Value| {
            file_name(&frame["module"]) == "crash"
                && frame["build_id"] == record["process"]["executable_build_id"]
        };
        match self.top {
            Top::Functions(expected) => {
                checks.holds(
                    &format!("{functions:?} starts with {expected:?}"),
                    functions.starts_with(expected),
                );
                let frames = record["stack"].as_array().into_iter().flatten().take(expected.len());
                checks.holds("the named frames are the program's", frames.into_iter().all(is_here));
                checks.contains("/summary", expected[0]);
            }
            Top::Unnamed(expected) => {
                checks.is("/stack/0/function", Value::Null);
                checks.is("/stack/1/function", expected);
                checks.holds("the second frame is the program's", is_here(&record["stack"][1]));
            }
            Top::Library(expected) => {
                let module = file_name(&frame["module"]);
                checks.holds("the top frame is the C library's", module.starts_with("libc"));
                let is_said = record["incomplete"].as_array().is_some_and(|reasons| !reasons.is_empty());
                let is_found = functions.contains(&expected);
                println!("{:?}: {expected} found: {is_found}: {functions:?}", self.arguments);
                checks.holds(
                    &format!("{expected} is on the stack, or it is said why not"),
                    is_found || is_said,
                );
            }
        }
        if self.arguments == ["corrupt"] {
            let is_said = record["incomplete"].as_array().is_some_and(|reasons| !reasons.is_empty());
            checks.holds("the record says that its stack is broken", is_said);
        }
    }

    /// What the process did to itself by a system call has nothing to show of the kernel.
    fn check_kernel_stack(&self, checks: &mut Checks) {
        match (self.code, self.signal) {
            ("SI_TKILL" | "SI_USER", _) => checks.is("/kernel_stack", json!([])),
            (_, signal) => {
                let expected: &[&str] = match signal {
                    "SIGSYS" => &["seccomp"],
                    "SIGBUS" | "SIGSEGV" => &["fault", "exc_", "force_sig"],
                    "SIGXCPU" => &["timer"],
                    _ => &[""],
                };
                let is_so = was_in_kernel(checks.record(), expected);
                checks.holds(&format!("the kernel was in one of {expected:?}"), is_so);
            }
        }
        let record = checks.record();
        let has_address = record["kernel_stack"].to_string().contains("ffff");
        checks.holds("no address of the kernel is told", !has_address);
    }

    fn check_threads(&self, checks: &mut Checks, death: &Death) {
        let threads = match self.arguments {
            ["threads"] => json!({"total": 21, "by_name": {"crash": 1, "rower": 20}}),
            ["in_thread"] => json!({"total": 2, "by_name": {"crash": 1, "culprit": 1}}),
            _ => json!({"total": 1, "by_name": {"crash": 1}}),
        };
        checks.is("/threads", threads);
        if self.arguments == ["in_thread"] {
            checks.is("/process/thread_name", "culprit");
            let thread = checks.record()["process"]["thread_id"].as_u64();
            checks.holds("the thread is another one", thread.is_some_and(|thread| thread != death.pid));
        } else {
            checks.is("/process/thread_name", "crash");
            checks.is("/process/thread_id", death.pid);
        }
    }
}

/// What every record of the C program must say.
fn check_death(checks: &mut Checks, death: &Death, program: &Program, arguments: &[&str]) {
    let record = checks.record();
    checks.is("/schema", 1);
    checks.is("/resource/service.name", "crash");
    checks.is("/process/pid", death.pid);
    checks.is("/process/namespace_pid", death.pid);
    checks.is("/process/parent_pid", std::process::id());
    checks.is("/process/executable_name", "crash");
    checks.is("/process/executable_path", utf8(program.path()));
    checks.is("/process/working_directory", utf8(program.directory()));
    checks.is("/process/user_id", 0);
    checks.is("/process/group_id", 0);
    let mut command: Vec<&str> = vec![utf8(program.path())];
    command.extend(arguments);
    checks.is("/process/command_args", command);
    checks.is("/exit/code", Value::Null);
    checks.is("/exit/core_dumped", death.status.core_dumped());
    checks.is("/suppressed", 0);
    checks.is("/oom", Value::Null);
    checks.is("/dump", Value::Null);
    let (id, fingerprint) = (text(record, "/id"), text(record, "/fingerprint"));
    checks.holds("the id ends with the process id", id.ends_with(&format!("-{}", death.pid)));
    let is_hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_fingerprint = fingerprint.len() == 16 && fingerprint.bytes().all(is_hexadecimal);
    checks.holds("the fingerprint is 16 hexadecimal digits", is_fingerprint);
    checks.is_in_life(death);
    let (signal, end) = (record["signal"]["time_unix_ns"].as_u64(), record["time_unix_ns"].as_u64());
    checks.holds("the signal comes before the end", signal.is_some() && signal <= end);
    checks.holds("the signal comes after the start", record["start_unix_ns"].as_u64() <= signal);
    check_mappings(checks, program);
}

fn check_mappings(checks: &mut Checks, program: &Program) {
    let record = checks.record();
    let registers = record["registers"].as_object();
    let is_hexadecimal = registers.is_some_and(|all| all.values().all(|value| hexadecimal(value).is_some()));
    checks.holds(
        "there are registers, all hexadecimal",
        registers.is_some_and(|all| all.len() > 8) && is_hexadecimal,
    );
    checks.holds("the stack pointer is known", registers.is_some_and(|all| all.contains_key(STACK_POINTER)));
    let mappings: Vec<&Value> = record["mappings"].as_array().into_iter().flatten().collect();
    let is_ordered = |mapping: &&Value| hexadecimal(&mapping["start"]) < hexadecimal(&mapping["end"]);
    checks.holds("every mapping has a start before its end", mappings.iter().all(is_ordered));
    let own = mappings.iter().find(|mapping| mapping["path"] == utf8(program.path()));
    let build_id = own.map(|mapping| &mapping["build_id"]);
    let expected = &record["process"]["executable_build_id"];
    checks.holds(
        "the executable is mapped, with its build id",
        build_id == Some(expected) && expected.is_string(),
    );
    let has_library = mappings.iter().any(|mapping| file_name(&mapping["path"]).starts_with("libc."));
    checks.holds("the C library is mapped", has_library);
}

/// Each signal and each cause, twice by the same build, and once by another build with other addresses: every field is
/// right, and the fingerprint depends on the cause alone.
#[test]
fn signals_and_causes() {
    let plain = program(&[]);
    let shifted = program(&["-DSHIFTED", "-Wl,--build-id=0x0ddba11000000000000000000000000000c0ffee"]);
    let spool = Spool::default();
    let agent = spool.start_agent(&["crash.records_per_minute=1000"], &[]);
    let mut problems = Vec::new();
    let mut fingerprints: BTreeMap<&[&str], Vec<String>> = BTreeMap::new();
    let mut latencies = Vec::new();
    let mut pids = Vec::new();
    for (round, program) in [&plain, &plain, &shifted].into_iter().enumerate() {
        for case in CASES {
            let death = Death::of(&mut program.command(case.arguments));
            let what = format!("{:?}, round {round}, {}", case.arguments, death.status);
            let record = spool.wait_for_pid(&what, death.pid);
            latencies.push(spool.latency(&record));
            problems.extend(case.check(&what, &record, &death, program));
            fingerprints.entry(case.arguments).or_default().push(text(&record, "/fingerprint").to_owned());
            pids.push(death.pid);
        }
    }
    latencies.sort();
    println!("from death to disk: median {:?}, worst {:?}", latencies[latencies.len() / 2], latencies.last());
    for pid in pids {
        assert_eq!(spool.of_pid(pid).len(), 1, "process {pid} has one record");
    }
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
    let unequal: Vec<_> =
        fingerprints.iter().filter(|(_, all)| all.iter().any(|one| *one != all[0])).collect();
    if !unequal.is_empty() {
        problems
            .push(format!("fingerprints of the same cause (twice one build, then another): {unequal:#?}"));
    }
    // Within the C library different causes may look alike.
    let named = CASES.iter().filter(|case| !matches!(case.top, Top::Library(_)));
    let named: Vec<&String> = named.map(|case| &fingerprints[case.arguments][0]).collect();
    if named.iter().collect::<BTreeSet<_>>().len() != named.len() {
        problems.push(format!("different causes with one fingerprint: {fingerprints:#?}"));
    }
    expect_none(problems);
}

/// What only one record can show: build id and offsets by an independent reader, lines, inlined frames, the user, odd
/// arguments, and what the C library said last.
#[test]
fn details() {
    tools::require("nm", "binutils");
    let plain = program(&[]);
    // Another build id: one build id stands for one content.
    let with_lines = program(&["-g", "-Wl,--build-id=0x6b616e736f6b750000000000000000000000beef"]);
    let spool = Spool::default();
    let agent = spool.start_agent(&["crash.records_per_minute=1000"], &[]);
    let mut problems = Vec::new();

    let death = Death::of(&mut plain.command(&["segv"]));
    let record = spool.wait_for_pid("segv", death.pid);
    let mut checks = Checks::of("build id and offsets", &record);
    checks.is("/process/executable_build_id", BUILD_ID);
    for (index, name) in ["crash_here", "outer", "main"].into_iter().enumerate() {
        let (start, size) = symbol(plain.path(), name);
        let offset = record["stack"][index]["offset"].as_u64().unwrap_or_default();
        // A return address may stand just behind its function.
        let is_inside = (start..=start + size).contains(&offset);
        checks.holds(&format!("{name} is at {start:#x}, {size} bytes; offset {offset:#x}"), is_inside);
    }
    problems.extend(checks.problems());

    let death = Death::of(&mut with_lines.command(&["inlined"]));
    let record = spool.wait_for_pid("inlined", death.pid);
    let mut checks = Checks::of("lines and inlined frames", &record);
    for (index, (name, is_inlined)) in
        [("crash_inlined", true), ("crash_holder", false), ("outer", false)].into_iter().enumerate()
    {
        checks.is(&format!("/stack/{index}/function"), name);
        checks.is(&format!("/stack/{index}/inlined"), is_inlined);
        let frame = &record["stack"][index];
        checks.holds(&format!("{name} is in crash.c"), file_name(&frame["file"]) == "crash.c");
        let line = frame["line"].as_u64().and_then(|line| usize::try_from(line).ok()).unwrap_or_default();
        let code = std::fs::read_to_string(source("crash.c")).expect("the source");
        let code = code.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        let expected = ["null_object->value", "crash_inlined();", "crash();"][index];
        // A return address may belong to the line that follows the call.
        let is_right = code.contains(expected) || (index == 2 && code.contains("sink += 1"));
        checks.holds(&format!("{name} is at line {line}: {code:?} has {expected:?}"), is_right);
    }
    problems.extend(checks.problems());

    // Whoever runs it must be able to reach it.
    std::fs::set_permissions(plain.directory(), Permissions::from_mode(0o755)).expect("our directory");
    let arguments = ["segv", "1", "two words", "", "kü\u{301}ste", "--verbose"];
    let death = Death::of(plain.command(&arguments).uid(12_345).gid(23_456));
    let record = spool.wait_for_pid("another user", death.pid);
    let mut checks = Checks::of("another user, odd arguments", &record);
    checks.is("/process/user_id", 12_345);
    checks.is("/process/group_id", 23_456);
    checks.is("/process/command_args", [&[utf8(plain.path())], &arguments[..]].concat());
    problems.extend(checks.problems());

    for (mode, expected) in [("double_free", "double free detected"), ("assert", "the keel holds")] {
        let death = Death::of(&mut plain.command(&[mode]));
        let record = spool.wait_for_pid(mode, death.pid);
        let mut checks = Checks::of(mode, &record);
        checks.contains("/stderr/text", expected);
        checks.is("/stderr/is_truncated", false);
        problems.extend(checks.problems());
    }
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
    expect_none(problems);
}

/// A program without symbols: where it was and all else is there, and that names are missing is said.
#[test]
fn a_stripped_program() {
    tools::require("nm", "binutils");
    let (plain, stripped) = (program(&[]), program(&["-s"]));
    let spool = Spool::default();
    let agent = spool.start_agent(&[], &[]);
    let death = Death::of(&mut stripped.command(&["segv"]));
    let record = spool.wait_for_pid("stripped", death.pid);
    let mut checks = Checks::of("stripped", &record);
    check_death(&mut checks, &death, &stripped, &["segv"]);
    checks.is("/kind", "crash");
    checks.is("/signal/code_name", "SEGV_MAPERR");
    checks.is("/signal/fault_address", "0x18");
    checks.is("/threads", json!({"total": 1, "by_name": {"crash": 1}}));
    for (index, name) in ["crash_here", "outer", "main"].into_iter().enumerate() {
        let frame = &record["stack"][index];
        let (start, size) = symbol(plain.path(), name);
        let offset = frame["offset"].as_u64().unwrap_or_default();
        checks.is(&format!("/stack/{index}/function"), Value::Null);
        checks.is(&format!("/stack/{index}/build_id"), BUILD_ID);
        let is_inside = (start..=start + size).contains(&offset);
        checks.holds(&format!("{name} is at {start:#x}, {size} bytes; offset {offset:#x}"), is_inside);
    }
    checks.contains("/summary", "crash+0x");
    let reasons = record["incomplete"].to_string();
    let expected = format!("functions: no names for code in {}", utf8(stripped.path()));
    checks.holds(&format!("{reasons} has {expected:?}"), reasons.contains(&expected));
    checks.expect();
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
}

/// A process that runs one program after the other, and dies: it has the names, the code and the arguments of the last one.
#[test]
fn a_chain_of_programs() {
    let program = program(&[]);
    let paths = ["one", "other", "last"].map(|name| program.directory().join(name));
    for path in &paths {
        std::fs::hard_link(program.path(), path).expect("our directory");
    }
    let [one, other, last] = paths.each_ref().map(|path| utf8(path));
    let spool = Spool::default();
    let agent = spool.start_agent(&["crash.records_per_minute=1000"], &[]);
    let mut problems = Vec::new();
    for length in ["1", "500"] {
        let death = Death::of(&mut program.command(&["chain", length, one, other, last]));
        let record = spool.wait_for_pid(length, death.pid);
        let mut checks = Checks::of(&format!("a chain of {length}"), &record);
        checks.is("/exit/signal", "SIGSEGV");
        checks.is("/resource/service.name", "last");
        checks.is("/process/executable_name", "last");
        checks.is("/process/executable_path", last);
        checks.is("/process/executable_build_id", BUILD_ID);
        checks.is("/process/thread_name", "last");
        checks.is("/process/command_args", [last, "segv"].as_slice());
        checks.is("/stack/0/module", last);
        let names = functions(&record);
        checks.holds(&format!("{names:?}"), names.starts_with(&["crash_here", "outer", "main"]));
        let others = record["mappings"].as_array().into_iter().flatten();
        let is_old = |mapping: &&Value| [one, other].contains(&text(mapping, "/path"));
        checks.holds("nothing of the others is mapped", others.filter(is_old).count() == 0);
        checks.is_in_life(&death);
        problems.extend(checks.problems());
        assert_eq!(spool.of_pid(death.pid).len(), 1, "a chain of {length}: one record");
    }
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
    expect_none(problems);
}

/// Address, which is the offset in the file too, and size of a function, by `nm`.
fn symbol(path: &Path, name: &str) -> (u64, u64) {
    let table = tools::output_of("nm", &["-S", utf8(path)]);
    let line = table.lines().find(|line| line.split(' ').next_back() == Some(name));
    let mut numbers = line.unwrap_or_else(|| panic!("no {name} in:\n{table}")).split(' ');
    let mut number =
        || u64::from_str_radix(numbers.next().expect("nm prints numbers"), 16).expect("hexadecimal");
    (number(), number())
}

#[test]
fn ten_thousand_threads() {
    let program = program(&[]);
    let spool = Spool::default();
    let agent = spool.start_agent(&[], &[]);
    let death = Death::of(&mut program.command(&["many_threads", "10000"]));
    if death.status.code() == Some(77) {
        println!("SKIPPED: this machine allows no 10,000 threads");
        return;
    }
    let record = spool.wait_for_pid("many_threads", death.pid);
    let mut checks = Checks::of("many_threads", &record);
    check_death(&mut checks, &death, &program, &["many_threads", "10000"]);
    checks.is("/kind", "crash");
    checks.is("/exit/signal", "SIGABRT");
    checks.is("/threads/total", 10_001);
    checks.is("/process/thread_id", death.pid);
    let names = record["threads"]["by_name"].as_object();
    let counted: u64 = names.into_iter().flat_map(|names| names.values()).filter_map(Value::as_u64).sum();
    checks.holds(&format!("some names are counted: {counted}"), (1..=10_001).contains(&counted));
    checks.expect();
    println!("ten thousand threads: {:?} to disk", spool.latency(&record));
    assert_eq!(spool.of_pid(death.pid).len(), 1, "one record for all threads");
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
}

/// Secrets in arguments and on standard error never reach the disk; the rest of the text does.
#[test]
fn redaction() {
    let program = program(&[]);
    let spool = Spool::default();
    let agent = spool.start_agent(&["crash.redact=ticket=KAISOU-[0-9]+"], &[]);
    let arguments = [
        "stderr",
        "20",
        "--password=hunter2",
        "--token",
        "tok-55-secret",
        "--api-key=ak-66-secret",
        "postgres://app:hunter2@db:5432/fleet",
        "--verbose",
        "KAISOU-4712",
    ];
    let death = Death::of(&mut program.command(&arguments));
    let record = spool.wait_for_pid("stderr", death.pid);
    let mut checks = Checks::of("redaction", &record);
    let file = std::fs::read_to_string(spool.file(text(&record, "/id"))).expect("the record's file");
    let secrets = ["hunter2", "tok-55", "ak-66", "abcdef0123456789", "ghi-jkl", "KAISOU-4711", "KAISOU-4712"];
    for secret in secrets {
        checks.holds(&format!("{secret} is not in the file"), !file.contains(secret));
    }
    let found: Vec<&str> = record["process"]["command_args"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    checks.holds("no argument is left out", found.len() == arguments.len() + 1);
    checks.holds("the name of a secret stays", found.iter().any(|word| word.starts_with("--password")));
    checks.holds("harmless arguments stay", found.contains(&"--verbose") && found.contains(&"20"));
    for line in ["line 00000001 ", "line 00000020 ", "--password", "--user=app", "Authorization", " opened"] {
        checks.contains("/stderr/text", line);
    }
    checks.is("/stderr/is_truncated", false);
    checks.expect();

    // More than is kept: the end stays, with what there was in all.
    let death = Death::of(&mut program.command(&["stderr", "1000"]));
    let record = spool.wait_for_pid("much stderr", death.pid);
    let mut checks = Checks::of("much on standard error", &record);
    checks.is("/stderr/is_truncated", true);
    let written = record["stderr"]["written_bytes"].as_u64().unwrap_or_default();
    checks.holds("all bytes are counted", (64_000..64_400).contains(&written));
    let length = text(&record, "/stderr/text").len();
    checks.holds(&format!("{length} bytes are kept"), (4_000..=8_192 + 256).contains(&length));
    checks.contains("/stderr/text", "line 00001000 ");
    checks.holds("the beginning is gone", !text(&record, "/stderr/text").contains("line 00000001 "));
    checks.holds("no secret", !text(&record, "/stderr/text").contains("hunter2"));
    checks.expect();
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
}
