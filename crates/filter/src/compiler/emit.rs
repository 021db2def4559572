//! Writes the instructions of a program.

use super::condition::{Branch, Compare, Target};
use super::flow::Flow;
use super::generator::{absolute, at_x};
use super::value::{Id, Question, Value, Values, With};
use crate::vm::{Instruction, MEMORY_WORDS, Operand};

/// The farthest that a test can jump, with room for two jumps of any length behind it.
const NEAR: usize = 250;

/// A test with its instructions.
struct Block {
    steps: Vec<Instruction>,
    compare: Compare,
    with: Operand,
    yes: Target,
    no: Target,
}

/// Writes tests in their given order. The prologue runs before test number `first`.
pub(super) fn in_order(prologue: &[Instruction], first: usize, mut branches: Vec<Branch>) -> Vec<Instruction> {
    if let Some(branch) = branches.get_mut(first) {
        branch.test.steps.splice(..0, prologue.iter().copied());
    }
    let blocks = branches.into_iter().map(|Branch { test, yes, no }| Block {
        steps: test.steps,
        compare: test.compare,
        with: test.with,
        yes,
        no,
    });
    assemble(&[], &blocks.collect::<Vec<_>>(), Target::Test(0))
}

/// Writes simplified tests. Returns `None` if a value needs more intermediate results than there is memory for.
pub(super) fn simplified(
    prologue: &[Instruction],
    flow: &Flow,
    registers: [bool; MEMORY_WORDS],
) -> Option<Vec<Instruction>> {
    let slots = (0..).zip(registers).filter(|(_, used)| !used).map(|(slot, _)| slot).collect();
    let mut held: Vec<Option<Held>> = vec![None; flow.nodes.len()];
    let mut blocks = Vec::with_capacity(flow.nodes.len());
    for (at, node) in flow.nodes.iter().enumerate() {
        let before = held.get(at).copied().flatten().unwrap_or_default();
        let mut writer = Writer { values: &flow.values, slots: &slots, steps: Vec::new(), held: before };
        let with = writer.question(node.question)?;
        let Writer { steps, held: after, .. } = writer;
        for target in [node.yes, node.no] {
            if let Target::Test(to) = target
                && let Some(place) = held.get_mut(to)
            {
                *place = Some(match place {
                    Some(known) => known.meet(after),
                    None => after,
                });
            }
        }
        blocks.push(Block { steps, compare: node.question.compare, with, yes: node.yes, no: node.no });
    }
    Some(assemble(prologue, &blocks, flow.start))
}

/// The values that A and X hold at a place, whatever way led there.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    a: Option<Id>,
    x: Option<Id>,
}

impl Held {
    fn meet(self, other: Self) -> Self {
        Self { a: self.a.filter(|a| other.a == Some(*a)), x: self.x.filter(|x| other.x == Some(*x)) }
    }
}

struct Writer<'a> {
    values: &'a Values,
    slots: &'a Vec<u8>,
    steps: Vec<Instruction>,
    held: Held,
}

