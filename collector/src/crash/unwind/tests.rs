//! Stacks of real processes, which write down their own registers, memory and maps in a signal handler.
//!
//! Refuses: made-up stacks where a compiler can make one; only damage and the other processor are synthetic.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol};
use proptest::prelude::*;

use super::*;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/crash/unwind/fixtures");

/// A snapshot that owns what it shows.
#[derive(Clone, Default)]
struct Captured {
    registers: [u64; 3],
    walked: Vec<u64>,
    memory: Vec<(u64, Vec<u8>)>,
    regions: Vec<CodeRegion>,
}

impl Captured {
    fn unwind(&self) -> Unwound {
        self.unwind_with(|captured, memory| StackSnapshot {
            ip: captured.registers[0],
            sp: captured.registers[1],
            fp: captured.registers[2],
            link: 0,
            memory,
            walked: &captured.walked,
        })
    }

    fn unwind_with<'a>(
        &'a self,
        snapshot: impl for<'b> Fn(&'b Self, &'b [(u64, &'b [u8])]) -> StackSnapshot<'b>,
    ) -> Unwound {
        let memory: Vec<(u64, &[u8])> =
            self.memory.iter().map(|(start, bytes)| (*start, bytes.as_slice())).collect();
        unwind(&snapshot(self, &memory), &self.regions)
    }

    /// Reads what `snapshot.c` wrote.
    fn parse(text: &str) -> Self {
        let number = |text: &str| u64::from_str_radix(text, 16).expect("a hexadecimal number");
        let mut captured = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next().expect("no empty line") {
                "registers" => {
                    captured.registers = std::array::from_fn(|_| number(words.next().expect("three")))
                }
                "walked" => captured.walked = words.map(number).collect(),
                "memory" => {
                    let start = number(words.next().expect("an address"));
                    let digits = words.next().expect("bytes").as_bytes().chunks(2);
                    let byte = |digits| number(std::str::from_utf8(digits).expect("digits")) as u8;
                    captured.memory.push((start, digits.map(byte).collect()));
                }
                range => {
                    let (start, end) = range.split_once('-').expect("a range");
                    let permissions = words.next().expect("permissions");
                    let file_offset = number(words.next().expect("an offset"));
                    let path = PathBuf::from(words.nth(2).unwrap_or_default());
                    if permissions.contains('x') {
                        let (start, end) = (number(start), number(end));
                        captured.regions.push(CodeRegion { start, end, file_offset, path });
                    }
                }
            }
        }
        captured
    }
}

/// How a program is built, and how it dies.
struct Case {
    /// `crash.c` or `crash.rs`.
    source: &'static str,
    flags: &'static [&'static str],
    way: &'static str,
}

impl Case {
    fn capture(&self) -> Captured {
        let directory = self.directory();
        let output = tempfile::NamedTempFile::new_in(&directory).expect("a file");
        let program = directory.join("program");
        let status = Command::new(program).arg(self.way).env("SNAPSHOT", output.path()).output();
        let status = status.expect("it starts");
        assert!(status.status.success(), "{}: {status:?}", self.way);
        Captured::parse(&std::fs::read_to_string(output.path()).expect("a snapshot"))
    }

    /// Where the program is, built on the first call.
    fn directory(&self) -> PathBuf {
        static ROOT: OnceLock<tempfile::TempDir> = OnceLock::new();
        static BUILD: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _one_at_a_time = BUILD.lock();
        let root = ROOT.get_or_init(|| tempfile::tempdir().expect("a directory"));
        let directory =
            root.path().join(format!("{}{}", self.source, self.flags.concat()).replace(['/', ','], "_"));
        if directory.is_dir() {
            return directory;
        }
        std::fs::create_dir(&directory).expect("made");
        let snapshot = directory.join("snapshot.o");
        let [helper, source] = ["snapshot.c", self.source].map(|name| format!("{FIXTURES}/{name}"));
        run(Command::new("cc").args(["-O1", "-fPIE", "-c", &helper, "-o"]).arg(&snapshot));
        let program = directory.join("program");
        if self.source.ends_with(".rs") {
            let object = format!("link-arg={}", snapshot.display());
            let edition = ["--edition=2024", "-C", &object, &source, "-o"];
            run(Command::new("rustc").args(self.flags).args(edition).arg(&program));
        } else {
            run(Command::new("cc")
                .args(self.flags)
                .args(["-w", &source])
                .arg(&snapshot)
                .arg("-o")
                .arg(&program));
        }
        directory
    }
}

