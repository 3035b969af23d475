//! The trace that a request says it belongs to: W3C Trace Context, else B3.
//!
//! Refuses: baggage, and identifiers that are not well-formed.

use std::borrow::Cow;

use crate::flow::protocol::TraceContext;

/// Bytes of `tracestate` that are kept.
const STATE_BYTES_MAX: usize = 512;

/// Bytes of `traceparent`, version 00.
const PARENT_BYTES: usize = 55;

/// The headers that carry a trace.
#[derive(Debug, Default)]
pub struct Carriers<'a> {
    parent: Option<&'a [u8]>,
    parents: usize,
    state: Cow<'a, str>,
    single: Option<&'a [u8]>,
    trace_id: Option<&'a [u8]>,
    span_id: Option<&'a [u8]>,
    sampled: Option<&'a [u8]>,
    flags: Option<&'a [u8]>,
}

impl<'a> Carriers<'a> {
    /// Takes a header, if it is one of them.
    pub fn note(&mut self, name: &str, value: &'a [u8]) {
        let value = value.trim_ascii();
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            2 if is("b3") => self.single = Some(value),
            10 if is("tracestate") => self.note_state(value),
            10 if is("x-b3-flags") => self.flags = Some(value),
            11 if is("traceparent") => {
                self.parent = Some(value);
                self.parents += 1;
            }
            11 if is("x-b3-spanid") => self.span_id = Some(value),
            12 if is("x-b3-traceid") => self.trace_id = Some(value),
            12 if is("x-b3-sampled") => self.sampled = Some(value),
            _ => {}
        }
    }

    /// The trace.
    pub fn context(&self) -> Option<TraceContext> {
        self.w3c().or_else(|| self.b3_single()).or_else(|| self.b3_many())
    }

    /// Several headers of that name are one list.
    fn note_state(&mut self, value: &'a [u8]) {
        let Ok(value) = std::str::from_utf8(value) else { return };
        if self.state.is_empty() {
            self.state = Cow::Borrowed(value);
        } else if self.state.len() < STATE_BYTES_MAX {
            let state = self.state.to_mut();
            state.push(',');
            state.push_str(value);
        }
    }

    fn w3c(&self) -> Option<TraceContext> {
        // More than one is as good as none: nobody can say which is meant.
        let parent = self.parent.filter(|_| self.parents == 1)?;
        let (known, rest) = parent.split_at_checked(PARENT_BYTES)?;
        let mut fields = known.split(|byte| *byte == b'-');
        let (version, trace_id, span_id, flags) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let [version] = lower_hex::<1>(version)?;
        let is_version_known = match version {
            0 => rest.is_empty(),
            0xff => false,
            // A later version may only append fields.
            _ => rest.first().is_none_or(|byte| *byte == b'-'),
        };
        let [flags] = lower_hex::<1>(flags)?;
        let (trace_id, span_id) = (lower_hex(trace_id)?, lower_hex(span_id)?);
        let context = TraceContext {
            trace_id,
            span_id,
            is_sampled: Some(flags & 1 != 0),
            state: bounded_state(&self.state),
        };
        Some(context).filter(|context| is_version_known && is_valid(context))
    }

    fn b3_single(&self) -> Option<TraceContext> {
        let mut fields = self.single?.split(|byte| *byte == b'-');
        let (trace_id, span_id) = (fields.next()?, fields.next()?);
        b3(trace_id, span_id, fields.next().and_then(sampled))
    }

    fn b3_many(&self) -> Option<TraceContext> {
        let is_debug = self.flags == Some(b"1");
        let is_sampled = if is_debug { Some(true) } else { self.sampled.and_then(sampled) };
        b3(self.trace_id?, self.span_id?, is_sampled)
    }
}

fn b3(trace_id: &[u8], span_id: &[u8], is_sampled: Option<bool>) -> Option<TraceContext> {
    let trace_id = match trace_id.len() {
        // The short form is the lower half.
        16 => u128::from(u64::from_be_bytes(hex(trace_id)?)).to_be_bytes(),
        _ => hex(trace_id)?,
    };
    let context = TraceContext { trace_id, span_id: hex(span_id)?, is_sampled, state: String::new() };
    Some(context).filter(is_valid)
}

fn sampled(value: &[u8]) -> Option<bool> {
    match value {
        b"1" | b"d" | b"true" => Some(true),
        b"0" | b"false" => Some(false),
        _ => None,
    }
}

fn is_valid(context: &TraceContext) -> bool {
    context.trace_id != [0; 16] && context.span_id != [0; 8]
}

/// Whole members only: half of one is worse than none.
fn bounded_state(state: &str) -> String {
    if state.len() <= STATE_BYTES_MAX {
        return state.to_owned();
    }
    let known = state.as_bytes().get(..=STATE_BYTES_MAX).unwrap_or_default();
    let end = known.iter().rposition(|byte| *byte == b',').unwrap_or(0);
    state.get(..end).unwrap_or_default().to_owned()
}

fn lower_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    hex(digits).filter(|_| !digits.iter().any(u8::is_ascii_uppercase))
}

fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let digit = |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}
