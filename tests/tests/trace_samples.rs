//! Samples of requests: what a span's thread burned on a CPU is in samples that carry the span.
//!
//! Refuses: a sample with the request of somebody else.

use std::collections::HashMap;
use std::thread;

use tests::callers::curl;
use tests::receiver::Protocol;
use tests::services::Service;
use tests::spans;
use tests::traced::Traced;
use tests::workload::Program;

/// Python's threads take turns of 5 ms. The default of 97 Hz runs in step with two of them for longer than a request.
const FREQUENCY_HZ: f64 = 997.0;

/// Callers at one time, and requests of each.
const CALLERS: usize = 3;
const REQUESTS: usize = 12;

/// What the CPU time of a request by samples and by the scheduler's clock may differ by.
const RATIO: std::ops::RangeInclusive<f64> = 0.85..=1.15;

#[test]
fn what_a_request_burned_carries_its_span() {
    let shop = Service::script("python3", "shop.py", &[]);
    // Beside it runs what serves nobody.
    let spin = Program::c("spin.c", &[]);
    let _spinning = spin.start(&[]);
    let traced = Traced::start(Protocol::Grpc, &["profile.frequency_hz=997", "profile.window_ms=1000"]);
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
    println!("{without} samples of the service are in no request");
    let mut ratios = Vec::new();
    for span in told.at(shop.port(), false) {
        let sampled_s = sampled.remove(&*span.id).unwrap_or_default() as f64 / FREQUENCY_HZ;
        let on_cpu_s: f64 = span.attribute("kansoku.time.on_cpu").parse().expect("a time");
        ratios.push(sampled_s / on_cpu_s);
    }
    assert!(sampled.is_empty(), "samples carry spans of no request of the service");
    ratios.sort_by(f64::total_cmp);
    println!("of {} requests the CPU time by samples and by the scheduler: {ratios:.3?}", ratios.len());
    assert!(ratios.iter().all(|ratio| RATIO.contains(ratio)));
}
