//! The interpreter of compiled filters: classic BPF, as McCanne and Jacobson described it in "The BSD Packet Filter"
//! (1993) and as `bpf_filter()` of libpcap runs it.
//!
//! A load beyond the captured bytes and a division by zero mean "no match". [`Program::load`] accepts only programs
//! whose jumps go forward and stay inside the program, whose scratch memory slots exist, and whose last instruction
//! returns. Such a program executes each instruction at most once.

mod load;
mod partial;

use std::sync::Arc;

pub use partial::{Outcome, PartialPacket};

/// The number of 32-bit words of scratch memory (`BPF_MEMWORDS`).
const MEMORY_WORDS: usize = 16;
/// Load offsets that stand for metadata of the Linux kernel (`SKF_AD_OFF` is -0x1000).
const METADATA: std::ops::Range<u32> = 0xffff_f000..0xffff_f100;

/// One instruction as libpcap returns it (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw {
    /// The operation code.
    pub code: u16,
    /// Instructions to skip when the condition is true.
    pub jump_true: u8,
    /// Instructions to skip when the condition is false.
    pub jump_false: u8,
    /// The immediate operand.
    pub k: u32,
}

impl Raw {
    /// Parses the text form of an instruction, because the `pcap` crate keeps the four numbers private.
    pub(super) fn from_libpcap(instruction: &pcap::BpfInstruction) -> Option<Self> {
        let text = instruction.to_string();
        let mut numbers = text.split(' ');
        let raw = Self {
            code: numbers.next()?.parse().ok()?,
            jump_true: numbers.next()?.parse().ok()?,
            jump_false: numbers.next()?.parse().ok()?,
            k: numbers.next()?.parse().ok()?,
        };
        numbers.next().is_none().then_some(raw)
    }
}

/// The reason why a program is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The text form of an instruction cannot be parsed.
    #[error("its instructions cannot be read")]
    Unreadable,
    /// The last instruction does not return.
    #[error("it does not end by returning")]
    NoReturn,
    /// The operation does not exist in classic BPF.
    #[error("instruction {0} has an unknown operation")]
    Operation(usize),
    /// The jump leaves the program or goes backwards. libpcap compiles `protochain` to such loops.
    #[error("instruction {0} jumps backwards or out of the program, as \"protochain\" needs it; use \"proto\"")]
    Jump(usize),
    /// The scratch memory slot does not exist.
    #[error("instruction {0} uses scratch memory that does not exist")]
    Memory(usize),
    /// The divisor is the constant zero.
    #[error("instruction {0} divides by zero")]
    Zero(usize),
    /// The instruction loads metadata that only the kernel knows.
    #[error("it asks for what packets do not carry")]
    Metadata,
}

/// The second operand of an arithmetic instruction.
#[derive(Clone, Copy, Debug)]
enum Operand {
    Constant(u32),
    X,
}

/// A checked instruction. A jump holds the number of instructions to skip.
#[derive(Clone, Copy, Debug)]
enum Instruction {
    Return(u32),
    ReturnA,
    LoadWord(u32),
    LoadHalf(u32),
    LoadByte(u32),
    LoadWordAtX(u32),
    LoadHalfAtX(u32),
    LoadByteAtX(u32),
    LoadLen,
    LoadConstant(u32),
    LoadMemory(u8),
    LoadXHeaderLen(u32),
    LoadXLen,
    LoadXConstant(u32),
    LoadXMemory(u8),
    Store(u8),
    StoreX(u8),
    Jump(u32),
    IfEqual(u32, u8, u8),
    IfGreater(u32, u8, u8),
    IfGreaterEqual(u32, u8, u8),
    IfBits(u32, u8, u8),
    IfEqualX(u8, u8),
    IfGreaterX(u8, u8),
    IfGreaterEqualX(u8, u8),
    IfBitsX(u8, u8),
    Add(Operand),
    Subtract(Operand),
    Multiply(Operand),
    Divide(Operand),
    Modulo(Operand),
    And(Operand),
    Or(Operand),
    Xor(Operand),
    ShiftLeft(Operand),
    ShiftRight(Operand),
    Negate,
    AToX,
    XToA,
}

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
    /// [`Invalid`] for the first instruction that cannot be run.
    pub fn load(raw: &[Raw]) -> Result<Self, Invalid> {
        let instructions: Vec<_> =
            raw.iter().enumerate().map(|(at, one)| load::check(*one, at, raw.len())).collect::<Result<_, _>>()?;
        match instructions.last() {
            Some(Instruction::Return(_) | Instruction::ReturnA) => Ok(Self { instructions: instructions.into() }),
            _ => Err(Invalid::NoReturn),
        }
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
