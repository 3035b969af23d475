//! The table printed at the end: one line per kernel, and the reason below each that failed.

use std::path::PathBuf;

use super::guest::{Check, Need};
use super::verdict::Transcript;

pub struct Row {
    pub kernel: &'static str,
    pub release: String,
    pub seconds: f64,
    pub checks: String,
    /// `None` when the kernel passed.
    pub failure: Option<String>,
    pub log: PathBuf,
}

const HEADINGS: [&str; 5] = ["KERNEL", "RELEASE", "SECONDS", "RESULT", "CHECKED"];

/// Aligns all columns but the last, which is the widest.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![HEADINGS.map(str::to_owned)];
    for row in rows {
        let result = if row.failure.is_some() { "FAIL" } else { "PASS" };
        let seconds = format!("{:.1}", row.seconds);
        lines.push([
            row.kernel.to_owned(),
            row.release.clone(),
            seconds,
            result.to_owned(),
            row.checks.clone(),
        ]);
    }
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: [usize; 4] = std::array::from_fn(width);

    let mut text = String::new();
    for (index, [kernel, release, seconds, result, checks]) in lines.iter().enumerate() {
        let [kernel_width, release_width, seconds_width, result_width] = widths;
        text += &format!(
            "{kernel:kernel_width$}  {release:release_width$}  {seconds:>seconds_width$}  \
             {result:result_width$}  {checks}\n"
        );
        if let Some(row) = index.checked_sub(1).and_then(|index| rows.get(index)) {
            if let Some(reason) = &row.failure {
                text += &format!("{:kernel_width$}  {reason}\n", "");
            }
            text += &format!("{:kernel_width$}  log: {}\n", "", row.log.display());
        }
    }
    text
}

/// Names every check; those that did not pass carry their exit code.
pub fn checks_cell(checks: &[Check], said: &Transcript) -> String {
    let describe = |check: &Check| {
        let name = check.name;
        match (said.exit_of(name), check.need) {
            (Some(0), _) => name.to_owned(),
            (Some(_), Need::Reported) => format!("{name}:absent"),
            (Some(code), Need::Required) => format!("{name}:exit={code}"),
            (None, _) => format!("{name}:not-run"),
        }
    };
    checks.iter().map(describe).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_row_is_followed_by_its_reason_and_log() {
        let row = |kernel, failure: Option<&str>| Row {
            kernel,
            release: "6.1.0-1".to_owned(),
            seconds: 12.34,
            checks: "doctor".to_owned(),
            failure: failure.map(str::to_owned),
            log: PathBuf::from("target/vm/x.log"),
        };
        let text = table(&[row("6.1", None), row("newest", Some("doctor exited 3"))]);
        let expected = "\
KERNEL  RELEASE  SECONDS  RESULT  CHECKED
6.1     6.1.0-1     12.3  PASS    doctor
        log: target/vm/x.log
newest  6.1.0-1     12.3  FAIL    doctor
        doctor exited 3
        log: target/vm/x.log
";
        assert_eq!(text, expected);
    }

    #[test]
    fn every_check_is_named_with_what_became_of_it() {
        let check = |name, need| Check { name, command: "", need };
        let checks = [
            check("doctor", Need::Required),
            check("profile", Need::Required),
            check("kernel-frames", Need::Reported),
            check("hotplug", Need::Required),
        ];
        let said = Transcript::read(
            "KANSOKU-VM check=doctor exit=0\nKANSOKU-VM check=profile exit=2\n\
             KANSOKU-VM check=kernel-frames exit=1\n",
        );
        assert_eq!(checks_cell(&checks, &said), "doctor profile:exit=2 kernel-frames:absent hotplug:not-run");
    }
}
