//! A program asked of a packet of which only some bytes are known.
//!
//! The program runs once for each way in which its tests of unknown bytes can turn out, up to a limit. If all runs agree, the
//! answer is known although the packet is not.

use super::{Instruction, MEMORY_WORDS, Operand, Program};

/// Runs of one program at most; a program that needs more is undecided.
const RUNS_MAX: usize = 64;
/// Bytes of a partly known packet at most: as many as the mask has bits.
const PARTIAL_BYTES_MAX: usize = 128;

/// What is known of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Such a packet matches.
    Matches,
    /// Such a packet does not match.
    Rejects,
    /// It depends on bytes that are not known.
    Unknown,
}

/// The beginning of a packet whose length is not known.
#[derive(Clone, Copy, Debug)]
pub struct PartialPacket<'a> {
    /// Its bytes, as far as they go.
    pub bytes: &'a [u8],
    /// A bit for each byte that is known, the first in the lowest.
    pub known: u128,
}

impl PartialPacket<'_> {
    /// `len` bytes as a number, if all of them are known.
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

/// A run in the middle of a program. `None` is a value that is not known.
#[derive(Clone, Copy)]
struct Run {
    at: usize,
    a: Option<u32>,
    x: Option<u32>,
    memory: [Option<u32>; MEMORY_WORDS],
}

/// How a step of a run goes on.
enum Step {
    Next,
    Skip(u32),
    /// Either way, as a test of something unknown turns out.
    Either(u8, u8),
    Return(Option<u32>),
}

/// What the runs so far came to.
#[derive(Default)]
struct Answers {
    runs: usize,
    matches: bool,
    rejects: bool,
    undecided: bool,
}

impl Answers {
    /// Whether no further run changes the outcome.
    fn are_settled(&self) -> bool {
        self.undecided || (self.matches && self.rejects)
    }
}

impl Program {
    /// What is known of the answer for a packet of which only some bytes are known.
    pub fn ask(&self, packet: &PartialPacket<'_>) -> Outcome {
        let mut answers = Answers::default();
        let start = Run { at: 0, a: Some(0), x: Some(0), memory: [Some(0); MEMORY_WORDS] };
        self.explore(start, packet, &mut answers);
        match answers {
            Answers { undecided: true, .. } | Answers { matches: true, rejects: true, .. } => Outcome::Unknown,
            Answers { matches: true, .. } => Outcome::Matches,
            Answers { .. } => Outcome::Rejects,
        }
    }

    /// Runs on from `run`; the runs that branch off are recursions, [`RUNS_MAX`] at most, so that nothing is allocated.
    fn explore(&self, mut run: Run, packet: &PartialPacket<'_>, answers: &mut Answers) {
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
        // A load of an unknown byte may as well lie beyond the packet, which ends the program.
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

    /// A division by zero leaves an unknown value: it would end the program.
    fn combine(&mut self, by: Operand, apply: impl Fn(u32, u32) -> Option<u32>) {
        let by = match by {
            Operand::Constant(k) => Some(k),
            Operand::X => self.x,
        };
        self.a = self.a.zip(by).and_then(|(a, by)| apply(a, by));
    }
}
