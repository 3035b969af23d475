//! What else the machine was doing around a measurement.
//!
//! Refuses: judging the figure. The report says how quiet the machine was and leaves the reader to weigh it.

use std::time::Duration;

use anyhow::Result;

use super::interrupt::pause;
use super::numbers::percent;
use super::procfs::{MachineTicks, machine_ticks};

/// Above this much of all CPUs a figure is marked as taken on a loaded machine.
const BUSY_PERCENT_MAX: f64 = 3.0;
const STOLEN_PERCENT_MAX: f64 = 1.0;

/// Shares of all CPUs while nothing of the bench ran.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Background {
    pub busy_percent: f64,
    pub stolen_percent: f64,
}

impl Background {
    pub fn measure(duration: Duration) -> Result<Self> {
        let before = machine_ticks()?;
        pause(duration)?;
        Ok(Self::between(before, machine_ticks()?))
    }

    fn between(before: MachineTicks, after: MachineTicks) -> Self {
        let total = after.total.saturating_sub(before.total) as f64;
        Self {
            busy_percent: percent(after.busy.saturating_sub(before.busy) as f64, total),
            stolen_percent: percent(after.stolen.saturating_sub(before.stolen) as f64, total),
        }
    }

    /// The worse of two readings in each respect.
    pub fn worse(self, other: Self) -> Self {
        Self {
            busy_percent: self.busy_percent.max(other.busy_percent),
            stolen_percent: self.stolen_percent.max(other.stolen_percent),
        }
    }

    pub fn is_quiet(&self) -> bool {
        self.busy_percent <= BUSY_PERCENT_MAX && self.stolen_percent <= STOLEN_PERCENT_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_all_processor_time() {
        let after = MachineTicks { busy: 30, stolen: 1, total: 300 };
        let before = MachineTicks { busy: 10, stolen: 0, total: 100 };
        let background = Background::between(before, after);
        assert_eq!(background, Background { busy_percent: 10.0, stolen_percent: 0.5 });
        assert!(!background.is_quiet());
        assert_eq!(Background::between(before, before).busy_percent, 0.0);
    }
}
