//! The machine compiled filters run on: classic BPF, as McCanne and Jacobson described it in "The BSD Packet Filter"
//! (1993) and as libpcap's `bpf_filter()` runs it.
//!
//! A load beyond the captured bytes and a division by zero mean "no match". [`Program::load`] accepts only programs
//! whose jumps go forward and stay inside, whose scratch memory exists and which end by returning: such a program
//! executes each instruction once at most.

use std::sync::Arc;

/// Words of scratch memory (`BPF_MEMWORDS`).
const MEMORY_WORDS: usize = 16;
/// Loads from here ask Linux for what it knows beside the packet's bytes (`SKF_AD_OFF` is -0x1000).
const METADATA: std::ops::Range<u32> = 0xffff_f000..0xffff_f100;

/// One instruction as libpcap gives it (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when true.
    pub jump_true: u8,
    /// Instructions to skip when false.
    pub jump_false: u8,
    /// Operand.
    pub k: u32,
}

impl Raw {
    /// The binding prints an instruction's four numbers and keeps them private otherwise.
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

/// What is wrong with a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The instructions could not be read.
    #[error("its instructions cannot be read")]
    Unreadable,
    /// It does not end by returning.
    #[error("it does not end by returning")]
    NoReturn,
    /// An operation that classic BPF does not have.
    #[error("instruction {0} has an unknown operation")]
    Operation(usize),
    /// A jump out of the program, or backwards (libpcap's `protochain` makes such loops).
    #[error("instruction {0} jumps backwards or out of the program, as \"protochain\" needs it; use \"proto\"")]
    Jump(usize),
    /// Scratch memory that does not exist.
    #[error("instruction {0} uses scratch memory that does not exist")]
    Memory(usize),
    /// A division by the constant zero.
    #[error("instruction {0} divides by zero")]
    Zero(usize),
    /// A load of what the kernel knows beside the packet's bytes.
    #[error("it asks for what packets do not carry")]
    Metadata,
}

/// Where an operand comes from.
#[derive(Clone, Copy, Debug)]
enum Operand {
    Constant(u32),
    X,
}

/// An instruction, checked. Jumps say how many instructions to skip.
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

/// A compiled filter, checked and ready to run; clones share it.
#[derive(Clone, Debug)]
pub struct Program {
    instructions: Arc<[Instruction]>,
}

impl Program {
    /// The program that every packet matches.
    pub fn match_all() -> Self {
        Self { instructions: Arc::from([Instruction::Return(u32::MAX)]) }
    }

    /// Checks a program.
    ///
    /// # Errors
    ///
    /// Says which instruction cannot be run.
    pub fn load(raw: &[Raw]) -> Result<Self, Invalid> {
        let instructions: Vec<_> =
            raw.iter().enumerate().map(|(at, one)| check(*one, at, raw.len())).collect::<Result<_, _>>()?;
        match instructions.last() {
            Some(Instruction::Return(_) | Instruction::ReturnA) => Ok(Self { instructions: instructions.into() }),
            _ => Err(Invalid::NoReturn),
        }
    }

    /// How many instructions it has.
    pub fn len(&self) -> usize {
        self.instructions.len()
    }

    /// Whether it has no instructions; never.
    pub fn is_empty(&self) -> bool {
        self.instructions.is_empty()
    }

    /// Whether a packet matches, `data` being its captured bytes and `original_len` its bytes on the wire.
    pub fn matches(&self, data: &[u8], original_len: u32) -> bool {
        self.run(data, original_len).is_some_and(|accepted| accepted != 0)
    }

    /// Whether a packet that begins with `start` cannot match, whatever comes behind; false where that is not known.
    pub fn rejects_start(&self, start: &[u8], original_len: u32) -> bool {
        // Only a load that lies beyond what is there would go otherwise in the whole packet, and it ends the program.
        self.run(start, original_len) == Some(0)
    }

