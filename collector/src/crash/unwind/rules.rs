//! From one frame to its caller by one row of an unwind table.
//!
//! A row comes from a file that anybody may have made: its expressions are programs, and are run for a bounded number of
//! steps. Refuses: registers that no rule told, as if they were zero.

use gimli::{
    CfaRule, Encoding, EndianSlice, Evaluation, EvaluationResult, LittleEndian, Location, Register,
    RegisterRule, UnwindExpression, UnwindTableRow, Value,
};

use super::StackSnapshot;
use super::processor::Processor;

/// Steps of one expression. Honest ones have 4 to 20; a jump backwards makes one that never ends.
const EXPRESSION_STEPS_MAX: u32 = 256;

/// Registers with numbers below this are followed: all general ones of both processors.
const REGISTERS_MAX: usize = 32;

/// What was copied of a stack.
#[derive(Clone, Copy)]
pub struct Memory<'a>(pub &'a [(u64, &'a [u8])]);

impl Memory<'_> {
    /// Eight bytes; `None` if they were not copied.
    pub fn word(self, address: u64) -> Option<u64> {
        self.0.iter().find_map(|(start, bytes)| {
            let from = usize::try_from(address.checked_sub(*start)?).ok()?;
            Some(u64::from_le_bytes(*bytes.get(from..)?.first_chunk()?))
        })
    }
}

/// Registers of a frame, as far as they are known.
#[derive(Clone)]
pub struct Registers {
    processor: &'static Processor,
    values: [Option<u64>; REGISTERS_MAX],
}

impl Registers {
    /// Of the innermost frame.
    pub fn new(processor: &'static Processor, snapshot: &StackSnapshot<'_>) -> Self {
        let mut registers = Self { processor, values: [None; REGISTERS_MAX] };
        registers.set(processor.stack_pointer, Some(snapshot.sp));
        registers.set(processor.frame_pointer, Some(snapshot.fp));
        if processor.calls_push {
            registers.set(processor.return_address, Some(snapshot.ip));
        } else {
            registers.set(processor.return_address, Some(snapshot.link));
        }
        registers
    }

    /// Of a frame that was found by a frame pointer, which tells no other register. On aarch64 the link is at the lower
    /// end of the frame, so that it does not tell the stack pointer either.
    pub fn after_frame_pointer(processor: &'static Processor, link: u64, next: u64) -> Self {
        let mut registers = Self { processor, values: [None; REGISTERS_MAX] };
        registers.set(processor.frame_pointer, Some(next));
        if processor.calls_push {
            registers.set(processor.stack_pointer, link.checked_add(16));
        }
        registers
    }

    /// The stack pointer.
    pub fn stack_pointer(&self) -> Option<u64> {
        self.get(self.processor.stack_pointer)
    }

    /// The frame pointer, or whatever the frame keeps in its register.
    pub fn frame_pointer(&self) -> Option<u64> {
        self.get(self.processor.frame_pointer)
    }

    /// Behind a call that led to no code: what the call saved is used up.
    pub fn return_to(&mut self, stack_pointer: u64) {
        self.set(self.processor.stack_pointer, Some(stack_pointer));
        self.set(self.processor.return_address, None);
    }

    fn get(&self, register: Register) -> Option<u64> {
        self.values.get(usize::from(register.0)).copied().flatten()
    }

    fn set(&mut self, register: Register, value: Option<u64>) {
        if let Some(place) = self.values.get_mut(usize::from(register.0)) {
            *place = value;
        }
    }
}

/// The way to the caller.
pub enum Caller {
    /// There is one.
    Found {
        /// Where it goes on, or was interrupted if the frame is a signal's.
        address: u64,
        /// Its registers.
        registers: Box<Registers>,
        /// The frame is the one that the kernel made for a signal.
        is_signal_frame: bool,
    },
    /// The frame has none.
    Root,
    /// What leads to it was not copied.
    NoMemory {
        /// The frame's function keeps a frame pointer, whose link leads to it as well.
        keeps_frame_pointer: bool,
    },
    /// The table does not say, or needs what is not known.
    Unknown,
}

/// The row of an unwind table for an address.
pub struct Rules<'a> {
    /// The row.
    pub row: &'a UnwindTableRow<usize>,
    /// The section, which holds the row's expressions.
    pub section: gimli::EhFrame<EndianSlice<'a, LittleEndian>>,
    /// How expressions are written.
    pub encoding: Encoding,
    /// The frame is the one that the kernel made for a signal.
    pub is_signal_frame: bool,
    /// What the registers are.
    pub processor: &'static Processor,
}

