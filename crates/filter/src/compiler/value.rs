//! What a test compares, as a value instead of instructions. Equal values have equal numbers, so that the same test is
//! recognized wherever it stands.

use std::collections::HashMap;

use super::arithmetic::Operation;
use super::condition::{Compare, Test};
use super::generator::Width;
use crate::vm::{Instruction, MEMORY_WORDS, Operand};

/// The number of a value in [`Values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id(usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Value {
    Constant(u32),
    Length,
    /// What the first instructions of the program have left in a register.
    Register(u8),
    /// Four times the low half of a byte.
    HeaderLength(u32),
    Load {
        width: Width,
        base: Option<Id>,
        at: u32,
    },
    Operation {
        operation: OperationKey,
        left: Id,
        right: Id,
    },
    Negation(Id),
}

/// An operation as a part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct OperationKey(u8);

const OPERATIONS: [Operation; 10] = [
    Operation::Add,
    Operation::Subtract,
    Operation::Multiply,
    Operation::Divide,
    Operation::Modulo,
    Operation::And,
    Operation::Or,
    Operation::Xor,
    Operation::ShiftLeft,
    Operation::ShiftRight,
];

impl OperationKey {
    fn of(operation: Operation) -> Self {
        let at = OPERATIONS.iter().position(|known| *known == operation);
        Self(at.and_then(|at| u8::try_from(at).ok()).unwrap_or(0))
    }

    pub(super) fn operation(self) -> Operation {
        OPERATIONS.get(usize::from(self.0)).copied().unwrap_or(Operation::Add)
    }
}

/// What a value is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum With {
    Constant(u32),
    Value(Id),
}

/// A test in its simplest form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) value: Id,
    pub(super) compare: Compare,
    pub(super) with: With,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    Always(bool),
    Question {
        question: Question,
        negated: bool,
        /// What is wrong with the arithmetic, whatever the packet.
        fault: Option<&'static str>,
    },
}

/// The test depends on what other tests have left behind.
pub(super) struct Shared;

#[derive(Debug, Default)]
pub(super) struct Values {
    known: HashMap<Value, Id>,
    all: Vec<Value>,
    fault: Option<&'static str>,
}

impl Values {
    pub(super) fn get(&self, id: Id) -> Value {
        self.all.get(id.0).copied().unwrap_or(Value::Length)
    }

    fn id(&mut self, value: Value) -> Id {
        *self.known.entry(value).or_insert_with(|| {
            self.all.push(value);
            Id(self.all.len() - 1)
        })
    }

    pub(super) fn constant(&self, id: Id) -> Option<u32> {
        match self.get(id) {
            Value::Constant(value) => Some(value),
            _ => None,
        }
    }

    /// Returns the answer if it is the same for all values that can be loaded.
    pub(super) fn certain(&self, question: Question) -> Option<bool> {
        let With::Constant(k) = question.with else { return None };
        match question.compare {
            Compare::Bits if k == 0 => return Some(false),
            Compare::Greater if k == u32::MAX => return Some(false),
            Compare::GreaterEqual if k == 0 => return Some(true),
            _ => {}
        }
        let Value::Operation { operation, left, right } = self.get(question.value) else { return None };
        let [left, right] = [left, right].map(|side| self.constant(side) == Some(0));
        let is_zero = match operation.operation() {
            Operation::And | Operation::Multiply => left || right,
            Operation::Divide | Operation::Modulo | Operation::ShiftLeft | Operation::ShiftRight => left,
            _ => false,
        };
        is_zero.then(|| holds(question.compare, 0, k))
    }