    /// What the program returns; `None` where it loads beyond the packet or divides by zero.
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
                // Cheaper than an index: the iterator knows its end.
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

/// The operations of classic BPF (`<pcap/bpf.h>`): class, then size and mode, or operation and source, combined.
mod code {
    pub(super) const RET_K: u16 = 0x06;
    pub(super) const RET_A: u16 = 0x16;
    pub(super) const LD_W_ABS: u16 = 0x20;
    pub(super) const LD_H_ABS: u16 = 0x28;
    pub(super) const LD_B_ABS: u16 = 0x30;
    pub(super) const LD_W_IND: u16 = 0x40;
    pub(super) const LD_H_IND: u16 = 0x48;
    pub(super) const LD_B_IND: u16 = 0x50;
    pub(super) const LD_LEN: u16 = 0x80;
    pub(super) const LD_IMM: u16 = 0x00;
    pub(super) const LD_MEM: u16 = 0x60;
    pub(super) const LDX_MSH: u16 = 0xb1;
    pub(super) const LDX_LEN: u16 = 0x81;
    pub(super) const LDX_IMM: u16 = 0x01;
    pub(super) const LDX_MEM: u16 = 0x61;
    pub(super) const ST: u16 = 0x02;
    pub(super) const STX: u16 = 0x03;
    pub(super) const TAX: u16 = 0x07;
    pub(super) const TXA: u16 = 0x87;

    /// The bits that tell a class.
    pub(super) const CLASS: u16 = 0x07;
    pub(super) const ALU: u16 = 0x04;
    pub(super) const JMP: u16 = 0x05;
    /// Set where the second operand of an `ALU` or `JMP` is X.
    pub(super) const SOURCE_X: u16 = 0x08;

    pub(super) const ADD: u16 = 0x04;
    pub(super) const SUB: u16 = 0x14;
    pub(super) const MUL: u16 = 0x24;
    pub(super) const DIV: u16 = 0x34;
    pub(super) const OR: u16 = 0x44;
    pub(super) const AND: u16 = 0x54;
    pub(super) const LSH: u16 = 0x64;
    pub(super) const RSH: u16 = 0x74;
    pub(super) const NEG: u16 = 0x84;
    pub(super) const MOD: u16 = 0x94;
    pub(super) const XOR: u16 = 0xa4;

