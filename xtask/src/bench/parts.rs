//! Figures of several parts: each part has a target and a verdict of its own, and the figure is met when all are.
//!
//! Refuses: one verdict that hides the parts, and an end of the figure because one part could not be measured.

use anyhow::{Result, ensure};

use super::figures::Measured;
use super::interrupt;
use super::report::table;
use super::setup::Bench;

/// The target of a part that has none; it gets no verdict.
pub const NO_TARGET: &str = "none";

/// A part that is still to be measured.
pub struct Part {
    pub title: &'static str,
    /// In one word, for the summary of the whole.
    pub name: &'static str,
    pub target: String,
    pub measure: fn(&Bench) -> Result<Measured>,
}

/// One part with what it found.
struct Done {
    title: &'static str,
    name: &'static str,
    target: String,
    measured: Result<Measured>,
}

/// Measures one part after the other, those that are asked for; only an interrupt ends the figure.
pub fn measure(figure: &str, parts: Vec<Part>, bench: &Bench) -> Result<Measured> {
    let mut done = Vec::new();
    let is_wanted = |part: &Part| bench.parts.is_empty() || bench.parts.iter().any(|name| name == part.name);
    for Part { title, name, target, measure } in parts.into_iter().filter(is_wanted) {
        eprintln!("bench: {figure}: {name}");
        done.push(Done { title, name, target, measured: measure(bench) });
        interrupt::check()?;
    }
    ensure!(!done.is_empty(), "{figure} has no part of the name {}", bench.parts.join(", "));
    Ok(whole(&done))
}

fn whole(parts: &[Done]) -> Measured {
    let summary = parts.iter().filter_map(|part| {
        let measured = part.measured.as_ref();
        (part.target != NO_TARGET)
            .then(|| format!("{}: {}", part.name, measured.map_or("not measured", |m| m.summary.as_str())))
    });
    let rows: Vec<_> = parts.iter().map(Done::row).collect();
    let text = table(&["part", "target", "measured", "verdict"], &rows)
        + &parts.iter().map(Done::section).collect::<String>();
    Measured { summary: summary.collect::<Vec<_>>().join("; "), is_met: verdict(parts), text }
}

/// One part that missed is a miss; one that was not measured leaves the rest without a verdict.
fn verdict(parts: &[Done]) -> Option<bool> {
    let is_met = |wanted: bool| {
        move |part: &Done| part.measured.as_ref().is_ok_and(|measured| measured.is_met == Some(wanted))
    };
    if parts.iter().any(is_met(false)) {
        return Some(false);
    }
    parts.iter().filter(|part| part.target != NO_TARGET).all(is_met(true)).then_some(true)
}

impl Done {
    fn row(&self) -> Vec<String> {
        let (measured, verdict) = match &self.measured {
            Ok(measured) => {
                let verdict = match measured.is_met {
                    Some(true) => "met",
                    Some(false) => "missed",
                    None => "-",
                };
                (measured.summary.clone(), verdict)
            }
            Err(error) => (format!("not measured: {error:#}"), "not measured"),
        };
        vec![self.title.to_owned(), self.target.clone(), measured, verdict.to_owned()]
    }

    fn section(&self) -> String {
        match &self.measured {
            Ok(measured) => format!("\n### {}\n\n{}", self.title, measured.text),
            Err(_) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(target: &str, is_met: Option<Option<bool>>) -> Done {
        let measured = is_met
            .map(|is_met| Measured { summary: "x".to_owned(), is_met, text: "text\n".to_owned() })
            .ok_or_else(|| anyhow::anyhow!("no such tool"));
        Done { title: "Title", name: "name", target: target.to_owned(), measured }
    }

    fn check(parts: &[Done], expected: Option<bool>, expected_summary: &str) {
        let whole = whole(parts);
        assert_eq!((whole.is_met, whole.summary.as_str()), (expected, expected_summary), "{}", whole.text);
    }

    #[test]
    fn the_whole_is_met_when_every_part_is() {
        let met = || part("1", Some(Some(true)));
        check(&[met(), part(NO_TARGET, Some(None)), part(NO_TARGET, None)], Some(true), "name: x");
        check(&[met(), part("1", Some(Some(false)))], Some(false), "name: x; name: x");
        check(&[met(), part("1", None)], None, "name: x; name: not measured");
    }

    #[test]
    fn what_was_not_measured_says_why_and_has_no_section() {
        let text = whole(&[part("1", None)]).text;
        assert!(text.ends_with("| Title | 1 | not measured: no such tool | not measured |\n"), "{text}");
    }
}
