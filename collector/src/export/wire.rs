//! Protobuf's wire format, as far as requests of metrics and traces need it:
//! <https://protobuf.dev/programming-guides/encoding/>.
//!
//! Refuses: fields above 15, whose tags have two bytes, but in [`fixed32`].

/// A tag and a length, at most: one byte and five.
pub const NESTING_BYTES: usize = 6;

/// A varint, at most.
const VARINT_BYTES_MAX: usize = 10;

/// A number without a fixed width.
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    for _ in 1..VARINT_BYTES_MAX {
        if value < 0x80 {
            break;
        }
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes a number takes.
pub fn varint_bytes(value: u64) -> usize {
    // Seven bits in each byte; zero takes one, too.
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// A number of any sign, with the small ones short (`sint32`). Zero is left out.
pub fn signed(out: &mut Vec<u8>, field: u8, value: i32) {
    let zigzag = (value.cast_unsigned() << 1) ^ (value >> 31).cast_unsigned();
    unsigned(out, field, u64::from(zigzag));
}

/// A number (`uint64`, `enum`, `bool`). Zero is left out.
pub fn unsigned(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        out.push(field << 3);
        varint(out, value);
    }
}

/// Eight bytes (`fixed64`, `sfixed64`, `double`), whatever they are.
pub fn fixed(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push(field << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// The same; zero is left out.
pub fn fixed_unless_zero(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        fixed(out, field, value);
    }
}

/// Four bytes (`fixed32`).
pub fn fixed32(out: &mut Vec<u8>, field: u8, value: u32) {
    varint(out, u64::from(field) << 3 | 5);
    out.extend_from_slice(&value.to_le_bytes());
}

/// What comes before so many bytes: of a text, a message or packed numbers.
pub fn head(out: &mut Vec<u8>, field: u8, bytes: usize) {
    out.push(field << 3 | 2);
    varint(out, bytes as u64);
}

/// A part of so many bytes with what comes before it.
pub fn part_bytes(bytes: usize) -> usize {
    1 + varint_bytes(bytes as u64) + bytes
}

/// A text or an encoded message.
pub fn part(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    head(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn numbers_read_back(value: u64, number: i32) {
            let mut out = Vec::new();
            varint(&mut out, value);
            proptest::prop_assert_eq!(out.len(), varint_bytes(value));
            proptest::prop_assert_eq!(prost::decode_length_delimiter(out.as_slice()).ok(), usize::try_from(value).ok());
            out.clear();
            signed(&mut out, 1, number);
            let mut expected = Vec::new();
            prost::encoding::sint32::encode(1, &number, &mut expected);
            proptest::prop_assert!(out == expected || number == 0);
        }
    }
}
