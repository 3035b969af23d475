//! Samples of requests: what a span's thread burned on a CPU is in samples that carry the span.
//!
//! Refuses: a sample with the request of somebody else.

use std::collections::{HashMap, HashSet};
use std::thread;

use tests::callers::curl;
use tests::receiver::Protocol;
use tests::services::Service;
use tests::spans;
use tests::traced::Traced;
use tests::workload::Program;

const FREQUENCY_HZ: f64 = 97.0;

/// Callers at one time, and requests of each.
const CALLERS: usize = 3;
const REQUESTS: usize = 12;

/// What the CPU time by samples and by the scheduler's clock may differ by, all requests together: one comes in 10 ms.
const RATIO: std::ops::RangeInclusive<f64> = 0.85..=1.15;

#[test]
fn what_a_request_burned_carries_its_span() {
    let shop = Service::script("python3", "shop.py", &[]);
    // Beside it runs what serves nobody.
    let spin = Program::c("spin.c", &[]);
    let _spinning = spin.start(&[]);
    let traced = Traced::start(Protocol::Grpc, &["profile.frequency_hz=97", "profile.window_ms=1000"]);
    let urls = |caller: usize| -> Vec<String> {
        (0..REQUESTS)
            .map(|number| format!("http://{}/burn/{}", shop.address(), caller * REQUESTS + number))
            .collect()
    };
    thread::scope(|scope| {
        (0..CALLERS).for_each(|caller| drop(scope.spawn(move || curl(&[], &urls(caller)))));
    });
    traced.wait_at(&[shop.port()], 2 * CALLERS * REQUESTS);
    let mut told = traced.stop();
    told.keep(&[shop.port()]);

    let by_id = spans::by_id(&told.spans);
    let mut sampled: HashMap<&[u8], u64> = HashMap::new();
    let mut without = 0;
    for stack in &told.stacks {
        let (trace_id, span_id) = &stack.span;
        let is_shop = stack.pid == shop.pid();
        if span_id.is_empty() {
            without += if is_shop { stack.count } else { 0 };
            continue;
        }
        let span =
            by_id.get(&**span_id).unwrap_or_else(|| panic!("a sample of {} in no span", stack.process));
        assert!(is_shop && !span.is_client(), "a sample of {} in {}", stack.process, span.summary());
        assert_eq!(*trace_id, span.trace_id);
        *sampled.entry(span_id).or_default() += stack.count;
    }
    let served = told.at(shop.port(), false);
    let on_cpu_s: f64 =
        served.iter().map(|span| span.attribute("kansoku.time.on_cpu").parse::<f64>().expect("a time")).sum();
    let sampled_s = sampled.values().sum::<u64>() as f64 / FREQUENCY_HZ;
    println!(
        "{} of {} requests have samples: {sampled_s:.2} s by samples, {on_cpu_s:.2} s by the scheduler; {without} samples \
         of the service are in no request",
        sampled.len(),
        served.len()
    );
    let all: HashSet<&[u8]> = served.iter().map(|span| &*span.id).collect();
    assert!(sampled.keys().all(|id| all.contains(id)), "only requests of the service");
    // A missing one is no wrong one; the sum below says how much is missing.
    assert!(sampled.len() * 10 >= served.len() * 9, "each burned ten samples");
    assert!(RATIO.contains(&(sampled_s / on_cpu_s)), "{sampled_s} s of {on_cpu_s} s");
}