fn run(command: &mut Command) {
    let output = command.output().expect("a compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Names of the frames: functions of the program itself, else the file; frames in one file are one.
fn names(unwound: &Unwound, regions: &[CodeRegion]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (index, address) in unwound.addresses.iter().enumerate() {
        let address = address.wrapping_sub(u64::from(index > 0));
        let region = regions.iter().find(|region| (region.start..region.end).contains(&address));
        let name = match region {
            None => "nowhere".to_owned(),
            Some(region) if region.path.file_name().is_some_and(|name| name == "program") => {
                function(region, address)
            }
            Some(region) if region.path.as_os_str().is_empty() => "anonymous".to_owned(),
            Some(region) => region.path.file_name().expect("a name").to_string_lossy().into_owned(),
        };
        if names.last() != Some(&name) || !name.starts_with("lib") {
            names.push(name);
        }
    }
    names
}

fn function(region: &CodeRegion, address: u64) -> String {
    let data = std::fs::read(&region.path).expect("readable");
    let file = object::File::parse(&*data).expect("a program");
    let offset = address - region.start + region.file_offset;
    let within = |segment: &object::Segment<'_, '_>| {
        let (start, size) = segment.file_range();
        (start..start + size).contains(&offset)
    };
    let segment = file.segments().find(within).expect("a segment");
    let address = segment.address() + offset - segment.file_range().0;
    let symbol = file.symbols().find(|symbol| {
        symbol.kind() == object::SymbolKind::Text
            && (symbol.address()..symbol.address() + symbol.size().max(1)).contains(&address)
    });
    symbol.map_or("unknown".to_owned(), |symbol| {
        symbol.name().expect("a name").trim_end_matches(".cold").to_owned()
    })
}

/// How a chain compares with the expected one.
enum Expected {
    Exactly(&'static [&'static str]),
    /// These functions, in this order, with others between them.
    Among(&'static [&'static str]),
}
use Expected::{Among, Exactly};

#[track_caller]
fn check(captured: &Captured, expected: Expected, by: Method, end: End) {
    let unwound = captured.unwind();
    let names = names(&unwound, &captured.regions);
    let is_same = match expected {
        Exactly(expected) => names == expected,
        Among(expected) => {
            let mut names = names.iter();
            expected.iter().all(|expected| names.any(|name| name == expected))
        }
    };
    assert!(is_same && unwound.by == by && unwound.end == end, "{names:#?} {unwound:x?}");
    assert!(unwound.addresses.len() <= FRAMES_MAX);
}

const WITH_FRAME_POINTERS: &[&str] = &["-O1", "-fno-omit-frame-pointer"];
const WITHOUT: &[&str] = &["-O2", "-fomit-frame-pointer"];
const TABLES: Method = Method::UnwindTables;

fn c(flags: &'static [&'static str], way: &'static str) -> Captured {
    Case { source: "crash.c", flags, way }.capture()
}

fn rust(flags: &'static [&'static str], way: &'static str) -> Captured {
    Case { source: "crash.rs", flags, way }.capture()
}

const LIBC: &str = "libc.so.6";
const ABORTED: &[&str] = &[LIBC, "third", "second", "first", "main", LIBC, "_start"];

#[test]
fn abort_in_a_library_without_frame_pointers() {
    check(&c(WITH_FRAME_POINTERS, "abort"), Exactly(ABORTED), TABLES, End::Root);
    check(&c(WITHOUT, "abort"), Exactly(ABORTED), TABLES, End::Root);
}

#[test]
fn programs_of_all_kinds() {
    let kinds: [&[&str]; 4] = [
        &["-O2", "-no-pie"],
        &["-O2", "-fomit-frame-pointer", "-static"],
        &["-O2", "-fomit-frame-pointer", "-static-pie"],
        &["-O2", "-fomit-frame-pointer", "-static", "-Wl,--no-eh-frame-hdr"],
    ];
    for flags in kinds {
        let functions = Among(&["third", "second", "first", "main", "_start"]);
        check(&c(flags, "null pointer"), functions, TABLES, End::Root);
        let functions = Among(&["third", "second", "first", "main", "_start"]);
        check(&c(flags, "abort"), functions, TABLES, End::Root);
    }
}

#[test]
fn calls_of_nothing() {
    let chain = &["nowhere", "third", "second", "first", "main", LIBC, "_start"];
    for flags in [WITH_FRAME_POINTERS, WITHOUT] {
        check(&c(flags, "null call"), Exactly(chain), TABLES, End::Root);
        check(&c(flags, "wild call"), Exactly(chain), TABLES, End::Root);
    }
}

