//! An attribute -> its encoded `KeyValue`: opentelemetry/proto/common/v1/common.proto.
//!
//! Without the generated messages, which take memory for each text and their own size at each level: of 10 microseconds for
//! a span, that was 8. Refuses: maps and bytes, which nobody here has.

use super::wire;
use crate::telemetry::Text;

/// An attribute's value.
#[derive(Clone, Copy, Debug)]
pub enum AnyValue<'a> {
    /// A text.
    Text(&'a str),
    /// `true`.
    Flag,
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
    /// Several texts.
    Texts(&'a [Text]),
}

/// Adds an attribute as this field of what is written.
pub fn attribute(out: &mut Vec<u8>, field: u8, key: &str, value: &AnyValue<'_>) {
    let value_bytes = value.bytes();
    wire::head(out, field, wire::part_bytes(key.len()) + wire::part_bytes(value_bytes));
    wire::part(out, 1, key.as_bytes());
    wire::head(out, 2, value_bytes);
    value.write(out);
}

impl AnyValue<'_> {
    /// How many bytes its message has.
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => wire::part_bytes(text.len()),
            Self::Flag => 2,
            Self::Integer(number) => 1 + wire::varint_bytes(number.cast_unsigned()),
            Self::Number(_) => 1 + size_of::<f64>(),
            Self::Texts(texts) => wire::part_bytes(array_bytes(texts)),
        }
    }

    /// One of several fields: it is there even if it is zero or empty.
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => wire::part(out, 1, text.as_bytes()),
            Self::Flag => out.extend([2 << 3, 1]),
            Self::Integer(number) => {
                out.push(3 << 3);
                wire::varint(out, number.cast_unsigned());
            }
            Self::Number(number) => wire::fixed(out, 4, number.to_bits()),
            Self::Texts(texts) => {
                wire::head(out, 5, array_bytes(texts));
                for text in *texts {
                    wire::head(out, 1, wire::part_bytes(text.len()));
                    wire::part(out, 1, text.as_bytes());
                }
            }
        }
    }
}

/// An `ArrayValue` of texts, each a value of its own.
fn array_bytes(texts: &[Text]) -> usize {
    texts.iter().map(|text| wire::part_bytes(wire::part_bytes(text.len()))).sum()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::common::v1::{AnyValue as Message, ArrayValue, KeyValue};
    use proptest::prelude::*;

    use super::*;

    /// Against the generated message: its encoding is in the order of the fields, too.
    fn check(key: &str, value: &AnyValue<'_>, expected: Value) {
        let mut out = Vec::new();
        attribute(&mut out, 9, key, value);
        let value = Some(Message { value: Some(expected) });
        let message = KeyValue { key: key.to_owned(), value, ..KeyValue::default() };
        let mut expected = Vec::new();
        prost::encoding::message::encode(9, &message, &mut expected);
        assert_eq!(out, expected, "{message:?}");
    }

    proptest! {
        #[test]
        fn as_generated(key in ".{1,200}", texts in proptest::collection::vec(".{0,200}", 0..5), number: i64, real: f64) {
            check(&key, &AnyValue::Integer(number), Value::IntValue(number));
            check(&key, &AnyValue::Number(real), Value::DoubleValue(real));
            check(&key, &AnyValue::Flag, Value::BoolValue(true));
            check(&key, &AnyValue::Text(&key), Value::StringValue(key.clone()));
            let values = texts.iter().map(|text| Message { value: Some(Value::StringValue(text.clone())) });
            let array = Value::ArrayValue(ArrayValue { values: values.collect() });
            let texts: Vec<Text> = texts.into_iter().map(Text::from).collect();
            check(&key, &AnyValue::Texts(&texts), array);
        }
    }
}
