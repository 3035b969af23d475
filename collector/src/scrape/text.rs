//! A page of metrics, read as it arrives: Prometheus text 0.0.4 and OpenMetrics 1.0.
//!
//! Keeps one incomplete line and what `Limits` lets through, never the page. A bad line loses that line alone, counted,
//! and the first ones are told with their place. Refuses: protobuf, quoted (UTF-8) names, native histograms, and to judge
//! whether a family's samples fit together: that is `translate`'s.
//!
//! Own code, not a crate: those on crates.io take a whole page as text and give it up at its first bad line, without limits.
//!
//! Specs: <https://prometheus.io/docs/instrumenting/exposition_formats/>,
//! <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>

mod family;
mod line;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, RandomState};

pub use family::{Exemplar, Family, Kind, Labels, Role, Sample};
use line::{Line, Parsed};

use super::loss::{Failure, Loss, Losses};

/// Flaws of a page that are told; all are counted.
pub const FLAWS_MAX: usize = 5;

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4: timestamps in milliseconds, ends anywhere.
    Prometheus,
    /// OpenMetrics 1.0: timestamps in seconds, exemplars, ends with `# EOF`.
    OpenMetrics,
}

/// How much of a target is taken. What is beyond is lost and counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the page, as sent and as unpacked; beyond, the scrape fails.
    pub body_bytes_max: usize,
    /// Bytes of a line.
    pub line_bytes_max: usize,
    /// Series, counted as Prometheus does: each bucket is one.
    pub series_max: usize,
    /// Metric families.
    pub families_max: usize,
    /// Labels of a series.
    pub labels_max: usize,
    /// Bytes of a series' name, label names and label values.
    pub label_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes_max: 16 << 20,
            line_bytes_max: 64 << 10,
            series_max: 10_000,
            families_max: 4_000,
            labels_max: 64,
            label_bytes_max: 4 << 10,
        }
    }
}

/// What was read of a page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The families in their order on the page. No series is there twice.
    pub families: Vec<Family>,
    /// Well-formed samples on the page, with those that were beyond a limit.
    pub samples: usize,
    /// Lines and samples that were lost.
    pub losses: Losses,
    /// The first `FLAWS_MAX` bad lines.
    pub flaws: Vec<Flaw>,
}

/// A bad line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Its number; the first is 1.
    pub line: usize,
    /// Why it was lost.
    pub loss: Loss,
    /// What was expected.
    pub why: &'static str,
}

impl fmt::Display for Flaw {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}: {}", self.line, self.why)
    }
}

/// Reads a page piece by piece.
pub struct Parser {
    format: Format,
    limits: Limits,
    page: Page,
    families: HashMap<String, usize>,
    /// Hashes of the series so far. The key is random, so a target cannot choose two that collide.
    series: HashSet<u64>,
    hasher: RandomState,
    /// The line that has no end yet.
    partial: Vec<u8>,
    /// The rest of an overlong line is passed over.
    skips: bool,
    lines: usize,
    ended: bool,
}

impl Parser {
    /// A parser at the start of a page.
    pub fn new(format: Format, limits: Limits) -> Parser {
        Parser {
            format,
            limits,
            page: Page::default(),
            families: HashMap::new(),
            series: HashSet::new(),
            hasher: RandomState::new(),
            partial: Vec::new(),
            skips: false,
            lines: 0,
            ended: false,
        }
    }

