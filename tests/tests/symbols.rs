//! Names: of code made at run time, of stripped, deleted and broken files, of C++ and Rust, of inlined functions.
//!
//! Refuses: a wrong name, which is worse than none; and dropping what has no name.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tests::agent::{Agent, STOP_MAX};
use tests::profile::{self, Frame, Stack};
use tests::tools;
use tests::workload::{FRAME_POINTERS, Program, Running, source, utf8};

/// Samples of three seconds that a program surely gets on two CPUs beside another one.
const SAMPLES_MIN: u64 = 80;

/// Stacks of one running program, by way of an OTLP file.
fn stacks_of(program: &Running, directory: &Path, more: &[&str]) -> Vec<Stack> {
    let path = directory.join("profile.otlp");
    let pid = program.pid().to_string();
    let arguments = [&["--pid", &pid, "--duration", "3s", "-o", utf8(&path)], more].concat();
    Agent::profile(&arguments).finish(STOP_MAX + STOP_MAX).expect_code(0);
    profile::of_otlp_file(&std::fs::read(path).expect("the OTLP file"))
}

/// The share of samples, in percent, in which the condition holds for a frame.
fn percent(stacks: &[Stack], is_wanted: impl Fn(&Frame) -> bool) -> u64 {
    let total = profile::total(stacks);
    assert!(total >= SAMPLES_MIN, "{total} samples");
    let found = stacks.iter().filter(|stack| stack.frames.iter().any(&is_wanted));
    profile::total(found) * 100 / total
}

#[track_caller]
fn expect_percent(stacks: &[Stack], percent_min: u64, what: &str, is_wanted: impl Fn(&Frame) -> bool) {
    let found = percent(stacks, is_wanted);
    assert!(
        found >= percent_min,
        "{what} in {found} % of samples, wanted {percent_min} %; innermost functions: {:?}",
        profile::leaves(stacks)
    );
}

#[test]
fn perf_map_of_a_jit() {
    let program = Program::c("runtime.c", FRAME_POINTERS);
    let running = program.start(&["60"]);
    running.wait_until(|_| Path::new(&format!("/tmp/perf-{}.map", running.pid())).exists());
    let stacks = stacks_of(&running, program.directory(), &[]);
    let map = format!("/tmp/perf-{}.map", running.pid());
    drop(running);
    std::fs::remove_file(map).expect("the map of a killed program is still there");
    expect_percent(&stacks, 90, "jit_busy_loop", |frame| frame.name == "jit_busy_loop");
    expect_percent(&stacks, 90, "main below it", |frame| frame.name == "main");
}

#[test]
fn perf_map_of_node() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let mut command = Command::new("node");
    command.args(["--perf-basic-prof", "--interpreted-frames-native-stack", utf8(&source("busy.js")), "60"]);
    // There it leaves a log.
    command.current_dir(directory.path());
    let running = Running::start(&mut command);
    let map = format!("/tmp/perf-{}.map", running.pid());
    running.wait_until(|_| std::fs::read_to_string(&map).is_ok_and(|text| text.contains("busyFunction")));
    let stacks = stacks_of(&running, directory.path(), &[]);
    drop(running);
    std::fs::remove_file(map).expect("the map of a killed program is still there");
    expect_percent(&stacks, 80, "busyFunction", |frame| frame.name.contains("busyFunction"));
}

/// A debug file under `/usr/lib/debug/.build-id`, removed with its handle, with the directory made for it.
struct BuildIdFile {
    path: PathBuf,
    made: Vec<PathBuf>,
}

impl BuildIdFile {
    fn put(build_id: &str, debug: &Path) -> Self {
        let (first, rest) = build_id.split_at(2);
        let mut directory = PathBuf::from("/usr/lib/debug");
        let mut made = Vec::new();
        for segment in ["", ".build-id", first] {
            directory.push(segment);
            if !directory.exists() {
                std::fs::create_dir(&directory).expect("root may write there");
                made.push(directory.clone());
            }
        }
        let path = directory.join(format!("{rest}.debug"));
        std::fs::copy(debug, &path).expect("root may write there");
        Self { path, made }
    }
}

impl Drop for BuildIdFile {
    fn drop(&mut self) {
        // A leftover is another test's problem only if it has the same build id.
        let _gone = std::fs::remove_file(&self.path);
        for directory in self.made.iter().rev() {
            let _in_use = std::fs::remove_dir(directory);
        }
    }
}

