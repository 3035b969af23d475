//! Reads the ledger that `kansoku run` prints at its stop, and does the sums itself.
//!
//! Refuses: to believe the agent's own "unexplained" column. The equations stand here a second time on purpose.

use std::collections::BTreeMap;

/// Reasons that apply between the hook and a typed record.
const KERNEL_REASONS: [&str; 6] =
    ["ring_full", "scratch_missing", "sideband_lost", "malformed", "connections_full", "over_budget"];

/// Reasons that apply between a typed record and a flushed window.
const REPRESENT_REASONS: [&str; 13] = [
    "backlog",
    "window_full",
    "process_table_full",
    "filtered",
    "healthy_exit",
    "crash_rate_limited",
    "crash_kinds_full",
    "crash_reporter_behind",
    "crash_detail_orphan",
    "exchange_broken",
    "sampled_out",
    "spans_full",
    "connection_unknown",
];

/// Reasons that apply between a flushed window and its receiver.
const EXPORT_REASONS: [&str; 10] = [
    "symbolizer_behind",
    "export_queue_full",
    "export_rejected",
    "export_refused",
    "export_retry_exhausted",
    "export_shutdown",
    "export_switched_off",
    "spool_failed",
    "spool_evicted",
    "export_spooled",
];

/// The books of all signals.
#[derive(Clone, Debug)]
pub struct Books {
    /// By signal.
    pub accounts: BTreeMap<String, Account>,
    /// The line below the table.
    pub verdict: String,
}

/// One signal's row.
#[derive(Clone, Debug)]
pub struct Account {
    /// Records that the source wanted to send.
    pub seen: u64,
    /// Records that became typed events.
    pub decoded: u64,
    /// Records in flushed windows or live state.
    pub represented: u64,
    /// Records that reached their receiver; `None` for signals that end in the agent.
    pub exported: Option<u64>,
    /// Losses by reason.
    pub lost: BTreeMap<String, u64>,
    /// What the agent itself says.
    pub unexplained: u64,
}

impl Books {
    /// Finds the table in the agent's standard error.
    pub fn parse(stderr: &str) -> Self {
        let lines = stderr.lines().skip_while(|line| {
            !(line.split_whitespace().next() == Some("signal") && line.contains("unexplained"))
        });
        let mut accounts = BTreeMap::new();
        let mut verdict = None;
        let mut signal = String::new();
        for line in lines.skip(1).filter(|line| !line.starts_with(['─', '═'])) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [count, reason] => {
                    let account: &mut Account = accounts.get_mut(&signal).expect("a row comes first");
                    account.lost.insert((*reason).to_owned(), number(count));
                }
                [name, seen, decoded, represented, exported, lost @ .., unexplained] if lost.len() < 3 => {
                    let lost = match lost {
                        [count, reason] => BTreeMap::from([((*reason).to_owned(), number(count))]),
                        _ => BTreeMap::new(),
                    };
                    let account = Account {
                        seen: number(seen),
                        decoded: number(decoded),
                        represented: number(represented),
                        exported: (*exported != "-").then(|| number(exported)),
                        lost,
                        unexplained: number(unexplained),
                    };
                    signal = (*name).to_owned();
                    accounts.insert(signal.clone(), account);
                }
                _ => {
                    verdict = Some(line.to_owned());
                    break;
                }
            }
        }
        let verdict = verdict.unwrap_or_else(|| panic!("there is no ledger in:\n{stderr}"));
        Self { accounts, verdict }
    }

    /// One signal.
    pub fn of(&self, signal: &str) -> &Account {
        self.accounts.get(signal).unwrap_or_else(|| panic!("no {signal} in {self:#?}"))
    }

    /// Fails unless every signal's books balance exactly, by our sums and by the agent's.
    #[track_caller]
    pub fn expect_balance(&self) {
        assert!(!self.accounts.is_empty(), "an empty ledger balances nothing");
        for (signal, account) in &self.accounts {
            let represent = account.lost_by(&REPRESENT_REASONS);
            let kernel = account.lost_by(&KERNEL_REASONS);
            let export = account.lost_by(&EXPORT_REASONS);
            let total: u64 = account.lost.values().sum();
            assert_eq!(total, kernel + represent + export, "{signal}, a reason of no stage: {account:#?}");
            assert_eq!(account.seen, kernel + account.decoded, "{signal}, from the kernel: {account:#?}");
            assert_eq!(account.decoded, represent + account.represented, "{signal}, windows: {account:#?}");
            if let Some(exported) = account.exported {
                assert_eq!(account.represented, export + exported, "{signal}, export: {account:#?}");
            }
            assert_eq!(account.unexplained, 0, "{signal}, by the agent's own sums");
        }
        assert!(self.verdict.contains("The books balance"), "{}", self.verdict);
    }
}

impl Account {
    /// Losses by one reason.
    pub fn lost_as(&self, reason: &str) -> u64 {
        self.lost.get(reason).copied().unwrap_or(0)
    }

    fn lost_by(&self, reasons: &[&str]) -> u64 {
        reasons.iter().map(|reason| self.lost_as(reason)).sum()
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is not a number of the ledger"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "stopping: what was collected still goes out
──────────
 signal    seen   decoded   represented   exported   lost                   unexplained
══════════
 process   9      7         7             -          2 ring_full            0
──────────
 profile   100    80        75            70         20 ring_full           0
                                                     5 window_full
                                                     5 export_shutdown
──────────
The books balance: everything that was seen came out or is counted as lost.";

    #[test]
    fn a_table() {
        let books = Books::parse(PRINTED);
        books.expect_balance();
        assert_eq!(books.of("profile").lost_as("export_shutdown"), 5);
        assert_eq!(books.of("process").exported, None);
    }

    #[test]
    #[should_panic(expected = "profile, export")]
    fn a_table_that_does_not_balance() {
        Books::parse(&PRINTED.replace("5 export_shutdown", "4 export_shutdown")).expect_balance();
    }
}