    /// Reads on. Pieces may end anywhere.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.keep(&bytes[..end]);
            self.end_line();
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    /// The page.
    ///
    /// # Errors
    /// [`Failure::Incomplete`] if an OpenMetrics page does not end with `# EOF`: what is missing cannot be known.
    pub fn finish(mut self) -> Result<Page, Failure> {
        if !self.partial.is_empty() || self.skips {
            self.end_line();
        }
        if self.format == Format::OpenMetrics && !self.ended {
            return Err(Failure::Incomplete("it does not end with # EOF".to_owned()));
        }
        Ok(self.page)
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.skips {
            return;
        }
        if self.partial.len() + bytes.len() > self.limits.line_bytes_max {
            self.skips = true;
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self) {
        self.lines += 1;
        let mut bytes = std::mem::take(&mut self.partial);
        let read = match std::mem::take(&mut self.skips) {
            true => Err((Loss::LineLength, "a shorter line was expected")),
            false => self.line(&bytes),
        };
        if let Err((loss, why)) = read {
            self.page.losses.add(loss, 1);
            if self.page.flaws.len() < FLAWS_MAX {
                self.page.flaws.push(Flaw { line: self.lines, loss, why });
            }
        }
        // The next line takes the same memory.
        bytes.clear();
        self.partial = bytes;
    }

    fn line(&mut self, bytes: &[u8]) -> Result<(), (Loss, &'static str)> {
        let text = std::str::from_utf8(bytes).map_err(|_| (Loss::Malformed, "UTF-8 was expected"))?;
        let line = line::parse(text, self.format, &self.limits)?;
        if self.ended && line != Line::Empty {
            return Err((Loss::Malformed, "nothing was expected after # EOF"));
        }
        match line {
            Line::Empty => Ok(()),
            Line::End => {
                self.ended = self.format == Format::OpenMetrics;
                Ok(())
            }
            Line::Kind(name, kind) => self.describe(name, |family| set(&mut family.kind, kind)),
            Line::Help(name, help) => self.describe(name, |family| set(&mut family.help, help)),
            Line::Unit(name, unit) => self.describe(name, |family| set(&mut family.unit, unit)),
            Line::Sample(parsed) => self.sample(parsed),
        }
    }

    fn describe(
        &mut self,
        name: &str,
        set: impl FnOnce(&mut Family) -> bool,
    ) -> Result<(), (Loss, &'static str)> {
        let position = self.family(name)?;
        let family = &mut self.page.families[position];
        match family.samples.is_empty() && set(family) {
            true => Ok(()),
            false => Err((Loss::Metadata, "no second or late description of a family was expected")),
        }
    }

    fn sample(&mut self, parsed: Parsed<'_>) -> Result<(), (Loss, &'static str)> {
        self.page.samples += 1;
        if self.series.len() >= self.limits.series_max {
            return Err((Loss::SeriesLimit, "fewer series were expected"));
        }
        let (position, role) = self.place(parsed.name)?;
        if !self.series.insert(self.hasher.hash_one((position, role, &parsed.labels))) {
            return Err((Loss::Duplicate, "no second sample of a series was expected"));
        }
        let Parsed { labels, value, time_unix_ns, exemplar, .. } = parsed;
        self.page.families[position].samples.push(Sample { role, labels, value, time_unix_ns, exemplar });
        Ok(())
    }

    /// The family of a sample by its name: one with this name, or one whose type has samples with this suffix.
    fn place(&mut self, name: &str) -> Result<(usize, Role), (Loss, &'static str)> {
        if let Some(position) = self.families.get(name) {
            return Ok((*position, Role::Plain));
        }
        let with_suffix = Role::SUFFIXED.into_iter().find_map(|role| {
            let position = *self.families.get(name.strip_suffix(role.suffix())?)?;
            let kind = self.page.families[position].kind?;
            kind.has(role).then_some((position, role))
        });
        with_suffix.map_or_else(|| Ok((self.family(name)?, Role::Plain)), Ok)
    }

    fn family(&mut self, name: &str) -> Result<usize, (Loss, &'static str)> {
        if let Some(position) = self.families.get(name) {
            return Ok(*position);
        }
        let position = self.page.families.len();
        if position >= self.limits.families_max {
            return Err((Loss::FamilyLimit, "fewer families were expected"));
        }
        self.page.families.push(Family { name: name.to_owned(), ..Family::default() });
        self.families.insert(name.to_owned(), position);
        Ok(position)
    }
}

/// Sets what is not set yet; says whether it did.
fn set<T>(place: &mut Option<T>, value: T) -> bool {
    let free = place.is_none();
    if free {
        *place = Some(value);
    }
    free
}

#[cfg(test)]
mod tests;