    pub(super) const JA: u16 = 0x05;
    pub(super) const JEQ: u16 = 0x15;
    pub(super) const JGT: u16 = 0x25;
    pub(super) const JGE: u16 = 0x35;
    pub(super) const JSET: u16 = 0x45;
}

/// Checks instruction number `at` of `len`.
fn check(raw: Raw, at: usize, len: usize) -> Result<Instruction, Invalid> {
    use Instruction as I;
    let k = raw.k;
    let slot = || u8::try_from(k).ok().filter(|&slot| usize::from(slot) < MEMORY_WORDS).ok_or(Invalid::Memory(at));
    let offset = || if METADATA.contains(&k) { Err(Invalid::Metadata) } else { Ok(k) };
    Ok(match raw.code {
        code::RET_K => I::Return(k),
        code::RET_A => I::ReturnA,
        code::LD_W_ABS => I::LoadWord(offset()?),
        code::LD_H_ABS => I::LoadHalf(offset()?),
        code::LD_B_ABS => I::LoadByte(offset()?),
        code::LD_W_IND => I::LoadWordAtX(k),
        code::LD_H_IND => I::LoadHalfAtX(k),
        code::LD_B_IND => I::LoadByteAtX(k),
        code::LD_LEN => I::LoadLen,
        code::LD_IMM => I::LoadConstant(k),
        code::LD_MEM => I::LoadMemory(slot()?),
        code::LDX_MSH => I::LoadXHeaderLen(k),
        code::LDX_LEN => I::LoadXLen,
        code::LDX_IMM => I::LoadXConstant(k),
        code::LDX_MEM => I::LoadXMemory(slot()?),
        code::ST => I::Store(slot()?),
        code::STX => I::StoreX(slot()?),
        code::TAX => I::AToX,
        code::TXA => I::XToA,
        other if other & code::CLASS == code::JMP => check_jump(raw, at, len)?,
        other if other & code::CLASS == code::ALU => check_arithmetic(raw, at)?,
        _ => return Err(Invalid::Operation(at)),
    })
}

fn check_jump(raw: Raw, at: usize, len: usize) -> Result<Instruction, Invalid> {
    use Instruction as I;
    let Raw { k, jump_true: yes, jump_false: no, .. } = raw;
    // The instruction jumped to exists; the last one only returns.
    let inside = |skip: u32| usize::try_from(skip).is_ok_and(|skip| skip < len.saturating_sub(at + 1));
    if raw.code == code::JA {
        return if inside(k) { Ok(I::Jump(k)) } else { Err(Invalid::Jump(at)) };
    }
    if !inside(yes.into()) || !inside(no.into()) {
        return Err(Invalid::Jump(at));
    }
    Ok(match (raw.code & !code::SOURCE_X, raw.code & code::SOURCE_X == 0) {
        (code::JEQ, true) => I::IfEqual(k, yes, no),
        (code::JGT, true) => I::IfGreater(k, yes, no),
        (code::JGE, true) => I::IfGreaterEqual(k, yes, no),
        (code::JSET, true) => I::IfBits(k, yes, no),
        (code::JEQ, false) => I::IfEqualX(yes, no),
        (code::JGT, false) => I::IfGreaterX(yes, no),
        (code::JGE, false) => I::IfGreaterEqualX(yes, no),
        (code::JSET, false) => I::IfBitsX(yes, no),
        _ => return Err(Invalid::Operation(at)),
    })
}

fn check_arithmetic(raw: Raw, at: usize) -> Result<Instruction, Invalid> {
    use Instruction as I;
    let by = if raw.code & code::SOURCE_X == 0 { Operand::Constant(raw.k) } else { Operand::X };
    Ok(match (raw.code & !code::SOURCE_X, by) {
        (code::DIV | code::MOD, Operand::Constant(0)) => return Err(Invalid::Zero(at)),
        (code::ADD, _) => I::Add(by),
        (code::SUB, _) => I::Subtract(by),
        (code::MUL, _) => I::Multiply(by),
        (code::DIV, _) => I::Divide(by),
        (code::MOD, _) => I::Modulo(by),
        (code::AND, _) => I::And(by),
        (code::OR, _) => I::Or(by),
        (code::XOR, _) => I::Xor(by),
        (code::LSH, _) => I::ShiftLeft(by),
        (code::RSH, _) => I::ShiftRight(by),
        (code::NEG, _) => I::Negate,
        _ => return Err(Invalid::Operation(at)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(code: u16, jump_true: u8, jump_false: u8, k: u32) -> Raw {
        Raw { code, jump_true, jump_false, k }
    }

    /// What a program returns, 0 for "no match".
    fn run(program: &[Raw], data: &[u8]) -> u32 {
        Program::load(program).expect("valid").run(data, 1000).unwrap_or(0)
    }

    const RETURN_A: Raw = Raw { code: code::RET_A, jump_true: 0, jump_false: 0, k: 0 };

    #[test]
    fn a_start_rejects_only_what_the_whole_packet_does() {
        // Byte 2 is 3, and byte 6 is as wanted.
        let wants = |sixth| {
            let bytes = [raw(code::LD_B_ABS, 0, 0, 2), raw(code::JEQ, 0, 3, 3), raw(code::LD_B_ABS, 0, 0, 6)];
            let ends = [raw(code::JEQ, 0, 1, sixth), raw(code::RET_K, 0, 0, 1), raw(code::RET_K, 0, 0, 0)];
            Program::load(&[&bytes[..], &ends[..]].concat()).expect("valid")
        };
        for (packet, sixth, known_from) in
            [([1, 2, 3, 4, 5, 6, 7, 8], 7, 9), ([1, 2, 3, 4, 5, 6, 7, 8], 0, 7), ([0; 8], 7, 3)]
        {
            let program = wants(sixth);
            for len in 0..=packet.len() {
                assert_eq!(program.rejects_start(&packet[..len], 8), len >= known_from, "{packet:?} {sixth} {len}");
            }
            assert_eq!(program.matches(&packet, 8), known_from > 8);
        }
    }

    #[test]
    fn loads_end_with_the_packet() {
        let data = [0x45, 2, 3, 4, 5];
        for (code, k, expected) in [
            (code::LD_W_ABS, 0, 0x4502_0304),
            (code::LD_W_ABS, 1, 0x0203_0405),
            (code::LD_W_ABS, 2, 0),
            (code::LD_W_ABS, u32::MAX, 0),
            (code::LD_H_ABS, 3, 0x0405),
            (code::LD_H_ABS, 4, 0),
            (code::LD_B_ABS, 4, 5),
            (code::LD_B_ABS, 5, 0),
            (code::LD_LEN, 0, 1000),
            (code::LD_IMM, 7, 7),
        ] {
            assert_eq!(run(&[raw(code, 0, 0, k), RETURN_A], &data), expected, "{code:#x} {k}");
        }
        for (x, code, k, expected) in [
            (1, code::LD_W_IND, 0, 0x0203_0405),
            (1, code::LD_W_IND, 1, 0),
            (1, code::LD_H_IND, 2, 0x0405),
            (2, code::LD_B_IND, 2, 5),
            (2, code::LD_B_IND, 3, 0),
            (u32::MAX, code::LD_B_IND, 1, 0),
            (2, code::LD_B_IND, u32::MAX, 0),
        ] {
            let program = [raw(code::LDX_IMM, 0, 0, x), raw(code, 0, 0, k), RETURN_A];
            assert_eq!(run(&program, &data), expected, "{code:#x} {x} {k}");
        }
        let header = [raw(code::LDX_MSH, 0, 0, 0), raw(code::TXA, 0, 0, 0), RETURN_A];
        assert_eq!(run(&header, &data), 20);
        assert_eq!(run(&header, &[]), 0);
    }

    #[test]
    fn arithmetic_wraps() {
        for (operation, a, by, expected) in [
            (code::ADD, u32::MAX, 2, 1),
            (code::SUB, 1, 2, u32::MAX),
            (code::MUL, 1 << 31, 3, 1 << 31),
            (code::DIV, 7, 2, 3),
            (code::MOD, 7, 4, 3),
            (code::AND, 6, 3, 2),
            (code::OR, 6, 3, 7),
            (code::XOR, 6, 3, 5),
            (code::LSH, 1, 31, 1 << 31),
            (code::LSH, 1, 32, 0),
            (code::RSH, 1 << 31, 31, 1),
            (code::RSH, 1, 40, 0),
            (code::NEG, 1, 0, u32::MAX),
        ] {
            let constant = [raw(code::LD_IMM, 0, 0, a), raw(operation, 0, 0, by), RETURN_A];
            assert_eq!(run(&constant, &[]), expected, "{operation:#x} {a} {by}");
            let register =
                [raw(code::LD_IMM, 0, 0, a), raw(code::LDX_IMM, 0, 0, by), raw(operation | 8, 0, 0, 0), RETURN_A];
            assert_eq!(run(&register, &[]), expected, "{operation:#x} {a} X={by}");
        }
        let by_zero = [raw(code::LD_IMM, 0, 0, 1), raw(code::DIV | 8, 0, 0, 0), raw(code::RET_K, 0, 0, 1)];
        assert_eq!(run(&by_zero, &[]), 0);
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        let end = raw(code::RET_K, 0, 0, 1);
        for (program, expected) in [
            (vec![], Invalid::NoReturn),
            (vec![raw(code::LD_LEN, 0, 0, 0)], Invalid::NoReturn),
            (vec![raw(code::JA, 0, 0, 1), end], Invalid::Jump(0)),
            (vec![end, raw(code::JA, 0, 0, u32::MAX), end], Invalid::Jump(1)),
            (vec![raw(code::JEQ, 0, 1, 0), end], Invalid::Jump(0)),
            (vec![raw(code::JEQ, 255, 0, 0), end], Invalid::Jump(0)),
            (vec![raw(code::JSET | 0x20, 0, 0, 0), end], Invalid::Operation(0)),
            (vec![raw(code::ST, 0, 0, 16), end], Invalid::Memory(0)),
            (vec![raw(code::LD_MEM, 0, 0, 1 << 20), end], Invalid::Memory(0)),
            (vec![raw(code::DIV, 0, 0, 0), end], Invalid::Zero(0)),
            (vec![raw(code::MOD, 0, 0, 0), end], Invalid::Zero(0)),
            (vec![raw(0xffff, 0, 0, 0), end], Invalid::Operation(0)),
            (vec![raw(code::LD_B_ABS, 0, 0, 0xffff_f004), end], Invalid::Metadata),
        ] {
            assert_eq!(Program::load(&program).map(|p| p.len()), Err(expected));
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_loads_also_runs(
            code in proptest::collection::vec((0_u16..256, 0_u8..4, 0_u8..4, 0_u32..40), 0..30),
            data in proptest::collection::vec(proptest::num::u8::ANY, 0..64),
        ) {
            let mut program: Vec<_> = code.into_iter().map(|(code, yes, no, k)| raw(code, yes, no, k)).collect();
            program.retain(|one| check(*one, 0, 1000).is_ok());
            program.push(raw(code::RET_A, 0, 0, 0));
            if let Ok(program) = Program::load(&program) {
                let _ = program.matches(&data, 64);
            }
        }
    }
}