fn objcopy(arguments: &[&str]) {
    tools::require("objcopy", "binutils");
    tools::succeed(Command::new("objcopy").args(arguments));
}

/// A build id of our own, so that no debug file of an earlier run fits.
fn fresh_build_id() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    format!("{:032x}{:08x}", now.as_nanos(), std::process::id())
}

/// A program with fresh build id, its debug file beside it, and itself stripped.
fn stripped_program() -> (Program, PathBuf, String) {
    let build_id = fresh_build_id();
    let flag = format!("-Wl,--build-id=0x{build_id}");
    let program = Program::c("spin.c", &[FRAME_POINTERS, &["-g", &flag]].concat());
    let debug = program.directory().join("spin.debug");
    objcopy(&["--only-keep-debug", utf8(program.path()), utf8(&debug)]);
    objcopy(&["--strip-all", utf8(program.path())]);
    (program, debug, build_id)
}

const SPINNERS: [&str; 3] = ["spin_seventy", "spin_twenty", "spin_ten"];

fn is_spinner(frame: &Frame) -> bool {
    SPINNERS.contains(&frame.name.as_str())
}

/// Nothing is dropped for want of a name: the module and the offset stand for it.
#[track_caller]
fn expect_unnamed(stacks: &[Stack]) {
    expect_percent(stacks, 90, "spin+0x...", |frame| frame.name.starts_with("spin+0x"));
    assert_eq!(percent(stacks, is_spinner), 0, "a name out of nowhere");
}

#[test]
fn stripped_without_a_debug_file() {
    let (program, debug, _) = stripped_program();
    std::fs::remove_file(debug).expect("it was just written");
    let running = program.start(&["60"]);
    expect_unnamed(&stacks_of(&running, program.directory(), &[]));
}

#[test]
fn stripped_with_a_build_id_file() {
    let (program, debug, build_id) = stripped_program();
    let _file = BuildIdFile::put(&build_id, &debug);
    std::fs::remove_file(debug).expect("it was just written");
    let running = program.start(&["60"]);
    for more in [&[][..], &["--lines"]] {
        let stacks = stacks_of(&running, program.directory(), more);
        expect_percent(&stacks, 90, &format!("names {more:?}"), is_spinner);
        expect_percent(&stacks, 90, &format!("main {more:?}"), |frame| frame.name == "main");
    }
}

#[test]
fn stripped_with_a_debug_link() {
    let check = |place: &str| {
        let (program, debug, _) = stripped_program();
        objcopy(&[&format!("--add-gnu-debuglink={}", utf8(&debug)), utf8(program.path())]);
        let target = program.directory().join(place);
        std::fs::create_dir_all(target.parent().expect("a directory")).expect("ours");
        if target != debug {
            std::fs::rename(&debug, &target).expect("ours");
        }
        let running = program.start(&["60"]);
        for more in [&[][..], &["--lines"]] {
            let stacks = stacks_of(&running, program.directory(), more);
            expect_percent(&stacks, 90, &format!("names by {place} {more:?}"), is_spinner);
        }
    };
    check("spin.debug");
    check(".debug/spin.debug");
}

/// A debug file of another build under the linked name: its names would be lies.
#[test]
fn debug_link_to_another_build() {
    let (program, debug, _) = stripped_program();
    objcopy(&[&format!("--add-gnu-debuglink={}", utf8(&debug)), utf8(program.path())]);
    let other = Program::c("mixed.c", &[FRAME_POINTERS, &["-g"]].concat());
    objcopy(&["--only-keep-debug", utf8(other.path()), utf8(&debug)]);
    let running = program.start(&["60"]);
    for more in [&[][..], &["--lines"]] {
        let stacks = stacks_of(&running, program.directory(), more);
        expect_unnamed(&stacks);
        let lies = percent(&stacks, |frame| frame.name.starts_with("mixed_"));
        assert_eq!(lies, 0, "{more:?}: names of another program: {:?}", profile::leaves(&stacks));
    }
}

#[test]
fn deleted_while_it_runs() {
    for flags in [&[][..], &["-Wl,--build-id=none"]] {
        let program = Program::c("spin.c", &[FRAME_POINTERS, flags].concat());
        let running = program.start(&["60"]);
        running.wait_until(|process| {
            std::fs::read_link(format!("{process}/exe")).is_ok_and(|path| path == program.path())
        });
        std::fs::remove_file(program.path()).expect("it is there");
        let stacks = stacks_of(&running, program.directory(), &[]);
        expect_percent(&stacks, 90, &format!("names of a deleted file {flags:?}"), is_spinner);
        assert!(stacks.iter().all(|stack| stack.process == "spin"), "{:?}", stacks.first());
    }
}