#[test]
fn endless_recursion() {
    for flags in [WITH_FRAME_POINTERS, WITHOUT] {
        let captured = c(flags, "recursion");
        let unwound = captured.unwind();
        assert!(names(&unwound, &captured.regions).iter().all(|name| name == "recurse"), "{unwound:x?}");
        assert!(unwound.addresses.len() > 30, "{unwound:x?}");
        assert_eq!(unwound.by, TABLES);
    }
    assert_eq!(c(WITH_FRAME_POINTERS, "recursion").unwind().end, End::Bounded);
    assert_eq!(c(WITHOUT, "recursion").unwind().end, End::NoMemory);
}

#[test]
fn frames_behind_the_copied_memory() {
    let captured = c(WITH_FRAME_POINTERS, "deep");
    let unwound = captured.unwind();
    let found = names(&unwound, &captured.regions);
    let mut expected = vec!["nowhere"];
    expected.extend(["deep"; 20]);
    expected.extend(["third", "second", "first", "main", LIBC]);
    assert_eq!(found, expected, "{unwound:x?}");
    assert_eq!((unwound.by, unwound.end), (TABLES, End::NoMemory));
    let captured = c(WITHOUT, "deep");
    check(&captured, Among(&["nowhere", "deep", "deep", "deep", "deep"]), TABLES, End::NoMemory);
}

#[test]
fn smashed_stacks() {
    check(&c(WITHOUT, "smashed"), Exactly(&["smash", "smashed"]), TABLES, End::Corrupt);
}

#[test]
fn signals_within_signals() {
    let chain = &[LIBC, "give_up", LIBC, "third", "second", "first", "main", LIBC, "_start"];
    for flags in [WITH_FRAME_POINTERS, WITHOUT] {
        check(&c(flags, "handler"), Exactly(chain), TABLES, End::Root);
    }
}

#[test]
fn frames_that_expressions_describe() {
    let chain = &["aligned", "third", "second", "first", "main", LIBC, "_start"];
    check(&c(WITHOUT, "aligned"), Exactly(chain), TABLES, End::Root);
}

#[test]
fn code_of_a_jit_compiler() {
    let chain =
        &[LIBC, "called_back", "anonymous", "jit", "third", "second", "first", "main", LIBC, "_start"];
    let mut captured = c(WITHOUT, "jit");
    check(&captured, Exactly(chain), TABLES, End::Root);
    captured.regions.retain(|region| !region.path.as_os_str().is_empty());
    check(&captured, Exactly(&[LIBC, "called_back"]), TABLES, End::Corrupt);
}

#[test]
fn tables_that_loop() {
    let started = std::time::Instant::now();
    let captured = c(WITH_FRAME_POINTERS, "looping");
    check(&captured, Among(&["looping", "second", "first", "main"]), TABLES, End::Root);
    assert!(started.elapsed().as_secs() < 60);
}

#[test]
fn files_that_are_gone() {
    let mut captured = c(WITH_FRAME_POINTERS, "null pointer");
    for region in &mut captured.regions {
        region.path = PathBuf::from("/nonexistent");
    }
    let unwound = captured.unwind();
    assert_eq!(unwound.by, Method::FramePointers);
    assert!(unwound.addresses.len() >= 5, "{unwound:x?}");
}

#[test]
fn memory_that_was_not_copied() {
    let mut captured = c(WITH_FRAME_POINTERS, "null pointer");
    captured.memory.clear();
    let chain = &["third", "second", "first", "main", LIBC];
    check(&captured, Exactly(chain), Method::FramePointers, End::NoMemory);
}

#[test]
fn the_kernels_walk_only_if_it_has_all_that_the_unwinder_has() {
    let full = c(WITHOUT, "null pointer");
    let all = full.unwind().addresses;
    let mut captured = Captured { memory: Vec::new(), walked: all.clone(), ..full.clone() };
    let expected = Unwound { addresses: all.clone(), by: Method::FramePointers, end: End::Root };
    assert_eq!(captured.unwind(), expected);
    // With one caller's memory, and a walk that lacks this caller.
    // Its frame may lie across two of the pages that were copied.
    let bytes_all = full.memory.iter().map(|(_, part)| part.len()).sum::<usize>();
    let one_caller = (0..=bytes_all).step_by(8).find_map(|bytes| {
        let mut left = bytes;
        let mut memory = full.memory.clone();
        for (_, part) in &mut memory {
            part.truncate(left);
            left -= part.len();
        }
        let cut = Captured { memory, walked: Vec::new(), ..full.clone() };
        (cut.unwind().addresses.len() == 2).then_some(cut.memory)
    });
    captured.memory = one_caller.expect("there is a length that shows one caller");
    captured.walked = all.clone();
    captured.walked.remove(1);
    let unwound = captured.unwind();
    assert_eq!(unwound.addresses, all[..2], "{unwound:x?}");
    assert_eq!((unwound.by, unwound.end), (TABLES, End::NoMemory));
}

