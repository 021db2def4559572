//! Instructions, as classic BPF encodes them and as they are run.

/// The number of 32-bit words of scratch memory (`BPF_MEMWORDS`).
pub(crate) const MEMORY_WORDS: usize = 16;
/// Load offsets that stand for metadata of the Linux kernel (`SKF_AD_OFF` is -0x1000).
pub(crate) const METADATA: std::ops::Range<u32> = 0xffff_f000..0xffff_f100;

/// One instruction in the encoding of classic BPF (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawInstruction {
    /// The operation code.
    pub code: u16,
    /// Instructions to skip when the condition is true.
    pub jump_true: u8,
    /// Instructions to skip when the condition is false.
    pub jump_false: u8,
    /// The immediate operand.
    pub k: u32,
}

/// The reason why a program is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProgram {
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
    #[error("it tests metadata that packets do not carry")]
    Metadata,
}

/// The second operand of an arithmetic instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operand {
    Constant(u32),
    X,
}

/// A checked instruction. A jump holds the number of instructions to skip.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Instruction {
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
