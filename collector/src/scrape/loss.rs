//! Why a scrape failed and why samples of a good one are lost, with counters for both.
//!
//! Refuses: text of a target in the reasons; they are attributes of metrics and have to be few.

use thiserror::Error;

/// Why a line or a sample of a page is lost. The page's other lines are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The line is not of the format.
    Malformed,
    /// The line is longer than `Limits::line_bytes_max`.
    LineLength,
    /// The page has more series than `Limits::series_max`.
    SeriesLimit,
    /// The page has more families than `Limits::families_max`.
    FamilyLimit,
    /// The series has more labels than `Limits::labels_max`.
    LabelLimit,
    /// The series' labels are longer than `Limits::label_bytes_max`.
    LabelLength,
    /// The page has the series already.
    Duplicate,
    /// The family's `TYPE`, `HELP` or `UNIT` was given before, or comes after its samples.
    Metadata,
    /// A histogram or summary that does not add up or lacks its count, a counter that is negative or not a number.
    Inconsistent,
    /// A type that OpenTelemetry cannot express: gauge histograms.
    Kind,
    /// A name that only the scraper itself may give, such as `up`.
    Reserved,
    /// The node holds all the series it may (`HELD_BYTES_MAX`).
    NodeLimit,
}

/// All losses, in the order of their counters.
pub const LOSSES: [Loss; 12] = [
    Loss::Malformed,
    Loss::LineLength,
    Loss::SeriesLimit,
    Loss::FamilyLimit,
    Loss::LabelLimit,
    Loss::LabelLength,
    Loss::Duplicate,
    Loss::Metadata,
    Loss::Inconsistent,
    Loss::Kind,
    Loss::Reserved,
    Loss::NodeLimit,
];

impl Loss {
    /// Its name as the attribute `reason`.
    pub fn name(self) -> &'static str {
        match self {
            Loss::Malformed => "malformed",
            Loss::LineLength => "line_length",
            Loss::SeriesLimit => "series_limit",
            Loss::FamilyLimit => "family_limit",
            Loss::LabelLimit => "label_limit",
            Loss::LabelLength => "label_length",
            Loss::Duplicate => "duplicate",
            Loss::Metadata => "metadata",
            Loss::Inconsistent => "inconsistent",
            Loss::Kind => "kind",
            Loss::Reserved => "reserved",
            Loss::NodeLimit => "node_limit",
        }
    }
}

/// How many were lost to what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses([u64; LOSSES.len()]);

impl Losses {
    /// Counts some.
    pub fn add(&mut self, loss: Loss, count: usize) {
        self.0[loss as usize] = self.0[loss as usize].saturating_add(count as u64);
    }

    /// Counts all of `other`.
    pub fn merge(&mut self, other: &Losses) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(count);
        }
    }

    /// How many were lost to `loss`.
    pub fn get(&self, loss: Loss) -> u64 {
        self.0[loss as usize]
    }
}

/// Why a scrape gave nothing. Its text says more than its name; it may hold words of the target, cut and printable.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or it broke before an answer: refused, no such host, a failed TLS handshake, too many headers.
    #[error("no connection: {0}")]
    Connection(String),
    /// Not done within the target's timeout, at whatever point.
    #[error("not done within its timeout")]
    Timeout,
    /// An answer other than 200.
    #[error("the target answered {0}")]
    Status(u16),
    /// A redirect; none is followed.
    #[error("the target redirects ({0}); redirects are not followed")]
    Redirect(u16),
    /// A content type that is no exposition format we asked for.
    #[error("the target answered with the content type {0:?}")]
    ContentType(String),
    /// A content encoding we did not ask for, or one that does not hold what it says.
    #[error("the body is not the {0} it claims to be")]
    Encoding(String),
    /// More than `Limits::body_bytes_max`, sent or unpacked.
    #[error("the page is too large")]
    BodySize,
    /// The body broke off, or an OpenMetrics page does not end with `# EOF`.
    #[error("the page is incomplete: {0}")]
    Incomplete(String),
}

/// Names of all failures, in the order of their counters.
pub const FAILURES: [&str; 8] =
    ["connection", "timeout", "status", "redirect", "content_type", "encoding", "body_size", "incomplete"];

impl Failure {
    /// Where its name stands in [`FAILURES`].
    pub fn position(&self) -> usize {
        match self {
            Failure::Connection(_) => 0,
            Failure::Timeout => 1,
            Failure::Status(_) => 2,
            Failure::Redirect(_) => 3,
            Failure::ContentType(_) => 4,
            Failure::Encoding(_) => 5,
            Failure::BodySize => 6,
            Failure::Incomplete(_) => 7,
        }
    }

    /// Its name as the attribute `error.type`.
    pub fn name(&self) -> &'static str {
        FAILURES[self.position()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_loss_has_its_counter() {
        for (position, loss) in LOSSES.iter().enumerate() {
            assert_eq!(*loss as usize, position, "{}", loss.name());
        }
    }
}
