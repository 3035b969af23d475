//! Panics in `crash_panic::hull::Boat::sink`, and ends with the exit code 101.

mod hull {
    pub struct Boat {
        pub planks: Vec<u32>,
    }

    impl Boat {
        #[inline(never)]
        pub fn sink(&self, plank: usize) -> u32 {
            match self.planks.get(plank) {
                Some(plank) => *plank,
                None => panic!("plank {plank} is not there"),
            }
        }
    }
}

fn main() {
    let boat = hull::Boat { planks: vec![1, 2, 3] };
    let plank = std::env::args().count() + 6;
    std::process::exit(boat.sink(plank) as i32 & 1);
}
