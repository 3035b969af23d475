//! One number for deaths of one cause: the same for every build, address and line, so that they can be counted.
//!
//! Refuses: addresses, offsets, lines and times. What differs between two runs of one bug must not enter.

mod function;
mod last_words;
mod module;

use std::borrow::Cow;
use std::hash::Hasher;

use fnv::FnvHasher;

use super::record::{Kind, StackFrame};

/// Frames that enter, after the machinery of dying is skipped and recursion is collapsed.
const FRAMES_MAX: usize = 5;

/// The fingerprint, 16 hexadecimal digits. `reason` is the signal's name or the exit code, or empty.
/// `stderr_last_words` counts only without a stack.
pub fn fingerprint(
    kind: Kind,
    executable: &str,
    reason: &str,
    stack: &[StackFrame],
    stderr_last_words: Option<&str>,
) -> String {
    let mut hasher = FnvHasher::default();
    // Each part ends with a byte that UTF-8 does not have, so that no two lists of parts look the same.
    let mut add = |part: &str| {
        hasher.write(part.as_bytes());
        hasher.write(&[0xff]);
    };
    [kind.name(), executable, reason].into_iter().for_each(&mut add);
    let frames = frames(stack);
    frames.iter().for_each(|frame| add(frame));
    if frames.is_empty()
        && let Some(words) = stderr_last_words
    {
        add(&last_words::normalised(words));
    }
    format!("{:016x}", hasher.finish())
}

/// The innermost frame that is not the machinery of dying: where an engineer looks first.
pub fn own_frame(stack: &[StackFrame]) -> Option<&StackFrame> {
    let is_machinery = |frame: &&StackFrame| {
        frame.function.as_deref().is_some_and(|name| function::is_machinery(&function::normalised(name)))
    };
    stack.iter().find(|frame| !is_machinery(frame)).or(stack.first())
}

