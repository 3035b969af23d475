//! The name of a function without what a compiler, a build or an instantiation adds.
//!
//! Refuses: demangling, which was done before.

/// A longer name is cut.
const NAME_BYTES_MAX: usize = 4_096;

/// Digits of the hash that Rust's older mangling appends.
const RUST_HASH_DIGITS: usize = 16;

/// Parts of a function that compilers split off or copy; Go's names for its calling conventions.
const COMPILER_SUFFIXES: [&str; 13] = [
    "isra",
    "part",
    "cold",
    "constprop",
    "llvm",
    "lto_priv",
    "localalias",
    "clone",
    "warm",
    "__uniq",
    "resolver",
    "abi0",
    "abiinternal",
];

/// What Node.js puts before the names of its functions in perf maps.
const JAVASCRIPT_PREFIXES: [&str; 5] = ["JS:", "LazyCompile:", "Function:", "Script:", "Eval:"];

/// Symbols of C++ operators that contain brackets, longer ones first.
const OPERATORS: [&str; 12] = ["<=>", "<<=", ">>=", "->*", "<<", ">>", "<=", ">=", "->", "()", "<", ">"];

/// Counters of closures, lambdas and anonymous namespaces follow these.
const COUNTED: [&str; 4] = ["#", "$_", "_GLOBAL__N_", "'lambda"];

/// Go's names for functions without one, with a counter.
const COUNTED_IN_GO: [&str; 3] = ["func", "gowrap", "deferwrap"];

/// Functions that end a process, or are on the way from the mistake to the end.
const MACHINERY: [&str; 60] = [
    // C
    "raise",
    "gsignal",
    "abort",
    "kill",
    "tgkill",
    "pthread_kill",
    "malloc_printerr",
    "__restore_rt",
    "__kernel_rt_sigreturn",
    "__libc_fatal",
    "__chk_fail",
    "__assert",
    "__assert_rtn",
    "__assert_perror_fail",
    "__abort_msg",
    "_Exit",
    "g_assertion_message",
    "g_assertion_message_expr",
    // C++
    "__cxa_throw",
    "__cxa_rethrow",
    "__cxa_pure_virtual",
    "_Unwind_RaiseException",
    "_Unwind_Resume",
    "std::terminate",
    "std::abort",
    "__cxxabiv1::__terminate",
    "__cxxabiv1::__cxa_throw",
    "__gnu_cxx::__verbose_terminate_handler",
    "__clang_call_terminate",
    // Rust
    "rust_panic",
    "rust_begin_unwind",
    "__rust_start_panic",
    "std::process::abort",
    "std::sys::abort_internal",
    "core::option::unwrap_failed",
    "core::option::expect_failed",
    "core::result::unwrap_failed",
    "core::option::Option::unwrap",
    "core::option::Option::expect",
    "core::result::Result::unwrap",
    "core::result::Result::expect",
    "alloc::alloc::handle_alloc_error",
    "core::str::slice_error_fail",
    // Go
    "runtime.gopanic",
    "runtime.sigpanic",
    "runtime.crash",
    "runtime.dieFromSignal",
    "runtime.systemstack",
    "runtime.mcall",
    "runtime.sighandler",
    "runtime.sigfwdgo",
    "runtime.sigtramp",
    "runtime.sigtrampgo",
    "runtime.badsignal",
    // Node.js
    "node::Abort",
    "node::Assert",
    "node::OnFatalError",
    "node::OOMErrorHandler",
    "V8_Fatal",
    "v8::base::OS::Abort",
];

/// The same, by the beginning of the name. Only names that no user has.
const MACHINERY_PREFIXES: [&str; 20] = [
    "__pthread_kill",
    "__libc_message",
    "__assert_fail",
    "__stack_chk_fail",
    "__fortify_fail",
    "std::__throw_",
    "std::panicking::",
    "core::panicking::",
    "std::sys::backtrace::",
    "std::rt::begin_panic",
    "panic_unwind::",
    "panic_abort::",
    "__rustc::",
    "core::slice::index::slice_",
    "runtime.panic",
    "runtime.goPanic",
    "runtime.throw",
    "runtime.fatal",
    "runtime.raise",
    "v8::internal::V8::FatalProcessOutOfMemory",
];

