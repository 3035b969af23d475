//! The books as text: what was seen, what came out, what was lost and why.

use crate::loss::Account;

/// A table of all signals that saw something, and a line that says whether the books balance.
pub(super) fn text(accounts: &[Account]) -> String {
    let mut table = super::doctor::table(&[
        "signal",
        "seen",
        "decoded",
        "represented",
        "exported",
        "lost",
        "unexplained",
    ]);
    for account in accounts.iter().filter(|account| account.seen > 0) {
        let lost: Vec<String> =
            account.lost.iter().map(|(reason, count)| format!("{count} {}", reason.name())).collect();
        let exported = if account.is_exported() { account.exported.to_string() } else { "-".to_owned() };
        table.add_row([
            account.signal.name().to_owned(),
            account.seen.to_string(),
            account.decoded.to_string(),
            account.represented.to_string(),
            exported,
            if lost.is_empty() { "0".to_owned() } else { lost.join("\n") },
            account.unexplained().to_string(),
        ]);
    }
    let unexplained: u64 = accounts.iter().map(Account::unexplained).sum();
    let verdict = match unexplained {
        0 => "The books balance: everything that was seen came out or is counted as lost.".to_owned(),
        count => format!("{count} records are unexplained: please report this."),
    };
    format!("{table}\n{verdict}")
}
