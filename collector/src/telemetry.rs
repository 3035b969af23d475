//! What a flush hands to the exporters: plain data, named in the field's terms.
//!
//! Refuses: OTLP, pprof, Prometheus. Those words stand in `export` alone.

pub mod cardinality;
mod explicit;
mod histogram;
mod increments;
mod merge;
mod metric;
mod series;
mod span;

use std::net::SocketAddr;
use std::sync::Arc;

pub use cardinality::{Cardinality, OVERFLOW_ATTRIBUTE};
pub use explicit::{ExplicitHistogram, Summary};
pub use histogram::{Exemplar, ExponentialHistogram};
pub use increments::{Increments, Step};
pub use metric::{
    ClusterObject, Endpoint, LabelledCgroup, Metric, MetricKind, Owner, Point, Snapshot, Text, Value,
    Vocabulary,
};
pub use series::{ByFingerprint, Fingerprint, OwnerFingerprints, SeriesHasher};
pub use span::{Doubt, Proof, Span, SpanContext, SpanKind, SpanLink, SpanValue, hexadecimal};

use crate::identity::Subject;

/// One flush of all signals.
#[derive(Debug, Default)]
pub struct Batch {
    /// One profile per subject.
    pub profiles: Vec<Profile>,
    /// Operations that took long.
    pub slow_operations: Vec<SlowOperation>,
    /// What was said over the network.
    pub spans: Vec<Span>,
}

/// What one subject did in one window.
#[derive(Debug)]
pub struct Profile {
    /// Whose samples these are.
    pub subject: Arc<Subject>,
    /// Start of the window, nanoseconds since the epoch.
    pub start_unix_ns: u64,
    /// Length of the window, nanoseconds.
    pub duration_ns: u64,
    /// CPU time that one sample stands for, nanoseconds.
    pub period_ns: u64,
    /// The distinct stacks.
    pub samples: Vec<Sample>,
}

impl Profile {
    /// Samples taken, over all stacks.
    pub fn sample_count(&self) -> u64 {
        self.samples.iter().map(|sample| sample.count).sum()
    }
}

/// One distinct stack of one thread name of one process, in one request or in none.
#[derive(Debug)]
pub struct Sample {
    /// The process.
    pub process: Arc<ProcessName>,
    /// Name of the thread.
    pub thread_name: Arc<str>,
    /// The stack, leaf first: kernel frames, then user frames.
    pub stack: Vec<Arc<Location>>,
    /// How many times it was seen.
    pub count: u64,
    /// The request that its thread served meanwhile, if that is proven.
    pub span: Option<SpanContext>,
}

/// An operation that took longer than the user's threshold.
#[derive(Clone, Debug)]
pub struct SlowOperation {
    /// Whose it is.
    pub subject: Arc<Subject>,
    /// The process.
    pub process: Arc<ProcessName>,
    /// The thread's id in the initial PID namespace.
    pub thread_id: u32,
    /// Name of the thread.
    pub thread_name: Arc<str>,
    /// When it ended, nanoseconds since the epoch.
    pub time_unix_ns: u64,
    /// How long it took, nanoseconds.
    pub duration_ns: u64,
    /// What it did: `read`, `open`.
    pub operation: &'static str,
    /// What its descriptor was: `file`, `tcp`.
    pub descriptor: Option<&'static str>,
    /// The class of its error, if it failed.
    pub error: Option<&'static str>,
    /// What the call returned.
    pub result: i64,
    /// The file, as the kernel or the program names it.
    pub path: Option<String>,
    /// Its own address, for sockets.
    pub local: Option<SocketAddr>,
    /// The other side's address, for sockets.
    pub peer: Option<SocketAddr>,
    /// The user stack, leaf first.
    pub stack: Vec<Arc<Location>>,
    /// The request that its thread served meanwhile, if that is proven.
    pub span: Option<SpanContext>,
}

/// How a process is named in telemetry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProcessName {
    /// Process id in the initial PID namespace.
    pub pid: u32,
    /// File name of the executable; the name of the main thread where it has none (kernel threads).
    pub executable_name: Arc<str>,
    /// Path of the executable as the process sees it.
    pub executable_path: Option<Arc<str>>,
}

/// A symbolized code address.
#[derive(Debug, PartialEq, Eq)]
pub struct Location {
    /// Address in the process or in the kernel; 0 for addresses that are the same only within a module.
    pub address: u64,
    /// What kind of code it is.
    pub kind: FrameKind,
    /// The file that holds the code.
    pub mapping: Option<Arc<Mapping>>,
    /// The functions at this address: an inlined one before the one that holds it. Never empty.
    pub lines: Vec<Line>,
}

/// The kind of code, in the vocabulary of the semantic convention `profile.frame.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// The kernel and its modules.
    Kernel,
    /// Machine code from a file.
    Native,
    /// Machine code that a runtime made.
    Jit,
}

/// A file that is mapped as code.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// Path as the process sees it, or `[vdso]`, `[kernel]`.
    pub path: Arc<str>,
    /// The GNU build id, lower-case hexadecimal.
    pub build_id: Option<Arc<str>>,
}

/// A function at a location.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// The demangled name, or `module+0x…` where it is unknown.
    pub function: Arc<str>,
    /// The source file, where known and asked for.
    pub file: Option<Arc<str>>,
    /// The line in the source file; 0 where unknown.
    pub line: u32,
}