/// A new build over the old file, which still runs: the new file's names would be lies.
#[test]
fn replaced_while_it_runs() {
    let program = Program::c("spin.c", FRAME_POINTERS);
    let running = program.start(&["60"]);
    running.wait_until(|process| {
        std::fs::read_link(format!("{process}/exe")).is_ok_and(|path| path == program.path())
    });
    let other = Program::c("mixed.c", FRAME_POINTERS);
    std::fs::remove_file(program.path()).expect("it is there");
    std::fs::copy(other.path(), program.path()).expect("ours");
    let stacks = stacks_of(&running, program.directory(), &[]);
    expect_percent(&stacks, 90, "names of the old file", is_spinner);
    assert_eq!(percent(&stacks, |frame| frame.name.starts_with("mixed_")), 0, "names of the new file");
}

#[test]
fn demangled() {
    let check = |program: &Program, expected: &str| {
        let running = program.start(&["60"]);
        let stacks = stacks_of(&running, program.directory(), &[]);
        expect_percent(&stacks, 90, expected, |frame| frame.name == expected);
        let mangled = percent(&stacks, |f| f.name.starts_with("_ZN") || f.name.starts_with("_R"));
        assert_eq!(mangled, 0, "{:?}", profile::leaves(&stacks));
    };
    check(&Program::cpp("templated.cpp", FRAME_POINTERS), "orbit::Body<int>::advance(int)");
    check(&Program::rust("tower.rs"), "tower::orbit::Climber::climb");
}

/// Go's pprof shortens names that it believes to be mangled; ours are not and must come through whole.
#[test]
fn demangled_names_survive_pprof() {
    let program = Program::cpp("templated.cpp", FRAME_POINTERS);
    let running = program.start(&["60"]);
    let path = program.directory().join("a.pb.gz");
    let pid = running.pid().to_string();
    Agent::profile(&["--pid", &pid, "--duration", "3s", "-o", utf8(&path)]).finish(STOP_MAX).expect_code(0);
    let stacks = profile::of_pprof_text(&tools::pprof_raw(&path));
    expect_percent(&stacks, 90, "the whole name", |frame| frame.name == "orbit::Body<int>::advance(int)");
}

/// The lines of the loop in inlined.c, by their marks.
fn loop_lines() -> (u64, u64) {
    let text = std::fs::read_to_string(source("inlined.c")).expect("the source");
    let line = |mark: &str| {
        let index = text.lines().position(|line| line.contains(mark)).expect("a marked line");
        index as u64 + 1
    };
    (line("first line of the loop"), line("last line of the loop"))
}

/// The inlined function with file and line, inside of the function that holds it.
#[track_caller]
fn expect_inlined(form: &str, stacks: &[Stack]) {
    let (first, last) = loop_lines();
    let total = profile::total(stacks);
    assert!(total >= SAMPLES_MIN, "{form}: {total} samples");
    let is_right = |stack: &&Stack| {
        stack.frames.windows(2).any(|pair| {
            let place =
                |frame: &Frame| frame.file.as_ref().is_some_and(|file| file.ends_with("workloads/inlined.c"));
            pair[0].name == "holder_loop"
                && pair[1].name == "inlined_blend"
                && place(&pair[0])
                && place(&pair[1])
                && (first..=last).contains(&pair[1].line)
                && pair[0].line > last
        })
    };
    let right = profile::total(stacks.iter().filter(is_right));
    assert!(
        right * 100 >= total * 90,
        "{form}: {right} of {total} samples have the inlined function in lines {first} to {last}: {:#?}",
        stacks.first()
    );
}

#[test]
fn inlined_functions_and_lines() {
    let program = Program::c("inlined.c", &["-O2", "-g", "-fno-omit-frame-pointer"]);
    let running = program.start(&["60"]);
    expect_inlined("OTLP", &stacks_of(&running, program.directory(), &["--lines"]));
    let path = program.directory().join("a.pb.gz");
    let pid = running.pid().to_string();
    let arguments = ["--pid", &pid, "--lines", "--duration", "3s", "-o", utf8(&path)];
    Agent::profile(&arguments).finish(STOP_MAX).expect_code(0);
    expect_inlined("pprof", &profile::of_pprof_text(&tools::pprof_raw(&path)));
    // Without DWARF the symbol table alone tells, and nothing is claimed about lines.
    let plain = stacks_of(&running, program.directory(), &[]);
    expect_percent(&plain, 90, "holder_loop", |frame| frame.name == "holder_loop");
    assert_eq!(percent(&plain, |frame| frame.name == "inlined_blend"), 0, "inlined without --lines");
}

