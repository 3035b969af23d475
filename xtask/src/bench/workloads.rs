//! The loads under which the agent is measured: C programs and one in Python, from `xtask/fixtures/bench`.
//!
//! Refuses: loads that outlive the bench. Each is guarded here and ends by itself with its parent.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::children::Guarded;
use super::machine::cpus;
use super::tools::{first_line, stdout_of};

/// Frames of the user stack of `deep_spin`, main and the C library's start included.
pub const DEEP_SPIN_FRAMES: usize = 20;

/// How many executables a populated node runs.
pub const RESIDENT_VARIANTS: usize = 20;

/// What an active resident burns each time it wakes.
const RESIDENT_BURN_US: u64 = 2_000;

/// CPUs that the active residents burn together, however many they are: growth by processes alone is measured.
pub const RESIDENTS_BURN_CPUS: f64 = 1.0;

/// One resident of this many is a Python program.
const PYTHON_ONE_OF: usize = 10;

/// One resident of this many is a C program that wakes; the others sleep.
const ACTIVE_ONE_OF: usize = 4;

/// Frame pointers everywhere, and no call that turns into a jump: stacks are what the source says.
const FRAME_FLAGS: [&str; 3] = ["-O2", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls"];

/// Rounds of the fixed work that are timed to choose how many make a run.
const CALIBRATION_ROUNDS: u64 = 2_000;

/// The executables.
pub struct Workloads {
    deep_spin: PathBuf,
    fixed_work: PathBuf,
    residents: Vec<PathBuf>,
    resident_script: PathBuf,
    /// `None` where there is no Python: residents are C programs then.
    python: Option<PathBuf>,
}

impl Workloads {
    pub fn compile(fixtures: &Path, directory: &Path) -> Result<Self> {
        let build = |source: &str, output: &str, flags: &[&str]| {
            compile(&fixtures.join(source), directory.join(output), flags)
        };
        let resident = |variant: usize| {
            build("resident.c", &format!("resident_{variant}"), &[&format!("-DVARIANT={variant}")])
        };
        Ok(Self {
            deep_spin: build("deep_spin.c", "deep_spin", &[])?,
            fixed_work: build("fixed_work.c", "fixed_work", &[])?,
            residents: (0..RESIDENT_VARIANTS).map(resident).collect::<Result<_>>()?,
            resident_script: fixtures.join("resident.py"),
            python: find_python(),
        })
    }

    pub fn has_python(&self) -> bool {
        self.python.is_some()
    }

    /// A deep user stack on every CPU.
    pub fn start_deep_spin(&self) -> Result<Vec<Guarded>> {
        let start =
            |_| Guarded::start("deep_spin", Command::new(&self.deep_spin).arg(DEEP_SPIN_FRAMES.to_string()));
        (0..cpus()).map(start).collect()
    }

    /// Processes of a populated node.
    pub fn start_residents(&self, count: usize) -> Result<Vec<Guarded>> {
        let period_us = period_us(count);
        (0..count).map(|index| self.start_resident(index, period_us)).collect()
    }

    fn start_resident(&self, index: usize, period_us: u64) -> Result<Guarded> {
        let role = Role::of(index);
        let mut command = match (&self.python, role) {
            (Some(python), Role::Python) => {
                let mut command = Command::new(python);
                command.arg(&self.resident_script);
                command
            }
            _ => Command::new(&self.residents[index % self.residents.len()]),
        };
        let period_us = if role == Role::Asleep { 0 } else { period_us };
        command.args([RESIDENT_BURN_US.to_string(), period_us.to_string()]).stdin(Stdio::null());
        Guarded::start("resident", &mut command)
    }

    /// Does the fixed work on every CPU at once; returns rounds per second, all CPUs together.
    pub fn do_fixed_work(&self, rounds: u64) -> Result<f64> {
        let said = on_cpus(cpus(), "fixed_work", &self.fixed_work, &[&rounds.to_string()])?;
        Ok(said.iter().map(|[elapsed_ns]| rounds as f64 * 1e9 / elapsed_ns).sum())
    }

    /// How many rounds take about this long on every CPU at once.
    pub fn rounds_of(&self, duration: std::time::Duration) -> Result<u64> {
        let rounds_per_second = self.do_fixed_work(CALIBRATION_ROUNDS)? / cpus() as f64;
        Ok((rounds_per_second * duration.as_secs_f64()).ceil() as u64)
    }
}

/// Compiles one source file. Flags come behind it, where libraries belong.
pub fn compile(source: &Path, output: PathBuf, flags: &[&str]) -> Result<PathBuf> {
    let mut gcc = Command::new("gcc");
    gcc.args(FRAME_FLAGS).arg(source).args(flags).arg("-o").arg(&output);
    stdout_of(&mut gcc)
        .with_context(|| format!("compile {} (apt-get install gcc libc6-dev)", source.display()))?;
    Ok(output)
}

/// Runs a program to its end on so many CPUs at once, the CPU its first argument; returns the numbers that each says
/// first.
pub fn on_cpus<const NUMBERS: usize>(
    count: usize,
    name: &'static str,
    program: &Path,
    arguments: &[&str],
) -> Result<Vec<[f64; NUMBERS]>> {
    let start = |cpu: usize| {
        let mut command = Command::new(program);
        command.arg(cpu.to_string()).args(arguments).stdout(Stdio::piped());
        Guarded::start(name, &mut command)
    };
    let workers: Vec<Guarded> = (0..count).map(start).collect::<Result<_>>()?;
    let numbers = |worker: Guarded| {
        let said = worker.finish()?;
        first_numbers(&said).with_context(|| format!("{name} said {said:?}"))
    };
    workers.into_iter().map(numbers).collect()
}

/// The numbers with which a text begins; `None` if there are fewer.
pub fn first_numbers<const NUMBERS: usize>(text: &str) -> Option<[f64; NUMBERS]> {
    let numbers: Vec<f64> =
        text.split_whitespace().take(NUMBERS).map_while(|field| field.parse().ok()).collect();
    numbers.try_into().ok()
}

/// What a resident does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Python,
    Active,
    Asleep,
}