/// Whether this normalised name is of the machinery of dying.
pub(super) fn is_machinery(name: &str) -> bool {
    MACHINERY.contains(&name) || MACHINERY_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The name without hashes, counters, types and positions. Empty only if it was.
pub(super) fn normalised(name: &str) -> String {
    let name = name[..name.floor_char_boundary(NAME_BYTES_MAX)].trim();
    if let Some(name) = javascript(name) {
        return name.to_owned();
    }
    let short = without_suffixes(name.strip_prefix("__GI_").unwrap_or(name));
    let (short, had_parameters) = without_arguments(short);
    let short = without_counters(&short);
    let short = without_qualifiers(&short);
    let short = if had_parameters { without_return_type(&short) } else { &short };
    if short.is_empty() { name.to_owned() } else { short.to_owned() }
}

/// `foo /app/x.js` of `JS:~foo /app/x.js:12:5`: without tier, line and column.
fn javascript(name: &str) -> Option<&str> {
    let name = JAVASCRIPT_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix))?;
    let mut name = name.trim_start_matches(['~', '*', '^', '+', '-']);
    while let Some((before, number)) = name.rsplit_once(':')
        && is_number(number)
    {
        name = before;
    }
    Some(name.trim())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Without what stands at the end: a symbol's version, the compiler's suffixes, Rust's hash.
fn without_suffixes(name: &str) -> &str {
    let mut name = name.split_once('@').map_or(name, |(before, _)| before);
    // At the start, `@` belongs to the name.
    if name.is_empty() {
        return name;
    }
    loop {
        let before = name;
        if let Some((rest, _)) = name.rsplit_once(" [clone ").filter(|_| name.ends_with(']')) {
            name = rest;
        }
        if let Some((rest, last)) = name.rsplit_once('.')
            && !rest.is_empty()
            && (is_number(last) || COMPILER_SUFFIXES.contains(&last))
        {
            name = rest;
        }
        if let Some((rest, hash)) = name.rsplit_once("::h")
            && hash.len() == RUST_HASH_DIGITS
            && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            name = rest;
        }
        if name == before {
            return name;
        }
    }
}

/// Without generic arguments and parameter lists, and whether there was a parameter list.
fn without_arguments(name: &str) -> (String, bool) {
    let ends = bracket_ends(name);
    let bytes = name.as_bytes();
    let mut kept = String::with_capacity(name.len());
    let mut had_parameters = false;
    let (mut at, mut copied) = (0, 0);
    while at < bytes.len() {
        let skipped = operator_bytes(name, at);
        match ends[at] {
            _ if skipped > 0 => at += skipped,
            Some(end) if !belongs_to_name(name, at) => {
                kept.push_str(name[copied..at].strip_suffix("::").unwrap_or(&name[copied..at]));
                had_parameters |= bytes[at] == b'(';
                at = end + 1;
                copied = at;
            }
            _ => at += 1,
        }
    }
    kept.push_str(&name[copied..]);
    (kept, had_parameters)
}

/// Brackets that are no list of arguments: Rust's `<T as Trait>` and `<impl Trait for T>`, Go's `(*T)`, Python's
/// `<module>`, Objective-C's `-[T method]`.
fn belongs_to_name(name: &str, at: usize) -> bool {
    let before = name[..at].bytes().next_back();
    let rest = &name[at..];
    match rest.as_bytes()[0] {
        b'<' => matches!(before, None | Some(b'.' | b'<')) || rest.starts_with("<impl "),
        b'(' => rest.starts_with("(anonymous namespace)") || (before == Some(b'.') && rest.starts_with("(*")),
        _ => matches!(before, None | Some(b'<' | b'&' | b'-' | b'+')),
    }
}

/// For each opening bracket that is closed, where.
fn bracket_ends(name: &str) -> Vec<Option<usize>> {
    let bytes = name.as_bytes();
    let mut ends = vec![None; bytes.len()];
    let mut open: Vec<usize> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        at += operator_bytes(name, at);
        let Some(&byte) = bytes.get(at) else { break };
        let opening = match byte {
            b'<' | b'(' | b'[' => {
                open.push(at);
                None
            }
            // The arrow before a return type.
            b'>' if at > 0 && bytes[at - 1] == b'-' => None,
            b'>' => Some(b'<'),
            b')' => Some(b'('),
            b']' => Some(b'['),
            _ => None,
        };
        if let Some(opening) = opening
            && let Some(position) = open.iter().rposition(|&start| bytes[start] == opening)
            // A `>` in parentheses is a comparison.
            && (opening != b'<' || position + 1 == open.len())
        {
            ends[open[position]] = Some(at);
            open.truncate(position);
        }
        at += 1;
    }
    ends
}

