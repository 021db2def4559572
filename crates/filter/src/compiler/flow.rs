//! Leaves out tests whose result is known from the tests before them.
//!
//! On every way to a test, what earlier tests have found is followed: the same question has the same answer, and a
//! value that equals one constant equals no other. A test may fail to load its bytes, which ends the program. Only a
//! question that has been asked before is left out, so its bytes have been loaded, and no packet, however short, is
//! judged in another way.

use std::collections::HashMap;

use super::condition::{Branch, Compare, Target};
use super::value::{Asked, Question, Shared, Values, With};
use crate::vm::MEMORY_WORDS;

/// The most words of memory for what is known at all places. Beyond that, every test is kept.
const WORDS_MAX: usize = 1 << 20;

/// A test that remains.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) question: Question,
    pub(super) yes: Target,
    pub(super) no: Target,
}

/// The tests that remain, and where the program begins.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) values: Values,
    pub(super) nodes: Vec<Node>,
    pub(super) start: Target,
    pub(super) can_accept: bool,
    /// What is wrong with the arithmetic of a test that the verdict depends on.
    pub(super) fault: Option<&'static str>,
}

/// Answers that are known at a place.
#[derive(Clone, Debug)]
struct Facts {
    /// Questions with the answer yes.
    yes: Vec<usize>,
    /// One bit for each question with the answer no.
    no: Vec<u64>,
}

impl Facts {
    fn with(&self, question: usize, answer: bool) -> Self {
        let mut facts = self.clone();
        if answer {
            facts.yes.push(question);
        } else if let Some(word) = facts.no.get_mut(question / 64) {
            *word |= 1 << (question % 64);
        }
        facts
    }

    fn is_no(&self, question: usize) -> bool {
        self.no.get(question / 64).is_some_and(|word| word >> (question % 64) & 1 != 0)
    }

    /// Keeps what both know.
    fn meet(&mut self, other: &Self) {
        self.yes.retain(|question| other.yes.contains(question));
        for (word, other) in self.no.iter_mut().zip(&other.no) {
            *word &= other;
        }
    }
}

/// A test with the number of its question.
#[derive(Clone, Copy, Debug)]
enum Step {
    Always(bool),
    Question(usize),
}

struct Analysis {
    steps: Vec<(Step, Target, Target)>,
    questions: Vec<Question>,
    faults: Vec<Option<&'static str>>,
}

impl Analysis {
    /// Follows a target past all tests whose answer is known.
    fn resolve(&self, mut target: Target, facts: &Facts) -> Target {
        while let Target::Test(at) = target {
            let Some((step, yes, no)) = self.steps.get(at) else { break };
            let answer = match step {
                Step::Always(answer) => Some(*answer),
                Step::Question(question) => self.answer(*question, facts),
            };
            match answer {
                Some(answer) => target = if answer { *yes } else { *no },
                None => break,
            }
        }
        target
    }

    fn answer(&self, question: usize, facts: &Facts) -> Option<bool> {
        if facts.is_no(question) {
            return Some(false);
        }
        let asked = self.questions.get(question)?;
        let constant = |question: &Question| {
            (question.compare == Compare::Equal && matches!(question.with, With::Constant(_))).then_some(question.value)
        };
        for &known in &facts.yes {
            if known == question {
                return Some(true);
            }
            if constant(asked).is_some() && self.questions.get(known).and_then(constant) == constant(asked) {
                return Some(false);
            }
        }
        None
    }
}