#[test]
fn vdso() {
    let program = Program::c("clock.c", FRAME_POINTERS);
    let running = program.start(&["60"]);
    let stacks = stacks_of(&running, program.directory(), &[]);
    expect_percent(&stacks, 50, "clock_gettime of the vDSO", |frame| {
        frame.module == "[vdso]" && frame.name.contains("clock_gettime")
    });
    let unnamed = percent(&stacks, |frame| frame.name.starts_with("[vdso]+0x"));
    assert_eq!(unnamed, 0, "{:?}", profile::leaves(&stacks));
}

/// Files that start like ELF and are broken behind it, by a generator with a fixed seed.
fn broken_files(directory: &Path, model: &Path) -> Vec<PathBuf> {
    let model = std::fs::read(model).expect("a program");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut variants: Vec<Vec<u8>> = vec![
        model[..4096.min(model.len())].to_vec(),
        model[..64].to_vec(),
        b"\x7fELF".to_vec(),
        Vec::new(),
        (0..8192).map(|_| random() as u8).collect(),
        [&model[..16], &vec![0xff; 8192][..]].concat(),
    ];
    // Fields of the header at their extremes: program and section header offsets, counts, sizes, string index.
    for range in [32..40, 40..48, 54..56, 56..58, 58..60, 60..62, 62..64] {
        for value in [0xff, 0x7f, 0x01] {
            let mut variant = model.clone();
            variant[range.clone()].fill(value);
            variants.push(variant);
        }
    }
    // Noise over the program headers, and over the whole file.
    for turn in 0..16 {
        let mut variant = model.clone();
        let end = if turn % 2 == 0 { 1024 } else { variant.len() };
        for _ in 0..64 {
            let index = 16 + random() as usize % (end - 16);
            variant[index] = random() as u8;
        }
        variants.push(variant);
    }
    // The code is written at 4096; a file must reach that far to be mapped there.
    let write = |(index, mut variant): (usize, Vec<u8>)| {
        variant.resize(variant.len().max(4096), 0);
        let path = directory.join(format!("broken-{index}.so"));
        tools::write_file(&path, &variant);
        path
    };
    variants.into_iter().enumerate().map(write).collect()
}

#[test]
fn broken_files_do_no_harm() {
    let program = Program::c("garbage.c", &[FRAME_POINTERS, &["-g"]].concat());
    // Not of this program itself: a build id stands for one content, and broken twins would take its names away.
    let model = Program::c("spin.c", FRAME_POINTERS);
    let files = broken_files(program.directory(), model.path());
    let arguments: Vec<&str> = ["60"].into_iter().chain(files.iter().map(|path| utf8(path))).collect();
    let running = program.start(&arguments);
    running.wait_until(|process| {
        std::fs::read_to_string(format!("{process}/maps")).is_ok_and(|maps| maps.contains("broken-20.so"))
    });
    for more in [&[][..], &["--lines"]] {
        let stacks = stacks_of(&running, program.directory(), more);
        expect_percent(&stacks, 90, "main", |frame| frame.name == "main");
        // About half of the files keep their build id, and one build id has one set of names: those of the file that is
        // opened first, which may be an intact one.
        let by_offset = |name: &str| name.starts_with("broken-") && name.contains(".so+0x");
        expect_percent(&stacks, 20, "broken files by their offsets", |frame| by_offset(&frame.name));
        expect_percent(&stacks, 50, "broken files by offset or by the intact file's names", |frame| {
            by_offset(&frame.name) || ["_init", "_end"].contains(&&*frame.name)
        });
    }
    // The daemon too, over several windows.
    let graph = format!("local.flame_graph={}/flame.html", program.directory().display());
    let arguments = [
        "--duration",
        "4s",
        "--set",
        &graph,
        "--set",
        "profile.window_ms=500",
        "--set",
        "symbols.lines=true",
    ];
    let finished = Agent::run(&arguments, &[]).finish(Duration::from_secs(4) + STOP_MAX).expect_code(0);
    finished.books().expect_balance();
}
