//! Whether the agent works, as the kubelet asks it.
//!
//! Refuses: credentials; the kubelet has none.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use tests::agent::{Agent, STOP_MAX, command};
use tests::receiver::free_address;
use tests::workload::utf8;
use tests::{http, tools};

#[test]
fn it_is_ready_once_it_is_hooked_and_stays_alive() {
    let directory = TempDir::new().expect("a temporary directory");
    let (address, token) = (free_address(), directory.path().join("token"));
    tools::write_file(&token, b"secret");
    let listen = format!("prometheus.listen={address}");
    let token = format!("prometheus.bearer_token_file={}", utf8(&token));
    let spool = format!("crash.spool={}", utf8(directory.path()));
    let agent = Agent::spawn(command(&["run", "--set", &listen, "--set", &token, "--set", &spool]));
    let ask = |path: &str| {
        let answer = http::get(address, path, &[]).ok()?;
        Some((answer.status.as_u16(), answer.text()))
    };
    let begin = Instant::now();
    let mut before = Vec::new();
    while ask("/readyz") != Some((200, "ok\n".to_owned())) {
        before.extend(ask("/readyz"));
        assert!(begin.elapsed() < Duration::from_secs(20), "not ready: {before:?}\n{}", agent.stderr());
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("ready after {:.2} s", begin.elapsed().as_secs_f64());
    assert!(before.iter().all(|(status, why)| *status == 503 || why == "ok\n"), "{before:?}");
    // The endpoint is there before the programs are: it must not say that they are.
    assert!(before.iter().any(|(status, _)| *status == 503), "{before:?}");
    for _ in 0..30 {
        assert_eq!(
            (ask("/healthz"), ask("/readyz")),
            (Some((200, "ok\n".to_owned())), Some((200, "ok\n".to_owned())))
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(ask("/metrics").map(|(status, _)| status), Some(401));
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0);
}