impl Role {
    fn of(index: usize) -> Self {
        if index.is_multiple_of(PYTHON_ONE_OF) {
            Self::Python
        } else if index % ACTIVE_ONE_OF == 1 {
            Self::Active
        } else {
            Self::Asleep
        }
    }
}

/// How long an active resident sleeps, so that all together burn [`RESIDENTS_BURN_CPUS`].
fn period_us(count: usize) -> u64 {
    let active = (0..count).filter(|&index| Role::of(index) != Role::Asleep).count();
    let turn_us = (active as u64 * RESIDENT_BURN_US) as f64 / RESIDENTS_BURN_CPUS;
    (turn_us as u64).saturating_sub(RESIDENT_BURN_US).max(1)
}

/// The interpreter itself: what the search path names may be a script that looks for it at each start.
fn find_python() -> Option<PathBuf> {
    let path = PathBuf::from(first_line("python3", &["-c", "import sys; print(sys.executable)"]));
    path.is_absolute().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn residents_have_all_roles() {
        let count = |role| (0..200).filter(|&index| Role::of(index) == role).count();
        assert_eq!((count(Role::Python), count(Role::Active), count(Role::Asleep)), (20, 50, 130));
    }

    #[test]
    fn a_program_says_enough_numbers_or_nothing() {
        assert_eq!(first_numbers("12 5 rest\n"), Some([12.0, 5.0]));
        assert_eq!(first_numbers::<2>("12\n"), None);
        assert_eq!(first_numbers::<1>("twelve"), None);
    }

    #[test]
    fn together_they_burn_the_same_at_any_number() {
        for count in [10, 200, 1_000] {
            let active = (0..count).filter(|&index| Role::of(index) != Role::Asleep).count() as f64;
            let burnt_cpus = active * RESIDENT_BURN_US as f64 / (period_us(count) + RESIDENT_BURN_US) as f64;
            assert!((burnt_cpus - RESIDENTS_BURN_CPUS).abs() < 0.01, "{count}: {burnt_cpus}");
        }
        assert_eq!(period_us(0), 1);
    }
}