/// Simplifies the tests, unless they depend on each other in a way that only their given order keeps.
pub(super) fn simplify(branches: &[Branch], registers: [bool; MEMORY_WORDS]) -> Result<Flow, Shared> {
    let mut values = Values::default();
    let mut numbers: HashMap<Question, usize> = HashMap::new();
    let steps = Vec::with_capacity(branches.len());
    let mut analysis = Analysis { steps, questions: Vec::new(), faults: Vec::new() };
    for branch in branches {
        let (step, negated) = match values.ask(&branch.test, registers)? {
            Asked::Always(answer) => (Step::Always(answer), false),
            Asked::Question { question, negated, fault } => {
                let number = *numbers.entry(question).or_insert_with(|| {
                    analysis.questions.push(question);
                    analysis.faults.push(fault);
                    analysis.questions.len() - 1
                });
                (Step::Question(number), negated)
            }
        };
        let (yes, no) = if negated { (branch.no, branch.yes) } else { (branch.yes, branch.no) };
        analysis.steps.push((step, yes, no));
    }
    let words = analysis.questions.len().div_ceil(64);
    let words = if words.saturating_mul(branches.len()) > WORDS_MAX { 0 } else { words };
    Ok(follow(&analysis, words, values))
}

/// Follows all ways from the first test to the last. Every test leads to later ones only, so each is seen once, when all
/// ways to it are known.
fn follow(analysis: &Analysis, words: usize, values: Values) -> Flow {
    let mut places: Vec<Option<Facts>> = vec![None; analysis.steps.len()];
    let mut can_accept = false;
    let mut reach = |places: &mut [Option<Facts>], target, facts: Facts| match target {
        Target::Accept => can_accept = true,
        Target::Reject => {}
        Target::Test(at) => match places.get_mut(at) {
            Some(Some(known)) => known.meet(&facts),
            Some(place) => *place = Some(facts),
            None => {}
        },
    };
    let nothing = Facts { yes: Vec::new(), no: vec![0; words] };
    let start = analysis.resolve(Target::Test(0), &nothing);
    reach(&mut places, start, nothing);
    // The place of a test, the number of its question, and what it leads to.
    let mut found: Vec<(usize, usize, Node)> = Vec::new();
    for at in 0..analysis.steps.len() {
        let Some(facts) = places.get_mut(at).and_then(Option::take) else { continue };
        let Some(&(Step::Question(number), yes, no)) = analysis.steps.get(at) else { continue };
        let Some(&question) = analysis.questions.get(number) else { continue };
        let mut next = |answer, target| {
            let facts = if words == 0 { facts.clone() } else { facts.with(number, answer) };
            let target = analysis.resolve(target, &facts);
            reach(&mut places, target, facts);
            target
        };
        // A value that is always the same is still computed, because its loads can fail.
        let (yes, no) = match values.certain(question) {
            Some(answer) => {
                let target = next(answer, if answer { yes } else { no });
                (target, target)
            }
            None => (next(true, yes), next(false, no)),
        };
        found.push((at, number, Node { question, yes, no }));
    }
    let fault = fault(analysis, &found);
    // Numbers the remaining tests anew.
    let number = |target| match target {
        Target::Test(at) => match found.binary_search_by_key(&at, |(at, ..)| *at) {
            Ok(at) => Target::Test(at),
            Err(_) => Target::Reject,
        },
        end => end,
    };
    let nodes = found.iter().map(|(_, _, node)| Node { yes: number(node.yes), no: number(node.no), ..*node }).collect();
    Flow { values, nodes, start: number(start), can_accept, fault }
}

/// Returns the fault of a test on which the verdict depends: its two ways lead to different verdicts.
fn fault(analysis: &Analysis, found: &[(usize, usize, Node)]) -> Option<&'static str> {
    let mut leads_to = vec![Target::Reject; analysis.steps.len()];
    let mut first = None;
    for (at, number, node) in found.iter().rev() {
        let end = |target| match target {
            Target::Test(at) => leads_to.get(at).copied().unwrap_or(Target::Reject),
            end => end,
        };
        let (yes, no) = (end(node.yes), end(node.no));
        if yes != no {
            first = analysis.faults.get(*number).copied().flatten().or(first);
        }
        if let Some(place) = leads_to.get_mut(*at) {
            *place = if yes == no { yes } else { Target::Test(*at) };
        }
    }
    first
}
