//! Quantities of Kubernetes as numbers: `100m`, `1.5Gi`, `3e2`.
//!
//! Source: k8s.io/apimachinery `pkg/api/resource`: a decimal number with a suffix of powers of ten or of two, or an exponent.
//! Refuses: more than a double holds; a metric's value is one.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

/// Amounts by the name of the resource. A quantity that is none is left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quantities(Vec<(Box<str>, f64)>);

impl Quantities {
    /// Names and amounts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, amount)| (name.as_ref(), *amount))
    }

    /// The amount of one resource.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.iter().find(|(known, _)| *known == name).map(|(_, amount)| amount)
    }
}

impl<'de> Deserialize<'de> for Quantities {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(QuantitiesVisitor)
    }
}

struct QuantitiesVisitor;

impl<'de> Visitor<'de> for QuantitiesVisitor {
    type Value = Quantities;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("quantities by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Quantities, A::Error> {
        let mut quantities = Vec::new();
        while let Some((name, value)) = map.next_entry::<Box<str>, serde_json::Value>()? {
            let amount = match &value {
                serde_json::Value::String(text) => amount(text),
                other => other.as_f64(),
            };
            quantities.extend(amount.map(|amount| (name, amount)));
        }
        quantities.shrink_to_fit();
        Ok(Quantities(quantities))
    }
}

/// The number that a quantity stands for; `None` if it is none.
fn amount(text: &str) -> Option<f64> {
    let end = text.find(|char: char| !matches!(char, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let factor = match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 2f64.powi(10),
        "Mi" => 2f64.powi(20),
        "Gi" => 2f64.powi(30),
        "Ti" => 2f64.powi(40),
        "Pi" => 2f64.powi(50),
        "Ei" => 2f64.powi(60),
        exponent => {
            let exponent: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            10f64.powi(exponent)
        }
    };
    Some(number * factor).filter(|amount| amount.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        let check = |text: &str, expected: Option<f64>| assert_eq!(amount(text), expected, "{text}");
        check("2", Some(2.0));
        check("100m", Some(0.1));
        check("1.5Gi", Some(1.5 * 1_073_741_824.0));
        check("128974848", Some(128_974_848.0));
        check("129e6", Some(129e6));
        check("129M", Some(129e6));
        check("3E", Some(3e18));
        check("3E2", Some(300.0));
        check("-1", Some(-1.0));
        for odd in ["", "m", "1x", "1 Gi", "NaN", "inf", "1e", "1e999", "1e9999999999", "--1", "1.2.3"] {
            check(odd, None);
        }
    }

    #[test]
    fn odd_amounts_are_left_out() {
        let text = r#"{"cpu": "250m", "memory": 5, "odd": "five", "odder": {}}"#;
        let quantities: Quantities = serde_json::from_str(text).expect("a map");
        assert_eq!(quantities.iter().collect::<Vec<_>>(), [("cpu", 0.25), ("memory", 5.0)]);
    }
}
