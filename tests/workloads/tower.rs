//! A Rust name that must be demangled: `tower::orbit::Climber::climb`. Usage: tower SECONDS.

use std::hint::black_box;
use std::time::{Duration, Instant};

mod orbit {
    pub struct Climber {
        pub height: u64,
    }

    impl Climber {
        #[inline(never)]
        pub fn climb(&mut self, turns: u64) {
            for turn in 0..turns {
                self.height = std::hint::black_box(self.height.wrapping_mul(3).wrapping_add(turn));
            }
        }
    }
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut climber = orbit::Climber { height: 0 };
    while Instant::now() < deadline {
        climber.climb(1_000_000);
    }
    black_box(climber.height);
}