impl Writer<'_> {
    fn question(&mut self, question: Question) -> Option<Operand> {
        match question.with {
            With::Constant(k) => {
                self.a(question.value, 0)?;
                Some(Operand::Constant(k))
            }
            With::Value(with) => {
                if let Some(load) = self.direct_x(with) {
                    self.a(question.value, 0)?;
                    self.load_x(with, load);
                } else {
                    let slot = *self.slots.first()?;
                    self.a(with, 1)?;
                    self.steps.push(Instruction::Store(slot));
                    self.a(question.value, 1)?;
                    self.steps.push(Instruction::LoadXMemory(slot));
                    self.held.x = Some(with);
                }
                Some(Operand::X)
            }
        }
    }

    /// The instruction that loads a value into X, if there is one.
    fn direct_x(&self, id: Id) -> Option<Instruction> {
        match self.values.get(id) {
            Value::HeaderLength(at) => Some(Instruction::LoadXHeaderLen(at)),
            Value::Register(register) => Some(Instruction::LoadXMemory(register)),
            Value::Length => Some(Instruction::LoadXLen),
            Value::Constant(k) => Some(Instruction::LoadXConstant(k)),
            _ => None,
        }
    }

    fn load_x(&mut self, id: Id, load: Instruction) {
        if self.held.x != Some(id) {
            self.steps.push(load);
            self.held.x = Some(id);
        }
    }

    /// Computes a value into A. `used` slots of memory hold intermediate results. Recursion happens only where one more
    /// slot is taken, so its depth is at most the number of slots.
    fn a(&mut self, id: Id, used: usize) -> Option<()> {
        let mut open = Vec::new();
        let mut leaf = id;
        while self.held.a != Some(leaf) {
            let inner = match self.values.get(leaf) {
                Value::Operation { left, .. } => left,
                Value::Negation(of) => of,
                Value::Load { base: Some(base), .. } if self.direct_x(base).is_none() => base,
                _ => break,
            };
            open.push(leaf);
            leaf = inner;
        }
        if self.held.a != Some(leaf) {
            self.leaf(leaf);
        }
        while let Some(next) = open.pop() {
            match self.values.get(next) {
                Value::Operation { operation, right, .. } => {
                    let operand = self.right(right, used)?;
                    self.steps.push(operation.operation().by(operand));
                }
                Value::Negation(_) => self.steps.push(Instruction::Negate),
                Value::Load { width, at, base } => {
                    self.steps.extend([Instruction::AToX, at_x(width, at)]);
                    self.held.x = base;
                }
                _ => return None,
            }
        }
        self.held.a = Some(id);
        Some(())
    }

    fn leaf(&mut self, id: Id) {
        let step = match self.values.get(id) {
            Value::Load { width, base: None, at } => absolute(width, at),
            Value::Load { width, base: Some(base), at } => {
                if let Some(load) = self.direct_x(base) {
                    self.load_x(base, load);
                }
                at_x(width, at)
            }
            Value::Constant(k) => Instruction::LoadConstant(k),
            Value::Register(register) => Instruction::LoadMemory(register),
            Value::HeaderLength(at) => {
                self.load_x(id, Instruction::LoadXHeaderLen(at));
                Instruction::XToA
            }
            _ => Instruction::LoadLen,
        };
        self.steps.push(step);
    }

    /// Makes the right side of an operation available, while its left side is in A.
    fn right(&mut self, id: Id, used: usize) -> Option<Operand> {
        if let Some(k) = self.values.constant(id) {
            return Some(Operand::Constant(k));
        }
        if let Some(load) = self.direct_x(id) {
            self.load_x(id, load);
            return Some(Operand::X);
        }
        let slot = *self.slots.get(used)?;
        self.steps.push(Instruction::Store(slot));
        self.held.a = None;
        self.a(id, used + 1)?;
        self.steps.extend([Instruction::AToX, Instruction::LoadMemory(slot)]);
        self.held.x = Some(id);
        Some(Operand::X)
    }
}

/// Places blocks one after another. Written from the end, so that the distance to every target is known.
fn assemble(prologue: &[Instruction], blocks: &[Block], start: Target) -> Vec<Instruction> {
    // Places count instructions from the end: the two returns are at 1 and 2.
    let mut reversed = vec![Instruction::Return(0), Instruction::Return(u32::MAX)];
    let mut places = vec![0; blocks.len()];
    let place = |places: &[usize], target| match target {
        Target::Reject => 1,
        Target::Accept => 2,
        Target::Test(at) => places.get(at).copied().unwrap_or(1),
    };
    for (at, block) in blocks.iter().enumerate().rev() {
        let mut targets = [place(&places, block.no), place(&places, block.yes)];
        for target in &mut targets {
            if reversed.len() - *target > NEAR {
                reversed.push(jump(reversed.len(), *target));
                *target = reversed.len();
            }
        }
        let [no, yes] = targets.map(|target| u8::try_from(reversed.len() - target).unwrap_or(u8::MAX));
        reversed.push(branch(block.compare, block.with, yes, no));
        reversed.extend(block.steps.iter().rev());
        if let Some(place) = places.get_mut(at) {
            *place = reversed.len();
        }
    }
    let first = place(&places, start);
    if first != reversed.len() {
        reversed.push(jump(reversed.len(), first));
    }
    reversed.extend(prologue.iter().rev());
    reversed.reverse();
    reversed
}

/// A jump that is written when the rest of the program has `len` instructions.
fn jump(len: usize, target: usize) -> Instruction {
    Instruction::Jump(u32::try_from(len - target).unwrap_or(u32::MAX))
}

fn branch(compare: Compare, with: Operand, yes: u8, no: u8) -> Instruction {
    use Instruction as I;
    match (compare, with) {
        (Compare::Equal, Operand::Constant(k)) => I::IfEqual(k, yes, no),
        (Compare::Greater, Operand::Constant(k)) => I::IfGreater(k, yes, no),
        (Compare::GreaterEqual, Operand::Constant(k)) => I::IfGreaterEqual(k, yes, no),
        (Compare::Bits, Operand::Constant(k)) => I::IfBits(k, yes, no),
        (Compare::Equal, Operand::X) => I::IfEqualX(yes, no),
        (Compare::Greater, Operand::X) => I::IfGreaterX(yes, no),
        (Compare::GreaterEqual, Operand::X) => I::IfGreaterEqualX(yes, no),
        (Compare::Bits, Operand::X) => I::IfBitsX(yes, no),
    }
}
