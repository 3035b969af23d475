//! Looks up where a field stands in a kernel struct, in the kernel's own BTF.
//!
//! A small reader, because aya's `Btf` has no public member look-up and the one crate for it is LGPL. Layout: kernel
//! documentation, `Documentation/bpf/btf.rst`. Refuses: everything but struct members, and any trust in the bytes.

use std::collections::HashMap;

const BTF_MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_POINTER: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// The kernel's typedefs of tracepoints' functions start with this (include/trace/bpf_probe.h).
const TRACEPOINT_TYPEDEF: &[u8] = b"btf_trace_";

/// Anonymous structs within structs are followed this deep.
const NESTING_MAX: usize = 8;

/// The type section of a BTF file, with the place of each type.
pub struct Btf {
    bytes: Vec<u8>,
    strings_start: usize,
    /// Byte position of each type, by id minus one.
    types: Vec<u32>,
    /// Byte positions of structs by name: a kernel has some of several kinds under one name.
    structs: HashMap<Box<[u8]>, Vec<u32>>,
    /// Byte positions of the types of tracepoints' functions, by the tracepoint's name.
    tracepoints: HashMap<Box<[u8]>, u32>,
}

impl Btf {
    /// Indexes the types of a BTF file; `None` if the bytes are not BTF of the first version.
    pub fn parse(bytes: Vec<u8>) -> Option<Self> {
        let little_endian = u16::from_le_bytes([*bytes.first()?, *bytes.get(1)?]) == BTF_MAGIC;
        if !little_endian || *bytes.get(2)? != 1 {
            return None;
        }
        let header_bytes = word(&bytes, 4)? as usize;
        let types_start = header_bytes.checked_add(word(&bytes, 8)? as usize)?;
        let types_end = types_start.checked_add(word(&bytes, 12)? as usize)?;
        let strings_start = header_bytes.checked_add(word(&bytes, 16)? as usize)?;
        let mut types = Vec::new();
        let mut at = types_start;
        while at < types_end {
            types.push(u32::try_from(at).ok()?);
            at = at.checked_add(12)?.checked_add(trailer_bytes(word(&bytes, at + 4)?)?)?;
        }
        let mut structs: HashMap<Box<[u8]>, Vec<u32>> = HashMap::new();
        let mut tracepoints = HashMap::new();
        for &at in &types {
            let kind = kind(word(&bytes, at as usize + 4)?);
            if kind != KIND_STRUCT && kind != KIND_TYPEDEF {
                continue;
            }
            let name = strings_start.checked_add(word(&bytes, at as usize)? as usize)?;
            let name = bytes.get(name..)?.split(|&byte| byte == 0).next()?;
            if kind == KIND_STRUCT {
                structs.entry(name.into()).or_default().push(at);
            } else if let Some(tracepoint) = name.strip_prefix(TRACEPOINT_TYPEDEF) {
                tracepoints.insert(tracepoint.into(), at);
            }
        }
        Some(Self { bytes, strings_start, types, structs, tracepoints })
    }

    /// Parameters of a tracepoint's function: its arguments, and one before them; `None` if the kernel has no such one.
    pub fn tracepoint_parameters(&self, name: &str) -> Option<u32> {
        let typedef = *self.tracepoints.get(name.as_bytes())? as usize;
        let pointer = self.of_kind(word(&self.bytes, typedef + 8)?, KIND_POINTER)?;
        let function = self.of_kind(word(&self.bytes, pointer + 8)?, KIND_FUNC_PROTO)?;
        Some(word(&self.bytes, function + 4)? & 0xffff)
    }

    /// The place of a type, if it is of the kind.
    fn of_kind(&self, id: u32, wanted: u32) -> Option<usize> {
        let at = *self.types.get((id as usize).checked_sub(1)?)? as usize;
        (kind(word(&self.bytes, at + 4)?) == wanted).then_some(at)
    }

    /// Byte offset of a field in a struct, through anonymous members; `None` if either is not there or is a bit field.
    pub fn field_offset(&self, structure: &str, field: &str) -> Option<u32> {
        self.positions(structure)
            .find_map(|at| self.member_offset_bits(at, field, NESTING_MAX))
            .filter(|bits| bits % 8 == 0)
            .map(|bits| bits / 8)
    }

    /// Bytes of a struct; `None` if it is not there.
    pub fn size_bytes(&self, structure: &str) -> Option<u32> {
        self.positions(structure).find_map(|at| word(&self.bytes, at + 8))
    }