    /// Simplifies a test. `registers` tells which ones the first instructions of the program fill.
    pub(super) fn ask(&mut self, test: &Test, registers: [bool; MEMORY_WORDS]) -> Result<Asked, Shared> {
        self.fault = None;
        let (a, x) = self.run(&test.steps, registers)?;
        let mut with = match test.with {
            Operand::Constant(k) => With::Constant(k),
            Operand::X => With::Value(x.ok_or(Shared)?),
        };
        let (mut value, mut compare, mut negated) = (a.ok_or(Shared)?, test.compare, false);
        loop {
            if let With::Value(id) = with
                && let Some(k) = self.constant(id)
            {
                with = With::Constant(k);
            }
            let With::Constant(k) = with else { break };
            if let Some(constant) = self.constant(value) {
                return Ok(Asked::Always(holds(compare, constant, k) != negated));
            }
            let Value::Operation { operation, left, right } = self.get(value) else { break };
            if compare != Compare::Equal {
                break;
            }
            match (operation.operation(), self.constant(right)) {
                (Operation::Subtract, Some(by)) => with = With::Constant(k.wrapping_add(by)),
                (Operation::Subtract, None) if k == 0 => with = With::Value(right),
                (Operation::And, Some(mask)) if k == 0 => {
                    (compare, with, negated) = (Compare::Bits, With::Constant(mask), !negated);
                }
                _ => break,
            }
            value = left;
        }
        Ok(Asked::Question { question: Question { value, compare, with }, negated, fault: self.fault })
    }

    /// Returns what instructions leave in A and X.
    fn run(
        &mut self,
        steps: &[Instruction],
        registers: [bool; MEMORY_WORDS],
    ) -> Result<(Option<Id>, Option<Id>), Shared> {
        use Instruction as I;
        let (mut a, mut x) = (None, None);
        let mut memory = [None; MEMORY_WORDS];
        for (register, word) in (0..).zip(&mut memory) {
            if registers.get(usize::from(register)) == Some(&true) {
                *word = Some(self.id(Value::Register(register)));
            }
        }
        for step in steps {
            match *step {
                I::LoadWord(at) => a = Some(self.id(Value::Load { width: Width::Word, base: None, at })),
                I::LoadHalf(at) => a = Some(self.id(Value::Load { width: Width::Half, base: None, at })),
                I::LoadByte(at) => a = Some(self.id(Value::Load { width: Width::Byte, base: None, at })),
                I::LoadWordAtX(at) => a = Some(self.load(Width::Word, x, at)?),
                I::LoadHalfAtX(at) => a = Some(self.load(Width::Half, x, at)?),
                I::LoadByteAtX(at) => a = Some(self.load(Width::Byte, x, at)?),
                I::LoadLen => a = Some(self.id(Value::Length)),
                I::LoadConstant(k) => a = Some(self.id(Value::Constant(k))),
                I::LoadMemory(slot) => a = memory.get(usize::from(slot)).copied().flatten(),
                I::LoadXMemory(slot) => x = memory.get(usize::from(slot)).copied().flatten(),
                I::LoadXHeaderLen(at) => x = Some(self.id(Value::HeaderLength(at))),
                I::LoadXConstant(k) => x = Some(self.id(Value::Constant(k))),
                I::Store(slot) => store(&mut memory, slot, a),
                I::StoreX(slot) => store(&mut memory, slot, x),
                I::AToX => x = a,
                I::XToA => a = x,
                I::Negate => a = Some(self.negate(a.ok_or(Shared)?)),
                step => {
                    let (operation, operand) = operation_of(step).ok_or(Shared)?;
                    let right = match operand {
                        Operand::Constant(k) => self.id(Value::Constant(k)),
                        Operand::X => x.ok_or(Shared)?,
                    };
                    a = Some(self.operate(operation, a.ok_or(Shared)?, right));
                }
            }
        }
        Ok((a, x))
    }

    /// A load at X. Constants move into the offset, where the sum cannot overflow.
    fn load(&mut self, width: Width, x: Option<Id>, at: u32) -> Result<Id, Shared> {
        let base = x.ok_or(Shared)?;
        let parts = match self.get(base) {
            Value::Constant(k) => Some((None, k)),
            Value::Operation { operation, left, right } if operation.operation() == Operation::Add => {
                match (self.constant(left), self.constant(right)) {
                    (Some(k), _) => Some((Some(right), k)),
                    (_, Some(k)) => Some((Some(left), k)),
                    _ => None,
                }
            }
            _ => None,
        };
        if let Some((base, k)) = parts
            && let Some(at) = at.checked_add(k)
            && base.is_none_or(|base| self.most(base, 4).checked_add(k).is_some())
        {
            return Ok(self.id(Value::Load { width, base, at }));
        }
        Ok(self.id(Value::Load { width, base: Some(base), at }))
    }