/// The length of `operator<` and the like at this place, 0 if there is none.
fn operator_bytes(name: &str, at: usize) -> usize {
    const OPERATOR: &str = "operator";
    let bytes = name.as_bytes();
    let Some(symbol) = bytes[at..].strip_prefix(OPERATOR.as_bytes()) else { return 0 };
    if at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') {
        return 0;
    }
    let operator = OPERATORS.iter().find(|operator| symbol.starts_with(operator.as_bytes()));
    operator.map_or(0, |operator| OPERATOR.len() + operator.len())
}

/// Without the numbers of closures, lambdas and anonymous namespaces, in one spelling.
fn without_counters(name: &str) -> String {
    let mut name = name.replace("{{closure}}", "{closure#}");
    for anonymous in ["(anonymous namespace)", "{anonymous}"] {
        name = name.replace(anonymous, "_GLOBAL__N_");
    }
    for counted in COUNTED {
        let mut parts = name.split(counted);
        let mut kept = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            kept.push_str(counted);
            kept.push_str(part.trim_start_matches(|letter: char| letter.is_ascii_digit()));
        }
        name = kept;
    }
    let mut segments = name.split('.');
    let mut kept = segments.next().unwrap_or_default().to_owned();
    for segment in segments.filter(|segment| !is_number(segment)) {
        let stem = segment.trim_end_matches(|letter: char| letter.is_ascii_digit());
        let is_counted = COUNTED_IN_GO.contains(&stem) || stem.ends_with("-range");
        kept.push('.');
        kept.push_str(if is_counted { stem } else { segment });
    }
    kept
}

/// Without what C++ writes after a parameter list.
fn without_qualifiers(name: &str) -> String {
    let name = name.replace(" const::", "::");
    let mut name = name.trim();
    while let Some(rest) =
        [" const", " volatile", " noexcept", " &&", " &"].iter().find_map(|word| name.strip_suffix(word))
    {
        name = rest.trim_end();
    }
    name.to_owned()
}

