//! Units in Prometheus' words as UCUM: compatibility specification, "Metric Metadata".
//!
//! Refuses: to guess a unit from a name.

use crate::telemetry::Text;

const UNITS: [(&str, &str); 26] = [
    ("amperes", "A"),
    ("bits", "bit"),
    ("bytes", "By"),
    ("celsius", "Cel"),
    ("days", "d"),
    ("gibibytes", "GiBy"),
    ("gigabytes", "GBy"),
    ("grams", "g"),
    ("hertz", "Hz"),
    ("hours", "h"),
    ("joules", "J"),
    ("kibibytes", "KiBy"),
    ("kilobytes", "KBy"),
    ("mebibytes", "MiBy"),
    ("megabytes", "MBy"),
    ("meters", "m"),
    ("microseconds", "us"),
    ("milliseconds", "ms"),
    ("minutes", "min"),
    ("nanoseconds", "ns"),
    ("percent", "%"),
    ("ratio", "1"),
    ("seconds", "s"),
    ("volts", "V"),
    ("watts", "W"),
    ("weeks", "wk"),
];

/// The unit in UCUM; words it does not know stay as they are.
pub(super) fn ucum(unit: &str) -> Text {
    match unit.split_once("_per_") {
        Some((top, bottom)) => format!("{}/{}", word(top), word(&format!("{bottom}s"))).into(),
        None => word(unit).to_owned().into(),
    }
}

fn word(word: &str) -> &str {
    UNITS.iter().find(|(name, _)| *name == word).map_or(word, |(_, ucum)| ucum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (unit, expected) in
            [("seconds", "s"), ("bytes_per_second", "By/s"), ("ratio", "1"), ("", ""), ("sheep", "sheep")]
        {
            assert_eq!(ucum(unit), expected);
        }
    }
}