    /// An upper bound, found within so many levels.
    fn most(&self, id: Id, levels: u8) -> u32 {
        let Some(levels) = levels.checked_sub(1) else { return u32::MAX };
        match self.get(id) {
            Value::Constant(k) => k,
            Value::HeaderLength(_) => 60,
            Value::Load { width: Width::Byte, .. } => 0xff,
            Value::Load { width: Width::Half, .. } => 0xffff,
            Value::Operation { operation, left, right } => match (operation.operation(), self.constant(right)) {
                (Operation::And, Some(mask)) => mask,
                (Operation::ShiftRight, Some(by)) => self.most(left, levels).checked_shr(by).unwrap_or(0),
                (Operation::Add, _) => self.most(left, levels).saturating_add(self.most(right, levels)),
                _ => u32::MAX,
            },
            _ => u32::MAX,
        }
    }

    fn negate(&mut self, of: Id) -> Id {
        match self.constant(of) {
            Some(k) => self.id(Value::Constant(k.wrapping_neg())),
            None => self.id(Value::Negation(of)),
        }
    }

    fn operate(&mut self, operation: Operation, left: Id, right: Id) -> Id {
        let (known_left, known_right) = (self.constant(left), self.constant(right));
        let fault = match (operation, known_right) {
            (Operation::Divide, Some(0)) => Some("a divisor is always zero"),
            (Operation::Modulo, Some(0)) => Some("a modulus is always zero"),
            (Operation::ShiftLeft | Operation::ShiftRight, Some(32..)) if known_left.is_none() => {
                Some("a shift is always by more than 31 bits")
            }
            _ => None,
        };
        self.fault = self.fault.or(fault);
        match (known_left, known_right, fault) {
            (Some(a), Some(b), None) => self.id(Value::Constant(computed(operation, a, b))),
            _ => self.id(Value::Operation { operation: OperationKey::of(operation), left, right }),
        }
    }
}

fn store(memory: &mut [Option<Id>; MEMORY_WORDS], slot: u8, value: Option<Id>) {
    if let Some(word) = memory.get_mut(usize::from(slot)) {
        *word = value;
    }
}

fn operation_of(step: Instruction) -> Option<(Operation, Operand)> {
    use Instruction as I;
    Some(match step {
        I::Add(by) => (Operation::Add, by),
        I::Subtract(by) => (Operation::Subtract, by),
        I::Multiply(by) => (Operation::Multiply, by),
        I::Divide(by) => (Operation::Divide, by),
        I::Modulo(by) => (Operation::Modulo, by),
        I::And(by) => (Operation::And, by),
        I::Or(by) => (Operation::Or, by),
        I::Xor(by) => (Operation::Xor, by),
        I::ShiftLeft(by) => (Operation::ShiftLeft, by),
        I::ShiftRight(by) => (Operation::ShiftRight, by),
        _ => return None,
    })
}

/// The result of an operation on constants. The divisor is not zero.
fn computed(operation: Operation, a: u32, b: u32) -> u32 {
    match operation {
        Operation::Add => a.wrapping_add(b),
        Operation::Subtract => a.wrapping_sub(b),
        Operation::Multiply => a.wrapping_mul(b),
        Operation::Divide => a.checked_div(b).unwrap_or(0),
        Operation::Modulo => a.checked_rem(b).unwrap_or(0),
        Operation::And => a & b,
        Operation::Or => a | b,
        Operation::Xor => a ^ b,
        Operation::ShiftLeft => a.checked_shl(b).unwrap_or(0),
        Operation::ShiftRight => a.checked_shr(b).unwrap_or(0),
    }
}

fn holds(compare: Compare, a: u32, k: u32) -> bool {
    match compare {
        Compare::Equal => a == k,
        Compare::Greater => a > k,
        Compare::GreaterEqual => a >= k,
        Compare::Bits => a & k != 0,
    }
}