/// Without the type, or the kind of thunk, before the name: what precedes the last space that is not inside
/// brackets and not the operator's own, as in `operator bool`.
fn without_return_type(name: &str) -> &str {
    let end = name.find("operator ").unwrap_or(name.len());
    let mut depth = 0_usize;
    let mut start = 0;
    for (at, byte) in name.bytes().enumerate().take(end) {
        match byte {
            b'<' | b'(' | b'[' | b'{' => depth += 1,
            b'>' | b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b' ' if depth == 0 => start = at + 1,
            _ => {}
        }
    }
    name[start..].trim_start_matches(['*', '&'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: &str) {
        assert_eq!(normalised(name), expected, "{name}");
    }

    #[test]
    fn c() {
        check("main", "main");
        check("__GI_raise", "raise");
        check("memcpy@plt", "memcpy");
        check("memcpy@@GLIBC_2.14", "memcpy");
        check("parse.isra.0.cold.12", "parse");
        check("parse.llvm.12345678901234567890", "parse");
        check("counter.1234", "counter");
        check(" ", "");
        check(".part", ".part");
        check("@", "@");
    }

    #[test]
    fn cpp() {
        check("ns::f(int, char const*)", "ns::f");
        check("ns::f(int) [clone .isra.0] [clone .cold]", "ns::f");
        check("ns::f(int) (.cold)", "ns::f");
        check("std::map<int, std::pair<a, b> >::at(int const&) const", "std::map::at");
        check("std::vector<int> ns::make<int>(int)", "ns::make");
        check("non-virtual thunk to A::f()", "A::f");
        check("bool operator< <int>(A<int> const&, A<int> const&)", "operator<");
        check("A::operator<<(int)", "A::operator<<");
        check("A::operator<=>(A const&) const", "A::operator<=>");
        check("A<int>::operator->() const", "A::operator->");
        check("A::operator()(int) const", "A::operator()");
        check("A::operator unsigned int() const", "A::operator unsigned int");
        check("operator new(unsigned long)", "operator new");
        check("f(int)::{lambda(char)#2}::operator()(char) const", "f::{lambda#}::operator()");
        check("f()::$_12::operator()() const", "f::$_::operator()");
        check("A::f() const::'lambda0'(int)::operator()(int) const", "A::f::'lambda'::operator()");
        check("(anonymous namespace)::f(int)", "_GLOBAL__N_::f");
        check("{anonymous}::f(int)", "_GLOBAL__N_::f");
        check("_GLOBAL__N_12::f", "_GLOBAL__N_::f");
        check("f[abi:cxx11](int)", "f");
        check("A<(B)1, (2>3)>::f()", "A::f");
    }

    #[test]
    fn rust() {
        check("app::run::h0123456789abcdef", "app::run");
        check("app::run::h0123456789abcdef.llvm.123", "app::run");
        check("app::run::hello", "app::run::hello");
        check("app[846817f741e54dfd]::run::{closure#0}", "app::run::{closure#}");
        check("app::run::{{closure}}", "app::run::{closure#}");
        check("alloc::vec::Vec<T,A>::push", "alloc::vec::Vec::push");
        check("core::iter::map::<fn(u8) -> u8, A>", "core::iter::map");
        check("app::run::<u8>::{closure#0}", "app::run::{closure#}");
        check("<alloc::vec::Vec<T> as core::ops::Drop>::drop", "<alloc::vec::Vec as core::ops::Drop>::drop");
        check("<<A as B>::C as D<E>>::f", "<<A as B>::C as D>::f");
        check(
            "core::fmt::num::<impl core::fmt::Display for u32>::fmt",
            "core::fmt::num::<impl core::fmt::Display for u32>::fmt",
        );
        check("<[T] as X>::f", "<[T] as X>::f");
    }

    #[test]
    fn go() {
        check("main.f.func1.2", "main.f.func");
        check("main.f.func1.2.3", "main.f.func");
        check("main.f.func1.gowrap2", "main.f.func.gowrap");
        check("main.f-range1", "main.f-range");
        check("main.f.func3-range1", "main.f.func3-range");
        check("main.(*Server[...]).Serve", "main.(*Server).Serve");
        check("main.Map[go.shape.int,go.shape.string]", "main.Map");
        check("github.com/a/b/v2.(*T).Do.deferwrap1", "github.com/a/b/v2.(*T).Do.deferwrap");
        check("func1", "func1");
        check("runtime.raise.abi0", "runtime.raise");
    }

    #[test]
    fn others() {
        check("JS:~handle /app/x.js:12:5", "handle /app/x.js");
        check("LazyCompile:*handle /app/y.js:99", "handle /app/y.js");
        check("<module>", "<module>");
        check("Foo.<locals>.<lambda>", "Foo.<locals>.<lambda>");
        check("Object.<anonymous>", "Object.<anonymous>");
        check("-[Foo bar:]", "-[Foo bar:]");
        check("(anonymous)", "(anonymous)");
        check("void Foo::bar(int)", "Foo::bar");
    }

    #[test]
    fn unbalanced() {
        for name in [
            "a<b",
            "a>b",
            "a(b",
            "a)b",
            "<<<<",
            ">>>>",
            "(<)>",
            "operator",
            "operator<",
            "foooperator<",
            "ä<ö>(",
            "[[",
        ] {
            normalised(name);
        }
        check("a<b<c>::d", "a<b::d");
        check(&"<".repeat(100_000), &"<".repeat(NAME_BYTES_MAX));
        check("my_operator<int>", "my_operator");
    }

    proptest::proptest! {
        #[test]
        fn any_name(name in "([<>(){}\\[\\] .:#$@*&-]|operator|const|func|[a-z0-9ä☃]){0,40}") {
            let once = normalised(&name);
            is_machinery(&once);
            proptest::prop_assert_eq!(once.is_empty(), name.trim().is_empty());
            proptest::prop_assert!(once.len() <= 2 * name.len() + 12);
        }
    }
}