/// The normalised frames that enter, innermost first.
fn frames(stack: &[StackFrame]) -> Vec<Cow<'_, str>> {
    let names = || {
        stack.iter().map(|frame| match frame.function.as_deref().map(function::normalised) {
            Some(name) if !name.is_empty() => Cow::Owned(name),
            _ => module::normalised(frame.module.as_deref().unwrap_or_default()),
        })
    };
    let mut frames: Vec<Cow<'_, str>> = Vec::with_capacity(FRAMES_MAX);
    for name in names().skip_while(|name| function::is_machinery(name)) {
        if frames.last() == Some(&name) {
            continue;
        }
        if frames.len() == FRAMES_MAX {
            break;
        }
        frames.push(name);
    }
    // A stack of nothing but machinery still tells an abort from a panic.
    if frames.is_empty() { names().take(1).collect() } else { frames }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stack of functions, `?module` where the function is not known, at other addresses each time.
    fn stack(names: &str, seed: u64) -> Vec<StackFrame> {
        let frame = |(number, name): (usize, &str)| {
            let position = seed + number as u64;
            let (function, module) = match name.trim().strip_prefix('?') {
                Some(module) => (None, module),
                None => (Some(name.trim().to_owned()), "/app/bin"),
            };
            StackFrame {
                address: format!("{position:#x}"),
                function,
                module: Some(module.to_owned()),
                build_id: Some(format!("{seed:x}")),
                offset: Some(position),
                file: Some("src/x.c".to_owned()),
                line: Some(seed as u32),
                inlined: seed.is_multiple_of(2),
            }
        };
        names.split('|').enumerate().map(frame).collect()
    }

    fn of(names: &str, seed: u64) -> String {
        fingerprint(Kind::Crash, "app", "SIGSEGV", &stack(names, seed), None)
    }

    fn check_same(one: &str, other: &str) {
        assert_eq!(of(one, 0x1000), of(other, 0x7fff_1234), "{one} and {other}");
    }

    fn check_different(one: &str, other: &str) {
        assert_ne!(of(one, 1), of(other, 1), "{one} and {other}");
    }

    #[test]
    fn two_builds() {
        check_same("main", "main");
        check_same("app::run::h0123456789abcdef|main", "app::run::hfedcba9876543210|main");
        check_same("app::run::{{closure}}::h0123456789abcdef", "app[0123456789abcdef]::run::{closure#3}");
        check_same("parse.isra.0|work|main", "parse.constprop.0.cold|work.part.3|main.llvm.1234567");
        check_same("f(int)|main", "f(long)|main");
        check_same(
            "std::vector<int>::at(unsigned long)|main",
            "std::vector<long>::at(unsigned int) const|main",
        );
        check_same("main.run.func1.2|main.main", "main.run.func3|main.main");
        check_same("?/lib/libfoo.so.1.2.3|main", "?/usr/lib64/libfoo.so.1.2.4|main");
        check_same("?|main", "?[anon:jit]|main");
        check_same("?/tmp/.jit/jitted-12-3.so|main", "?/memfd:doublemapper (deleted)|main");
    }

    #[test]
    fn two_bugs() {
        check_different("f|main", "g|main");
        check_different("f|main", "f|g|main");
        check_different("f|main", "fmain");
        check_different("operator<|main", "operator>|main");
        check_different("main.(*Server).Serve", "main.(*Client).Serve");
        check_different("<a::X as core::ops::Drop>::drop", "<a::Y as core::ops::Drop>::drop");
        check_different("?/lib/libfoo.so.1|main", "?/lib/libbar.so.1|main");
        check_different("abort", "core::panicking::panic");
    }

    #[test]
    fn the_machinery_of_dying_is_skipped() {
        check_same("f|main", "__pthread_kill_implementation|raise|abort|f|main");
        check_same("f|main", "__GI_raise|__GI_abort|__libc_message_impl.cold|malloc_printerr|f|main");
        check_same("f|main", "raise|abort|__assert_fail_base.cold|__GI___assert_fail|f|main");
        check_same("f|main", "raise|abort|std::terminate()|__cxa_throw|f|main");
        check_same(
            "f|main",
            "rust_panic|std::panicking::rust_panic_with_hook::h0123456789abcdef|rust_begin_unwind\
            |core::panicking::panic_fmt|core::result::unwrap_failed|core::result::Result<T,E>::unwrap|f|main",
        );
        check_same(
            "main.f|main.main",
            "runtime.raise.abi0|runtime.gopanic|runtime.panicmem|runtime.sigpanic|main.f|main.main",
        );
        check_same("f|main", "raise|abort|node::Abort()|node::Assert(node::AssertionInfo const&)|f|main");
        // Not in the middle, and not by a mere beginning.
        check_different("f|abort|main", "f|main");
        check_different("aborted|main", "main");
        check_different("raise_taxes|main", "main");
    }

    #[test]
    fn recursion_of_any_depth() {
        let deep = |depth: usize| format!("{}main", "visit|".repeat(depth));
        check_same(&deep(1), &deep(2));
        check_same(&deep(3), &deep(5_000));
        check_different(&deep(3), "main");
    }

    #[test]
    fn only_the_top_frames_enter() {
        check_same("a|b|c|d|e|f", "a|b|c|d|e|g|h");
        check_different("a|b|c|d|e", "a|b|c|d|x");
    }

    fn of_words(words: Option<&str>) -> String {
        fingerprint(Kind::Exit, "app", "1", &[], words)
    }

    #[test]
    fn without_a_stack() {
        assert_eq!(of_words(Some("a\nKeyError: 'x'\n")), of_words(Some("b\nKeyError: 'y'")));
        assert_ne!(of_words(Some("KeyError: 'x'")), of_words(Some("ValueError: 'x'")));
        assert_ne!(of_words(None), of_words(Some("KeyError")));
        let with = |words| fingerprint(Kind::Exit, "app", "1", &stack("main", 1), words);
        assert_eq!(with(None), with(Some("KeyError")));
    }

    #[test]
    fn kind_executable_and_reason_enter() {
        let one = fingerprint(Kind::Crash, "app", "SIGSEGV", &[], None);
        for other in [
            fingerprint(Kind::Kill, "app", "SIGSEGV", &[], None),
            fingerprint(Kind::Crash, "apps", "IGSEGV", &[], None),
            fingerprint(Kind::Crash, "app", "SIGBUS", &[], None),
        ] {
            assert_ne!(one, other);
        }
        // It stays this for ever: dashboards and issues refer to it.
        assert_eq!(one, "19bed123b85137b8");
        assert_eq!(of("f|main", 1), "ae024ed5f27238c3");
    }

    proptest::proptest! {
        #[test]
        fn any_stack(names in proptest::collection::vec(".{0,60}", 0..8), words in ".{0,200}") {
            let any = fingerprint(Kind::Crash, &words, &words, &stack(&names.join("|"), 3), Some(&words));
            proptest::prop_assert_eq!(any.len(), 16);
        }
    }
}
