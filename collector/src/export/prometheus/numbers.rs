//! Numbers and texts as the two text formats write them.
//!
//! Integers stand without exponent as far as a double is exact, others in their shortest form that reads back the
//! same. Refuses: locale and rounding.

/// Adds a value: `42`, `0.5`, `1e-9`, `NaN`, `+Inf`.
pub fn value(out: &mut String, value: f64) {
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else if value.fract() == 0.0 && value.abs() <= EXACT_MAX {
        out.push_str(itoa::Buffer::new().format(value as i64));
    } else {
        out.push_str(zmij::Buffer::new().format_finite(value));
    }
}

/// Adds a count.
pub fn count(out: &mut String, count: u64) {
    out.push_str(itoa::Buffer::new().format(count));
}

/// Adds a moment in seconds, with milliseconds: what Prometheus keeps.
pub fn moment(out: &mut String, unix_ns: u64) {
    count(out, unix_ns / 1_000_000_000);
    let millis = unix_ns / 1_000_000 % 1000;
    out.push('.');
    out.push_str(if millis < 10 {
        "00"
    } else if millis < 100 {
        "0"
    } else {
        ""
    });
    count(out, millis);
}

/// Adds a label value: `\`, `"` and line feed are escaped, in both formats.
pub fn label_value(out: &mut String, text: &str) {
    escaped(out, text, true);
}

/// Adds a help text. `"` is escaped in OpenMetrics only.
pub fn help(out: &mut String, text: &str, quotes: bool) {
    escaped(out, text, quotes);
}

/// All integers up to here have a double of their own.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

fn escaped(out: &mut String, text: &str, quotes: bool) {
    let mut written = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'"' if quotes => "\\\"",
            _ => continue,
        };
        out.push_str(&text[written..at]);
        out.push_str(escape);
        written = at + 1;
    }
    out.push_str(&text[written..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(number: f64, expected: &str) {
        let mut out = String::new();
        value(&mut out, number);
        assert_eq!(out, expected);
    }

    #[test]
    fn values() {
        check(0.0, "0");
        check(-3.0, "-3");
        check(9_007_199_254_740_992.0, "9007199254740992");
        check(0.25, "0.25");
        check(f64::NAN, "NaN");
        check(f64::INFINITY, "+Inf");
        check(f64::NEG_INFINITY, "-Inf");
    }

    #[test]
    fn moments() {
        let mut out = String::new();
        moment(&mut out, 1_700_000_000_007_999_999);
        assert_eq!(out, "1700000000.007");
    }

    #[test]
    fn escapes() {
        let mut out = String::new();
        label_value(&mut out, "a\\\"b\"\nc");
        assert_eq!(out, "a\\\\\\\"b\\\"\\nc");
        out.clear();
        help(&mut out, "\"\\\n", false);
        assert_eq!(out, "\"\\\\\\n");
    }

    proptest! {
        #[test]
        fn values_read_back(bits: u64) {
            let number = f64::from_bits(bits);
            let mut out = String::new();
            value(&mut out, number);
            let read: f64 = out.trim_start_matches('+').parse().unwrap();
            prop_assert!(read == number || number.is_nan());
        }
    }
}