    fn positions(&self, structure: &str) -> impl Iterator<Item = usize> {
        self.structs.get(structure.as_bytes()).into_iter().flatten().map(|&at| at as usize)
    }

    fn member_offset_bits(&self, at: usize, field: &str, depth: usize) -> Option<u32> {
        let info = word(&self.bytes, at + 4)?;
        let has_bit_fields = info >> 31 == 1;
        for index in 0..(info & 0xffff) as usize {
            let member = at + 12 + index * 12;
            let name = word(&self.bytes, member)?;
            let raw = word(&self.bytes, member + 8)?;
            let offset = if has_bit_fields { raw & 0x00ff_ffff } else { raw };
            if self.name_is(name, field) {
                return Some(offset);
            }
            if self.name_is(name, "") && depth > 0 {
                let nested = self.composite(word(&self.bytes, member + 4)?);
                if let Some(inner) = nested.and_then(|at| self.member_offset_bits(at, field, depth - 1)) {
                    return offset.checked_add(inner);
                }
            }
        }
        None
    }

    fn composite(&self, id: u32) -> Option<usize> {
        let at = *self.types.get((id as usize).checked_sub(1)?)? as usize;
        matches!(kind(word(&self.bytes, at + 4)?), KIND_STRUCT | KIND_UNION).then_some(at)
    }

    fn name_is(&self, offset: u32, name: &str) -> bool {
        let start = self.strings_start.saturating_add(offset as usize);
        let end = start.saturating_add(name.len());
        self.bytes.get(start..end) == Some(name.as_bytes()) && self.bytes.get(end) == Some(&0)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn kind(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

/// Bytes that follow the 12 common bytes of a type.
fn trailer_bytes(info: u32) -> Option<usize> {
    let entries = (info & 0xffff) as usize;
    Some(match kind(info) {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => entries * 12,
        KIND_ENUM | KIND_FUNC_PROTO => entries * 8,
        kind if kind <= KIND_ENUM64 => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A BTF file with `struct outer { u64 a; struct { u32 b; u32 c; }; }` and a forward declaration before it.
    fn sample() -> Vec<u8> {
        let strings = b"\0outer\0a\0b\0c\0";
        let types: [u32; 30] = [
            0,
            7 << 24,
            0, // 1: a forward declaration without a name
            0,
            4 << 24 | 2,
            8,
            9,
            4,
            0,
            11,
            4,
            32, // 2: struct { b; c }
            1,
            4 << 24 | 2,
            16,
            7,
            4,
            0,
            0,
            2,
            64, // 3: struct outer { a; struct 2 }
            0,
            1 << 24,
            4,
            32, // 4: an int
            0,
            0,
            0,
            0,
            0,
        ];
        let type_bytes: Vec<u8> = types[..25].iter().flat_map(|word| word.to_le_bytes()).collect();
        let header: [u32; 5] =
            [24, 0, type_bytes.len() as u32, type_bytes.len() as u32, strings.len() as u32];
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        bytes.extend(header.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(&type_bytes);
        bytes.extend(strings);
        bytes
    }

    fn check(structure: &str, field: &str, expected: Option<u32>) {
        let btf = Btf::parse(sample()).expect("valid BTF");
        assert_eq!(btf.field_offset(structure, field), expected, "{structure}.{field}");
    }

    #[test]
    fn fields_through_anonymous_members() {
        check("outer", "a", Some(0));
        check("outer", "b", Some(8));
        check("outer", "c", Some(12));
        check("outer", "missing", None);
        check("missing", "a", None);
    }

    #[test]
    fn truncated_files_never_panic() {
        let whole = sample();
        for length in 0..whole.len() {
            if let Some(btf) = Btf::parse(whole[..length].to_vec()) {
                btf.field_offset("outer", "c");
            }
        }
        assert!(Btf::parse(b"not BTF at all, but long enough".to_vec()).is_none());
    }

    proptest::proptest! {
        #[test]
        fn changed_files_never_panic(at in 0usize..200, value: u8) {
            let mut bytes = sample();
            let at = at % bytes.len();
            bytes[at] = value;
            if let Some(btf) = Btf::parse(bytes) {
                btf.field_offset("outer", "c");
            }
        }
    }

    #[test]
    fn the_running_kernel() {
        if let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") {
            let btf = Btf::parse(bytes).expect("the kernel's BTF");
            assert!(btf.field_offset("task_struct", "group_leader").is_some_and(|offset| offset > 0));
            assert_eq!(btf.tracepoint_parameters("sys_enter"), Some(3));
        }
    }
}