#[test]
fn words_that_are_no_return_addresses() {
    let mut captured = c(WITHOUT, "null call");
    // One byte before the return address is within the call.
    captured.memory[0].1[0] -= 1;
    let unwound = captured.unwind();
    assert_eq!(unwound.addresses, [0], "{unwound:x?}");
}

#[test]
fn rust_programs() {
    let flags: &[&[&str]] = &[
        &["-O", "-Cpanic=abort", "-Cdebuginfo=0"],
        &["-Cpanic=abort", "-Cforce-frame-pointers=yes"],
        &["-O", "-Cpanic=unwind"],
    ];
    for flags in flags {
        check(&rust(flags, "abort"), Among(&[LIBC, "third", "second", LIBC]), TABLES, End::Root);
    }
    check(&rust(flags[0], "panic"), Among(&[LIBC, "third", "second", LIBC]), TABLES, End::Root);
    let captured = rust(flags[0], "overflow");
    let unwound = captured.unwind();
    assert!(names(&unwound, &captured.regions).iter().all(|name| name == "third"), "{unwound:x?}");
    assert!(unwound.addresses.len() > 20, "{unwound:x?}");
}

/// As a runtime does that runs its own code on another stack: the link of the last copied frame leads downwards.
#[test]
fn a_stack_switch_that_only_the_kernel_followed() {
    let regions = [CodeRegion { start: 0x1000, end: 0x9000, file_offset: 0, path: PathBuf::new() }];
    let stack: Vec<u8> = [0, 0, 0x2_0000u64, 0x2004].into_iter().flat_map(u64::to_le_bytes).collect();
    let memory = [(0x7_0000, stack.as_slice())];
    let walked = [0x1004, 0x2004, 0x3004, 0x4004];
    let snapshot =
        StackSnapshot { ip: 0x1004, sp: 0x7_0000, fp: 0x7_0010, link: 0, memory: &memory, walked: &walked };
    let unwound = unwind(&snapshot, &regions);
    assert_eq!((unwound.addresses.as_slice(), unwound.by), (walked.as_slice(), Method::FramePointers));
    let other = StackSnapshot { walked: &[0x1004, 0x2008, 0x3004], ..snapshot };
    assert_eq!(unwind(&other, &regions).addresses, [0x1004, 0x2004]);
}

#[test]
fn aarch64_without_tables() {
    let regions = [CodeRegion { start: 0x1000, end: 0x9000, file_offset: 0, path: PathBuf::new() }];
    let mut stack = Vec::new();
    for word in [0x7020u64, 0x12_0000_0000_2004, 0, 0, 0x0, 0x3004] {
        stack.extend_from_slice(&word.to_le_bytes());
    }
    let memory = [(0x7000, stack.as_slice())];
    let snapshot =
        StackSnapshot { ip: 0, sp: 0x7000, fp: 0x7000, link: 0x4004, memory: &memory, walked: &[] };
    let unwound = unwind_on(&Processor::AARCH64, &snapshot, &regions);
    assert_eq!(unwound.addresses, [0, 0x4004, 0x2004, 0x3004]);
    assert_eq!(unwound.end, End::Root);
}

