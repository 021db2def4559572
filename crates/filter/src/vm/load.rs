//! Checks encoded instructions and converts them.

use super::instruction::{Instruction, InvalidProgram, MEMORY_WORDS, METADATA, Operand, RawInstruction};

/// Operation codes of classic BPF (`<pcap/bpf.h>`): class, size and mode combined, or class, operation and source.
pub(super) mod code {
    pub(in crate::vm) const RET_K: u16 = 0x06;
    pub(in crate::vm) const RET_A: u16 = 0x16;
    pub(in crate::vm) const LD_W_ABS: u16 = 0x20;
    pub(in crate::vm) const LD_H_ABS: u16 = 0x28;
    pub(in crate::vm) const LD_B_ABS: u16 = 0x30;
    pub(in crate::vm) const LD_W_IND: u16 = 0x40;
    pub(in crate::vm) const LD_H_IND: u16 = 0x48;
    pub(in crate::vm) const LD_B_IND: u16 = 0x50;
    pub(in crate::vm) const LD_LEN: u16 = 0x80;
    pub(in crate::vm) const LD_IMM: u16 = 0x00;
    pub(in crate::vm) const LD_MEM: u16 = 0x60;
    pub(in crate::vm) const LDX_MSH: u16 = 0xb1;
    pub(in crate::vm) const LDX_LEN: u16 = 0x81;
    pub(in crate::vm) const LDX_IMM: u16 = 0x01;
    pub(in crate::vm) const LDX_MEM: u16 = 0x61;
    pub(in crate::vm) const ST: u16 = 0x02;
    pub(in crate::vm) const STX: u16 = 0x03;
    pub(in crate::vm) const TAX: u16 = 0x07;
    pub(in crate::vm) const TXA: u16 = 0x87;

    /// Mask of the instruction class.
    pub(in crate::vm) const CLASS: u16 = 0x07;
    pub(in crate::vm) const ALU: u16 = 0x04;
    pub(in crate::vm) const JMP: u16 = 0x05;
    /// Set if the second operand of an `ALU` or `JMP` instruction is register X.
    pub(in crate::vm) const SOURCE_X: u16 = 0x08;

    pub(in crate::vm) const ADD: u16 = 0x04;
    pub(in crate::vm) const SUB: u16 = 0x14;
    pub(in crate::vm) const MUL: u16 = 0x24;
    pub(in crate::vm) const DIV: u16 = 0x34;
    pub(in crate::vm) const OR: u16 = 0x44;
    pub(in crate::vm) const AND: u16 = 0x54;
    pub(in crate::vm) const LSH: u16 = 0x64;
    pub(in crate::vm) const RSH: u16 = 0x74;
    pub(in crate::vm) const NEG: u16 = 0x84;
    pub(in crate::vm) const MOD: u16 = 0x94;
    pub(in crate::vm) const XOR: u16 = 0xa4;

    pub(in crate::vm) const JA: u16 = 0x05;
    pub(in crate::vm) const JEQ: u16 = 0x15;
    pub(in crate::vm) const JGT: u16 = 0x25;
    pub(in crate::vm) const JGE: u16 = 0x35;
    pub(in crate::vm) const JSET: u16 = 0x45;
}

/// Checks instruction number `at` of a program of `len` instructions.
pub(super) fn check(raw: RawInstruction, at: usize, len: usize) -> Result<Instruction, InvalidProgram> {
    use Instruction as I;
    let k = raw.k;
    let slot =
        || u8::try_from(k).ok().filter(|&slot| usize::from(slot) < MEMORY_WORDS).ok_or(InvalidProgram::Memory(at));
    let offset = || if METADATA.contains(&k) { Err(InvalidProgram::Metadata) } else { Ok(k) };
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
        _ => return Err(InvalidProgram::Operation(at)),
    })
}

fn check_jump(raw: RawInstruction, at: usize, len: usize) -> Result<Instruction, InvalidProgram> {
    use Instruction as I;
    let RawInstruction { k, jump_true: yes, jump_false: no, .. } = raw;
    // The target of the jump must lie inside the program. The last instruction cannot jump.
    let inside = |skip: u32| usize::try_from(skip).is_ok_and(|skip| skip < len.saturating_sub(at + 1));
    if raw.code == code::JA {
        return if inside(k) { Ok(I::Jump(k)) } else { Err(InvalidProgram::Jump(at)) };
    }
    if !inside(yes.into()) || !inside(no.into()) {
        return Err(InvalidProgram::Jump(at));
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
        _ => return Err(InvalidProgram::Operation(at)),
    })
}

fn check_arithmetic(raw: RawInstruction, at: usize) -> Result<Instruction, InvalidProgram> {
    use Instruction as I;
    let by = if raw.code & code::SOURCE_X == 0 { Operand::Constant(raw.k) } else { Operand::X };
    Ok(match (raw.code & !code::SOURCE_X, by) {
        (code::DIV | code::MOD, Operand::Constant(0)) => return Err(InvalidProgram::Zero(at)),
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
        _ => return Err(InvalidProgram::Operation(at)),
    })
}
