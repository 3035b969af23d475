//! A small profile that the encoders' tests share.

use std::sync::Arc;

use crate::identity::Subject;
use crate::telemetry::{FrameKind, Line, Location, Mapping, ProcessName, Profile, Sample, SpanContext};

fn location(name: &str, kind: FrameKind, mapping: &Arc<Mapping>) -> Arc<Location> {
    let line = |name: &str| Line { function: name.into(), file: None, line: 0 };
    let lines = name.split('<').map(line).collect();
    Arc::new(Location { address: name.len() as u64, kind, mapping: Some(Arc::clone(mapping)), lines })
}

/// The request that the second stack was in.
pub const SPAN: SpanContext = SpanContext { trace_id: [0xab; 16], span_id: [0x12; 8] };

/// One subject, one process, two stacks that share `main`; `inner<outer` is an inlined call.
pub fn profiles() -> Vec<Profile> {
    let mapping = Arc::new(Mapping { path: "/opt/app".into(), build_id: Some("abcd".into()) });
    let kernel = Arc::new(Mapping { path: "[kernel]".into(), build_id: None });
    let main = location("main", FrameKind::Native, &mapping);
    let work = location("inner<outer", FrameKind::Native, &mapping);
    let read = location("vfs_read", FrameKind::Kernel, &kernel);
    let process = Arc::new(ProcessName {
        pid: 42,
        executable_name: "app".into(),
        executable_path: Some("/opt/app".into()),
    });
    let sample = |stack: Vec<Arc<Location>>, count, span| Sample {
        process: Arc::clone(&process),
        thread_name: "worker".into(),
        stack,
        count,
        span,
    };
    vec![Profile {
        subject: Arc::new(Subject::named("app")),
        start_unix_ns: 1_000_000_000,
        duration_ns: 5_000_000_000,
        period_ns: 10,
        samples: vec![
            sample(vec![work, Arc::clone(&main)], 3, None),
            sample(vec![read, main], 2, Some(SPAN)),
        ],
    }]
}

/// What the stacks above look like, leaf first, with their CPU time.
pub fn expected_stacks_in_ns() -> Vec<(String, Vec<i64>)> {
    vec![("inner,outer,main".to_owned(), vec![30]), ("vfs_read,main".to_owned(), vec![20])]
}