impl Rules<'_> {
    /// The caller of a frame with these registers.
    pub fn caller(&self, registers: &Registers, memory: Memory<'_>, highest: u64) -> Caller {
        let processor = self.processor;
        let rule = match self.row.register(processor.return_address) {
            Some(RegisterRule::Undefined) => return Caller::Root,
            // A leaf of aarch64 still has it in its register.
            None if !processor.calls_push => RegisterRule::SameValue,
            None => return Caller::Unknown,
            Some(rule) => rule,
        };
        let mut keeps_frame_pointer = false;
        let frame = match self.row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                keeps_frame_pointer = *register == processor.frame_pointer;
                registers.get(*register).and_then(|value| value.checked_add_signed(*offset))
            }
            CfaRule::Expression(expression) => self.evaluate(expression, None, registers, memory),
        };
        let Some(frame) = frame else { return Caller::Unknown };
        let value = |register, rule: &RegisterRule<usize>| match rule {
            RegisterRule::SameValue => registers.get(register),
            RegisterRule::Offset(offset) => memory.word(frame.checked_add_signed(*offset)?),
            RegisterRule::ValOffset(offset) => frame.checked_add_signed(*offset),
            RegisterRule::Register(other) => registers.get(*other),
            RegisterRule::Expression(expression) => {
                memory.word(self.evaluate(expression, Some(frame), registers, memory)?)
            }
            RegisterRule::ValExpression(expression) => {
                self.evaluate(expression, Some(frame), registers, memory)
            }
            _ => None,
        };
        let Some(address) = value(processor.return_address, &rule) else {
            return match rule {
                RegisterRule::Offset(_) | RegisterRule::Expression(_) => {
                    Caller::NoMemory { keeps_frame_pointer }
                }
                _ => Caller::Unknown,
            };
        };
        let address = processor.strip(address, highest);
        let mut callers = registers.clone();
        // The caller's own return address is not what a register still holds, unless a signal interrupted it.
        callers.set(processor.return_address, None);
        for (register, rule) in self.row.registers() {
            if *register != processor.return_address || self.is_signal_frame {
                callers.set(*register, value(*register, rule));
            }
        }
        callers.set(processor.stack_pointer, Some(frame));
        Caller::Found { address, registers: Box::new(callers), is_signal_frame: self.is_signal_frame }
    }

    fn evaluate(
        &self,
        expression: &UnwindExpression<usize>,
        initial: Option<u64>,
        registers: &Registers,
        memory: Memory<'_>,
    ) -> Option<u64> {
        let expression = expression.get(&self.section).ok()?;
        let mut evaluation = Evaluation::new(expression.0, self.encoding);
        evaluation.set_max_iterations(EXPRESSION_STEPS_MAX);
        if let Some(initial) = initial {
            evaluation.set_initial_value(initial);
        }
        let mut result = evaluation.evaluate().ok()?;
        // Each turn runs one step or more of the bounded number.
        loop {
            result = match result {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => {
                    evaluation.resume_with_register(Value::Generic(registers.get(register)?)).ok()?
                }
                EvaluationResult::RequiresMemory { address, size: 8, .. } => {
                    evaluation.resume_with_memory(Value::Generic(memory.word(address)?)).ok()?
                }
                _ => return None,
            };
        }
        match evaluation.as_result().last()?.location {
            Location::Address { address } => Some(address),
            _ => None,
        }
    }
}
