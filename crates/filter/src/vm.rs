//! The interpreter of compiled filters: classic BPF, as McCanne and Jacobson described it in "The BSD Packet Filter"
//! (1993) and as `bpf_filter()` of libpcap runs it.
//!
//! A load beyond the captured bytes and a division by zero mean "no match". [`Program::load`] accepts only programs
//! whose jumps go forward and stay inside the program, whose scratch memory slots exist, and whose last instruction
//! returns. Such a program executes each instruction at most once.

mod instruction;
mod load;
mod partial;

use std::sync::Arc;

pub(crate) use instruction::{Instruction, MEMORY_WORDS, METADATA, Operand};
pub use instruction::{InvalidProgram, RawInstruction};
pub use partial::{Outcome, PartialPacket};

/// A compiled and checked filter. Clones share the instructions.
#[derive(Clone, Debug)]
pub struct Program {
    instructions: Arc<[Instruction]>,
}

impl Program {
    /// Creates a program that matches every packet.
    pub fn match_all() -> Self {
        Self { instructions: Arc::from([Instruction::Return(u32::MAX)]) }
    }

    /// Creates a program whose result depends on the original length alone: it matches every packet with a length above
    /// 0.
    pub(super) fn match_greater() -> Self {
        Self { instructions: Arc::from([Instruction::LoadLen, Instruction::ReturnA]) }
    }

    /// Checks the instructions of a program.
    ///
    /// # Errors
    ///
    /// [`InvalidProgram`] for the first instruction that cannot be run.
    pub fn load(raw: &[RawInstruction]) -> Result<Self, InvalidProgram> {
        let instructions: Vec<_> =
            raw.iter().enumerate().map(|(at, one)| load::check(*one, at, raw.len())).collect::<Result<_, _>>()?;
        match instructions.last() {
            Some(Instruction::Return(_) | Instruction::ReturnA) => Ok(Self { instructions: instructions.into() }),
            _ => Err(InvalidProgram::NoReturn),
        }
    }

    /// Wraps the instructions of this crate's own compiler.
    pub(crate) fn of(instructions: Vec<Instruction>) -> Self {
        Self { instructions: instructions.into() }
    }

    /// Returns the number of instructions.
    pub fn len(&self) -> usize {
        self.instructions.len()
    }

    /// Returns whether the program has no instructions, which never happens.
    pub fn is_empty(&self) -> bool {
        self.instructions.is_empty()
    }

    /// Returns whether a packet matches. `data` holds its captured bytes, `original_len` its bytes on the wire.
    pub fn matches(&self, data: &[u8], original_len: u32) -> bool {
        self.run(data, original_len).is_some_and(|accepted| accepted != 0)
    }

    /// Returns whether no packet that begins with `start` can match. Returns false when this is not known.
    pub fn rejects_start(&self, start: &[u8], original_len: u32) -> bool {
        // Only a load beyond `start` can have another result in the whole packet, and such a load makes `run` return
        // `None`.
        self.run(start, original_len) == Some(0)
    }

    /// Runs the program and returns its result, or `None` if it loads beyond the packet or divides by zero.
    #[inline]
    fn run(&self, data: &[u8], original_len: u32) -> Option<u32> {
        let (mut a, mut x) = (0_u32, 0_u32);
        let mut memory = [0_u32; MEMORY_WORDS];
        let mut rest = self.instructions.iter();
        loop {
            let mut skip = 0;
            match *rest.next()? {
                Instruction::Return(k) => return Some(k),
                Instruction::ReturnA => return Some(a),
                Instruction::LoadWord(k) => a = word(data, k)?,
                Instruction::LoadHalf(k) => a = half(data, k)?,
                Instruction::LoadByte(k) => a = byte(data, k)?,
                Instruction::LoadWordAtX(k) => a = word(data, x.checked_add(k)?)?,
                Instruction::LoadHalfAtX(k) => a = half(data, x.checked_add(k)?)?,
                Instruction::LoadByteAtX(k) => a = byte(data, x.checked_add(k)?)?,
                Instruction::LoadLen => a = original_len,
                Instruction::LoadConstant(k) => a = k,
                Instruction::LoadMemory(slot) => a = *memory.get(usize::from(slot))?,
                Instruction::LoadXHeaderLen(k) => x = (byte(data, k)? & 0xf) << 2,
                Instruction::LoadXLen => x = original_len,
                Instruction::LoadXConstant(k) => x = k,
                Instruction::LoadXMemory(slot) => x = *memory.get(usize::from(slot))?,
                Instruction::Store(slot) => *memory.get_mut(usize::from(slot))? = a,
                Instruction::StoreX(slot) => *memory.get_mut(usize::from(slot))? = x,
                Instruction::Jump(by) => skip = by,
                Instruction::IfEqual(k, yes, no) => skip = choose(a == k, yes, no),
                Instruction::IfGreater(k, yes, no) => skip = choose(a > k, yes, no),
                Instruction::IfGreaterEqual(k, yes, no) => skip = choose(a >= k, yes, no),
                Instruction::IfBits(k, yes, no) => skip = choose(a & k != 0, yes, no),
                Instruction::IfEqualX(yes, no) => skip = choose(a == x, yes, no),
                Instruction::IfGreaterX(yes, no) => skip = choose(a > x, yes, no),
                Instruction::IfGreaterEqualX(yes, no) => skip = choose(a >= x, yes, no),
                Instruction::IfBitsX(yes, no) => skip = choose(a & x != 0, yes, no),
                Instruction::Add(by) => a = a.wrapping_add(by.value(x)),
                Instruction::Subtract(by) => a = a.wrapping_sub(by.value(x)),
                Instruction::Multiply(by) => a = a.wrapping_mul(by.value(x)),
                Instruction::Divide(by) => a = a.checked_div(by.value(x))?,
                Instruction::Modulo(by) => a = a.checked_rem(by.value(x))?,
                Instruction::And(by) => a &= by.value(x),
                Instruction::Or(by) => a |= by.value(x),
                Instruction::Xor(by) => a ^= by.value(x),
                Instruction::ShiftLeft(by) => a = a.checked_shl(by.value(x)).unwrap_or(0),
                Instruction::ShiftRight(by) => a = a.checked_shr(by.value(x)).unwrap_or(0),
                Instruction::Negate => a = a.wrapping_neg(),
                Instruction::AToX => x = a,
                Instruction::XToA => a = x,
            }
            if skip != 0 {
                // An iterator is cheaper than an index, because it needs no bounds check for each instruction.
                rest = rest.as_slice().get(usize::try_from(skip).ok()?..)?.iter();
            }
        }
    }
}

impl Operand {
    #[inline]
    fn value(self, x: u32) -> u32 {
        match self {
            Self::Constant(k) => k,
            Self::X => x,
        }
    }
}

#[inline]
fn choose(condition: bool, yes: u8, no: u8) -> u32 {
    u32::from(if condition { yes } else { no })
}

#[inline]
fn word(data: &[u8], at: u32) -> Option<u32> {
    Some(u32::from_be_bytes(*data.get(usize::try_from(at).ok()?..)?.first_chunk()?))
}

#[inline]
fn half(data: &[u8], at: u32) -> Option<u32> {
    Some(u32::from(u16::from_be_bytes(*data.get(usize::try_from(at).ok()?..)?.first_chunk()?)))
}

#[inline]
fn byte(data: &[u8], at: u32) -> Option<u32> {
    Some(u32::from(*data.get(usize::try_from(at).ok()?)?))
}

#[cfg(test)]
mod tests;
