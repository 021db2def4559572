//! Runs a program on a packet of which only some bytes are known.
//!
//! The program runs once for each combination of results of its tests on unknown bytes, up to a limit. If all runs
//! return the same result, the result does not depend on the unknown bytes.

use super::Program;
use super::instruction::{Instruction, MEMORY_WORDS, Operand};

/// The maximum number of runs of one program. A program that needs more is undecided.
const RUNS_MAX: usize = 64;
/// The maximum length in bytes of a partly known packet: the number of bits in the mask.
const PARTIAL_BYTES_MAX: usize = 128;

/// The result of a filter on partly known data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every such packet matches.
    Matches,
    /// No such packet matches.
    Rejects,
    /// The result depends on unknown bytes, or the program needs too many runs.
    Unknown,
}

/// The start of a packet whose length is unknown.
#[derive(Clone, Copy, Debug)]
pub struct PartialPacket<'a> {
    /// The bytes of the start; unknown bytes have any value.
    pub bytes: &'a [u8],
    /// One bit for each known byte; the lowest bit stands for the first byte.
    pub known: u128,
}

impl PartialPacket<'_> {
    /// Loads `len` bytes as a big-endian number if all of them are known.
    fn load(&self, at: u32, len: u32) -> Option<u32> {
        let at = usize::try_from(at).ok().filter(|at| *at < PARTIAL_BYTES_MAX)?;
        let mask = (1u128 << len) - 1;
        if self.known >> at & mask != mask {
            return None;
        }
        let bytes = self.bytes.get(at..at + usize::try_from(len).ok()?)?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }
}

/// The state of a run. `None` is an unknown value.
#[derive(Clone, Copy)]
struct Run {
    at: usize,
    a: Option<u32>,
    x: Option<u32>,
    memory: [Option<u32>; MEMORY_WORDS],
}

/// The effect of an instruction on the flow of a run.
enum Step {
    Next,
    Skip(u32),
    /// A branch on an unknown value: the instructions to skip if true, and if false.
    Either(u8, u8),
    Return(Option<u32>),
}

/// The results of the runs so far.
#[derive(Default)]
struct RunResults {
    runs: usize,
    matches: bool,
    rejects: bool,
    undecided: bool,
}

impl RunResults {
    /// Returns whether no further run can change the outcome.
    fn are_settled(&self) -> bool {
        self.undecided || (self.matches && self.rejects)
    }
}

impl Program {
    /// Runs the program on a partly known packet.
    pub fn ask(&self, packet: &PartialPacket<'_>) -> Outcome {
        let mut answers = RunResults::default();
        let start = Run { at: 0, a: Some(0), x: Some(0), memory: [Some(0); MEMORY_WORDS] };
        self.explore(start, packet, &mut answers);
        match answers {
            RunResults { undecided: true, .. } | RunResults { matches: true, rejects: true, .. } => Outcome::Unknown,
            RunResults { matches: true, .. } => Outcome::Matches,
            RunResults { .. } => Outcome::Rejects,
        }
    }

    /// Continues from `run`. Each branch on an unknown value recurses, so that no memory is allocated. There are at
    /// most [`RUNS_MAX`] runs.
    fn explore(&self, mut run: Run, packet: &PartialPacket<'_>, answers: &mut RunResults) {
        answers.runs += 1;
        while !answers.are_settled() {
            let Some(instruction) = self.instructions.get(run.at) else { return answers.rejects = true };
            run.at += 1;
            match run.step(*instruction, packet, &mut answers.rejects) {
                Step::Next => {}
                Step::Skip(by) => run.at = run.at.saturating_add(usize::try_from(by).unwrap_or(usize::MAX)),
                Step::Either(yes, no) => {
                    if answers.runs == RUNS_MAX {
                        return answers.undecided = true;
                    }
                    self.explore(Run { at: run.at + usize::from(no), ..run }, packet, answers);
                    run.at += usize::from(yes);
                }
                Step::Return(Some(0)) => return answers.rejects = true,
                Step::Return(Some(_)) => return answers.matches = true,
                Step::Return(None) => return answers.undecided = true,
            }
        }
    }
}