/// Tables of aarch64 in a file of this machine: the numbers of registers are all that differs.
#[test]
fn aarch64_tables() {
    let directory = tempfile::tempdir().expect("a directory");
    let (source, library) = (directory.path().join("tables.s"), directory.path().join("library.so"));
    // Each has one `bl`: a leaf without a frame, a function with a signed frame, the root.
    let function = |name: &str, rules: &str| {
        format!(".globl {name}\n{name}: .cfi_startproc simple\n{rules}\n.long 0x94000000, 0\n.cfi_endproc\n")
    };
    let rules = [
        function("leaf", ".cfi_def_cfa 31, 0"),
        function("middle", ".cfi_def_cfa 31, 32\n.cfi_offset 29, -32\n.cfi_offset 30, -24\n.cfi_escape 0x2d"),
        function("framed", ".cfi_def_cfa 29, 16\n.cfi_offset 29, -16\n.cfi_offset 30, -8"),
        function("root", ".cfi_def_cfa 31, 0\n.cfi_undefined 30"),
    ];
    std::fs::write(&source, rules.concat()).expect("written");
    run(Command::new("cc").args(["-nostdlib", "-shared", "-o"]).arg(&library).arg(&source));
    let data = std::fs::read(&library).expect("readable");
    let file = object::File::parse(&*data).expect("a library");
    let text = file.section_by_name(".text").expect("code");
    let (offset, size) = text.file_range().expect("in the file");
    let start = 0x7f00_0000_0000;
    let regions = [CodeRegion { start, end: start + size, file_offset: offset, path: library }];
    let symbol = |name| {
        let symbol = file.dynamic_symbols().find(|symbol| symbol.name() == Ok(name)).expect("a function");
        symbol.address() - text.address() + start
    };
    let [leaf, middle, framed, root] = ["leaf", "middle", "framed", "root"].map(symbol);
    let words = [0x7040, (0x12 << 48) | (framed + 4), 0, 0, 0, 0, 0, 0, 0, root + 4];
    let stack: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    let memory = [(0x7000, stack.as_slice())];
    let check = |ip, link, expected: &[u64]| {
        let snapshot = StackSnapshot { ip, sp: 0x7000, fp: 5, link, memory: &memory, walked: &[] };
        let unwound = unwind_on(&Processor::AARCH64, &snapshot, &regions);
        assert_eq!((unwound.addresses.as_slice(), unwound.end), (expected, End::Root), "{unwound:x?}");
    };
    check(leaf, middle + 4, &[leaf, middle + 4, framed + 4, root + 4]);
    check(middle + 4, 0, &[middle + 4, framed + 4, root + 4]);
    check(0, middle + 4, &[0, middle + 4, framed + 4, root + 4]);
}

/// Any answer is bounded, starts with the instruction pointer, and has known code behind it.
fn check_bounded(captured: &Captured) -> Result<(), TestCaseError> {
    let unwound = captured.unwind();
    prop_assert!(unwound.addresses.len() <= FRAMES_MAX);
    prop_assert_eq!(unwound.addresses.first(), captured.registers.first());
    for address in unwound.addresses.iter().skip(1) {
        let is_known = |region: &CodeRegion| (region.start..region.end).contains(&(address - 1));
        prop_assert!(captured.regions.iter().any(is_known), "{:x}", address);
    }
    Ok(())
}

fn captured_once() -> &'static Captured {
    static CAPTURED: OnceLock<Captured> = OnceLock::new();
    CAPTURED.get_or_init(|| c(WITHOUT, "abort"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_memory_and_registers(
        registers in any::<[u64; 3]>(),
        near in any::<[bool; 3]>(),
        code in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 0..600),
        walked in prop::collection::vec(any::<u64>(), 0..300),
        start in any::<u64>(),
    ) {
        let real = captured_once();
        // Half of the words are addresses of code or of the stack: plain noise ends at once.
        let word = |(index, noise): &(prop::sample::Index, u64)| {
            let region = index.get(&real.regions);
            match noise % 4 {
                0 => *noise,
                1 => real.registers[1] + noise / 4 % 4_800 / 8 * 8,
                _ => region.start + noise / 4 % (region.end - region.start),
            }
        };
        let mut captured = real.clone();
        let bytes: Vec<u8> = code.iter().map(word).flat_map(u64::to_le_bytes).collect();
        captured.memory = vec![(if near[0] { real.registers[1] } else { start }, bytes)];
        for ((register, real), near) in captured.registers.iter_mut().zip(registers).zip(near) {
            *register = if near { *register } else { real };
        }
        captured.walked = walked;
        check_bounded(&captured)?;
    }

    #[test]
    fn broken_files(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        in_header in any::<bool>(),
        length in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut captured = captured_once().clone();
        let is_program = |path: &Path| path.file_name().is_some_and(|name| name == "program");
        let path = captured.regions.iter().find(|region| is_program(&region.path)).expect("a program").path.clone();
        let mut bytes = std::fs::read(&path).expect("readable");
        let file = object::File::parse(&*bytes).expect("a program");
        let section = |name| file.section_by_name(name).and_then(|section| section.file_range()).expect("a section");
        let (start, _) = section(".eh_frame_hdr");
        let (last, size) = section(".eh_frame");
        let (from, to) = if in_header { (0, 64 + 56 * 13) } else { (start as usize, (last + size) as usize) };
        for (index, value) in changes {
            bytes[from + index.index(to - from)] = value;
        }
        if let Some(length) = length {
            bytes.truncate(length.index(bytes.len()));
        }
        let broken = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(broken.path(), bytes).expect("written");
        for region in &mut captured.regions {
            if region.path == path {
                region.path = broken.path().to_path_buf();
            }
        }
        check_bounded(&captured)?;
    }
}
