//! The compiler of expressions.
//!
//! An expression goes through these steps: `token` splits it into words, `parser` reads them from left to right and
//! calls `generator`, which knows where headers lie at this place and makes the tests; `condition` brings the tests
//! into an order, `flow` leaves out those whose result is known, and `emit` writes the instructions. Programs give the
//! same verdict as libpcap's for every packet, and what libpcap refuses is refused: the tests in `judge` compare them.
//!
//! Time and memory grow in proportion to the length of an expression, except that `flow` compares what is known at
//! each place, within a bound. Nothing recurses as deep as an expression is nested.

mod address;
mod address_text;
mod arithmetic;
mod condition;
mod emit;
mod flow;
mod generator;
mod keyword;
mod layers;
mod link_type;
mod names;
mod parser;
mod payload_type;
mod protocol;
mod qualifier;
mod rare;
mod reader;
mod refusal;
mod token;
mod value;
mod wlan;
mod words;

use std::ops::Range;

use crate::vm::{Instruction, MEMORY_WORDS, METADATA, Program};
use generator::Generator;
use parser::Parser;
use reader::Reader;
use refusal::Refusal;

/// Why there is no program.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The expression tests the direction or the interface.
    Metadata,
    Refused {
        message: String,
        /// The bytes of the expression that are the cause.
        place: Option<Range<usize>>,
    },
}

impl From<Refusal> for Failure {
    fn from(Refusal { message, place }: Refusal) -> Self {
        Self::Refused { message: message.into_owned(), place }
    }
}

/// Compiles an expression for packets of a link type, as libpcap numbers it at run time.
pub(crate) fn compile(expression: &str, link_type: u16) -> Result<Program, Failure> {
    compile_with(expression, link_type, true)
}

/// Compiles with the tests in their given order, or simplified.
pub(super) fn compile_with(expression: &str, link_type: u16, simplify: bool) -> Result<Program, Failure> {
    let tokens = token::split(expression)?;
    if tokens.is_empty() {
        return Ok(Program::match_all());
    }
    let mut parser = Parser::new(Reader::new(tokens, expression.len(), Generator::new(link_type)?));
    let mut all = parser.parse()?;
    let mut generator = parser.into_generator();
    let prologue = generator.prologue()?;
    let check = generator.ppi_check();
    if let Some(check) = check {
        all = generator.and(check, all);
    }
    if generator.tests_metadata {
        return Err(Failure::Metadata);
    }
    let registers = registers_of(&prologue);
    let Generator { conditions, keeps_order, is_not_analyzed, .. } = generator;
    let Ok(branches) = conditions.into_sequence(all) else {
        return Err(Failure::Refused { message: "the expression has too many tests".to_owned(), place: None });
    };
    let flow = if keeps_order || !simplify { None } else { flow::simplify(&branches, registers).ok() };
    if let Some(flow) = flow.as_ref().filter(|_| !is_not_analyzed) {
        let wrong = if flow.can_accept { flow.fault } else { Some("the expression rejects all packets") };
        if let Some(message) = wrong {
            return Err(Failure::Refused { message: message.to_owned(), place: None });
        }
    }
    let simplified = flow.and_then(|flow| emit::simplified(&prologue, &flow, registers));
    let instructions = simplified.unwrap_or_else(|| emit::in_order(&prologue, usize::from(check.is_some()), branches));
    if instructions.iter().any(is_of_metadata) {
        return Err(Failure::Metadata);
    }
    Ok(Program::of(instructions))
}

/// The registers that the first instructions fill.
fn registers_of(prologue: &[Instruction]) -> [bool; MEMORY_WORDS] {
    let mut registers = [false; MEMORY_WORDS];
    for step in prologue {
        if let Instruction::Store(slot) | Instruction::StoreX(slot) = step
            && let Some(used) = registers.get_mut(usize::from(*slot))
        {
            *used = true;
        }
    }
    registers
}

/// Whether the instruction loads what only the kernel knows.
fn is_of_metadata(instruction: &Instruction) -> bool {
    match instruction {
        Instruction::LoadWord(at) | Instruction::LoadHalf(at) | Instruction::LoadByte(at) => METADATA.contains(at),
        _ => false,
    }
}