impl Run {
    fn step(&mut self, instruction: Instruction, packet: &PartialPacket<'_>, rejects: &mut bool) -> Step {
        // An unknown byte may lie beyond the end of the packet. The load then ends the program without a match.
        let mut load = |at: Option<u32>, len| {
            let value = at.and_then(|at| packet.load(at, len));
            *rejects |= value.is_none();
            value
        };
        let at_x = |x: Option<u32>, k: u32| x.and_then(|x| x.checked_add(k));
        match instruction {
            Instruction::Return(k) => return Step::Return(Some(k)),
            Instruction::ReturnA => return Step::Return(self.a),
            Instruction::LoadWord(k) => self.a = load(Some(k), 4),
            Instruction::LoadHalf(k) => self.a = load(Some(k), 2),
            Instruction::LoadByte(k) => self.a = load(Some(k), 1),
            Instruction::LoadWordAtX(k) => self.a = load(at_x(self.x, k), 4),
            Instruction::LoadHalfAtX(k) => self.a = load(at_x(self.x, k), 2),
            Instruction::LoadByteAtX(k) => self.a = load(at_x(self.x, k), 1),
            Instruction::LoadXHeaderLen(k) => self.x = load(Some(k), 1).map(|byte| (byte & 0xf) << 2),
            Instruction::LoadLen => self.a = None,
            Instruction::LoadXLen => self.x = None,
            Instruction::LoadConstant(k) => self.a = Some(k),
            Instruction::LoadXConstant(k) => self.x = Some(k),
            Instruction::LoadMemory(slot) => self.a = self.memory.get(usize::from(slot)).copied().flatten(),
            Instruction::LoadXMemory(slot) => self.x = self.memory.get(usize::from(slot)).copied().flatten(),
            Instruction::Store(slot) => self.store(slot, self.a),
            Instruction::StoreX(slot) => self.store(slot, self.x),
            Instruction::Jump(by) => return Step::Skip(by),
            Instruction::IfEqual(k, yes, no) => return self.branch(Some(k), |a, k| a == k, yes, no),
            Instruction::IfGreater(k, yes, no) => return self.branch(Some(k), |a, k| a > k, yes, no),
            Instruction::IfGreaterEqual(k, yes, no) => return self.branch(Some(k), |a, k| a >= k, yes, no),
            Instruction::IfBits(k, yes, no) => return self.branch(Some(k), |a, k| a & k != 0, yes, no),
            Instruction::IfEqualX(yes, no) => return self.branch(self.x, |a, x| a == x, yes, no),
            Instruction::IfGreaterX(yes, no) => return self.branch(self.x, |a, x| a > x, yes, no),
            Instruction::IfGreaterEqualX(yes, no) => return self.branch(self.x, |a, x| a >= x, yes, no),
            Instruction::IfBitsX(yes, no) => return self.branch(self.x, |a, x| a & x != 0, yes, no),
            Instruction::Add(by) => self.combine(by, |a, by| Some(a.wrapping_add(by))),
            Instruction::Subtract(by) => self.combine(by, |a, by| Some(a.wrapping_sub(by))),
            Instruction::Multiply(by) => self.combine(by, |a, by| Some(a.wrapping_mul(by))),
            Instruction::Divide(by) => self.combine(by, u32::checked_div),
            Instruction::Modulo(by) => self.combine(by, u32::checked_rem),
            Instruction::And(by) => self.combine(by, |a, by| Some(a & by)),
            Instruction::Or(by) => self.combine(by, |a, by| Some(a | by)),
            Instruction::Xor(by) => self.combine(by, |a, by| Some(a ^ by)),
            Instruction::ShiftLeft(by) => self.combine(by, |a, by| Some(a.checked_shl(by).unwrap_or(0))),
            Instruction::ShiftRight(by) => self.combine(by, |a, by| Some(a.checked_shr(by).unwrap_or(0))),
            Instruction::Negate => self.a = self.a.map(u32::wrapping_neg),
            Instruction::AToX => self.x = self.a,
            Instruction::XToA => self.a = self.x,
        }
        Step::Next
    }

    fn store(&mut self, slot: u8, value: Option<u32>) {
        if let Some(word) = self.memory.get_mut(usize::from(slot)) {
            *word = value;
        }
    }

    fn branch(&self, with: Option<u32>, test: impl Fn(u32, u32) -> bool, yes: u8, no: u8) -> Step {
        match (self.a, with) {
            (Some(a), Some(with)) => Step::Skip(u32::from(if test(a, with) { yes } else { no })),
            _ => Step::Either(yes, no),
        }
    }

    /// Applies an arithmetic operation. A division by zero leaves an unknown value, although it would end the program.
    fn combine(&mut self, by: Operand, apply: impl Fn(u32, u32) -> Option<u32>) {
        let by = match by {
            Operand::Constant(k) => Some(k),
            Operand::X => self.x,
        };
        self.a = self.a.zip(by).and_then(|(a, by)| apply(a, by));
    }
}
