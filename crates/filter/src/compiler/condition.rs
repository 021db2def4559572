//! Conditions: tests of a packet joined by *and*, *or* and *not*, and the order in which they are asked.
//!
//! Conditions lie in one array and name each other by index, and nothing here recurses. So the depth of an expression
//! costs memory in proportion to its length, and no stack.

use crate::vm::{Instruction, Operand};

/// The most tests of one program. 256 terms need about 25,000.
const TESTS_MAX: usize = 1 << 16;

/// How a test compares register A with its operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Compare {
    Equal,
    Greater,
    GreaterEqual,
    /// A has one of the operand's bits.
    Bits,
}

/// Instructions that leave a value in A (and X), and what the value is compared with.
#[derive(Clone, Debug)]
pub(super) struct Test {
    /// Jumps stay within these instructions, or lead to their end.
    pub(super) steps: Vec<Instruction>,
    pub(super) compare: Compare,
    pub(super) with: Operand,
}

/// A condition: its place in [`Conditions`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Condition(usize);

#[derive(Clone, Copy, Debug)]
enum Node {
    Test(usize),
    And(Condition, Condition),
    Or(Condition, Condition),
    Not(Condition),
}

/// Where a test leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Accept,
    Reject,
    /// The test at this place of the sequence, always a later one.
    Test(usize),
}

/// One test of the sequence.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    pub(super) test: Test,
    pub(super) yes: Target,
    pub(super) no: Target,
}

/// All conditions of one expression.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    nodes: Vec<Node>,
    tests: Vec<Test>,
}

/// The expression has more than [`TESTS_MAX`] tests.
#[derive(Clone, Copy, Debug)]
pub(super) struct TooManyTests;

impl Conditions {
    fn add(&mut self, node: Node) -> Condition {
        self.nodes.push(node);
        Condition(self.nodes.len() - 1)
    }

    pub(super) fn test(&mut self, test: Test) -> Condition {
        self.tests.push(test);
        self.add(Node::Test(self.tests.len() - 1))
    }

    /// Returns `a and b`; `a` is asked first.
    pub(super) fn and(&mut self, a: Condition, b: Condition) -> Condition {
        self.add(Node::And(a, b))
    }

    /// Returns `a or b`; `a` is asked first.
    pub(super) fn or(&mut self, a: Condition, b: Condition) -> Condition {
        self.add(Node::Or(a, b))
    }

    pub(super) fn not(&mut self, a: Condition) -> Condition {
        self.add(Node::Not(a))
    }

    pub(super) fn are_too_many(&self) -> bool {
        self.tests.len() > TESTS_MAX
    }

    /// Returns the tests in the order in which they are asked.
    pub(super) fn into_sequence(mut self, all: Condition) -> Result<Vec<Branch>, TooManyTests> {
        enum Work {
            Place(Condition, Target, Target),
            /// Places the left side of an *and*, which leads to the test that was placed last.
            Before {
                left: Condition,
                is_and: bool,
                other: Target,
            },
        }
        if self.are_too_many() {
            return Err(TooManyTests);
        }
        // Placed from the last test to the first, so that the targets of each are known. Until the end, numbers count
        // from the last test.
        let mut placed: Vec<Branch> = Vec::new();
        let mut work = vec![Work::Place(all, Target::Accept, Target::Reject)];
        while let Some(next) = work.pop() {
            let (condition, yes, no) = match next {
                Work::Place(condition, yes, no) => (condition, yes, no),
                Work::Before { left, is_and, other } => {
                    let entry = Target::Test(placed.len().saturating_sub(1));
                    if is_and { (left, entry, other) } else { (left, other, entry) }
                }
            };
            match self.nodes.get(condition.0).copied() {
                Some(Node::Test(at)) => {
                    let Some(test) = self.tests.get_mut(at) else { continue };
                    let steps = std::mem::take(&mut test.steps);
                    placed.push(Branch { test: Test { steps, ..*test }, yes, no });
                }
                Some(Node::And(left, right)) => {
                    work.push(Work::Before { left, is_and: true, other: no });
                    work.push(Work::Place(right, yes, no));
                }
                Some(Node::Or(left, right)) => {
                    work.push(Work::Before { left, is_and: false, other: yes });
                    work.push(Work::Place(right, yes, no));
                }
                Some(Node::Not(inner)) => work.push(Work::Place(inner, no, yes)),
                None => {}
            }
        }
        let last = placed.len().saturating_sub(1);
        let forward = |target| match target {
            Target::Test(from_the_end) => Target::Test(last - from_the_end),
            end => end,
        };
        placed.reverse();
        for branch in &mut placed {
            (branch.yes, branch.no) = (forward(branch.yes), forward(branch.no));
        }
        Ok(placed)
    }
}
